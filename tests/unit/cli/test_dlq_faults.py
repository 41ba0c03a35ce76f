"""brigade dlq on a bad day of SQS: what is not confirmed is not done, and is told."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import counts
from tests.unit.cli.conftest import bury, drain, event, letter_arguments

pytestmark = pytest.mark.parametrize("sqs_server", ["moto"], indirect=True)  # the faults are the proxy's own


@pytest.fixture
def pair(sqs_server, queues):
    """A queue and its DLQ, with ten letters."""
    made = queues(sqs_server)
    letters = [
        letter_arguments(event(f"{n}"), task_id=f"task-{n}", source_queue=made.name, dlq_url=made.dlq_url)
        for n in range(10)
    ]
    bury(sqs_server, letters)
    return made


@pytest.fixture
def proxy(sqs_server):
    """What stands between the command and SQS."""
    with FaultProxy(sqs_server.endpoint_url) as between:
        yield between


@pytest.fixture
def redrive(brigade, pair, proxy, monkeypatch):
    """Run brigade dlq redrive through the proxy, with no pauses between tries."""
    monkeypatch.setattr("bridge.sqs.batches.PAUSES_SECONDS", (0.0, 0.0, 0.0))
    return lambda *args: brigade(
        "dlq", "redrive", *args, SQS_QUEUE_URL=pair.url, AWS_ENDPOINT_URL_SQS=proxy.url, AWS_MAX_ATTEMPTS="1"
    )


def test_entries_that_sqs_refuses_stay(sqs_server, pair, proxy, redrive):
    """Nine are sent and deleted, the tenth is neither; it is named with SQS's reason, and exit code 1."""
    proxy.fail_entries("SendMessageBatch", positions=[0], times=None, code="InvalidMessageContents", sender_fault=True)
    done = redrive("--json")
    assert (done.code, done.json["redriven"]) == (1, {pair.name: 9})
    [why] = done.json["failed"]
    assert why.startswith("task-")
    assert "InvalidMessageContents" in why
    assert (counts(sqs_server, pair.dlq_url).visible, counts(sqs_server, pair.url).visible) == (1, 9)


def test_entries_that_fail_for_a_moment_are_tried_again(sqs_server, pair, proxy, redrive):
    """An entry that SQS could not take, or not delete, at first: done in the end, and once."""
    proxy.fail_entries("SendMessageBatch", positions=[3, 4], times=2)
    proxy.fail_entries("DeleteMessageBatch", positions=[0], times=2)
    assert redrive().code == 0
    assert counts(sqs_server, pair.dlq_url).total == 0
    assert Counter(m["Body"] for m in drain(sqs_server, pair.url)) == Counter(event(f"{n}") for n in range(10))


def test_sent_but_not_deleted_is_told(sqs_server, pair, proxy, redrive):
    """A letter that is now in both queues is named: a further redrive would send it twice."""
    proxy.fail_entries("DeleteMessageBatch", positions=[0], times=None)
    done = redrive("--json")
    assert (done.code, done.json["redriven"], len(done.json["sent_not_deleted"])) == (1, {pair.name: 10}, 1)
    assert (counts(sqs_server, pair.dlq_url).visible, counts(sqs_server, pair.url).visible) == (1, 10)


def test_a_send_that_fails_leaves_all(sqs_server, pair, proxy, redrive):
    """A queue that denies sending: one line, exit code 2, nothing sent, everything visible."""
    proxy.fail("SendMessageBatch", code="AccessDenied", times=None)
    done = redrive()
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "AccessDenied" in done.err
    assert (counts(sqs_server, pair.dlq_url).visible, counts(sqs_server, pair.url).visible) == (10, 0)


def test_a_receive_that_fails_is_told(sqs_server, pair, proxy, redrive):
    """SQS gone in the middle: exit code 1, one line, nothing lost."""
    proxy.fail("ReceiveMessage", code="InternalError", times=None)
    done = redrive()
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert counts(sqs_server, pair.dlq_url).visible == 10
