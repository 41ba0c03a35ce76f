"""Reading a dead-letter queue for longer than a hold lasts: nothing comes twice, nothing that lapsed counts as ours."""

from __future__ import annotations

import pytest

from bridge.operations.dlq import reader as dlq_reader
from bridge.operations.dlq.reader import Reader
from bridge.operations.stopping import Stop
from tests.support.servers.sqs import counts, receive, send
from tests.support.servers.waiting import wait_until

pytestmark = pytest.mark.parametrize("sqs_server", ["moto"], indirect=True)  # the waiting is the same on any server


@pytest.fixture
def url(sqs_server, queues, monkeypatch):
    """A queue with 15 messages, held for two seconds at a time."""
    monkeypatch.setattr(dlq_reader, "HOLD_SECONDS", 2)
    monkeypatch.setattr(dlq_reader, "_MARGIN_SECONDS", 0)
    monkeypatch.setattr(dlq_reader, "WAIT_SECONDS", 0)
    made = queues.single(sqs_server)
    for n in range(15):
        send(sqs_server, made, f"body {n}")
    return made


def test_holds_are_renewed(sqs_server, url):
    """For longer than the time of a hold nobody else gets a message, because it is kept."""
    with Stop() as stop, Reader(sqs_server.sqs, url, stop) as reader:
        read = [message for batch in reader.batches() for message in batch]
        assert len(read) == 15
        stop.wait(3.5, reader.keep)
        assert counts(sqs_server, url).in_flight == 15
        assert all(reader.handle(message["MessageId"]) for message in read)
    assert counts(sqs_server, url).visible == 15


def test_what_comes_again_is_not_read_again(sqs_server, url):
    """Holds that lapsed while the reader was stopped: the same messages come once more, and are passed over."""
    with Stop() as stop, Reader(sqs_server.sqs, url, stop) as reader:
        batches = reader.batches()
        first = next(batches)
        wait_until(lambda: counts(sqs_server, url).visible == 15, 20, "the holds to lapse")
        assert not any(reader.handle(message["MessageId"]) for message in first)
        others = [message for batch in batches for message in batch]
        ids = [message["MessageId"] for message in (*first, *others)]
        assert len(ids) == len(set(ids)) == 15
    assert counts(sqs_server, url).visible == 15


def test_what_somebody_else_took_is_let_go(sqs_server, url):
    """A message that lapsed and was received by another is not handed back under his feet."""
    with Stop() as stop, Reader(sqs_server.sqs, url, stop) as reader:
        first = next(reader.batches())
        wait_until(lambda: counts(sqs_server, url).visible == 15, 20, "the holds to lapse")
        taken = [m for _ in range(2) for m in receive(sqs_server, url, visibility_timeout_seconds=60)]
        assert {m["MessageId"] for m in first} <= {m["MessageId"] for m in taken}
        for message in first:
            assert reader.handle(message["MessageId"]) is None
    assert counts(sqs_server, url).in_flight == 15
