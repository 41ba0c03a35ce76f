"""The three files of the results: results.json, and RESULTS.md and chart.svg, which are made from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.figures import all_figures
from benchmarks.report.chart import svg
from benchmarks.report.figures_of_runs import Results
from benchmarks.report.results_page import markdown
from benchmarks.runner.result import Result


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


def write_figure(folder: Path, name: str, about: dict[str, Any], answer: dict[str, Any]) -> None:
    """Write one figure; the others stay what they were, each with what is known ``about`` its own run."""
    file = folder / "results.json"
    figures = json.loads(file.read_text()).get("figures", {}) if file.exists() else {}
    answers = figures.pop("answers", {})
    # Those of the time when all figures were of one run have its date and commit.
    answers = {each: {"run": figures} | found for each, found in answers.items()} | {name: answer | {"run": about}}
    ordered = {each: answers[each] for each in all_figures.NAMES if each in answers}
    write(folder, {"figures": {**about, "answers": ordered}})
