"""The figures that are no throughput: their targets, and their sections in the report. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.report.figures_of_runs import Figure, JudgedTarget

TITLES = {
    "latency": "Latency: visible → started",
    "startup": "Start: exec → first task done",
    "memory": "Memory",
    "cost": "Calls and dollars",
    "big_object": "One large object through `tasks.describe`",
    "bus": "The monitor bus: none, up, down, hanging",
    "ceiling": "The ceiling: Celery without any broker",
}
#: What a table does not say by itself.
NOTES = {
    "bus": (
        "3,000 no-op messages that are in the queue before the worker starts, then SIGTERM. `none` has no\n"
        "`BRIDGE_MONITOR_URL`, `up` is a real Redis, `down` a port that nobody listens on, `hanging` one that takes\n"
        "connections and never answers. All four run in the environment of the container image, for Redis's client;\n"
        "long polls are of 1 s, because the one under way is awaited at SIGTERM. A ratio over `none` is taken within\n"
        "a round; slowest over fastest is of the medians of `up`, `down` and `hanging`."
    ),
    "ceiling": (
        "This is the rate of Celery's own consumer and pools without any broker: stock Celery, its queue in the\n"
        "memory of the worker's own process (Kombu's `memory://`), filled before it starts, acknowledged late. There\n"
        "is no target. Kombu has no event loop for it, so Celery runs its blocking loop and the pool's own threads.\n"
        "With threads the parent's CPU time holds the tasks too; with tasks of 50 ms much of it is a full window\n"
        "asked again every millisecond. `of_the_ideal` is the rate over concurrency ÷ 50 ms."
    ),
}
#: Figure, the key under which its values and its ``met`` are found, the target's name, and what is wanted.
TARGETS = (
    ("latency", "p50_ms", "visible → started, 10/s, 10 ms: p50, ms", "≤ 30"),
    ("latency", "p99_ms", "visible → started, 10/s, 10 ms: p99, ms", "≤ 120"),
    ("startup", "ratio", "exec → first task done, over stock Celery", "≤ 1.3"),
    ("memory", "parent_over_stock_mb", "RSS of the parent over that of stock Celery, MB", "≤ 15"),
    ("memory", "late_over_early", "RSS after 200,000 messages over after 20,000", "≤ 1.05"),
    ("big_object", "over_plain", "1 GB object: MB/s over plain streaming hash", "≥ 0.8"),
    ("big_object", "peak_over_idle_mb", "1 GB object: peak RSS over an idle child, MB", "≤ 40"),
    ("bus", "slowest_over_fastest", "prefork, bus up, down, hanging, 0 ms: slowest over fastest", "≥ 0.95"),
    ("bus", "exit_codes", "SIGTERM with the bus up, down, hanging, and without: exit codes", "0"),
)
#: What is about the run and not a figure.
_ASIDE = (
    "run",
    "figure",
    "targets",
    "target",
    "target_calls_per_message",
    "met",
    "took_seconds",
    "versions",
    "price_source",
)


def targets(answers: Mapping[str, Any]) -> list[tuple[JudgedTarget, str]]:
    """Return the targets, each with what was measured as a text: there may be several values to one target."""
    found = []
    for figure, key, name, wanted in TARGETS:
        answer = answers.get(figure, {})
        values = [(path, value) for path, value in flat(answer) if key in path.split(" ")]
        met = answer.get("met")
        met = met.get(key) if isinstance(met, Mapping) else met
        reached = None if not values or met is None else all(met.values()) if isinstance(met, Mapping) else bool(met)
        said = []
        for path, value in values:
            where = " ".join(word for word in path.split(" ") if word not in (key, "pools", "kinds", "modes"))
            said.append(f"{where} {value}".strip())
        found.append((JudgedTarget(name, wanted, None, reached), "; ".join(said) or "–"))
    return found


def sections(answers: Mapping[str, Any]) -> list[str]:
    """Return a table for each figure: every value that it has, under the names that it gives them."""
    lines = []
    for name, answer in answers.items():
        lines += [f"## {TITLES.get(name, name)}", ""]
        if "problem" in answer:
            lines += [f"Not measured: {answer['problem']}", ""]
            continue
        if name in NOTES:
            lines += [NOTES[name], ""]
        lines += _about(answer.get("run"))
        rows = [f"| {path} | {value} |" for path, value in flat(answer)]
        lines += ["| figure | median (lowest–highest) |", "| --- | --- |", *rows, ""]
    return lines


def _about(run: Mapping[str, Any] | None) -> list[str]:
    """When and with what the figure was measured: each may be measured anew by itself."""
    if not run:
        return []
    seen = run.get("quiet")
    if not seen:
        return [f"{run['started']}, commit {run['revision']}.", ""]
    taken = f"; the host took {seen['stolen_median']:.1%} of the time, {seen['stolen_highest']:.1%} at most"
    again = f", {seen['again']} done again" if seen["again"] else ""
    said = f"{taken} ({seen['measured']} runs{again})" if seen["measured"] else ""
    return [f"{run['started']}, commit {run['revision']}{said}.", ""]


def flat(answer: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of nested dicts with the words that lead to them; a median with its spread is one value."""
    if isinstance(answer, Mapping):
        if {"median", "lowest", "highest"} <= set(answer):
            figure = Figure(answer["median"], answer["lowest"], answer["highest"], len(answer.get("rounds", ())))
            yield path, _spread(figure)
            return
        for name, value in answer.items():
            if path or name not in _ASIDE:
                yield from flat(value, f"{path} {name}".strip())
    elif isinstance(answer, float):
        yield path, f"{answer:,.3g}"
    elif isinstance(answer, int | str):
        yield path, f"{answer:,}" if isinstance(answer, int) and not isinstance(answer, bool) else str(answer)


def _spread(figure: Figure) -> str:
    if figure.highest == figure.lowest:
        return _number(figure.median)
    return f"{_number(figure.median)} ({_number(figure.lowest)}–{_number(figure.highest)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
