"""What is run in which order, and what the report makes of it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.__main__ import main
from benchmarks.figures import all_figures, bus, ceiling, latency
from benchmarks.report import other_figures
from benchmarks.report.chart import svg
from benchmarks.report.figures_of_runs import Figure, Results, targets
from benchmarks.report.files import write, write_figure
from benchmarks.report.results_page import markdown, spread
from benchmarks.runner.contestants import BOTO3_TUNED, CONTESTANTS, NODE_FOUR, OURS_PREFORK, OURS_THREADS, REDIS
from benchmarks.runner.plan import FEWEST, MOST, message_count, planned_runs
from benchmarks.runner.result import Result


def result(contestant: str, number: int, rate: float | None, **more: object) -> Result:
    """A run of a contestant in a round, no-op at 10 ms unless said otherwise."""
    fields = {"server": "memory", "workload": "noop", "delay_ms": 10, "messages": 1000, "done": 900, **more}
    return Result(contestant=contestant, round=number, rate=rate, **fields)


def found(results: list[Result], start: str) -> tuple[Figure | None, bool | None]:
    """The figure of the target whose name begins so, and whether it is reached."""
    (target,) = [t for t in targets(Results(results)) if t.name.startswith(start)]
    return target.figure, target.reached


def test_a_figure_is_the_median_with_its_spread():
    """Rounds without a figure do not count; with none left there is no figure."""
    assert Figure.of([3.0, None, 1.0, 2.0]) == Figure(2.0, 1.0, 3.0, 3)
    assert Figure.of([None]) is None
    assert spread(Figure.of([3.0, 1.0, 2.0])) == "2.00 (1.00–3.00)"
    assert spread(Figure.of([1234.5]), 0) == "1,234"
    assert spread(None) == "–"


def test_a_ratio_is_taken_within_a_round():
    """A machine that is slow for a whole round leaves its ratio alone; a round that lacks one side does not count."""
    runs_ = [
        result(OURS_THREADS, 0, 900.0),
        result(BOTO3_TUNED, 0, 1000.0),
        result(OURS_THREADS, 1, 90.0),
        result(BOTO3_TUNED, 1, 100.0),
        result(OURS_THREADS, 2, 70.0),
        result(BOTO3_TUNED, 2, None, problem="it ended"),
    ]
    assert Results(runs_).ratio((OURS_THREADS, 10), (BOTO3_TUNED, 10)) == Figure(0.9, 0.9, 0.9, 2)


def test_targets_say_whether_they_are_reached():
    """Reached, not reached and not measured are three things."""
    runs_ = [result(OURS_THREADS, 0, 750.0), result(OURS_PREFORK, 0, 700.0), result(BOTO3_TUNED, 0, 1000.0)]
    assert found(runs_, "threads over boto3") == (Figure(0.75, 0.75, 0.75, 1), False)
    assert found(runs_, "prefork over boto3") == (Figure(0.7, 0.7, 0.7, 1), True)
    assert found(runs_, "threads over four node") == (None, None)


def test_targets_across_delays_and_of_calls_and_of_the_ideal_rate():
    """Redis is compared at 0 ms; calls must be few; 32 threads do at most 640 tasks of 50 ms a second."""
    runs_ = [
        result(OURS_THREADS, 0, 1600.0, calls_per_message={"ReceiveMessage": 0.1, "DeleteMessageBatch": 0.12}),
        result(REDIS, 0, 1000.0, delay_ms=0),
        result("ours-threads-32", 0, 640.0, workload="sleep"),
    ]
    assert found(runs_, "threads at 10 ms over Celery on Redis") == (Figure(1.6, 1.6, 1.6, 1), True)
    assert found(runs_, "threads: SQS calls")[1] is False
    assert found(runs_, "threads, 32 of them") == (Figure(1.0, 1.0, 1.0, 1), True)


def saved_of(results: list[Result]) -> dict[str, Any]:
    """What results.json holds."""
    return {
        "throughput": {
            "started": "2026-11-22 00:00 UTC",
            "minutes": 12.3,
            "load": 0.1,
            "settings": {
                "arguments": "",
                "rounds": 3,
                "seconds": 5.0,
                "long_seconds": 8.0,
                "delays_ms": [0, 10, 30],
                "sample_ms": 20,
            },
            "revision": "abc",
            "machine": {"processor": "one", "cores": "2"},
            "servers": {"redis-server": "7"},
            "versions": {OURS_THREADS: {"celery": "5.7.0"}},
            "runs": [asdict(r) for r in results],
        }
    }


def test_the_report_is_made_of_the_saved_results_alone():
    """What results.json holds is enough for RESULTS.md: every row with its pool, spread, calls and problems."""
    runs_ = [
        result(OURS_THREADS, 0, 500.0, calls_per_message={"ReceiveMessage": 0.1}),
        result(OURS_THREADS, 1, 700.0, calls_per_message={"ReceiveMessage": 0.1}),
        result(BOTO3_TUNED, 0, 1000.0),
        result(NODE_FOUR, 0, None, problem="the consumer ended: boom"),
    ]
    text = markdown(json.loads(json.dumps(saved_of(runs_))))
    row = next(line for line in text.splitlines() if line.startswith("| Bucket Brigade, threads | threads | 8 |"))
    assert "600 (500–700)" in row
    assert "0.100: ReceiveMessage 0.10" in row
    assert "**not reached**" in text
    assert "not measured" in text
    assert "round 1: the consumer ended: boom" in text


def test_the_report_says_what_the_host_took():
    """How much of the machine's time went to others, and how many runs were disturbed all the same."""
    taken = [replace(result(OURS_THREADS, number, 600.0), stolen=share) for number, share in enumerate([0.0, 0.31])]
    saved = saved_of(taken)
    text = markdown(json.loads(json.dumps(saved)))
    assert "steal" not in text, "the rule is told of runs that it was not applied to"
    saved["throughput"]["quiet"] = {
        "stolen_median": 0.0012,
        "stolen_highest": 0.31,
        "disturbed": 1,
        "measured": 105,
        "again": 4,
        "waited_seconds": 70,
        "patience_ended": True,
    }
    text = markdown(json.loads(json.dumps(saved)))
    assert "`steal`" in text
    lines = text.splitlines()
    assert "| taken by the host | 0.1% of the time, 31.0% at most |" in lines
    assert f"| disturbed runs | 1 of 105 ({OURS_THREADS} 1); 4 done again, until the patience was used up |" in lines


ABOUT = {
    "started": "2026-11-22 09:00 UTC",
    "minutes": 1.0,
    "load": 0.0,
    "settings": {"arguments": "--figures"},
    "revision": "abc",
    "machine": {"cores": "2"},
    "quiet": {"stolen_median": 0.001, "stolen_highest": 0.02, "disturbed": 0, "measured": 3, "again": 1},
}


def test_a_figure_measured_anew_leaves_the_others(tmp_path):
    """Each stands by itself in the files, in the report's order, with its own time, commit and share of the host."""
    write(tmp_path, {"throughput": saved_of([])["throughput"]})
    write_figure(tmp_path, "memory", ABOUT, {"parent_over_stock_mb": 5.0})
    write_figure(tmp_path, "latency", ABOUT | {"revision": "def"}, {"pools": {"threads": {"p50_ms": 2.0}}})
    write_figure(tmp_path, "memory", ABOUT | {"revision": "ghi"}, {"parent_over_stock_mb": 6.0})
    saved = json.loads((tmp_path / "results.json").read_text())
    assert list(saved["figures"]["answers"]) == ["latency", "memory"]
    assert "throughput" in saved
    lines = (tmp_path / "RESULTS.md").read_text().splitlines()
    said = "; the host took 0.1% of the time, 2.0% at most (3 runs, 1 done again)."
    assert f"2026-11-22 09:00 UTC, commit def{said}" in lines
    assert f"2026-11-22 09:00 UTC, commit ghi{said}" in lines
    assert "| parent_over_stock_mb | 6 |" in lines
    assert not [line for line in lines if line.startswith("| run ")]


def test_figures_of_one_run_keep_its_date(tmp_path):
    """What was measured before each figure had a date of its own keeps that of its run when another is measured."""
    whole = ABOUT | {"revision": "old", "started": "2026-11-01 00:00 UTC", "answers": {"memory": {"mb": 5.0}}}
    whole.pop("quiet")
    write(tmp_path, {"figures": whole})
    write_figure(tmp_path, "latency", ABOUT, {"p50_ms": 2.0})
    lines = (tmp_path / "RESULTS.md").read_text().splitlines()
    assert "2026-11-01 00:00 UTC, commit old." in lines


def test_a_figure_that_fails_says_why(monkeypatch, capsys):
    """Its answer is the problem, and whoever runs the next one is not hindered."""
    monkeypatch.setattr(latency, "latency", lambda quick: 1 / 0)
    assert all_figures.run("latency", quick=True)["problem"] == "ZeroDivisionError: division by zero"
    assert "division by zero" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--only", "nobody"], ["--figures", "--only", "nothing"]])
def test_a_name_that_nothing_has_is_an_error(arguments, capsys):
    """Nothing is run, and the exit code is that of wrong arguments."""
    assert main(arguments) == 2
    assert "nothing to run" in capsys.readouterr().err


def test_the_other_figures_are_a_part_of_their_own():
    """They have their own date, every value is shown with its spread, and their targets are judged as they say."""
    spread_ = {"median": 20.0, "lowest": 18.0, "highest": 25.0, "rounds": [18.0, 20.0, 25.0]}
    latency = {"figure": "latency", "pools": {"threads": {"p50_ms": spread_}}, "met": {"p50_ms": True, "p99_ms": False}}
    part = {**saved_of([])["throughput"], "answers": {"latency": latency, "memory": {"problem": "OSError: none"}}}
    text = markdown(json.loads(json.dumps({"figures": part})))
    lines = text.splitlines()
    assert "| visible → started, 10/s, 10 ms: p50, ms | ≤ 30 | threads 20 (18–25) | reached |" in lines
    assert any(
        line.startswith("| visible → started, 10/s, 10 ms: p99, ms") and "not measured" in line for line in lines
    )
    assert "| pools threads p50_ms | 20 (18–25) |" in lines
    assert "Not measured: OSError: none" in lines


def bus_run(rate: float, code: int = 0) -> dict[str, Any]:
    """One run of the figure `bus`."""
    return {
        "messages_per_s": rate,
        "parent_cpu_us_per_message": 700.0,
        "events_dropped": 0,
        "stop_seconds": 1.5,
        "exit_code": code,
    }


def test_a_stretch_is_what_lies_between_two_samples():
    """Rate and CPU time leave out what came before it; one glance at all the messages is no stretch."""
    stretch = bus.Stretch(bus.Sample(10.0, 100, 2.0), bus.Sample(12.0, 2_100, 3.0))
    assert stretch.per_second == 1_000.0
    assert stretch.cpu_us_per_message == pytest.approx(500.0)
    with pytest.raises(RuntimeError, match="too few"):
        _ = bus.Stretch(stretch.last, stretch.last).per_second


def test_each_mode_of_the_bus_is_once_the_first():
    """Four rounds give every mode every place in the order."""
    orders = [bus.rotated(bus.MODES, number) for number in range(4)]
    for place in range(4):
        assert {order[place] for order in orders} == set(bus.MODES)


def test_the_bus_is_judged_by_its_medians_and_by_every_exit_code():
    """No bus at all is no part of the comparison; a single exit code that is not 0 is seen and misses its target."""
    seen = {
        "none": [bus_run(1_200.0), bus_run(1_000.0), bus_run(1_100.0)],
        "up": [bus_run(960.0), bus_run(900.0), bus_run(1_100.0)],
        "down": [bus_run(1_000.0), bus_run(1_000.0), bus_run(1_000.0)],
        "hanging": [bus_run(970.0), bus_run(980.0), bus_run(990.0, code=137)],
    }
    answer = {"figure": "bus", **bus.compared(seen)}
    assert answer["slowest_over_fastest"] == pytest.approx(0.96)
    assert answer["up_over_none"]["median"] == pytest.approx(0.9)
    assert answer["met"] == {"slowest_over_fastest": True, "exit_codes": False}
    part = {**saved_of([])["throughput"], "answers": {"bus": answer}}
    lines = markdown(json.loads(json.dumps({"figures": part}))).splitlines()
    name = "prefork, bus up, down, hanging, 0 ms: slowest over fastest"
    assert f"| {name} | ≥ 0.95 | 0.96 | reached |" in lines
    name = "SIGTERM with the bus up, down, hanging, and without: exit codes"
    assert f"| {name} | 0 | none 0; up 0; down 0; hanging 0, 137 | **not reached** |" in lines
    assert "| modes hanging messages_per_s | 980 (970–990) |" in lines


def test_the_ceiling_says_what_it_is_and_has_no_target():
    """Its section says so above the table; tasks that wait have their share of the ideal, no-op tasks none."""
    begin = bus.Sample(0.0, 100, 0.0)
    stretch = bus.Stretch(begin, bus.Sample(10.0, 6_100, 3.0))
    rows = ceiling.shown({row: [stretch] for row in ceiling.ROWS})
    assert rows["sleep threads"]["of_the_ideal"]["median"] == pytest.approx(600 / 640)
    assert "of_the_ideal" not in rows["noop prefork"]
    part = {**saved_of([])["throughput"], "answers": {"ceiling": {"figure": "ceiling", "rows": rows}}}
    text = markdown(json.loads(json.dumps({"figures": part})))
    assert "the rate of Celery's own consumer and pools without any broker" in text
    assert "| rows noop threads parent_cpu_us_per_message | 500 |" in text
    assert not [figure for figure, *_ in other_figures.TARGETS if figure == "ceiling"]


def parsed(text: str) -> ElementTree.Element:
    """The document."""
    return ElementTree.fromstring(text)  # noqa: S314 - our own


def test_the_chart_is_well_formed():
    """The SVG can be parsed, and has a bar for each contestant with a rate."""
    drawn = parsed(svg(Results([result(OURS_THREADS, 0, 500.0), result(BOTO3_TUNED, 0, 1000.0)])))
    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"500", "1,000", "Bucket Brigade, threads"} <= set(texts)
    assert parsed(svg(Results([]))) is not None


def test_rounds_are_interleaved():
    """Each round holds every run once, and begins with another contestant."""
    order = list(planned_runs([10], 2))
    rounds = [[(r.series, r.contestant.name) for r in order if r.round == number] for number in (0, 1)]
    assert sorted(rounds[0], key=str) == sorted(rounds[1], key=str)
    assert [r.round for r in order] == sorted(r.round for r in order)
    assert rounds[0][0] != rounds[1][0]


def test_only_some_are_run():
    """A part of a contestant's name, or of a series', chooses."""
    assert {r.contestant.name for r in planned_runs([10], 1, ["ours-threads"])} == {"ours-threads", "ours-threads-32"}
    assert {r.series.workload for r in planned_runs([0, 10], 1, ["cpu"])} == {"cpu"}
    assert list(planned_runs([10], 1, ["nobody"])) == []


@pytest.mark.parametrize(("guess", "measured", "least"), [(100, None, 500), (100, 400, 2000), (1, None, FEWEST)])
def test_a_queue_does_not_run_dry_within_the_window(guess: float, measured: float | None, least: int):
    """There are more messages than the rate takes in the window, by what was measured once there is something."""
    count = message_count(guess, measured, 5)
    assert least <= count <= least * 2
    assert message_count(1e9, None, 5) == MOST


def test_contestants_have_names_of_their_own():
    """A result is found by its contestant's name."""
    assert len({contestant.name for contestant in CONTESTANTS}) == len(CONTESTANTS)
