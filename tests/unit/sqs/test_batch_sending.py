"""Sending in batches when SQS fails entries, drops answers, or refuses: nothing is lost, nothing claimed too early."""

from __future__ import annotations

import json
import threading
import tracemalloc
from collections import Counter
from datetime import UTC, datetime

import pytest

from bridge.operations.backfill.selection import Selection, chosen
from bridge.s3.event_body import event_body
from bridge.s3.types import Listed
from bridge.sqs import batches as batch_sending
from bridge.sqs.batches import BatchSender, Outgoing, SendFailed
from bridge.sqs.clients import sqs_client
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import REGION
from tests.unit.operations.conftest import drained


@pytest.fixture
def send(moto_server, queues, monkeypatch):
    """(proxy, queue, send): sends n messages through the proxy and returns the confirmed batches."""
    monkeypatch.setattr(batch_sending, "PAUSES_SECONDS", (0.0, 0.0))
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    pair = queues(moto_server)
    with FaultProxy(moto_server.endpoint_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", proxy.url)
        client = sqs_client("send", REGION)
        stop = threading.Event()

        def run(count, rate=None, confirmed=None):
            sender = BatchSender(client, pair.url, rate=rate, stop=stop)
            batches = [] if confirmed is None else confirmed
            for batch in sender.send(Outgoing(n, json.dumps(n)) for n in range(count)):
                batches.append(list(batch))
            return batches

        run.client = client
        yield proxy, pair, run, stop
        client.close()


def sent(moto_server, pair):
    """The numbers in the queue, sorted."""
    return sorted(int(body) for body in drained(moto_server, pair.url))


def test_batches_come_back_in_order(send, moto_server):
    """Confirmed batches are told in the order of the messages, however their answers come in."""
    proxy, pair, run, _ = send
    proxy.delay("SendMessageBatch", seconds=0.3)
    assert run(95) == [list(range(n, min(n + 10, 95))) for n in range(0, 95, 10)]
    assert sent(moto_server, pair) == list(range(95))
    assert proxy.count("SendMessageBatch") == 10


def test_failed_entries_alone_are_sent_again(send, moto_server):
    """Entries that SQS failed are sent again, those it took are not, and only then the batch is confirmed."""
    proxy, pair, run, _ = send
    proxy.fail_entries("SendMessageBatch", positions=(2, 7))
    assert run(10) == [list(range(10))]
    assert sent(moto_server, pair) == list(range(10))
    assert [len(call.request["Entries"]) for call in proxy.calls] == [10, 2]


def test_a_lost_answer_loses_nothing(send, moto_server):
    """When the answer never came the batch is sent again: every message is there at least once."""
    proxy, pair, run, _ = send
    proxy.drop_response("SendMessageBatch")
    assert run(10) == [list(range(10))]
    assert set(sent(moto_server, pair)) == set(range(10))


@pytest.mark.parametrize("sender_fault", [True, False])
def test_what_stays_failed_ends_the_sending(send, sender_fault):
    """After the last try, or at once where it is our own fault, it ends with why; earlier batches were told."""
    proxy, _, run, _ = send
    confirmed = []
    assert run(10, confirmed=confirmed) == [list(range(10))]
    proxy.fail_entries("SendMessageBatch", positions=(0,), times=None, code="Broken", sender_fault=sender_fault)
    before = proxy.count("SendMessageBatch")
    with pytest.raises(SendFailed, match="SQS did not accept 1 of 10 messages: Broken"):
        run(10)
    assert proxy.count("SendMessageBatch") - before == (1 if sender_fault else 3)


def test_stopped_it_ends_after_what_is_under_way(send, moto_server):
    """Told to stop, it begins no further batch, and what SQS has taken by then is exactly what was confirmed."""
    _, pair, run, stop = send
    confirmed = []

    class Watching(list):
        def append(self, batch):
            super().append(batch)
            stop.set()

    confirmed = Watching()
    run(1000, confirmed=confirmed)
    told = [n for batch in confirmed for n in batch]
    assert 10 <= len(told) < 1000
    assert sent(moto_server, pair) == told


def test_what_was_sent_before_the_source_broke_is_told(send, moto_server):
    """When the messages themselves end with an error, the batches before it are confirmed first."""
    _, pair, run, _ = send

    def breaking():
        yield from (Outgoing(n, json.dumps(n)) for n in range(25))
        raise OSError("the listing broke")

    sender = BatchSender(run.client, pair.url, rate=None, stop=threading.Event())
    told = []
    with pytest.raises(OSError, match="the listing broke"):
        for batch in sender.send(breaking()):
            told += batch
    assert told == list(range(20)) == sent(moto_server, pair)


class Taking:
    """An SQS that takes everything at once, for a measurement that a network would only slow down."""

    def send_message_batch(self, QueueUrl, Entries):  # noqa: N803 - boto3's own names
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}


def peak_bytes(count: int) -> int:
    """The most memory that choosing and sending so many objects takes at one moment."""
    listing = (Listed(key=f"data/{n:07d}", size=n, modified=datetime(2026, 3, 1, tzinfo=UTC)) for n in range(count))
    records = chosen(listing, Selection(bucket="uploads"), "eu-west-1", Counter())
    sender = BatchSender(Taking(), "queue", rate=None, stop=threading.Event())
    tracemalloc.start()
    try:
        assert sum(len(b) for b in sender.send(Outgoing(r, event_body(r)) for r in records)) == count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_objects():
    """Six thousand objects need at no moment more memory than a few hundred, but for a little noise."""
    peak_bytes(200)  # what is made once, at the first use
    few, many = peak_bytes(500), peak_bytes(6_000)
    assert many - few < 500_000, (few, many)


def test_a_rate_is_kept(send):
    """At 40 a second the third batch of ten comes half a second after the first (less what the first was held up)."""
    proxy, _, run, _ = send
    run(30, rate=40)
    starts = [call.started_at for call in proxy.calls]
    assert starts[-1] - starts[0] >= 0.3


def test_a_low_rate_makes_small_batches(send):
    """Below ten a second a batch is a second's worth, so that no message waits for nine others."""
    proxy, _, run, _ = send
    run(4, rate=2.9)
    assert [len(call.request["Entries"]) for call in proxy.calls] == [2, 2]
