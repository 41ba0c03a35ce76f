"""The direction of imports: who may know whom. A new file is entered in ROOMS, or these tests fail."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Every module of `bridge` and its layer; the entry of a package holds for all that is in it.
ROOMS = {
    "bridge.errors": "errors",
    "bridge.messages": "errors",
    "bridge.s3": "errors",
    "bridge.settings": "errors",
    "bridge.aws_errors": "errors",
    "bridge.globs": "errors",
    "bridge.sqs.quotas": "errors",
    "bridge.sqs": "errors",
    # What every other room may use, and what knows none of them.
    "bridge.log": "bottom",
    "bridge.metrics": "bottom",
    "bridge.settings.legacy_names": "bottom",
    "bridge.settings.region": "bottom",
    "bridge.settings.loading": "bottom",
    "bridge.settings.model": "bottom",
    "bridge.settings.rules": "bottom",
    # Decisions: no clock, no environment, no network, no Celery. Facts in, verdict out.
    "bridge.backfill_events": "pure",
    "bridge.doctor_access": "pure",
    "bridge.doctor_bucket": "pure",
    "bridge.doctor_queue": "pure",
    "bridge.finding": "pure",
    "bridge.flower_access": "pure",
    "bridge.s3.notification": "pure",
    "bridge.s3.outputs": "pure",
    "bridge.provision_plan": "pure",
    "bridge.sqs.queue_policy": "pure",
    "bridge.messages.celery_message": "pure",
    "bridge.completions": "pure",
    "bridge.idempotency.transitions": "pure",
    "bridge.idempotency.identity": "pure",
    "bridge.idempotency.record": "pure",
    "bridge.messages.dead_letter": "pure",
    "bridge.dlq_filter": "pure",
    "bridge.dlq_redrive": "pure",
    "bridge.s3.event_body": "pure",
    "bridge.messages.explain": "pure",
    "bridge.readiness": "pure",
    "bridge.receive_size": "pure",
    "bridge.messages.envelope": "pure",
    "bridge.job_manifest": "pure",
    "bridge.launched_jobs": "pure",
    "bridge.messages.message": "pure",
    "bridge.messages.retry_policy": "pure",
    "bridge.messages.routing": "pure",
    "bridge.s3.event": "pure",
    "bridge.s3.types": "pure",
    "bridge.messages.verdicts": "pure",
    "bridge.xray": "pure",
    # Acts: SQS, S3 and threads, but no Celery.
    "bridge.sqs.clients": "io",
    "bridge.backfill_state": "io",
    "bridge.sqs.batches": "io",
    "bridge.doctor_reads": "io",
    "bridge.s3.listing": "io",
    "bridge.provisioning": "io",
    "bridge.deletes": "io",
    "bridge.deletion_cost": "io",
    "bridge.drain": "io",
    "bridge.gate": "io",
    "bridge.health": "io",
    "bridge.health_answers": "io",
    "bridge.heartbeat": "io",
    "bridge.job_api": "io",
    "bridge.lanes": "io",
    "bridge.idempotency": "io",
    "bridge.sqs.queues": "io",
    "bridge.lease": "io",
    "bridge.leases": "io",
    "bridge.s3.progress": "io",
    "bridge.liveness": "io",
    "bridge.bounds": "io",
    "bridge.event_buffer": "io",
    "bridge.bus_link": "io",
    "bridge.sqs.calls": "io",
    "bridge.stop_event": "io",
    "bridge.sqs.sigv4": "io",
    "bridge.sqs.fast_client": "io",
    "bridge.sqs.curl_errors": "io",
    "bridge.receivers": "io",
    "bridge.s3.object": "io",
    "bridge.s3.clients": "io",
    "bridge.s3.reader": "io",
    "bridge.settle": "io",
    "bridge.settlement": "io",
    "bridge.depths": "io",
    "bridge.tracing": "io",
    # How it hangs together with Celery and Kombu.
    "bridge": "wiring",
    "bridge.banner": "wiring",
    "bridge.bootstep": "wiring",
    "bridge.bus": "wiring",
    "bridge.bus_step": "wiring",
    "bridge.control_client": "wiring",
    "bridge.dispatcher": "wiring",
    "bridge.event_bus": "wiring",
    "bridge.main_loop": "wiring",
    "bridge.remote_control": "wiring",
    "bridge.spent_timers": "wiring",
    "bridge.task_defaults": "wiring",
    "bridge.celery": "wiring",
    "bridge.decorators": "wiring",
    "bridge.failure": "wiring",
    "bridge.intake": "wiring",
    "bridge.lifecycle": "wiring",
    "bridge.once": "wiring",
    "bridge.one_shot": "wiring",
    "bridge.run_claims": "wiring",
    "bridge.run_report": "wiring",
    "bridge.run_summary": "wiring",
    "bridge.plan": "wiring",
    "bridge.worker_pool": "wiring",
    "bridge.request": "wiring",
    "bridge.run_context": "wiring",
    "bridge.scratch": "io",
    "bridge.settings.task_queue": "wiring",
    "bridge.startup": "wiring",
    "bridge.worker_logs": "wiring",
    "bridge.task": "wiring",
    "bridge.task_options": "wiring",
    "bridge.transport": "wiring",
    # What people and tests start.
    "bridge.__main__": "top",
    "bridge.cli": "top",
    "bridge.local": "top",
    "bridge.testing": "top",
    "bridge.monitor": "top",
    "bridge.flower_app": "top",
    "bridge.pytest_plugin": "top",
}

# Which layers a layer may import, beside itself.
MAY_IMPORT = {
    "errors": set(),
    "bottom": {"errors"},
    "pure": {"errors"},
    "io": {"errors", "bottom", "pure"},
    "wiring": {"errors", "bottom", "pure", "io"},
    "top": {"errors", "bottom", "pure", "io", "wiring"},
}

# All that a decision needs of the standard library; `datetime` only to calculate with.
PURE_MAY_IMPORT = {
    "__future__",
    "base64",
    "binascii",
    "collections",
    "dataclasses",
    "datetime",
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


def name_of(file: Path) -> str:
    """Return the dotted name of a module: ``bridge/local/stack.py`` is ``bridge.local.stack``."""
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for package in ("bridge", "tasks") for file in (REPOSITORY / package).rglob("*.py")}
BRIDGE = sorted(name for name in FILES if name.split(".")[0] == "bridge")
PURE = sorted(name for name, layer in ROOMS.items() if layer == "pure")
NO_CELERY = sorted(name for name, layer in ROOMS.items() if layer in {"errors", "bottom", "io"})


def entry_of(module: str) -> str | None:
    """Return the name in ROOMS that speaks for ``module``: its own or its package's; ``bridge`` for itself alone."""
    name = module
    while name not in ROOMS and "." in name:
        name = name.rpartition(".")[0]
    return name if name in ROOMS and (name != "bridge" or module == "bridge") else None


def imports_of(source: str) -> set[str]:
    """Return the dotted names that ``source`` imports, also inside functions; ``from a import b`` is ``a.b``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return found


def rooms_imported(module: str) -> set[str]:
    """Return the modules of our own that ``module`` imports: the longest part of each dotted name that is a file."""
    rooms = set()
    for name in imports_of(FILES[module].read_text(encoding="utf-8")):
        while name not in FILES and "." in name:
            name = name.rpartition(".")[0]  # noqa: PLW2901 - the name is cut until it is a module's
        if name in FILES:
            rooms.add(name)
    return rooms


def within(name: str, packages: set[str]) -> bool:
    """Tell whether the dotted ``name`` is one of ``packages`` or inside one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_every_file_of_the_bridge_has_its_layer() -> None:
    """Each module of `bridge` is entered in ROOMS, by its own name or its package's, and no entry is left over."""
    unlisted = [name for name in BRIDGE if not entry_of(name)]
    assert not unlisted, f"enter them in ROOMS in tests/test_imports.py, with a layer of MAY_IMPORT: {unlisted}"
    left_over = set(ROOMS) - {entry_of(name) for name in BRIDGE}
    assert not left_over, f"in ROOMS, but no such file: {sorted(left_over)}"


@pytest.mark.parametrize("module", BRIDGE)
def test_imports_go_down(module: str) -> None:
    """A room imports only from its own layer and from those that MAY_IMPORT allows it."""
    layer = ROOMS[entry_of(module) or pytest.fail(f"{module} is not in ROOMS")]

    wrong = {
        room: ROOMS[entry]
        for room in rooms_imported(module)
        if (entry := entry_of(room)) and ROOMS[entry] not in {layer} | MAY_IMPORT[layer]
    }

    assert not wrong, f"{module} ({layer}) must not know {wrong}"


@pytest.mark.parametrize("module", BRIDGE)
def test_the_bridge_knows_neither_tasks_nor_tests(module: str) -> None:
    """Nothing in `bridge` imports the shipped tasks or the tests, and all imports are absolute."""
    imported = imports_of(FILES[module].read_text(encoding="utf-8"))

    assert not {name for name in imported if within(name, {"tasks", "tests"}) or name.startswith(".")}


@pytest.mark.parametrize("module", PURE)
def test_pure_rooms_only_decide(module: str) -> None:
    """A pure room imports nothing with a clock, an environment, a network, a thread or Celery in it."""
    source = FILES[module].read_text(encoding="utf-8")

    foreign = {name for name in imports_of(source) if not within(name, PURE_MAY_IMPORT | {"bridge"})}
    assert not foreign, f"{module} imports {sorted(foreign)}: hand their answers in instead"

    clocks = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    assert not clocks & {"now", "utcnow", "today"}, f"{module} asks for the time: hand it in instead"


@pytest.mark.parametrize("module", NO_CELERY)
def test_only_the_wiring_knows_celery(module: str) -> None:
    """Rooms below the wiring work without Celery and Kombu, so that these can be replaced and tested apart."""
    assert not {name for name in imports_of(FILES[module].read_text(encoding="utf-8")) if within(name, CELERY)}


def test_no_import_escapes() -> None:
    """Imports are found in functions, under other names, from packages and relative ones too."""
    source = "def f():\n    import time as t\nfrom bridge import metrics\nfrom os import path, sep\nfrom . import x\n"

    assert imports_of(source) == {"time", "bridge.metrics", "os.path", "os.sep", "..x"}
