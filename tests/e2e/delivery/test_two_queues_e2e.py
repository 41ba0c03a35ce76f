"""Several queues: an empty one costs the others nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.delivery.conftest import Site
from tests.support.servers.sqs import SqsServer

pytestmark = [pytest.mark.slow, pytest.mark.alone]

MESSAGES = 40


def test_an_empty_queue_holds_up_no_other(sqs_server: SqsServer, tmp_path: Path) -> None:
    """With a window of two, the full queue is served at once, while the empty one is polled for 20 s."""
    with Site(sqs_server, tmp_path, "empty", "full") as site:
        worker = site.start("-c", "2")
        empty = site.queues["empty"].name
        [poll] = [site.proxy.wait_for(lambda c: c.action == "ReceiveMessage" and c.queue == empty, 15, "a poll")]
        sent_at = time.monotonic()
        first, *others = site.send(*(f"quick/{n}" for n in range(MESSAGES)), queue="full")
        site.await_begun(first)
        for message_id in others:
            worker.wait_event("message_settled", message_id=message_id, outcome="deleted")
        ended_at = time.monotonic()
        begun = sorted(site.begun(message_id)[0]["at"] for message_id in [first, *others])
        # None waited for the other queue's poll, which goes on for 20 s: one for every two messages would take minutes.
        assert begun[0] - sent_at < 10
        assert poll.started_at + 20 > ended_at, "the empty queue was polled all the time"
        assert [c.queue for c in site.proxy.calls if c.action == "ReceiveMessage"].count(empty) == 1
        # And the other way round: the empty queue's poll has gone on all the time, so its first message comes at once.
        sent_at = time.monotonic()
        [late] = site.send("quick/late", queue="empty")
        site.await_begun(late)
        assert site.begun(late)[0]["at"] - sent_at < 10
        site.await_empty()
