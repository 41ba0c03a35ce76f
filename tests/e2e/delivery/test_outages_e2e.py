"""SQS away for half a minute: what runs goes on, ends once, and the worker is back soon after SQS.

Outages have many faces, and each has a site of its own, all at the same time. The long poll is the default one of 20 s:
what is short in other tests would hide how late a dead connection is noticed.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.delivery.conftest import (
    LEASE_SECONDS,
    SHORT_LEASE_SECONDS,
    SLACK_SECONDS,
    Proxy,
    Scenarios,
    Site,
    kill,
    running_scenarios,
)
from tests.support.servers.sqs import SqsServer
from tests.support.servers.waiting import wait_until

# The first test that asks for a scenario waits for the start of many workers, which takes long on a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.elasticmq, pytest.mark.timeout(300)]

TASK_SECONDS = 45
OUTAGE_SECONDS = 30
SHORT_OUTAGE_SECONDS = 5
#: The lease in a short outage. A renewal due in its middle, at a third, hangs for the 5 s that a worker waits for its
#: answer, and is made good with another third to go.
SPARE_LEASE_SECONDS = 18
#: Until a worker asks again, when SQS is back. Its own waits make 4.5 s at most; the rest is for a busy machine. A
#: worker in whose long poll SQS went away and came back would take up to 25 s.
RESUMES_SECONDS = 10

Outage = Callable[[Proxy], AbstractContextManager[None]]


@contextmanager
def hanging(proxy: Proxy) -> Iterator[None]:
    """Connections that are open and dead, and stay so when the network is back: no packet says that they are."""
    proxy.hang(times=None)
    yield
    proxy.end_outage_silently()


@contextmanager
def dying(proxy: Proxy) -> Iterator[None]:
    """Connections that hang, and are closed when the network is back."""
    proxy.hang(times=None)
    yield
    proxy.clear()


@contextmanager
def answering(proxy: Proxy, code: str) -> Iterator[None]:
    """Each call is answered with this error."""
    proxy.fail(code=code, times=None)
    yield
    proxy.clear()


@contextmanager
def crawling(proxy: Proxy) -> Iterator[None]:
    """Each call takes effect 3 s late: within every time-out, and a quarter of the lease."""
    proxy.delay(seconds=3, times=None)
    yield
    proxy.clear()


OUTAGES: dict[str, Outage] = {
    "refused": Proxy.refusing,
    "hanging": hanging,
    "dying": dying,
    "unavailable": partial(answering, code="ServiceUnavailable"),
    "throttled": partial(answering, code="ThrottlingException"),
    "expired token": partial(answering, code="ExpiredToken"),
    "slow": crawling,
}
#: Drains meet an outage that is noticed at once, and one that is not.
DRAIN_OUTAGES = ("refused", "hanging")


def last(seconds: float) -> None:
    """Let an outage last: here the passing of time is the matter itself."""
    time.sleep(seconds)


def ends(event: dict[str, Any], message_id: str) -> bool:
    """Say whether this event of a worker's log ends the message, as deleted or as lapsed."""
    settled = event.get("event") == "message_settled" and event["outcome"] == "deleted"
    return (settled or event.get("event") == "message_expired") and event["message_id"] == message_id


def newest_handle(site: Site, message_id: str) -> str:
    """The receipt handle that SQS gave last."""
    return [step for step in site.steps(message_id) if step.action == "ReceiveMessage"][-1].handle


def cut_off(server: SqsServer, folder: Path, outage: Outage, pool: str, processes: int) -> None:
    """A long outage in the middle of a longer task."""
    with Site(server, folder) as site:
        worker = site.start("-P", pool, "-c", str(processes))
        [long] = site.send(f"long/{TASK_SECONDS}")
        site.await_begun(long)
        began_at = site.begun(long)[0]["at"]
        with outage(site.proxy):
            last(OUTAGE_SECONDS)
        back_at = time.monotonic()
        assert back_at < began_at + TASK_SECONDS - RESUMES_SECONDS, "too slow to show anything"
        if processes > 1:
            [next_one] = site.send("quick/1")
            site.await_begun(next_one)
            took = site.begun(next_one)[0]["at"] - back_at
            worker.wait_event("message_settled", message_id=next_one, outcome="deleted")
            worker.wait_event("message_settled", TASK_SECONDS + 30, message_id=long, outcome="deleted")
        else:
            took = 0.0
            # Its lease has lapsed, and it is received again only when the task has ended, which makes room. If the
            # delete is quicker, it succeeds, but SQS might have said so to anybody: then nothing is claimed.
            worker.wait_for(lambda e: ends(e, long), TASK_SECONDS + 30, "end of the task's message")
        site.await_empty()
        assert worker.process.poll() is None
        assert len(site.begun(long)) == 1
        deleted = [s.handle for s in site.steps(long) if s.action == "DeleteMessageBatch" and s.confirmed]
        assert deleted == [newest_handle(site, long)]
        assert took < RESUMES_SECONDS


def blink(server: SqsServer, folder: Path, outage: Outage) -> None:
    """A short outage, when a renewal is due."""
    with Site(server, folder) as site:
        worker = site.start("-c", "2", BRIDGE_VISIBILITY_TIMEOUT_SECONDS=str(SPARE_LEASE_SECONDS))
        [long] = site.send("long/30")
        site.await_begun(long)
        # The next renewal, 6 s after this one, is due in the middle of the outage.
        site.proxy.wait_for(lambda call: call.action.startswith("ChangeM") and bool(call.status), 30, "a renewal")
        last(SPARE_LEASE_SECONDS / 3 - SHORT_OUTAGE_SECONDS / 2)
        with outage(site.proxy):
            last(SHORT_OUTAGE_SECONDS)
        worker.wait_event("message_settled", 60, message_id=long, outcome="deleted")
        site.await_empty()
        assert len(site.begun(long)) == 1
        # What SQS had confirmed, from the receive on: never a whole lease apart.
        confirmed = [step.ended for step in site.steps(long) if step.confirmed]
        assert len(confirmed) > 3
        assert max(later - sooner for sooner, later in pairwise(confirmed)) < SPARE_LEASE_SECONDS
        failed = [step for step in site.steps(long) if not step.confirmed]
        assert failed or worker.found("lease_renewal_failed"), "the outage met no renewal, and has shown nothing"
        assert not worker.found("message_again")
        assert not worker.found("lease_lost")


@pytest.fixture(scope="module")
def outages(all_servers: dict[str, SqsServer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenarios]:
    """Every kind of outage on both servers, long and short, at the same time: a minute."""
    folder = tmp_path_factory.mktemp("outages")
    with running_scenarios() as scenarios:
        for server in all_servers.values():
            # What is shown here is no matter of the pool, and threads are the lightest.
            pool = "prefork" if server.name == "elasticmq" else "threads"
            for kind, outage in OUTAGES.items():
                scenarios.start(f"{server.name} {kind}", cut_off, server, folder, outage, pool, 2)
            scenarios.start(f"{server.name} full", cut_off, server, folder, OUTAGES["refused"], pool, 1)
        for kind in ("refused", "hanging", "unavailable"):
            scenarios.start(f"short {kind}", blink, all_servers["elasticmq"], folder, OUTAGES[kind])
        for server in all_servers.values():
            for kind in DRAIN_OUTAGES:
                scenarios.start(f"{server.name} {kind} drain", drained_in_a_short_outage, server, folder, OUTAGES[kind])
                scenarios.start(f"{server.name} {kind} leave", drained_in_a_long_outage, server, folder, OUTAGES[kind])
            for name, spoil in SPOILT_DELETES.items():
                scenarios.start(f"{server.name} {name}", ends_once, server, folder, spoil)
            scenarios.start(f"{server.name} again", lapsed_before_its_delete, server, folder)
        yield scenarios


@pytest.mark.parametrize("server", ["moto", "elasticmq"])
@pytest.mark.parametrize("kind", OUTAGES)
def test_a_task_outlasts_an_outage(outages: Scenarios, kind: str, server: str) -> None:
    """A 30 s outage in a 45 s task under a 12 s lease: one start, deleted under the newest handle, and back soon."""
    outages.result(f"{server} {kind}")


@pytest.mark.parametrize("server", ["moto", "elasticmq"])
def test_a_task_outlasts_an_outage_with_no_room_to_receive(outages: Scenarios, server: str) -> None:
    """The same when the task fills the window, so that its message cannot be received again while it runs."""
    outages.result(f"{server} full")


@pytest.mark.parametrize("kind", ["refused", "hanging", "unavailable"])
def test_a_lease_outlasts_a_short_outage(outages: Scenarios, kind: str) -> None:
    """An outage of 5 s costs no lease of 18 s. ElasticMQ only: nothing in it depends on the server."""
    outages.result(f"short {kind}")


# ---- in the middle of a drain


def drained_in_a_short_outage(server: SqsServer, folder: Path, outage: Outage) -> None:
    """SIGTERM, and SQS away until the tasks have ended.

    Tasks of 5 s, the 5 s for which a call that hangs is waited for, and a pause fit well into the lease and the budget.
    """
    drain, lease = 20, 24
    with Site(server, folder) as site:
        settings = {"BRIDGE_DRAIN_SECONDS": str(drain), "BRIDGE_VISIBILITY_TIMEOUT_SECONDS": str(lease)}
        worker = site.start("-c", "2", "--prefetch-multiplier", "10", BRIDGE_WAIT_TIME_SECONDS="1", **settings)
        running = site.send("long/5/1", "long/5/2")
        site.await_begun(*running)
        waiting = site.send("quick/1", "quick/2")
        site.await_received(waiting)
        with outage(site.proxy):
            told_at = kill(worker, signal.SIGTERM)
            for message_id in running:
                worker.wait_event("ended", message_id=message_id)
            last(1)  # for the deletes to be tried in vain
            assert worker.process.poll() is None
        assert worker.wait_exit(told_at + drain + 8 + SLACK_SECONDS - time.monotonic()) == 0
        for message_id in running:
            assert len(site.begun(message_id)) == 1
            assert len(worker.found("message_settled", message_id=message_id, outcome="deleted")) == 1
        assert not any(site.begun(message_id) for message_id in waiting)
        site.await_visible(len(waiting), lease + SLACK_SECONDS)


def drained_in_a_long_outage(server: SqsServer, folder: Path, outage: Outage) -> None:
    """SIGTERM, and SQS away until the worker has gone."""
    drain = 6
    with Site(server, folder) as site:
        settings = {"BRIDGE_VISIBILITY_TIMEOUT_SECONDS": str(SHORT_LEASE_SECONDS), "BRIDGE_DRAIN_SECONDS": str(drain)}
        worker = site.start("-c", "2", "--prefetch-multiplier", "10", **settings)
        ends, stopped = site.send("long/2.5", "first-long/60")
        site.await_begun(ends, stopped)
        waiting = site.send("quick/1", "quick/2")
        site.await_received(waiting)
        with outage(site.proxy):
            told_at = kill(worker, signal.SIGTERM)
            assert worker.wait_exit(told_at + drain + 8 + SLACK_SECONDS - time.monotonic()) == 0
            # Nothing could be told to SQS, and nothing is lost: each message comes back by itself. A long poll of the
            # worker's that goes on in the server may take it once more, for another lease.
            site.await_visible(2 + len(waiting), 2 * SHORT_LEASE_SECONDS + 20)
        assert worker.found("ended", message_id=ends)
        assert not any(site.begun(message_id) for message_id in waiting)


@pytest.mark.parametrize("server", ["moto", "elasticmq"])
@pytest.mark.parametrize("kind", DRAIN_OUTAGES)
def test_a_drain_outlasts_a_short_outage(outages: Scenarios, kind: str, server: str) -> None:
    """What ends during an outage in the middle of a drain is deleted after it, the rest handed back."""
    outages.result(f"{server} {kind} drain")


@pytest.mark.parametrize("server", ["moto", "elasticmq"])
@pytest.mark.parametrize("kind", DRAIN_OUTAGES)
def test_a_drain_does_not_wait_for_a_long_outage(outages: Scenarios, kind: str, server: str) -> None:
    """A drain that SQS stays away from ends in time with exit code 0; its messages come back by themselves."""
    outages.result(f"{server} {kind} leave")


# ---- deletes that fail in part, and answers that are lost


def ends_once(server: SqsServer, folder: Path, spoil: Callable[[Proxy], None]) -> None:
    """Forty messages, deleted through a spoilt network for longer than their lease: one run and one end each."""
    with Site(server, folder) as site:
        worker = site.start("-c", "2", "--prefetch-multiplier", "20", BRIDGE_WAIT_TIME_SECONDS="1")
        spoil(site.proxy)
        sent = site.send(*(f"quick/{n}" for n in range(40)))
        site.await_begun(*sent)
        last(LEASE_SECONDS + 2)
        site.proxy.clear()

        def ends_of(message_id: str) -> list[str]:
            settled = worker.found("message_settled", message_id=message_id)
            lapsed = worker.found("message_expired", message_id=message_id)
            return [e["outcome"] for e in settled] + ["lapsed"] * len(lapsed)

        wait_until(lambda: all(ends_of(message_id) for message_id in sent), 45, "the end of each message")
        site.await_empty()
        assert [len(site.begun(message_id)) for message_id in sent] == [1] * len(sent)
        assert all(len(ends_of(message_id)) == 1 for message_id in sent)
        # Nothing counts as deleted before SQS had said so, under the newest handle.
        for message_id in sent:
            if ends_of(message_id) == ["deleted"]:
                deletes = [step for step in site.steps(message_id) if step.action == "DeleteMessageBatch"]
                assert [step.handle for step in deletes if step.confirmed][-1] == newest_handle(site, message_id)
        assert not worker.found("settle_failed")


SPOILT_DELETES: dict[str, Callable[[Proxy], None]] = {
    "failed entries": partial(Proxy.fail_entries, action="DeleteMessageBatch", positions=(0, 1, 3), times=None),
    "lost answers": partial(Proxy.drop_response, action="DeleteMessageBatch", times=None),
}


@pytest.mark.parametrize("server", ["moto", "elasticmq"])
@pytest.mark.parametrize("fault", SPOILT_DELETES)
def test_spoilt_deletes_end_each_message_once(outages: Scenarios, fault: str, server: str) -> None:
    """Deletes that fail in part, or are never confirmed, for longer than a lease: one run and one end each."""
    outages.result(f"{server} {fault}")


def lapsed_before_its_delete(server: SqsServer, folder: Path) -> None:
    """Renewals and deletes fail until the message is received again."""
    with Site(server, folder) as site:
        worker = site.start("-c", "2", BRIDGE_WAIT_TIME_SECONDS="1")
        # Neither a renewal nor a delete goes through, but receives do: the message comes again while it awaits its end.
        site.proxy.fail("ChangeMessageVisibilityBatch", times=None)
        site.proxy.fail("DeleteMessageBatch", times=None)
        [message_id] = site.send("quick/1")
        worker.wait_event("message_again", LEASE_SECONDS + 30, message_id=message_id)
        site.proxy.clear()
        worker.wait_event("message_settled", message_id=message_id, outcome="deleted")
        site.await_empty()
        assert len(site.begun(message_id)) == 1
        [confirmed] = [s for s in site.steps(message_id) if s.action == "DeleteMessageBatch" and s.confirmed]
        assert confirmed.handle == newest_handle(site, message_id)


@pytest.mark.parametrize("server", ["moto", "elasticmq"])
def test_a_message_received_again_is_deleted_under_its_new_handle(outages: Scenarios, server: str) -> None:
    """A message that lapsed while its delete failed, and came again, is not started: its new handle deletes it."""
    outages.result(f"{server} again")
