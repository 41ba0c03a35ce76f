"""RESULTS.md: what was measured, on what, how, and which targets it reaches. Pure, and made from results.json alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report import other_figures
from benchmarks.report.figures_of_runs import Figure, JudgedTarget, Results, targets
from benchmarks.runner.contestants import BY_NAME, OURS_THREADS, WORKLOADS, Contestant
from benchmarks.runner.plan import ELASTICMQ, Series, contestants_of, series_of
from benchmarks.runner.quiet import MOST_SLOWED, MOST_STOLEN, MOST_TIMES
from benchmarks.runner.result import Result

METHOD = """\
## How it was measured

- One server process, one proxy process and the contestant share the machine. The queue is filled straight at the
  server before the contestant starts; the contestant talks to the proxy, which holds every request for the stated
  delay before it hands it on, and counts it. A long poll holds up nobody: every connection has one of its own to the
  server. Answers are not delayed: what ends a long poll that waits already lacks the way back, some half of a delay.
- **The clock starts at the first completed task and stops at the last, as the server sees them:** a task is complete
  when its message has been deleted. The server is asked every {sample_ms} ms (ElasticMQ every 100 ms); what the first
  answer already shows does not count. So the start of a process is in no rate (`first task` says how long that took).
  There are more messages than the window of {seconds:g} s takes ({long_seconds:g} s for tasks of 50 and 20 ms), so
  that the queue does not run dry in it; a run that is faster than thought ends with its last message.
- Celery on Redis is not behind the proxy; complete is what is neither in the list nor unacknowledged.
- `calls/message` and `CPU ms/message` are taken between the first completed task and the last, so they leave out the
  start. CPU is that of all processes of the contestant, in steps of 10 ms.
- Rounds: {rounds}, interleaved: every contestant once, then all again, each round beginning with another one. A figure
  is the median of the rounds, with the lowest and the highest behind it. A ratio is taken within a round, and its
  median over the rounds. With so few rounds that spread is the whole range, and no confidence interval.
- `of the ideal` is the rate over concurrency ÷ length of a task. Who deletes in bursts (a thread's ten at once, after
  half a second of work) can be seen above it in so short a window.
- Ours: log level WARNING, metrics and leases on, bus off, no idempotency store. Stock Celery acknowledges before a
  task runs, all others after it.
- Our own SQS server in memory is there so that the server is not what is measured; ElasticMQ is the check on it. It
  makes every contestant faster than Amazon would, and leaves out what only Amazon has: TLS, signatures that somebody
  checks, jitter, throttling. The ratios are the result, not the rates.
"""


QUIET = f"""\
- A run waits for some time until the machine's host takes no more than {MOST_STOLEN:.0%} of what is wanted (`steal`),
  and a loop takes no more than {MOST_SLOWED:g} times what the fastest so far took. It is done again, up to
  {MOST_TIMES} times in all, while more than that was taken of it, start and filling included; the least
  disturbed counts. The rule looks at the machine and never at a rate, and ends when the patience (`--patience`) is
  used up. What was taken all the same is in the first table, and of each run in results.json.
"""


def markdown(saved: Mapping[str, Any]) -> str:
    """Return RESULTS.md from what results.json holds: ``throughput`` and ``figures``, or one of them."""
    throughput, figures = saved.get("throughput"), saved.get("figures")
    results = Results([Result.read(run) for run in throughput["runs"]] if throughput else [])
    answers = figures["answers"] if figures else {}
    parts = [
        "# Results",
        "",
        "Written by `make bench`, not to be edited. How to run it, and how to add a contestant:",
        "[README.md](README.md). All runs one by one: [results.json](results.json).",
        "",
        *_parts({"throughput": throughput, "other figures": figures}),
        "## Targets",
        "",
        *_targets(targets(results), other_figures.targets(answers)),
        "![Messages per second, no-op tasks](chart.svg)",
        "",
    ]
    if throughput:
        for series in series_of(throughput["settings"]["delays_ms"]):
            parts += _series(results, series)
    parts += other_figures.sections(answers)
    if throughput:
        parts += [METHOD.format(**throughput["settings"]) + (QUIET if throughput.get("quiet") else "")]
        parts += _versions(throughput)
    return "\n".join(parts).rstrip() + "\n"


def spread(figure: Figure | None, digits: int = 2) -> str:
    """Return ``median (lowest–highest)``, a dash for nothing."""
    if figure is None:
        return "–"
    numbers = [f"{value:,.{digits}f}" for value in (figure.median, figure.lowest, figure.highest)]
    return f"{numbers[0]} ({numbers[1]}–{numbers[2]})" if figure.rounds > 1 else numbers[0]


def _parts(parts: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Each part with its own machine and time: they need not have been measured in one go."""
    there = {name: part for name, part in parts.items() if part}
    lines = [f"| | {' | '.join(there)} |", f"| --- |{' --- |' * len(there)}"]
    columns = []
    for part in there.values():
        column = {"command": "`make bench ARGS=--figures`", "when": "each its own, see there", **part["machine"]}
        if "answers" not in part:
            column |= {
                "command": f"`make bench{_arguments(part['settings'])}`",
                "when": f"{part['started']}, {part['minutes']:.0f} minutes",
                "commit": part["revision"],
                "load before": f"{part['load']:.2f}",
                **_quiet(part.get("quiet", {}), part["runs"]),
            }
        columns.append(column)
    names = dict.fromkeys(name for column in columns for name in column)
    return [*lines, *(f"| {n} | {' | '.join(str(c.get(n, '–')) for c in columns)} |" for n in names), ""]


def _quiet(seen: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    if not seen:
        return {}
    whose = Counter(run["contestant"] for run in runs if (run.get("stolen") or 0) > MOST_STOLEN)
    named = f" ({', '.join(f'{name} {number}' for name, number in whose.most_common())})" if whose else ""
    patience = ", until the patience was used up" if seen.get("patience_ended") else ""
    return {
        "taken by the host": f"{seen['stolen_median']:.1%} of the time, {seen['stolen_highest']:.1%} at most",
        "disturbed runs": f"{seen['disturbed']} of {seen['measured']}{named}; {seen['again']} done again{patience}",
    }


def _arguments(settings: Mapping[str, Any]) -> str:
    return f' ARGS="{settings["arguments"]}"' if settings.get("arguments") else ""


def _targets(found: Sequence[JudgedTarget], others: Sequence[tuple[JudgedTarget, str]]) -> list[str]:
    words = {True: "reached", False: "**not reached**", None: "not measured"}
    said = [*((target, spread(target.figure)) for target in found), *others]
    return [
        "No-op tasks and one worker unless it says otherwise; pool, concurrency and prefetch are in the tables below.",
        "",
        "| figure | target | measured | |",
        "| --- | --- | --- | --- |",
        *(f"| {t.name} | {t.wanted} | {measured} | {words[t.reached]} |" for t, measured in said),
        "",
    ]


def _series(results: Results, series: Series) -> list[str]:
    rows = [c for c in contestants_of(series) if results.of(c.name, series.workload, series.delay_ms, series.server)]
    if not rows:
        return []
    server = "ElasticMQ" if series.server == ELASTICMQ else "the server in memory"
    rows.sort(key=lambda c: -_median(results.rate(c.name, series.workload, series.delay_ms, series.server)))
    ideal = series.workload in ("sleep", "cpu")
    delay = f"{series.delay_ms} ms{', to S3 too' if series.workload == 'hash' else ''}"
    head = [
        "contestant",
        "pool",
        "concurrency",
        "prefetch",
        "messages/s",
        "of the ideal" if ideal else "over ours, threads",
    ]
    head += ["calls/message", "CPU ms/message", "first task, s"]
    lines = [
        f"## {_title(series)}",
        "",
        f"Each task: {WORKLOADS[series.workload]}. Server: {server}. Delay of each call: {delay}.",
        "",
        f"| {' | '.join(head)} |",
        f"|{' --- |' * len(head)}",
    ]
    problems = []
    for contestant in rows:
        runs = results.of(contestant.name, series.workload, series.delay_ms, series.server)
        lines.append(f"| {' | '.join(_row(results, series, contestant, runs, ideal))} |")
        problems += [f"- {contestant.title}, round {r.round + 1}: {r.problem}" for r in runs if r.problem]
    return [*lines, "", *problems, *([""] if problems else [])]


def _row(results: Results, series: Series, contestant: Contestant, runs: Sequence[Result], ideal: bool) -> list[str]:
    rate = Figure.of(r.rate for r in runs)
    if ideal:
        seconds = 0.05 if series.workload == "sleep" else 0.02
        slots = contestant.slots or 1
        compared = Figure.of(None if r.rate is None else r.rate * seconds / slots for r in runs)
    else:
        compared = _over_ours(results, series, contestant)
    return [
        contestant.title,
        contestant.pool,
        contestant.concurrency,
        contestant.prefetch,
        spread(rate, 0 if rate and rate.median >= 100 else 1),
        spread(compared),
        _calls(runs),
        spread(Figure.of(r.cpu_ms_per_message for r in runs)),
        spread(Figure.of(r.first_task_seconds for r in runs)),
    ]


def _over_ours(results: Results, series: Series, contestant: Contestant) -> Figure | None:
    ours = {r.round: r.rate for r in results.of(OURS_THREADS, series.workload, series.delay_ms, series.server)}
    theirs = results.of(contestant.name, series.workload, series.delay_ms, series.server)
    pairs = [(r.rate, ours.get(r.round)) for r in theirs]
    return Figure.of(rate / mine for rate, mine in pairs if rate is not None and mine)


def _calls(runs: Sequence[Result]) -> str:
    """The median of all calls, then those of each action that make up at least a hundredth of a message."""
    whole = Figure.of(r.all_calls for r in runs)
    if whole is None:
        return "–"
    names = sorted({name for r in runs for name in r.calls_per_message})
    shares = {name: Figure.of(r.calls_per_message.get(name) for r in runs) for name in names}
    said = [f"{name} {share.median:.2f}" for name, share in shares.items() if share and share.median >= 0.01]
    return f"{whole.median:.3f}: {', '.join(said)}"


def _title(series: Series) -> str:
    kind = {"noop": "No-op", "hash": "100 KB objects", "sleep": "50 ms of waiting", "cpu": "20 ms of CPU"}[
        series.workload
    ]
    return f"{kind}, {series.delay_ms} ms{', on ElasticMQ' if series.server == ELASTICMQ else ''}"


def _versions(saved: Mapping[str, Any]) -> list[str]:
    lines = ["## Versions", "", "| what | versions |", "| --- | --- |"]
    lines.append(f"| servers | {_list(saved['servers'])} |")
    for name, versions in saved["versions"].items():
        note = BY_NAME[name].note if name in BY_NAME else ""
        lines.append(
            f"| {BY_NAME[name].title if name in BY_NAME else name}{f' ({note})' if note else ''} | {_list(versions)} |"
        )
    # Contestants that differ in their concurrency only run the same versions.
    return list(dict.fromkeys(lines))


def _list(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _median(figure: Figure | None) -> float:
    return figure.median if figure else 0.0
