"""``python -m benchmarks``: run everything, write RESULTS.md, results.json and chart.svg. See README.md."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import machine, other_figures, servers
from benchmarks.chart import svg
from benchmarks.contestants import Contestant
from benchmarks.figures_of_runs import Result, Results
from benchmarks.measure import run
from benchmarks.peers.installing import python_environment
from benchmarks.peers.place import Place
from benchmarks.plan import ELASTICMQ, MEMORY, Run, message_count, runs
from benchmarks.queue_client import RedisQueue, SqsQueue
from benchmarks.quiet import MACHINE
from benchmarks.report import markdown

ACCOUNT = "000000000000"
DELAYS_MS = (0, 10, 30)
SAMPLE_SECONDS = 0.02
#: Tasks of some length are done in bursts (a thread's ten at once), which weigh less in a longer window.
LONG_TASKS = ("sleep", "cpu")
LONGER = 1.6
ELASTICMQ_SAMPLE_SECONDS = 0.1
_number = itertools.count()


@dataclass(frozen=True)
class Running:
    """The servers of one round."""

    sqs_url: str
    sqs: servers.Proxy
    s3: servers.Proxy
    redis_url: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the exit code: 0, or 1 when a contestant had a problem, 2 for wrong arguments, 130 after Ctrl-C."""
    asked = _parser().parse_args(arguments)
    delays = _delays(asked.delays)
    rounds = asked.rounds or (1 if asked.quick else 3)
    seconds = asked.seconds or (1.5 if asked.quick else 5.0)
    planned = [] if asked.figures else list(runs(delays, rounds, asked.only))
    if not planned and not (asked.figures and other_figures.wanted(asked.only)):
        print(f"nothing to run: nothing measured is called like {', '.join(asked.only)}", file=sys.stderr)
        return 2
    if asked.list:
        for one in planned:
            print(f"{one.round + 1} {one.series.name:24} {one.contestant.name}")
        return 0
    # A figure stands by itself, so some of them may be measured anew.
    whole = (asked.figures or not asked.only) and not asked.quick and not asked.delays
    folder = Path(asked.output) if asked.output else servers.BENCHMARKS if whole else servers.CACHE / "partial"
    words = sys.argv[1:] if arguments is None else list(arguments)
    settings = {
        "arguments": " ".join(words),
        "rounds": rounds,
        "seconds": seconds,
        "delays_ms": delays,
        "long_seconds": seconds * LONGER,
        "sample_ms": round(SAMPLE_SECONDS * 1000),
    }
    MACHINE.patience_seconds = 60.0 * (asked.patience if asked.patience is not None else 0 if asked.quick else 30)
    found: list[dict[str, Any]] = []
    try:
        if asked.figures:
            for name in other_figures.wanted(asked.only):
                figure = partial(other_figures.run, name, asked.quick)
                answer = _part(settings, lambda figure=figure: {"answer": figure()})  # type: ignore[misc]  # bound now
                found.append(answer.pop("answer"))
                write_figure(folder, name, answer, found[-1])
        else:
            measured = _part(settings, lambda: _throughput(planned, seconds))
            found += measured["runs"]
            write(folder, {"throughput": measured})
    except KeyboardInterrupt:
        print("\nstopped; what had not ended was not written", file=sys.stderr)
        return 130
    print(f"written: {folder}/RESULTS.md, results.json, chart.svg")
    return 1 if any(one.get("problem") for one in found) else 0


def write_figure(folder: Path, name: str, about: dict[str, Any], answer: dict[str, Any]) -> None:
    """Write one figure; the others stay what they were, each with what is known ``about`` its own run."""
    file = folder / "results.json"
    figures = json.loads(file.read_text()).get("figures", {}) if file.exists() else {}
    answers = figures.pop("answers", {})
    # Those of the time when all figures were of one run have its date and commit.
    answers = {each: {"run": figures} | found for each, found in answers.items()} | {name: answer | {"run": about}}
    ordered = {each: answers[each] for each in other_figures.NAMES if each in answers}
    write(folder, {"figures": {**about, "answers": ordered}})


def write(folder: Path, parts: dict[str, Any]) -> None:
    """Write the three files into ``folder``, made if need be. A part that is not given stays what it was."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.json"
    saved = json.loads(file.read_text()) if file.exists() else {}
    saved |= parts
    file.write_text(json.dumps(saved, indent=1) + "\n")
    (folder / "RESULTS.md").write_text(markdown(saved))
    found = saved.get("throughput", {}).get("runs", ())
    (folder / "chart.svg").write_text(svg(Results([Result.read(one) for one in found])))


def _part(settings: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Measure, and put beside it where and when."""
    load, began = machine.load(), time.monotonic()
    MACHINE.begin()
    started = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    measured = measure()
    return {
        "started": started,
        "minutes": (time.monotonic() - began) / 60,
        "load": load,
        "settings": settings,
        "revision": machine.revision(),
        "machine": machine.machine(),
        "quiet": MACHINE.told(),
        **measured,
    }


def _throughput(planned: Sequence[Run], seconds: float) -> dict[str, Any]:
    contestants = {one.contestant.name: one.contestant for one in planned}
    absent = _prepare(contestants.values())
    results: list[Result] = []
    with ExitStack() as stack:
        current: tuple[int, str] | None = None
        place: Running | str = ""
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


def _try_start(stack: ExitStack, server: str) -> Running | str:
    """Return the servers, or what they lack."""
    try:
        return stack.enter_context(_servers(server))
    except RuntimeError as error:
        return str(error)


@contextmanager
def _servers(server: str) -> Iterator[Running]:
    with ExitStack() as stack:
        sqs_url = stack.enter_context(servers.elasticmq() if server == ELASTICMQ else servers.memory_sqs())
        # With uvloop a call costs the proxy half as much of the CPU that it shares with what is measured.
        python = str(python_environment("harness"))
        sqs = stack.enter_context(servers.delay_proxy(sqs_url, python=python))
        s3 = stack.enter_context(servers.delay_proxy(stack.enter_context(servers.memory_s3(python)), python=python))
        try:
            redis_url = stack.enter_context(servers.redis())
        except RuntimeError:
            redis_url = ""
        yield Running(sqs_url, sqs, s3, redis_url)


def _run(one: Run, running: Running, before: Sequence[Result], seconds: float) -> Result:
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
        log = servers.CACHE / f"failed-{name}.log"
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


def _result(one: Run, messages: int, **more: Any) -> Result:
    series = one.series
    return Result(one.contestant.name, series.server, series.workload, series.delay_ms, one.round, messages, **more)


def _same(result: Result, one: Run) -> bool:
    wanted = (one.contestant.name, one.series.server, one.series.workload, one.series.delay_ms)
    return (result.contestant, result.server, result.workload, result.delay_ms) == wanted


def _delays(text: str | None) -> list[int]:
    if text is None:
        return list(DELAYS_MS)
    try:
        delays = sorted({int(word) for word in text.split(",")})
    except ValueError:
        delays = [-1]
    if not all(delay in DELAYS_MS for delay in delays):
        print(f"--delays {text}: wanted some of {', '.join(map(str, DELAYS_MS))}, separated by commas", file=sys.stderr)
        raise SystemExit(2)
    return delays


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=…",
        description="Run the worker beside its peers; write RESULTS.md, results.json, chart.svg.",
    )
    parser.add_argument("--quick", action="store_true", help="one round of 1.5 s each: does everything work?")
    parser.add_argument("--rounds", type=int, help="how often each contestant runs (3; 1 with --quick)")
    parser.add_argument("--seconds", type=float, help="how long each is watched (5; 1.5 with --quick)")
    parser.add_argument(
        "--patience",
        type=float,
        help="minutes to wait for a machine of one's own, and to do again what was disturbed (30; 0 with --quick)",
    )
    parser.add_argument("--delays", help="which delays no-op tasks are run with: 0,10,30")
    parser.add_argument(
        "--only", action="append", default=[], help="part of the name of a contestant, series or figure; repeatable"
    )
    parser.add_argument("--output", help="folder for the three files (benchmarks/, or .cache/bench/partial for a part)")
    parser.add_argument("--figures", action="store_true", help="not the throughput, but the other figures")
    parser.add_argument("--list", action="store_true", help="say what would be run, in its order")
    return parser


if __name__ == "__main__":
    sys.exit(main())
