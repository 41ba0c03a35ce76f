"""One run, from a full queue to its rate."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.peers import s3_events
from benchmarks.peers.place import APPS, Command, Place
from benchmarks.runner.measure import Used, Watch, run
from benchmarks.runner.queue_client import SqsQueue
from benchmarks.servers.starting import Proxy


def watched(*samples: tuple[float, int]) -> Watch:
    """What a watch of a consumer started at 100 s has seen."""
    watch = Watch(100.0)
    watch.used = [Used(1.0, {"ReceiveMessage": 10}), Used(3.0, {"ReceiveMessage": 30, "DeleteMessageBatch": 20})]
    for now, done in samples:
        watch.see(now, done)
    return watch


def test_the_clock_runs_from_the_first_completed_task_to_the_last():
    """Neither the consumer's start nor the time after its last task is in the rate, nor what the first sample shows."""
    timing = watched((101.0, 0), (102.0, 50), (103.0, 150), (104.0, 250), (109.0, 250)).timing()
    assert timing.first_task_seconds == 2.0
    assert timing.seconds == 2.0
    assert timing.rate == 100.0
    assert timing.done == 250


def test_calls_and_cpu_are_those_between_the_two():
    """200 messages took two seconds of CPU time and 40 calls, whatever the start took."""
    timing = watched((102.0, 50), (104.0, 250)).timing()
    assert timing.cpu_ms_per_message == pytest.approx(10.0)
    assert timing.calls_per_message == {"ReceiveMessage": 0.1, "DeleteMessageBatch": 0.1}


@pytest.mark.parametrize("samples", [[], [(101.0, 0)], [(101.0, 30)]])
def test_what_shows_no_rate_is_a_problem(samples: list[tuple[float, int]]):
    """No completed task, or all of them at once, is no figure."""
    timing = watched(*samples).timing()
    assert timing.rate is None
    assert timing.problem


def command_of(place: Place, *argv: str) -> Command:
    """A consumer in this Python."""
    return Command([sys.executable, *argv], place.environment())


@pytest.mark.slow
def test_a_consumer_is_watched_until_the_queue_is_empty(proxy: Proxy, sqs_url: str, queue_name: str):
    """A real loop around boto3 empties a queue through the proxy; its rate and its calls for each message are seen."""
    with SqsQueue(sqs_url, queue_name, counts_deletes=True) as queue:
        assert queue.fill(s3_events.message("noop", number) for number in range(400)) == 400
        place = Place(proxy.url, queue_name, "000000000000")
        proxy.set_delay(5)
        loop = command_of(place, str(APPS / "boto3_consumer.py"), "noop", "2")
        timing, output = run(queue, loop, 400, longest_seconds=30, calls=proxy.counts)
        assert (timing.problem, timing.done, queue.dead_letters()) == ("", 400, 0), output
    assert timing.rate
    assert timing.rate > 1
    assert timing.calls_per_message["DeleteMessageBatch"] == pytest.approx(0.1, rel=0.5)


@pytest.mark.slow
def test_a_consumer_that_ends_is_told_with_its_last_line(sqs_url: str, queue_name: str):
    """A contestant that does not start is a problem in the results, not a wait for ever."""
    with SqsQueue(sqs_url, queue_name, counts_deletes=True) as queue:
        queue.fill(["a", "b"])
        place = Place(sqs_url, queue_name, "000000000000")
        timing, _ = run(queue, command_of(place, "-c", "raise SystemExit('no such task')"), 2, longest_seconds=5)
    assert timing.rate is None
    assert timing.problem == "the consumer ended: no such task"


@pytest.mark.slow
def test_nothing_is_left_running(sqs_url: str, queue_name: str, tmp_path: Path):
    """The consumer and its children are gone when the run is over."""
    spawn = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, file=open(sys.argv[1], 'w'))"
    with SqsQueue(sqs_url, queue_name, counts_deletes=True) as queue:
        queue.fill(["a"])
        place = Place(sqs_url, queue_name, "000000000000")
        run(queue, command_of(place, "-c", spawn, str(tmp_path / "pid")), 1, longest_seconds=5)
    stat = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
