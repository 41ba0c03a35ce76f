"""The bill: how many calls a thousand messages cost, and how many an idle worker makes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.delivery.conftest import Scenarios, Site, patient
from tests.support.servers.sqs import SqsServer
from tests.support.servers.waiting import wait_until

# The scenarios start beside many others, which takes long on a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.elasticmq, pytest.mark.timeout(300)]

MESSAGES = 1000
#: Until the first polls have ended; a busy machine may see that late.
WATCHED_SECONDS = 35
POLL_SECONDS = 20  # the default of BRIDGE_WAIT_TIME_SECONDS
RECEIVES_A_MINUTE = 3.1


def test_calls_for_a_thousand_messages(elasticmq_server: SqsServer, tmp_path: Path) -> None:
    """1,000 small messages cost at most 110 receives and 110 batches of deletes, and no other call at all.

    ElasticMQ only: moto takes a quarter of a second for a receive from a queue of 300, and more for one of 1,000.
    """
    with Site(elasticmq_server, tmp_path) as site:
        sent = set(site.send(*(f"small/{n}" for n in range(MESSAGES))))
        # The lease is the usual one: renewals would be no part of what small messages cost.
        worker = site.start("-c", "2", "--prefetch-multiplier", "10", BRIDGE_VISIBILITY_TIMEOUT_SECONDS="120")
        wait_until(lambda: len(worker.found("message_settled", outcome="deleted")) == MESSAGES, 100, "the end of all")
        assert {event["message_id"] for event in worker.found("message_settled")} == sent
        calls = Counter(site.proxy.actions())
        assert calls.pop("ReceiveMessage") <= 110
        assert calls.pop("DeleteMessageBatch") <= 110
        assert set(calls) <= {"GetQueueAttributes", "GetQueueUrl", "ListQueues"}, "the look at the queues at the start"
        assert sum(calls.values()) <= 4
        site.await_empty()


def idle(server: SqsServer, folder: Path) -> None:
    """Watch a worker that has nothing to do."""
    with Site(server, folder, "first", "second") as site:
        worker = site.start("-c", "2")
        for queue in site.queues.values():
            wait_until(partial(site.proxy.count, "ReceiveMessage", queue.name), 15, "a poll of each")
        known = len(site.proxy.calls)
        first_polls = [call for call in site.proxy.calls if call.action == "ReceiveMessage"]
        assert len(first_polls) == 2

        def ended() -> bool:
            polls = [call for call in site.proxy.calls if call.action == "ReceiveMessage"]
            return len(polls) >= 4 and all(poll.finished_at for poll in polls[:2])

        wait_until(ended, WATCHED_SECONDS, "the end of the first poll of each, and the second poll")
        last = time.monotonic() + 3
        wait_until(lambda: time.monotonic() > last, 10, "the end of the watch")
        later = site.proxy.calls[known:]
        assert {call.action for call in later} == {"ReceiveMessage"}
        for queue in site.queues.values():
            assert len([call for call in [*first_polls, *later] if call.queue == queue.name]) <= 2
        # From these 23 s to a minute: one poll after the other, each of its full length.
        polls = [call for call in site.proxy.calls if call.action == "ReceiveMessage"]
        for poll in polls:
            assert poll.request["WaitTimeSeconds"] == POLL_SECONDS
            if poll.finished_at is not None:
                assert 60 / (poll.finished_at - poll.started_at) <= RECEIVES_A_MINUTE
        assert len([poll for poll in polls if poll.finished_at is not None]) == 2
        assert worker.process.poll() is None


@patient
def idle_on_moto(servers: Mapping[str, SqsServer], folder: Path) -> None:
    """Run ``idle`` on moto."""
    idle(servers["moto"], folder)


@patient
def idle_on_elasticmq(servers: Mapping[str, SqsServer], folder: Path) -> None:
    """Run ``idle`` on ElasticMQ."""
    idle(servers["elasticmq"], folder)


@pytest.mark.parametrize("server", ["moto", "elasticmq"])
def test_calls_of_an_idle_worker(patient_scenarios: Scenarios, server: str) -> None:
    """A worker without work makes at most 3.1 receives a minute for each of its two queues, and no other call."""
    patient_scenarios.result(f"idle_on_{server}")
