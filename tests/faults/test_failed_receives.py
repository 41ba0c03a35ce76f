from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.testing import s3_event
from tests.fault_proxy import Call, FaultProxy
from tests.servers.sqs import QueueFactory, QueuePair, SqsServer, counts, environment_for, receive, send
from tests.servers.waiting import wait_until
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.slow

WAIT_SECONDS = 1
LEASE_SECONDS = 6
RESUMES_SECONDS = 5.0

ANSWERS = {
    "service unavailable": ("ServiceUnavailable", 503),
    "internal error": ("InternalError", 500),
    "access denied": ("AccessDenied", 403),
    "expired token": ("ExpiredToken", 403),
    "throttled": ("ThrottlingException", 400),
    "request throttled": ("RequestThrottled", 403),
}


@pytest.fixture(scope="module", params=["moto", pytest.param("elasticmq", marks=pytest.mark.elasticmq)])
def sqs_server(request):
    """Each SQS server in turn, once for all tests of this file."""
    return request.getfixturevalue(f"{request.param}_server")


class Site:
    """One worker that reaches its SQS through a proxy, and must survive everything that the tests do to it."""

    def __init__(self, worker: WorkerProcess, proxy: FaultProxy, server: SqsServer, queue: QueuePair) -> None:
        self.worker, self.proxy, self.server, self.queue = worker, proxy, server, queue

    def send(self, key: str) -> str:
        return send(self.server, self.queue.url, s3_event(key))

    def await_settled(self, message_id: str, outcome: str = "deleted", seconds: float = 20) -> dict[str, Any]:
        return self.worker.wait_event("message_settled", seconds, message_id=message_id, outcome=outcome)

    def await_calls(self, action: str, outcome: str, number: int, since: int) -> list[Call]:
        """The calls that ended like this after the first ``since``, once there are ``number`` of them."""

        def ended() -> list[Call]:
            calls = [c for c in self.proxy.calls[since:] if c.action == action and c.finished_at is not None]
            found = [c for c in calls if c.outcome == outcome]
            return found if len(found) >= number else []

        return wait_until(ended, 30, f"{number} {action} {outcome}")

    def runs(self, message_id: str) -> int:
        return len(self.worker.found("task_started", message_id=message_id))

    def assert_resumes(self, fault_ended_at: float) -> None:
        """An event sent now is done within 5 s of the fault's end, by the same worker."""
        sent = self.send("good/next")
        self.await_settled(sent)
        took = time.monotonic() - fault_ended_at
        assert took < RESUMES_SECONDS
        assert self.runs(sent) == 1


@pytest.fixture(scope="module")
def site(sqs_server: SqsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One worker for all faults; in the end it must still be there, and nothing left in its queue."""
    queues = QueueFactory()
    queue = queues(sqs_server, prefix="faults", visibility_timeout_seconds=60)
    with FaultProxy(sqs_server.endpoint_url) as proxy:
        env = environment_for(sqs_server) | {
            "AWS_ENDPOINT_URL_SQS": proxy.url,
            "SQS_QUEUE_URL": queue.url,
            "BRIDGE_TASK_MODULES": "tests.faults.file_tasks",
            "BRIDGE_WAIT_TIME_SECONDS": str(WAIT_SECONDS),
            "BRIDGE_VISIBILITY_TIMEOUT_SECONDS": str(LEASE_SECONDS),
        }
        with WorkerProcess(env, "-c", "2", cwd=tmp_path_factory.mktemp("faults")) as worker:
            made = Site(worker, proxy, sqs_server, queue)
            made.await_settled(made.send("good/first"))
            yield made
            assert worker.process.poll() is None
    queues.delete_all()


@pytest.fixture(autouse=True)
def _nothing_is_left(site: Site) -> Iterator[None]:
    """After each test the queue is empty: whatever was sent has found its end."""
    yield
    site.proxy.clear()
    wait_until(lambda: counts(site.server, site.queue.url).total == 0, 20, "an empty queue")
    while letters := receive(site.server, site.queue.dlq_url):
        for letter in letters:
            site.server.sqs.delete_message(QueueUrl=site.queue.dlq_url, ReceiptHandle=letter["ReceiptHandle"])


@pytest.mark.parametrize("fault", ANSWERS)
def test_goes_on_after_an_error(site: Site, fault: str) -> None:
    """Receives that SQS answers with an error, whichever, are tried again, and the worker goes on within 5 s."""
    code, status = ANSWERS[fault]
    since = len(site.proxy.calls)
    site.proxy.fail("ReceiveMessage", status=status, code=code, times=2)
    failed = site.await_calls("ReceiveMessage", "failed", 2, since)
    assert failed[-1].finished_at is not None
    site.assert_resumes(failed[-1].finished_at)
    assert site.worker.found("receive_failed", error_type=code, queue=site.queue.name)


def test_goes_on_after_a_long_outage(site: Site) -> None:
    """However long receives have failed, the next try comes soon enough for the worker to go on within 5 s."""
    since = len(site.proxy.calls)
    waiting = site.send("good/waiting")
    site.proxy.fail("ReceiveMessage", times=None)
    failed = site.await_calls("ReceiveMessage", "failed", 6, since)
    assert all(a.finished_at and b.started_at > a.finished_at for a, b in zip(failed, failed[1:], strict=False))
    # The outage began with a message in the queue; if a receive under way still brought it, its run is awaited here.
    site.proxy.clear()
    site.assert_resumes(time.monotonic())
    site.await_settled(waiting)


def test_goes_on_after_a_time_out(site: Site) -> None:
    """A receive that is never answered is given up after its wait time and 5 s, and the worker goes on within 5 s."""
    since = len(site.proxy.calls)
    site.proxy.hang("ReceiveMessage", times=1)
    [hung] = site.await_calls("ReceiveMessage", "hung", 1, since)
    assert hung.finished_at is not None
    assert hung.finished_at - hung.started_at < WAIT_SECONDS + 5 + 1
    site.assert_resumes(hung.finished_at)


def test_goes_on_after_a_reset(site: Site) -> None:
    """Receives whose connection is reset are tried again, and the worker goes on within 5 s."""
    since = len(site.proxy.calls)
    site.proxy.reset("ReceiveMessage", times=2)
    refused = site.await_calls("ReceiveMessage", "refused", 2, since)
    assert refused[-1].finished_at is not None
    site.assert_resumes(refused[-1].finished_at)


def test_goes_on_after_refused_connections(site: Site) -> None:
    """While SQS takes no connection the worker keeps trying, and it goes on within 5 s of its return."""
    before = len(site.worker.found("receive_failed"))
    with site.proxy.refusing():
        wait_until(lambda: len(site.worker.found("receive_failed")) >= before + 4, 20, "four failed receives")
        # A long poll that was cut goes on in the server; it must not be the one that is given the next message.
        wait_until(lambda: all(c.finished_at for c in site.proxy.calls), 5, "the end of the long polls")
    site.assert_resumes(time.monotonic())
    assert site.worker.found("receive_failed", error_type="EndpointConnectionError")


def test_a_lost_answer_loses_no_message(site: Site) -> None:
    """A message whose receive was answered into nothing comes back when its lease lapses, and is run once."""
    since = len(site.proxy.calls)
    site.proxy.drop_response("ReceiveMessage", times=None)
    site.await_calls("ReceiveMessage", "dropped", 1, since)  # the long poll that was under way has ended
    sent = site.send("good/lost-answer")
    wait_until(lambda: counts(site.server, site.queue.url).in_flight == 1, 10, "the lost answer")
    site.proxy.clear()
    assert not site.runs(sent)
    site.await_settled(sent, seconds=LEASE_SECONDS + RESUMES_SECONDS)
    assert site.runs(sent) == 1
    assert any(c.outcome == "dropped" and (c.response or {}).get("Messages") for c in site.proxy.calls[since:])


@pytest.mark.parametrize("fault", ["service unavailable", "access denied", "reset"])
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


@pytest.mark.parametrize("fault", ["service unavailable", "access denied", "reset"])
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
