"""``python -m benchmarks``: run everything, write RESULTS.md, results.json and chart.svg. See README.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import CACHE, FOLDER
from benchmarks.figures import all_figures
from benchmarks.report.files import write, write_figure
from benchmarks.runner.conditions import with_conditions
from benchmarks.runner.plan import planned_runs
from benchmarks.runner.quiet import MACHINE
from benchmarks.runner.throughput import LONGER, SAMPLE_SECONDS, throughput

DELAYS_MS = (0, 10, 30)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the exit code: 0, or 1 when a contestant had a problem, 2 for wrong arguments, 130 after Ctrl-C."""
    asked = _parser().parse_args(arguments)
    delays = _delays(asked.delays)
    rounds = asked.rounds or (1 if asked.quick else 3)
    seconds = asked.seconds or (1.5 if asked.quick else 5.0)
    planned = [] if asked.figures else list(planned_runs(delays, rounds, asked.only))
    if not planned and not (asked.figures and all_figures.wanted(asked.only)):
        print(f"nothing to run: nothing measured is called like {', '.join(asked.only)}", file=sys.stderr)
        return 2
    if asked.list:
        for one in planned:
            print(f"{one.round + 1} {one.series.name:24} {one.contestant.name}")
        return 0
    # A figure stands by itself, so some of them may be measured anew.
    whole = (asked.figures or not asked.only) and not asked.quick and not asked.delays
    folder = Path(asked.output) if asked.output else FOLDER if whole else CACHE / "partial"
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
            for name in all_figures.wanted(asked.only):
                measured = with_conditions(settings, partial(_figure, name, asked.quick))
                found.append(measured.pop("answer"))
                write_figure(folder, name, measured, found[-1])
        else:
            measured = with_conditions(settings, partial(throughput, planned, seconds))
            found += measured["runs"]
            write(folder, {"throughput": measured})
    except KeyboardInterrupt:
        print("\nstopped; what had not ended was not written", file=sys.stderr)
        return 130
    print(f"written: {folder}/RESULTS.md, results.json, chart.svg")
    return 1 if any(one.get("problem") for one in found) else 0


def _figure(name: str, quick: bool) -> dict[str, Any]:
    return {"answer": all_figures.run(name, quick)}


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
