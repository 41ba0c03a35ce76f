"""Leases: a message is ours for as long as this worker has it, and not a moment longer once it is let go of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.delivery.conftest import (
    LEASE_SECONDS,
    POOLS,
    SLACK_SECONDS,
    Proxy,
    Scenarios,
    Site,
    Step,
    running_scenarios,
)
from tests.support.servers.sqs import SqsServer, counts
from tests.support.servers.waiting import wait_until

# The first test that asks for a scenario waits for the start of many workers, which takes long on a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.elasticmq, pytest.mark.timeout(300)]

LONG_SECONDS = 36
BEHIND = 40
RETRIES = 200
#: The short delay is shorter than a renewal would hide a message for, the long one longer.
DELAYS = {"short-delay": 3, "long-delay": 15}


def visibility(steps: list[Step]) -> list[Step]:
    """Those that changed the visibility: renewals, retries and hand-backs."""
    return [step for step in steps if step.action.startswith("ChangeMessageVisibility")]


# ---- a task longer than its lease


def outlast_the_lease(server: SqsServer, folder: Path, pool: str) -> None:
    """One worker has a long task and 40 messages behind it; a third of the way an idle worker comes beside it."""
    # The queue's own visibility timeout must not help.
    with Site(server, folder, visibility_timeout_seconds=1) as site, Proxy(server.endpoint_url) as held_off:
        window = ("-P", pool, "-c", "1", "--prefetch-multiplier", "50")
        # The second worker starts first, for its start takes a while, and is kept from receiving until it is wanted.
        held_off.fail("ReceiveMessage", times=None)
        second = site.start(*window, endpoint_url=held_off.url, BRIDGE_WAIT_TIME_SECONDS="2")
        first = site.start(*window, BRIDGE_WAIT_TIME_SECONDS="2")
        [long] = site.send(f"long/{LONG_SECONDS}")
        site.await_begun(long)
        behind = site.send(*(f"quick/{n}" for n in range(BEHIND)))
        site.await_received(behind)
        began = site.begun(long)[0]["at"]
        wait_until(lambda: time.monotonic() > began + LEASE_SECONDS + 1, LEASE_SECONDS + 10, "a lease passed")
        held_off.clear()
        held_off.wait_for(lambda c: c.status == 200 and c.action == "ReceiveMessage", 20, "a poll of the second worker")
        assert time.monotonic() < began + LONG_SECONDS - LEASE_SECONDS, "too slow to show anything"
        first.wait_event("message_settled", LONG_SECONDS + 45, message_id=long)
        for message_id in behind:
            first.wait_event("message_settled", message_id=message_id, outcome="deleted")
        site.await_empty()

        assert [len(site.begun(message_id)) for message_id in [long, *behind]] == [1] * (BEHIND + 1)
        assert len(first.found("began")) == BEHIND + 1
        assert not second.found("began")
        assert not first.found("message_again")
        assert not first.found("lease_lost")
        steps = site.steps(long)
        [received] = [step for step in steps if step.action == "ReceiveMessage"]
        assert received.seconds == LEASE_SECONDS, "the receive asks for the configured lease"
        renewals = visibility(steps)
        assert {step.seconds for step in renewals} == {LEASE_SECONDS}
        # Due after each third of the lease: not sooner (one may be sent late and the next in time, hence the one more),
        # and well before the whole of it.
        held_seconds = [step.ended for step in steps if step.action == "DeleteMessageBatch"][-1] - received.ended
        assert held_seconds / (LEASE_SECONDS * 2 / 3) <= len(renewals) <= held_seconds / (LEASE_SECONDS / 3) + 1
        assert_never_let_lapse(steps)


# ---- how long a lease is


def own_lease(server: SqsServer, folder: Path) -> None:
    """Two tasks, of which one has a lease of its own: 20 s, where the receive asked for 12."""
    with Site(server, folder) as site:
        worker = site.start("-c", "2", BRIDGE_WAIT_TIME_SECONDS="1")
        own, usual = site.send("leased/10", "long/10")
        for message_id in (own, usual):
            worker.wait_event("message_settled", message_id=message_id, outcome="deleted")
        assert {step.seconds for step in visibility(site.steps(usual))} == {LEASE_SECONDS}
        # At once, then after a third of 20 s. Else the first would come when a third of 12 s has passed, as for the
        # usual one.
        first, later = visibility(site.steps(own))
        assert [first.seconds, later.seconds] == [20, 20]
        received = site.steps(own)[0]
        assert first.began - received.ended < LEASE_SECONDS / 3
        assert later.began - first.began > LEASE_SECONDS / 3 + 1


def no_heartbeat(server: SqsServer, folder: Path) -> None:
    """A task, and another that waits for it, with leases that nobody renews."""
    with Site(server, folder) as site:
        # Long enough for all three, one after the other: what waits past its lease is not started.
        settings = {"BRIDGE_VISIBILITY_TIMEOUT_SECONDS": "25", "BRIDGE_TASK_TIME_LIMIT_SECONDS": "20"}
        worker = site.start("-c", "1", BRIDGE_HEARTBEAT="off", BRIDGE_WAIT_TIME_SECONDS="1", **settings)
        # Longer than a third of any lease here.
        running, waiting, own = site.send("long/10", "quick/1", "leased/0.1")
        for message_id in (running, waiting, own):
            worker.wait_event("message_settled", message_id=message_id, outcome="deleted")
            assert len(site.begun(message_id)) == 1
        assert site.proxy.count("ChangeMessageVisibility*") == 0
        asked = [step.seconds for id_ in (running, waiting, own) for step in site.steps(id_)]
        assert {seconds for seconds in asked if seconds is not None} == {25}


# ---- the order of renewals and settlements


def test_retry_delays_are_what_the_policy_says(elasticmq_server: SqsServer, tmp_path: Path) -> None:
    """Of 200 retries none is cut short or stretched by a renewal, though renewals were on their way at the time.

    ElasticMQ only: with 200 messages in its queue a receive takes moto a quarter of a second, and that is what would be
    measured.
    """
    with Site(elasticmq_server, tmp_path) as site:
        worker = site.start("-P", "threads", "-c", "200", BRIDGE_WAIT_TIME_SECONDS="1")
        # Each visibility change takes a while, so that there always are renewals under way when a retry is decided:
        # the runs end about when the first renewals are sent, 4 s after the receive. The heartbeat sends ten at a time,
        # one call after the other: with these delays it is about half through when the runs end.
        site.proxy.delay("ChangeMessageVisibilityBatch", 0.1, times=None)
        keys = [f"{list(DELAYS)[n % 2]}/{3.6 + 0.1 * (n % 20):.2f}/{n}" for n in range(RETRIES)]
        ids = site.send(*keys)
        wait_until(lambda: len(worker.found("message_settled", outcome="deleted")) == RETRIES, 100, "the end of all")
        renewed = 0
        late: list[tuple[str, float]] = []
        for key, message_id in zip(keys, ids, strict=True):
            delay = DELAYS[key.split("/")[0]]
            steps = site.steps(message_id)
            first, again = [step for step in steps if step.action == "ReceiveMessage"]
            changes = [step for step in visibility(steps) if step.handle == first.handle]
            retry = changes[-1]
            assert retry.seconds == delay, "a renewal came after the retry"
            assert [step.seconds for step in changes[:-1]] == [LEASE_SECONDS] * (len(changes) - 1)
            assert all(step.ended <= retry.began for step in changes[:-1]), "a renewal was still under way"
            renewed += len(changes) > 1
            # The proof is above: the last change asks for the delay, and nothing undid it. What was waited must not be
            # less. It may be more: ElasticMQ hands out messages that became visible together one to three at a time, in
            # no order, and one of many came 3.5 s late on a machine with nothing else to do. But 8 s late, a renewal
            # would have taken the place of a short delay.
            waited = again.ended - retry.ended
            if not delay - 0.5 <= waited <= delay + 8:
                late.append((key, waited))
            assert [note["retries"] for note in site.begun(message_id)] == [0, 1]
        assert not late
        assert renewed > RETRIES / 8, "too few renewals to show anything"
        site.await_empty()


def let_go(server: SqsServer, folder: Path) -> None:
    """A retry whose calls fail and hand-backs whose calls are late, longer than a third of a lease."""
    with Site(server, folder) as site:
        # 9 s: a call that takes longer than a third of this still ends within the 5 s that the worker waits for it.
        lease, drain = 9, 4
        settings = {"BRIDGE_VISIBILITY_TIMEOUT_SECONDS": str(lease), "BRIDGE_DRAIN_SECONDS": str(drain)}
        worker = site.start("-c", "1", "--prefetch-multiplier", "20", BRIDGE_WAIT_TIME_SECONDS="1", **settings)
        [retried] = site.send("long-delay/5")  # between two renewals
        site.await_begun(retried)
        site.proxy.wait_for(lambda c: c.action == "ChangeMessageVisibilityBatch", 20, "a renewal")
        site.proxy.fail("ChangeMessageVisibilityBatch", times=3)  # the retry takes several tries
        worker.wait_event("message_settled", message_id=retried, outcome="retried")
        running, *waiting = site.send("long/30", *(f"quick/{n}" for n in range(3)))
        site.await_begun(running)
        site.await_received(waiting)
        wait_until(lambda: all(visibility(site.steps(id_)) for id_ in waiting), 20, "renewals of those that wait")
        # Beyond the lease's third: a renewal would come in this time.
        site.proxy.delay("ChangeMessageVisibilityBatch", lease / 3 + 0.5, times=None)
        worker.process.terminate()
        assert worker.wait_exit(drain + 8 + SLACK_SECONDS) == 0
        site.await_quiet()
        for message_id in [retried, running, *waiting]:
            changes = visibility(site.steps(message_id))
            let_go = next(n for n, step in enumerate(changes) if step.seconds != lease)
            assert all(step.ended <= changes[let_go].began for step in changes[:let_go])
            assert all(step.seconds != lease for step in changes[let_go:])
        assert len(visibility(site.steps(retried))) >= 2
        assert counts(server, site.queue.url).total == 1 + 1 + len(waiting)


def unconfirmed_delete(server: SqsServer, folder: Path) -> None:
    """A delete that is confirmed only after more than a lease."""
    with Site(server, folder) as site:
        worker = site.start("-c", "1", BRIDGE_WAIT_TIME_SECONDS="1")
        site.proxy.delay("DeleteMessageBatch", LEASE_SECONDS / 4, times=4)
        site.proxy.fail("DeleteMessageBatch", times=4)
        [done] = site.send("quick/1")
        worker.wait_event("message_settled", 60, message_id=done, outcome="deleted")
        assert_renewed_until_confirmed(site, done, "DeleteMessageBatch")


def unconfirmed_dead_letter(server: SqsServer, folder: Path) -> None:
    """A dead letter that is confirmed only after more than a lease."""
    with Site(server, folder) as site:
        worker = site.start("-c", "1", BRIDGE_WAIT_TIME_SECONDS="1")
        site.proxy.fail("SendMessage", times=4)
        site.proxy.delay("SendMessage", LEASE_SECONDS / 4, times=4)
        # The one that goes through is late too, but far from the 5 s after which the worker would send another.
        site.proxy.delay("SendMessage", 1, times=None)
        [dead] = site.send("bad/1")
        worker.wait_event("message_settled", 60, message_id=dead, outcome="dead_lettered")
        sends = [call for call in site.proxy.calls if call.action == "SendMessage"]
        assert [call.outcome for call in sends] == ["failed"] * 4 + ["forwarded"]
        assert_renewed_until_confirmed(site, dead, "SendMessage")
        deletes = [step for step in site.steps(dead) if step.action == "DeleteMessageBatch"]
        assert sends[-1].finished_at is not None
        assert all(step.began >= sends[-1].finished_at for step in deletes), "deleted before its dead letter was safe"
        assert counts(server, site.queue.dlq_url).total == 1


def assert_renewed_until_confirmed(site: Site, message_id: str, action: str) -> None:
    """It ran and was received once, and was renewed in time, time and again, until the call was confirmed."""
    calls = [c for c in site.proxy.calls if c.action == action and c.outcome == "forwarded"]
    confirmed_at = calls[-1].finished_at
    assert confirmed_at is not None
    steps = site.steps(message_id)
    received = [step for step in steps if step.action == "ReceiveMessage"]
    assert len(received) == 1
    assert confirmed_at - received[0].ended > LEASE_SECONDS, "too soon to show anything"
    assert_never_let_lapse([step for step in steps if step.began < confirmed_at])
    assert len(site.begun(message_id)) == 1
    assert not site.workers[0].found("lease_lost")


def assert_never_let_lapse(steps: list[Step]) -> None:
    """What SQS confirmed for a message, from its receive on, was never a whole lease apart: it stayed ours."""
    confirmed = [step.ended for step in steps if step.confirmed]
    assert max(later - sooner for sooner, later in pairwise(confirmed)) < LEASE_SECONDS


# ---- all of these at the same time

SCENARIOS = {
    "own lease": own_lease,
    "no heartbeat": no_heartbeat,
    "let go": let_go,
    "delete": unconfirmed_delete,
    "dead letter": unconfirmed_dead_letter,
}


@pytest.fixture(scope="module")
def leases(all_servers: dict[str, SqsServer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenarios]:
    """Everything on both servers at the same time: the longest takes 40 s, whatever happens."""
    folder = tmp_path_factory.mktemp("leases")
    with running_scenarios() as scenarios:
        for server in all_servers.values():
            for pool in POOLS:
                scenarios.start(f"{server.name} {pool}", outlast_the_lease, server, folder, pool)
            for name, scenario in SCENARIOS.items():
                scenarios.start(f"{server.name} {name}", scenario, server, folder)
        yield scenarios


both_servers = pytest.mark.parametrize("server", ["moto", "elasticmq"])


@both_servers
@pytest.mark.parametrize("pool", POOLS)
def test_a_task_outlasts_its_lease(leases: Scenarios, server: str, pool: str) -> None:
    """A 36 s task under a 12 s lease runs once, as do the 40 messages behind it, another worker idle or not."""
    leases.result(f"{server} {pool}")


@both_servers
def test_a_task_sets_the_lease_of_its_messages(leases: Scenarios, server: str) -> None:
    """``visibility_timeout=20`` holds at once, under a receive that asked for 12 s, and is what renewals ask for."""
    leases.result(f"{server} own lease")


@both_servers
def test_no_renewals_without_a_heartbeat(leases: Scenarios, server: str) -> None:
    """With BRIDGE_HEARTBEAT=off a lease lasts as long as the receive asked for, and no call ever renews it."""
    leases.result(f"{server} no heartbeat")


@both_servers
def test_nothing_is_renewed_once_it_is_let_go_of(leases: Scenarios, server: str) -> None:
    """From the moment that a retry or a hand-back begins no renewal for that message is sent, however long it takes."""
    leases.result(f"{server} let go")


@both_servers
def test_renewals_go_on_until_a_delete_is_confirmed(leases: Scenarios, server: str) -> None:
    """A finished message whose delete is late, and fails four times, stays ours until SQS has confirmed it."""
    leases.result(f"{server} delete")


@both_servers
def test_renewals_go_on_until_a_dead_letter_is_safe(leases: Scenarios, server: str) -> None:
    """A message stays ours until its dead letter is confirmed, and is deleted only then; there is one dead letter."""
    leases.result(f"{server} dead letter")
