from __future__ import annotations

import time

import pytest

from tests.e2e.faults.site import ANSWERS, Site
from tests.support.servers.sqs import counts

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fault", ["access denied", "reset"])
def test_a_failed_delete_is_tried_again(site: Site, fault: str) -> None:
    """A delete that fails as a whole is tried again until it goes through, and the task does not run again for it."""
    if fault == "reset":
        site.proxy.reset("DeleteMessageBatch", times=2)
    else:
        code, status = ANSWERS[fault]
        site.proxy.fail("DeleteMessageBatch", status=status, code=code, times=2)
    sent = site.send("good/delete")
    site.await_settled(sent)
    calls = [c for c in site.proxy.for_message(sent) if c.action == "DeleteMessageBatch"]
    wrong = "refused" if fault == "reset" else "failed"
    assert [c.outcome for c in calls] == [wrong, wrong, "forwarded"]
    assert site.runs(sent) == 1
    assert len(site.worker.found("task_succeeded", message_id=sent)) == 1


def test_a_failed_entry_of_a_delete_is_tried_again(site: Site) -> None:
    """Of a batch of deletes only the entry that SQS names as failed is tried again, and nothing runs twice."""
    since = len(site.proxy.calls)
    site.proxy.fail_entries("DeleteMessageBatch", positions=(0,), times=1)
    ids = [site.send(f"good/entry-{n}") for n in range(6)]
    for message_id in ids:
        site.await_settled(message_id)
    deletes = [c for c in site.proxy.calls[since:] if c.action == "DeleteMessageBatch"]
    handles = [entry["ReceiptHandle"] for call in deletes for entry in call.request["Entries"]]
    assert handles.count(deletes[0].request["Entries"][0]["ReceiptHandle"]) == 2
    assert len(handles) == len(ids) + 1
    assert [site.runs(message_id) for message_id in ids] == [1] * len(ids)


def test_a_delete_whose_answer_is_lost_runs_nothing_again(site: Site) -> None:
    """A delete that SQS carried out and whose answer was lost ends the message; its task has run once."""
    since = len(site.proxy.calls)
    site.proxy.drop_response("DeleteMessageBatch", times=1)
    sent = site.send("good/delete-answer")
    site.await_calls("DeleteMessageBatch", "dropped", 1, since)
    site.await_calls("DeleteMessageBatch", "forwarded", 1, since)
    site.assert_resumes(time.monotonic())
    assert site.runs(sent) == 1


@pytest.mark.parametrize("fault", ["access denied", "reset"])
def test_a_failed_dead_letter_is_tried_again(site: Site, fault: str) -> None:
    """A dead letter is sent until SQS has confirmed it, and only then is the message deleted from its queue."""
    dlq = f"{site.queue.name}-dlq"
    if fault == "reset":
        site.proxy.reset("SendMessage", times=2)
    else:
        code, status = ANSWERS[fault]
        site.proxy.fail("SendMessage", status=status, code=code, times=2)
    sent = site.send("bad/letter")
    site.await_settled(sent, "dead_lettered")
    calls = [c for c in site.proxy.for_message(sent) if c.action in ("SendMessage", "DeleteMessageBatch")]
    assert [c.action for c in calls] == ["SendMessage"] * 3 + ["DeleteMessageBatch"]
    assert [c.queue for c in calls] == [dlq] * 3 + [site.queue.name]
    assert [c.outcome == "forwarded" for c in calls] == [False, False, True, True]
    assert calls[2].finished_at is not None
    assert calls[2].finished_at <= calls[3].started_at
    assert counts(site.server, site.queue.dlq_url).total == 1
    assert site.runs(sent) == 1


def test_a_failed_visibility_change_is_tried_again(site: Site) -> None:
    """A retry whose visibility change fails at first still comes back after its delay, as one message."""
    site.proxy.fail("ChangeMessageVisibilityBatch", times=2)
    sent = site.send("once/visibility")
    site.await_settled(sent)
    changes = [c for c in site.proxy.for_message(sent) if c.action == "ChangeMessageVisibilityBatch"]
    assert [c.outcome for c in changes] == ["failed", "failed", "forwarded"]
    assert [entry["VisibilityTimeout"] for c in changes for entry in c.request["Entries"]] == [1, 1, 1]
    started = site.worker.found("task_started", message_id=sent)
    assert [event["attempt"] for event in started] == [1, 2]
    assert len({event["task_id"] for event in started}) == 1


def test_a_failed_entry_of_a_visibility_change_is_tried_again(site: Site) -> None:
    """A visibility change that SQS refuses for the one entry is tried again, and the task runs twice in all."""
    site.proxy.fail_entries("ChangeMessageVisibilityBatch", positions=(0,), times=1)
    sent = site.send("once/entry")
    site.await_settled(sent)
    assert site.runs(sent) == 2
