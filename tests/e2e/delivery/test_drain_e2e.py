"""The end of a worker: asked to leave in every way there is, or killed: none is lost, none runs twice at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.delivery.conftest import (
    LEASE_SECONDS,
    POOLS,
    SHORT_LEASE_SECONDS,
    SLACK_SECONDS,
    Scenarios,
    Site,
    all_of,
    is_gone,
    kill,
    running_scenarios,
)
from tests.support.servers.sqs import SqsServer, counts, receive
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

# The first test that asks for a scenario waits for the start of many workers, which takes long on a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.elasticmq, pytest.mark.timeout(300)]

#: What a drain may take beyond its budget: 5 s of deletes, a little for the rest, and what a busy machine adds. Less
#: than the 20 s of a long poll, the 40 s of a budget that is to be skipped, and the 90 s of the tasks.
BEYOND_BUDGET_SECONDS = 8 + SLACK_SECONDS
#: A lease that cannot be why a message is to be had again.
FAR_LEASE = {"BRIDGE_VISIBILITY_TIMEOUT_SECONDS": "60"}
PREFETCHED = 20
#: solo runs one task at a time.
RUNNING = {"prefork": 2, "threads": 2, "solo": 1}


def started(site: Site, pool: str, *args: str, **settings: str) -> WorkerProcess:
    """Start a worker with as many processes as this pool is to run tasks."""
    return site.start("-P", pool, "-c", str(RUNNING[pool]), *args, **settings)


def assert_nobody_left(children: list[int]) -> None:
    """Wait for the end of a pool's processes, which has come or is about to."""
    wait_until(lambda: all(is_gone(pid) for pid in children), 10, f"the end of the children {children}")


def within(budget_seconds: float, since: float, worker: WorkerProcess) -> int:
    """The exit code of a worker that leaves in time."""
    return worker.wait_exit(since + budget_seconds + BEYOND_BUDGET_SECONDS - time.monotonic())


def exit_codes(*signals: signal.Signals) -> set[int]:
    """What a worker may leave with: 0 is promised for SIGTERM; Celery's own for Ctrl-C and SIGQUIT is 1."""
    return {0} if set(signals) == {signal.SIGTERM} else {0, 1}


# ---- SIGTERM, and the tasks end in time


def leave_in_time(server: SqsServer, folder: Path, pool: str, wait_seconds: int) -> None:
    """SIGTERM with tasks that end within the budget, and 20 messages that have not started."""
    budget = 20
    with Site(server, folder, visibility_timeout_seconds=60) as site:
        settings = {"BRIDGE_WAIT_TIME_SECONDS": str(wait_seconds), "BRIDGE_DRAIN_SECONDS": str(budget), **FAR_LEASE}
        worker = started(site, pool, "--prefetch-multiplier", str(40 // RUNNING[pool]), **settings)
        children = worker.children()
        running = site.send(*(f"long/12/{n}" for n in range(RUNNING[pool])))
        site.await_begun(*running)
        waiting = site.send(*(f"quick/{n}" for n in range(PREFETCHED)))
        site.await_received(waiting)
        assert not worker.found("ended"), "too slow to show anything"

        told_at = kill(worker, signal.SIGTERM)
        elsewhere: set[str] = set()

        def all_elsewhere() -> bool:
            elsewhere.update(message["MessageId"] for message in receive(server, site.queue.url, wait_seconds=1))
            return elsewhere.issuperset(waiting)

        wait_until(all_elsewhere, SLACK_SECONDS, "all that had not started, to be had by others")
        assert not worker.found("ended"), "handed back at once, not when the tasks had ended"
        assert elsewhere == set(waiting)
        assert worker.process.poll() is None
        assert within(budget, told_at, worker) == 0

        for message_id in running:
            assert len(worker.found("message_settled", message_id=message_id, outcome="deleted")) == 1
        assert [len(site.begun(id_)) for id_ in [*running, *waiting]] == [1] * len(running) + [0] * len(waiting)
        assert counts(server, site.queue.url).total == PREFETCHED
        assert_nobody_left(children)


@pytest.fixture(scope="module")
def leaving(all_servers: dict[str, SqsServer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenarios]:
    """Every pool on both servers, at the same time."""
    folder = tmp_path_factory.mktemp("in-time")
    with running_scenarios() as scenarios:
        for server in all_servers.values():
            for pool in POOLS:
                # A short poll and the usual long one, which is under way when the signal comes.
                wait_seconds = 20 if pool == "threads" else 1
                scenarios.start(f"{server.name} {pool}", leave_in_time, server, folder, pool, wait_seconds)
        yield scenarios


@pytest.mark.parametrize("server", ["moto", "elasticmq"])
@pytest.mark.parametrize("pool", POOLS)
def test_sigterm_hands_back_and_finishes(leaving: Scenarios, server: str, pool: str) -> None:
    """At SIGTERM what has not started can be had by others while what runs is finished and then deleted."""
    leaving.result(f"{server} {pool}")


# ---- SIGTERM, and the tasks do not end in time


def out_of_time(server: SqsServer, folder: Path, pool: str) -> None:
    """SIGTERM with tasks that would take longer than the budget."""
    budget = 8
    with Site(server, folder) as site:
        # Short polls: none is under way at the end, when it could be given what this very worker hands back.
        settings = {"BRIDGE_DRAIN_SECONDS": str(budget), "BRIDGE_WAIT_TIME_SECONDS": "1"}
        worker = started(site, pool, "--prefetch-multiplier", "20", **settings)
        children = worker.children()
        running = site.send(*(f"first-long/90/{n}" for n in range(RUNNING[pool])))
        site.await_begun(*running)
        waiting = site.send(*(f"quick/{n}" for n in range(4)))
        site.await_received(waiting)
        # Already polling when the messages come free, which is when two runs at once would show. Past the proxy, so
        # that its record is that of the first worker alone.
        other = started(site, pool, "--prefetch-multiplier", "20", endpoint_url=server.endpoint_url)

        told_at = kill(worker, signal.SIGTERM)
        assert within(budget, told_at, worker) == 0
        left_at = time.monotonic()
        assert left_at >= told_at + budget
        assert_nobody_left(children)
        for message_id in [*running, *waiting]:
            other.wait_event("message_settled", message_id=message_id, outcome="deleted")
        # At once, and not with those that were stopped; on a machine with nothing else to do it takes half a second.
        assert all(site.begun(message_id)[0]["at"] < told_at + budget for message_id in waiting)
        for message_id in running:
            first, second = site.begun(message_id)
            stopped_at = site.last_tick(message_id, first["pid"])
            assert stopped_at > told_at + budget - 2, "it had all of its time"
            [hand_back] = [step for step in site.steps(message_id) if step.seconds == 0]
            assert second["at"] > hand_back.began, "two runs at once"
            if pool == "prefork":
                assert second["at"] > stopped_at, "two runs at once"
                assert hand_back.began > stopped_at, "handed back before its process was dead"
            else:
                # Nothing stops these tasks but the end of the process: their hand-back is the last that it does. But
                # SQS has it before the process has its answer, and only the kernel decides who is first then: an
                # overlap of 0.07 s was seen on a machine with far more to do than it can.
                assert stopped_at < hand_back.ended + 1
                assert left_at < hand_back.ended + 5
                assert not [call for call in site.proxy.calls if call.started_at > hand_back.ended]
            assert [e["outcome"] for e in worker.found("message_settled", message_id=message_id)] == ["handed_back"]
        site.await_empty()


@pytest.fixture(scope="module")
def overdue(all_servers: dict[str, SqsServer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenarios]:
    """Every pool on both servers, at the same time."""
    folder = tmp_path_factory.mktemp("out-of-time")
    with running_scenarios() as scenarios:
        for server in all_servers.values():
            for pool in POOLS:
                scenarios.start(f"{server.name} {pool}", out_of_time, server, folder, pool)
        yield scenarios


@pytest.mark.parametrize("server", ["moto", "elasticmq"])
@pytest.mark.parametrize("pool", POOLS)
def test_sigterm_stops_what_outlasts_the_budget(overdue: Scenarios, server: str, pool: str) -> None:
    """Tasks longer than the budget are stopped and then handed back; their next run begins when the first is dead.

    In threads and solo, which cannot stop a task, the hand-back is the last call before the end of the process.
    """
    overdue.result(f"{server} {pool}")


def deaf(server: SqsServer, folder: Path) -> None:
    """SIGTERM while the only thread that Python runs signal handlers in is in native code."""
    budget = 3
    with Site(server, folder) as site:
        # Short polls: none is under way at the end, when it could be given what this very worker hands back.
        settings = {"BRIDGE_DRAIN_SECONDS": str(budget), "BRIDGE_WAIT_TIME_SECONDS": "1", **FAR_LEASE}
        worker = started(site, "solo", "--prefetch-multiplier", "20", **settings)
        [running] = site.send("native/1")
        site.await_begun(running)
        waiting = site.send("quick/1", "quick/2")
        site.await_received(waiting)
        told_at = kill(worker, signal.SIGTERM)
        # The call into C never returns: whenever it is heard, it is heard in spite of that.
        assert worker.wait_event("drain_started", SLACK_SECONDS)
        assert within(budget, told_at, worker) == 0
        site.await_visible(1 + len(waiting))


def test_sigterm_is_heard_during_native_code(all_servers: dict[str, SqsServer], tmp_path: Path) -> None:
    """A solo worker whose task has called into C, where Python runs no signal handler, drains like any other."""
    all_of({server.name: partial(deaf, server, tmp_path) for server in all_servers.values()})


# ---- the other ways to ask


def cut_short(server: SqsServer, folder: Path, pool: str, *signals: signal.Signals) -> None:
    """Signals that say: do not wait for the tasks, although there would be 40 s for them."""
    with Site(server, folder) as site:
        # There before the worker, as many as its window holds: one receive takes all, and none is under way at the end.
        running = site.send(*(f"first-long/90/{n}" for n in range(4)))
        multiplier = str(4 // RUNNING[pool])
        worker = started(site, pool, "--prefetch-multiplier", multiplier, BRIDGE_DRAIN_SECONDS="40", **FAR_LEASE)
        children = worker.children()
        site.await_received(running)
        wait_until(lambda: len({note["message_id"] for note in worker.found("tick")}) == RUNNING[pool], 45, "the runs")
        site.await_quiet()
        waiting = [message_id for message_id in running if not site.begun(message_id)]
        running = [message_id for message_id in running if site.begun(message_id)]
        for number in signals[:-1]:
            kill(worker, number, whole_group=number == signal.SIGINT)
            worker.wait_event("drain_started")
        told_at = kill(worker, signals[-1], whole_group=signals[-1] == signal.SIGINT)
        assert within(0, told_at, worker) in exit_codes(*signals)
        assert_nobody_left(children)
        site.await_visible(len(running) + len(waiting))  # handed back, not left to their leases
        for message_id in running:
            [begun] = site.begun(message_id)
            [hand_back] = [step for step in site.steps(message_id) if step.seconds == 0]
            if pool == "prefork":
                assert hand_back.began > site.last_tick(message_id, begun["pid"])
        assert not any(site.begun(message_id) for message_id in waiting)


CUT_SHORT = {
    "SIGTERM twice": (signal.SIGTERM, signal.SIGTERM),
    "Ctrl-C twice": (signal.SIGINT, signal.SIGINT),
    "SIGTERM and Ctrl-C": (signal.SIGTERM, signal.SIGINT),
    "SIGQUIT": (signal.SIGQUIT,),
}


@pytest.fixture(scope="module")
def hurried(all_servers: dict[str, SqsServer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenarios]:
    """Every pool and way, at the same time. On one server each, for what is shown here is this side of the network."""
    folder = tmp_path_factory.mktemp("cut-short")
    servers = list(all_servers.values())
    with running_scenarios() as scenarios:
        for pool in POOLS:
            for n, (way, signals) in enumerate(CUT_SHORT.items()):
                scenarios.start(f"{pool} {way}", cut_short, servers[n % 2], folder, pool, *signals)
        yield scenarios


@pytest.mark.parametrize("way", CUT_SHORT)
@pytest.mark.parametrize("pool", POOLS)
def test_a_second_signal_skips_the_waiting(hurried: Scenarios, pool: str, way: str) -> None:
    """A second SIGTERM or Ctrl-C, or one SIGQUIT: tasks are stopped at once and all is handed back."""
    hurried.result(f"{pool} {way}")


def polling_at_the_end(server: SqsServer, folder: Path) -> bool:
    """Two signals, while the usual long poll is under way; False when the server answered that poll too late."""
    with Site(server, folder) as site:
        worker = site.start("-c", "2", "--prefetch-multiplier", "20", BRIDGE_DRAIN_SECONDS="40", **FAR_LEASE)
        running = site.send("first-long/90/1", "first-long/90/2")
        site.await_begun(*running)
        wait_until(lambda: site.proxy.calls[-1].action == "ReceiveMessage", 20, "a poll under way")
        kill(worker, signal.SIGTERM)
        worker.wait_event("drain_started")
        assert within(0, kill(worker, signal.SIGTERM), worker) == 0

        def taken_along() -> bool:
            return any(call.outcome == "dropped" and (call.response or {}).get("Messages") for call in site.proxy.calls)

        wait_until(
            lambda: counts(server, site.queue.url).visible == 2 or taken_along(), SLACK_SECONDS, "what becomes of both"
        )
        return not taken_along()


def test_the_last_poll_takes_nothing_along(elasticmq_server: SqsServer, tmp_path: Path) -> None:
    """What a worker hands back while its own long poll is under way can be had by others.

    The worker waits half a second for that poll. A server on a busy machine may answer later: then the worker has gone,
    nothing can be shown, and there is another try. moto looks at what became visible only once a second, so it would
    answer too late as often as not.
    """
    assert any(polling_at_the_end(elasticmq_server, tmp_path) for _ in range(4)), "taken along, each time"


def one_ctrl_c(server: SqsServer, folder: Path, pool: str) -> None:
    """SIGINT to the whole process group, once."""
    with Site(server, folder) as site:
        worker = started(site, pool, "--prefetch-multiplier", "20", BRIDGE_WAIT_TIME_SECONDS="1", **FAR_LEASE)
        children = worker.children()
        running = site.send(*(f"long/10/{n}" for n in range(RUNNING[pool])))
        site.await_begun(*running)
        waiting = site.send("quick/1", "quick/2")
        site.await_received(waiting)
        assert not worker.found("ended"), "too slow to show anything"
        told_at = kill(worker, signal.SIGINT, whole_group=True)
        assert within(10, told_at, worker) in exit_codes(signal.SIGINT)
        for message_id in running:
            assert len(worker.found("message_settled", message_id=message_id, outcome="deleted")) == 1
        site.await_visible(len(waiting))
        assert_nobody_left(children)


def test_one_ctrl_c_is_like_sigterm(all_servers: dict[str, SqsServer], tmp_path: Path) -> None:
    """Ctrl-C in a terminal, which every process of the worker is sent, lets tasks finish and hands back the rest."""
    all_of(
        {
            f"{server.name} {pool}": partial(one_ctrl_c, server, tmp_path, pool)
            # Which server it is makes no difference here; each is asked by one pool at least.
            for server, pool in zip([*all_servers.values(), all_servers["elasticmq"]], POOLS, strict=True)
        }
    )


# ---- no time to do anything


def killed(server: SqsServer, folder: Path) -> None:
    """SIGKILL of the parent process, with a second worker beside it."""
    with Site(server, folder) as site:
        # There before the worker, as many as its window holds: no long poll of a dead worker is left in the server,
        # where it would be given messages once more.
        sent = site.send(*(f"first-long/90/{n}" for n in range(10)))
        worker = site.start("-c", "2", "--prefetch-multiplier", "5")
        children = worker.children()
        assert len(children) == 2
        site.await_received(sent)
        wait_until(lambda: len({note["message_id"] for note in worker.found("tick")}) == 2, 45, "the runs")
        running = [message_id for message_id in sent if site.begun(message_id)]
        waiting = [message_id for message_id in sent if not site.begun(message_id)]
        other = site.start("-c", "2", "--prefetch-multiplier", "10", endpoint_url=server.endpoint_url)
        # A renewal has just been made: the longest that the messages can be held after the kill.
        since = len(site.proxy.calls)
        site.proxy.wait_for(
            lambda c: c.index >= since and c.action.startswith("ChangeM") and bool(c.status), 20, "renewal"
        )
        assert not [id_ for id_ in waiting if site.begun(id_)]

        killed_at = kill(worker, signal.SIGKILL)  # its parent alone, as the kernel does that runs out of memory
        assert worker.wait_exit() == -signal.SIGKILL
        for message_id in [*running, *waiting]:
            other.wait_event("message_settled", message_id=message_id, outcome="deleted")
        elsewhere = {id_: site.begun(id_)[-1] for id_ in [*running, *waiting]}
        # When their leases have lapsed. 2 s later is what a machine with nothing else to do needs to start the last.
        assert max(note["at"] for note in elsewhere.values()) < killed_at + LEASE_SECONDS + SLACK_SECONDS
        site.await_empty()
        for message_id in running:
            first, second = site.begun(message_id)
            assert site.last_tick(message_id, first["pid"]) < second["at"], "a child outlived its worker"
        assert_nobody_left(children)


def test_a_killed_worker_loses_nothing(all_servers: dict[str, SqsServer], tmp_path: Path) -> None:
    """After SIGKILL all messages run elsewhere as soon as their leases have lapsed, and no process of it goes on."""
    all_of({server.name: partial(killed, server, tmp_path) for server in all_servers.values()})


def scratch_is_cleared(server: SqsServer, folder: Path) -> None:
    """SIGKILL of a child, and then of a whole worker, with files in their scratch directories."""
    with Site(server, folder) as site:
        settings = {
            "BRIDGE_WAIT_TIME_SECONDS": "1",
            "BRIDGE_VISIBILITY_TIMEOUT_SECONDS": str(SHORT_LEASE_SECONDS),  # in the end its lapse is waited for
        }
        worker = site.start("-c", "1", **settings)
        [message_id] = site.send("scratch/90")
        site.await_begun(message_id)
        [first] = site.begun(message_id)
        scratch = Path(first["folder"])
        assert scratch.is_relative_to(site.folder), "below TMPDIR"
        assert (scratch / "half-done").exists()
        os.kill(first["pid"], signal.SIGKILL)
        wait_until(lambda: not scratch.exists(), 20, "the scratch directory gone after its process was killed")
        worker.wait_event("message_settled", message_id=message_id, outcome="deleted")
        assert [note["left"] for note in site.begun(message_id)] == [[], []], "empty when a run begins"
        assert not scratch.exists()

        # The whole worker: nobody is there to clear up, until the next one starts.
        [other_id] = site.send("scratch/91")
        site.await_begun(other_id)
        left = Path(site.begun(other_id)[0]["folder"])
        worker.kill_group()
        worker.wait_exit()
        assert left.exists()
        successor = site.start("-c", "1", **settings)
        assert not left.exists()
        successor.wait_event("message_settled", message_id=other_id, outcome="deleted")
        assert not list(site.folder.glob("bridge-scratch/*/run-*"))


def test_a_scratch_directory_outlives_no_kill(all_servers: dict[str, SqsServer], tmp_path: Path) -> None:
    """A task's scratch directory goes with the process that was killed, and a worker's at the start of the next one."""
    all_of({server.name: partial(scratch_is_cleared, server, tmp_path) for server in all_servers.values()})
