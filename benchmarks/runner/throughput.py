"""The run loop: installs the contestants, starts the servers of each round, and runs what is planned, in its order."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from benchmarks import CACHE
from benchmarks.peers.installing import python_environment
from benchmarks.peers.place import Place
from benchmarks.runner import machine
from benchmarks.runner.contestants import Contestant
from benchmarks.runner.measure import run
from benchmarks.runner.plan import ELASTICMQ, MEMORY, PlannedRun, message_count
from benchmarks.runner.queue_client import RedisQueue, SqsQueue
from benchmarks.runner.quiet import MACHINE
from benchmarks.runner.result import Result
from benchmarks.servers import starting
from benchmarks.servers.starting import Proxy

ACCOUNT = "000000000000"
SAMPLE_SECONDS = 0.02
ELASTICMQ_SAMPLE_SECONDS = 0.1
#: Tasks of some length are done in bursts (a thread's ten at once), which weigh less in a longer window.
LONG_TASKS = ("sleep", "cpu")
LONGER = 1.6
_number = itertools.count()


@dataclass(frozen=True)
class RoundServers:
    """The servers of one round."""

    sqs_url: str
    sqs: Proxy
    s3: Proxy
    redis_url: str


def throughput(planned: Sequence[PlannedRun], seconds: float) -> dict[str, Any]:
    """Run all that is planned, each for about ``seconds``; return the servers, the versions and the runs."""
    contestants = {one.contestant.name: one.contestant for one in planned}
    absent = _prepare(contestants.values())
    results: list[Result] = []
    with ExitStack() as stack:
        current: tuple[int, str] | None = None
        place: RoundServers | str = ""
        for number, one in enumerate(planned):
            if current != (one.round, one.series.server):
                # Servers of one round do not see the leftovers of another.
                stack.close()
                current = (one.round, one.series.server)
                place = _try_start(stack, one.series.server)
            problem = absent.get(one.contestant.name) or (place if isinstance(place, str) else "")
            if problem or isinstance(place, str):
                result = _result(one, 0, problem=problem)
            else:
                longer = LONGER if one.series.workload in LONG_TASKS else 1
                result = MACHINE.measure(partial(_run, one, place, results, seconds * longer))
                result = replace(result, stolen=round(MACHINE.stolen[-1], 4))
            results.append(result)
            rate = result.problem or f"{result.rate:,.1f}/s"
            print(
                f"{number + 1}/{len(planned)} round {one.round + 1} {one.series.name} {one.contestant.name}: {rate}",
                flush=True,
            )
    return {
        "servers": machine.servers(),
        "versions": {name: one.versions() for name, one in contestants.items() if name not in absent},
        "runs": [asdict(result) for result in results],
    }


def _prepare(contestants: Iterable[Contestant]) -> dict[str, str]:
    """Install everybody before anybody runs; return why those cannot run who cannot."""
    absent = {}
    for contestant in contestants:
        try:
            contestant.prepare()
        except (RuntimeError, OSError) as error:
            absent[contestant.name] = f"could not be installed: {error}"
            print(f"{contestant.name} {absent[contestant.name]}", file=sys.stderr)
    return absent


def _try_start(stack: ExitStack, server: str) -> RoundServers | str:
    """Return the servers, or what they lack."""
    try:
        return stack.enter_context(_servers(server))
    except RuntimeError as error:
        return str(error)


@contextmanager
def _servers(server: str) -> Iterator[RoundServers]:
    with ExitStack() as stack:
        sqs_url = stack.enter_context(starting.elasticmq() if server == ELASTICMQ else starting.memory_sqs())
        # With uvloop a call costs the proxy half as much of the CPU that it shares with what is measured.
        python = str(python_environment("harness"))
        sqs = stack.enter_context(starting.delay_proxy(sqs_url, python=python))
        s3 = stack.enter_context(starting.delay_proxy(stack.enter_context(starting.memory_s3(python)), python=python))
        try:
            redis_url = stack.enter_context(starting.redis())
        except RuntimeError:
            redis_url = ""
        yield RoundServers(sqs_url, sqs, s3, redis_url)


def _run(one: PlannedRun, running: RoundServers, before: Sequence[Result], seconds: float) -> Result:
    contestant, series = one.contestant, one.series
    # A run that is done again has a queue of its own: the server counts what was deleted from a queue of that name.
    name = f"{contestant.name}-{series.workload}-{series.delay_ms}-{one.round}-{next(_number)}"
    own = series.server == MEMORY
    guess = contestant.rate(series.workload, series.delay_ms) or 1.0
    measured = [r.rate for r in before if _same(r, one) and r.rate is not None]
    count = message_count(guess, measured[-1] if measured else None, seconds)
    try:
        if contestant.broker == "redis" and not running.redis_url:
            return _result(one, count, problem="needs `redis-server` or `valkey-server` on the PATH")
        with (
            RedisQueue(running.redis_url, name)
            if contestant.broker == "redis"
            else SqsQueue(running.sqs_url, name, counts_deletes=own) as queue
        ):
            queue.fill(contestant.message(name, series.workload, number) for number in range(count))
            for proxy in (running.sqs, running.s3):
                proxy.set_delay(series.delay_ms)
            running.sqs.reset()
            place = Place(running.sqs.url, name, ACCOUNT, running.s3.url, running.redis_url)
            pause = SAMPLE_SECONDS if own else ELASTICMQ_SAMPLE_SECONDS
            command = contestant.start(place, series.workload)
            counts = dict if contestant.broker == "redis" else running.sqs.counts
            timing, output = run(queue, command, count, longest_seconds=seconds, pause_seconds=pause, calls=counts)
            problem = timing.problem
            if isinstance(queue, SqsQueue) and (dead := queue.dead_letters()):
                problem = f"{dead} messages were dead-lettered"
    except (RuntimeError, OSError) as error:
        return _result(one, count, problem=f"{type(error).__name__}: {error}")
    if problem:
        log = CACHE / f"failed-{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(output)
    return _result(
        one,
        count,
        done=timing.done,
        seconds=round(timing.seconds, 3),
        # What a consumer does before it fails is no figure to show.
        rate=None if problem else timing.rate,
        first_task_seconds=timing.first_task_seconds,
        cpu_ms_per_message=timing.cpu_ms_per_message,
        calls_per_message={name: round(number, 4) for name, number in timing.calls_per_message.items()},
        problem=problem,
    )


def _result(one: PlannedRun, messages: int, **more: Any) -> Result:
    series = one.series
    return Result(one.contestant.name, series.server, series.workload, series.delay_ms, one.round, messages, **more)


def _same(result: Result, one: PlannedRun) -> bool:
    wanted = (one.contestant.name, one.series.server, one.series.workload, one.series.delay_ms)
    return (result.contestant, result.server, result.workload, result.delay_ms) == wanted
