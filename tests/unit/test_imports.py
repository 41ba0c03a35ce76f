"""The house rules of `bridge`: which wing may import which, what is pure, no circles, and sizes."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests import REPOSITORY

# Each wing may import from the rows above its own; wings of one row never import each other.
WINGS = (
    ("errors", "globs", "log", "metrics", "text", "times"),
    ("aws_errors", "scratch"),
    ("settings",),
    ("sqs", "s3"),
    ("messages", "idempotency"),
    ("task", "delivery", "kubernetes", "monitoring"),
    ("health",),
    ("worker", "operations"),
    ("celery", "monitor", "testing", "pytest_plugin"),
    ("local",),
    ("cli",),
    ("__main__",),
)

# The public names are loaded on first use. Inside `bridge` only the demo's tasks, written as a user writes his, may ask
# the package itself.
ROOT = "bridge"
AS_A_USER = {"bridge.local.demo_tasks"}

# Decisions: facts in, verdict out. A wing's name stands for all of its files.
PURE = (
    "globs",
    "text",
    "times",
    "sqs.queue_policy",
    "sqs.quotas",
    "s3.event",
    "s3.event_body",
    "s3.notification",
    "s3.outputs",
    "s3.types",
    "messages",
    "idempotency.identity",
    "idempotency.record",
    "idempotency.transitions",
    "delivery.receive_size",
    "health.readiness",
    "kubernetes.job_manifest",
    "kubernetes.launched_jobs",
    "monitoring.flower_access",
    "operations.backfill.selection",
    "operations.dlq.filter",
    "operations.doctor.access",
    "operations.doctor.bucket",
    "operations.doctor.finding",
    "operations.doctor.queue",
    "operations.provision.plan",
    "operations.reconcile.completions",
)

# What a decision may raise, and the codes it may know.
ERRORS = {"bridge.errors", "bridge.aws_errors"}

# All that a decision needs of the standard library; `datetime` only to calculate with.
PURE_MAY_IMPORT = {
    "__future__",
    "base64",
    "binascii",
    "collections",
    "dataclasses",
    "datetime",
    "difflib",
    "enum",
    "fnmatch",
    "functools",
    "hashlib",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "re",
    "typing",
    "urllib.parse",
}

CELERY = {"amqp", "billiard", "celery", "kombu", "vine"}
WITHOUT_CELERY = {"settings", "sqs", "s3", "messages", "idempotency", "delivery", "health", "kubernetes"}

MOST_LINES = 300
MOST_FILES_AT_THE_TOP = 14
FILES_IN_A_FOLDER = range(3, 21)


def name_of(file: Path) -> str:
    """Return the dotted name of a module: ``bridge/local/stack.py`` is ``bridge.local.stack``."""
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for package in ("bridge", "tasks") for file in (REPOSITORY / package).rglob("*.py")}
BRIDGE = sorted(name for name in FILES if name.split(".")[0] == "bridge")
FOLDERS = sorted({file.parent for file in (REPOSITORY / "bridge").rglob("*.py")})


def wing_of(module: str) -> str:
    """Return the second part of a dotted name: ``settings`` for ``bridge.settings.model``, "" for ``bridge``."""
    return module.split(".")[1] if "." in module else ""


def row_of(module: str) -> int:
    """Return the row of WINGS that a module belongs to; one after the last for the package itself."""
    return next((number for number, wings in enumerate(WINGS) if wing_of(module) in wings), len(WINGS))


def is_pure(module: str) -> bool:
    """Tell whether PURE names the module or the wing that it is in."""
    return within(module, {f"bridge.{name}" for name in PURE})


def imports_of(source: str) -> set[str]:
    """Return the dotted names that ``source`` imports, also inside functions; ``from a import b`` is ``a.b``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return found


def modules_imported(module: str) -> set[str]:
    """Return the modules of our own that ``module`` imports: the longest part of each dotted name that is a file."""
    modules = set()
    for name in imports_of(FILES[module].read_text(encoding="utf-8")):
        while name not in FILES and "." in name:
            name = name.rpartition(".")[0]  # noqa: PLW2901 - the name is cut until it is a module's
        if name in FILES:
            modules.add(name)
    return modules - {module}


def within(name: str, packages: set[str]) -> bool:
    """Tell whether the dotted ``name`` is one of ``packages`` or inside one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_every_name_in_the_tables_is_there() -> None:
    """WINGS and PURE name modules and folders that exist, and nothing of `bridge` is left out of WINGS."""
    wings = {wing for row in WINGS for wing in row}
    assert {f"bridge.{name}" for name in wings | set(PURE)} <= set(FILES)
    unlisted = {wing_of(name) for name in BRIDGE if name != ROOT} - wings
    assert not unlisted, f"give them a row in WINGS in tests/unit/test_imports.py: {unlisted}"


@pytest.mark.parametrize("module", BRIDGE)
def test_imports_go_down(module: str) -> None:
    """A wing imports itself, ground files and the wings of the rows above it, never another wing of its own row."""
    own, row = wing_of(module), row_of(module)

    imported = modules_imported(module) - ({ROOT} if module in AS_A_USER else set())
    wrong = {other for other in imported if not (wing_of(other) == own or row_of(other) < row)}

    assert not wrong, f"{module} must not import {sorted(wrong)}"


def test_no_file_imports_itself_through_others() -> None:
    """The files of `bridge` form no circle, imports inside functions and for type checkers included."""
    graph = {module: modules_imported(module) - {ROOT} for module in BRIDGE if module != ROOT}

    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other in a circle: {' → '.join(error.args[1])}")


@pytest.mark.parametrize("module", BRIDGE)
def test_the_bridge_knows_neither_tasks_nor_tests(module: str) -> None:
    """Nothing in `bridge` imports the shipped tasks or the tests, and all imports are absolute."""
    imported = imports_of(FILES[module].read_text(encoding="utf-8"))

    assert not {name for name in imported if within(name, {"tasks", "tests"}) or name.startswith(".")}


@pytest.mark.parametrize("module", sorted(filter(is_pure, BRIDGE)))
def test_pure_modules_only_decide(module: str) -> None:
    """A pure module imports only pure modules, and nothing with a clock, an environment, a network or a thread."""
    source = FILES[module].read_text(encoding="utf-8")

    foreign = {name for name in imports_of(source) if not within(name, PURE_MAY_IMPORT | {"bridge"})}
    assert not foreign, f"{module} imports {sorted(foreign)}: hand their answers in instead"
    impure = {other for other in modules_imported(module) if not is_pure(other) and other not in ERRORS}
    assert not impure, f"{module} imports {sorted(impure)}, which are not pure"

    clocks = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    assert not clocks & {"now", "utcnow", "today"}, f"{module} asks for the time: hand it in instead"


@pytest.mark.parametrize("module", [name for name in BRIDGE if wing_of(name) in WITHOUT_CELERY or row_of(name) < 2])
def test_celery_stays_in_its_wings(module: str) -> None:
    """The wings below work without Celery and Kombu, so that these can be replaced and tested apart."""
    assert not {name for name in imports_of(FILES[module].read_text(encoding="utf-8")) if within(name, CELERY)}


@pytest.mark.parametrize("module", BRIDGE)
def test_a_file_is_short_enough_to_be_read(module: str) -> None:
    """No file of `bridge` has more than 300 lines."""
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(REPOSITORY)))
def test_a_folder_can_be_taken_in_at_a_glance(folder: Path) -> None:
    """At most 14 files at the top of `bridge`, and 3 to 20 entries in every folder below it."""
    if folder == REPOSITORY / "bridge":
        assert len(list(folder.glob("*.py"))) <= MOST_FILES_AT_THE_TOP
    else:
        entries = [entry for entry in folder.iterdir() if entry.suffix == ".py" or (entry / "__init__.py").exists()]
        assert len(entries) in FILES_IN_A_FOLDER


def test_no_import_escapes() -> None:
    """Imports are found in functions, under other names, from packages and relative ones too."""
    source = "def f():\n    import time as t\nfrom bridge import metrics\nfrom os import path, sep\nfrom . import x\n"

    assert imports_of(source) == {"time", "bridge.metrics", "os.path", "os.sep", "..x"}
