"""The pages about the three older systems, archive, launch-job and run-once name only what there is."""

from __future__ import annotations

import ast
import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import click
import jsonschema
import kubernetes_validate
import pytest
import yaml

from bridge.cli import _brigade
from bridge.kubernetes.job_manifest import check_template
from bridge.settings.loading import WorkerSettings
from tests import REPOSITORY
from tests.support.kube_stand_in import VERSION

DOCS = REPOSITORY / "docs"
COMING_FROM = DOCS / "coming-from"
GUIDE = DOCS / "guide"
THREE_SYSTEMS = COMING_FROM / "three-systems.md"
PAGES = sorted([*COMING_FROM.glob("*.md"), GUIDE / "archive.md", GUIDE / "launch-job.md", GUIDE / "run-once.md"])
#: How a feature that is not here is told, in place of the test that would show it.
ABSENT = ("Not here", "Outside")
SETTINGS = {str(field.validation_alias) for field in WorkerSettings.model_fields.values()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_named_is_one(page: Path) -> None:
    """A setting that a page names is one that a worker knows."""
    named = set(re.findall(r"\b(?:BRIDGE|SQS)_[A-Z0-9_]+\b", page.read_text()))
    assert named - SETTINGS == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_named_is_one(page: Path) -> None:
    """A command that a page names exists, with each option that is given to it."""
    context = click.Context(_brigade)
    inline, blocks = r"(?<!`)`(brigade [^`\n]+)`(?!`)", r"^(brigade .*)$"
    lines = [line for form in (inline, blocks) for line in re.findall(form, page.read_text(), re.MULTILINE)]
    found = [line.partition("#")[0].split() for line in lines]
    assert found
    for words in found:
        command: Any = _brigade
        rest = words[1:]
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            command, rest = command.get_command(context, rest[0]), rest[1:]
            assert command is not None, words
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_named_is_there(page: Path) -> None:
    """A test that a page points to as the proof of a feature exists."""
    named = re.findall(r"`(tests/[^`…]+)`", page.read_text())
    assert [name for name in named if not is_there(name)] == []


@pytest.mark.parametrize("page", [*PAGES, DOCS / "operate" / "reconcile.md"], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """A page or file of this repository that a page links to exists."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_each_feature_of_the_three_systems_is_shown_or_told_absent() -> None:
    """Each row of the table names the tests that show it, or says in its words that it is not here."""
    rows = table(THREE_SYSTEMS)
    assert {row[0] for row in rows} == {"processor", "queue-watcher", "ScaledJob"}
    for origin, feature, here, shown in rows:
        tests = re.findall(r"`(tests/[^`]+)`", shown)
        absent = here.startswith(ABSENT)
        assert bool(tests) != absent, (origin, feature)
        assert absent == (shown == "–"), (origin, feature)
        assert all("::test_" in name or name.endswith(".py") for name in tests), (origin, feature)
    assert len({(row[0], row[1]) for row in rows}) == len(rows)


def test_the_table_has_what_the_pages_have() -> None:
    """A test to which a page on one of the systems points is among the files of the table, or in a folder of theirs."""
    shown = set(re.findall(r"`(tests/[^`:]+)", THREE_SYSTEMS.read_text()))
    for page in set(COMING_FROM.glob("*.md")) - {THREE_SYSTEMS}:
        for name in re.findall(r"`(tests/[^`]+)`", page.read_text()):
            near = name.rsplit("/", 1)[0] if name.count("/") > 1 else name
            assert any(file.startswith(near) for file in shown), (page.name, name)


def table(page: Path) -> list[list[str]]:
    """The rows of a page's only table, cell by cell."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
    assert all(len(row) == 4 for row in rows), [row for row in rows if len(row) != 4]
    return rows


def is_there(name: str) -> bool:
    """Say whether a test is there that is named as pytest names it: ``tests/file.py::test_function``, or a path."""
    path, _, function = name.partition("::")
    return (REPOSITORY / path).exists() and (not function or function in functions_of(REPOSITORY / path))


@cache
def functions_of(file: Path) -> frozenset[str]:
    """The names of a file's functions."""
    return frozenset(node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef))


def test_every_log_line_named_is_documented() -> None:
    """The events in the tables of log lines are those of docs/reference/logs.md."""
    events = set(re.findall(r"^\| `([a-z_]+)`", (DOCS / "reference" / "logs.md").read_text(), re.MULTILINE))
    for page in set(COMING_FROM.glob("*.md")) - {THREE_SYSTEMS}:
        [section] = re.findall(r"^## Log lines\n(.*?)^## ", page.read_text(), re.MULTILINE | re.DOTALL)
        cells = [row.rsplit("|", 2)[1] for row in section.splitlines() if row.startswith("| ")]
        named = {name for cell in cells for name in re.findall(r"`([a-z]+_[a-z_]+|poll|archived)`", cell)}
        fields = {"error_type", "delay_seconds", "message_id", "job_id", "pod_name", "body_sha256", "body_bytes"}
        assert named - events - fields == set(), page.name
        assert named & events


def test_every_setting_of_the_seeds_is_translated() -> None:
    """No setting of the SQS-to-S3 processor is left without a row."""
    text = (COMING_FROM / "sqs-to-s3-processor.md").read_text()
    there = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    for name in ("AWS_REGION", "SQS_QUEUE_URL", "S3_BUCKET_NAME", "S3_PREFIX", "POLL_INTERVAL_SECONDS"):
        assert any(name in cell for cell in there), name
    assert any("MAX_MESSAGES_PER_POLL" in cell for cell in there)


def test_run_once_is_explained_whole() -> None:
    """The page on run-once has a row for each option, with its default, and the fields of its last line."""
    page = (GUIDE / "run-once.md").read_text()
    command = _brigade.get_command(click.Context(_brigade), "run-once")
    assert command is not None
    rows = dict(re.findall(r"^\| `(--[a-z-]+)` \| ([^|]+) \|", page, re.MULTILINE))
    told = {option.opts[0]: option.default for option in command.params if isinstance(option, click.Option)}
    assert rows.keys() == told.keys() - {"--help"}
    assert {name: float(rows[name]) for name in rows if rows[name].isdigit()} == {
        name: default for name, default in told.items() if isinstance(default, int | float) and name in rows
    }
    [line] = re.findall(r"```json\n(.*)\n```", page)
    [fields] = re.findall(
        r"^\| `run_summary` \| info \| ([^|]+) \|", (DOCS / "reference" / "logs.md").read_text(), re.MULTILINE
    )
    assert json.loads(line).keys() - {"event"} == set(re.findall(r"`([a-z_]+)`", fields))


def test_the_template_in_the_docs_is_one() -> None:
    """The example template is taken by the worker and by Kubernetes' schemas."""
    [block] = re.findall(r"```yaml\n(.*?)```", (GUIDE / "launch-job.md").read_text(), re.DOTALL)
    template = check_template(yaml.safe_load(block))
    kubernetes_validate.validate(template, VERSION, strict=True)


def test_the_scaled_job_in_the_docs_is_one() -> None:
    """The example's pod is valid for Kubernetes, the whole for KEDA's CRD where that is at hand (KEDA_CRDS)."""
    [block] = re.findall(r"```yaml\n(.*?)```", (COMING_FROM / "scaled-job.md").read_text(), re.DOTALL)
    scaled = yaml.safe_load(block)
    spec = scaled["spec"]["jobTargetRef"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": spec}
    kubernetes_validate.validate(job, VERSION, strict=True)
    if folder := os.environ.get("KEDA_CRDS"):
        crd = yaml.safe_load((Path(folder) / "keda.sh_scaledjobs.yaml").read_text())
        [version] = [v for v in crd["spec"]["versions"] if v["name"] == "v1alpha1"]
        jsonschema.validate(scaled, version["schema"]["openAPIV3Schema"])
        assert scaled["spec"].keys() <= version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"].keys()
