"""Each kind of process loads what it needs and nothing heavy: real processes, asked at their end what they imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from tests import REPOSITORY
from tests.support.servers.redis import RedisServer, missing_server
from tests.support.servers.sqs import QueueFactory, SqsServer, environment_for, no_account, receive

pytestmark = pytest.mark.slow

NOTING = Path(__file__).parent / "noted_modules"
BIN = Path(sys.executable).parent
TASKS = "tests.e2e.startup.child_tasks"
SENDER = f"""
import threading
from {TASKS} import double
print(double.delay(21).id)
print(threading.active_count())
"""
#: What starts a worker, and what only a running one needs.
WORKER = {"bridge.celery", "bridge.worker.startup", "bridge.worker.bootsteps", "bridge.worker.runtime"}
ENGINE = {"bridge.delivery.receivers", "bridge.delivery.drain", "bridge.sqs.fast_client"}
SERVERS = {"bridge.health.server", "bridge.health.endpoints", "bridge.monitoring.flower_app", "redis", "tornado"}


@dataclass
class Ended:
    """A process that has ended: what it said, and what it had imported by then."""

    code: int
    output: str
    modules: set[str]

    def imported(self, *packages: str) -> set[str]:
        """Return the modules of these packages that it imported."""
        return {name for name in self.modules if any(f"{name}.".startswith(f"{package}.") for package in packages)}


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command line to its end."""

    def run(*command: object, env: Mapping[str, str] = MappingProxyType({})) -> Ended:
        noted = tmp_path / "modules"
        whole = {
            "PATH": str(BIN),
            **no_account(),
            **env,
            "PYTHONPATH": f"{NOTING}:{REPOSITORY}",
            "NOTED_MODULES": str(noted),
        }
        done = subprocess.run(
            [str(word) for word in command],
            cwd=tmp_path,
            env=whole,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        modules = set(noted.read_text(encoding="utf-8").split())
        assert "sitecustomize" in modules
        return Ended(done.returncode, done.stdout, modules)

    return run


@pytest.mark.parametrize("words", ["doctor --help", "routes --help", "run-once --help", "dlq redrive --help", "--help"])
def test_help_of_a_command_needs_no_celery(run: Run, words: str) -> None:
    """Help is shown without Celery, Kombu, boto3 and the settings' pydantic, each a part of a second."""
    shown = run(BIN / "brigade", *words.split())

    assert (shown.code, shown.output[:6]) == (0, "Usage:")
    assert shown.imported("celery", "kombu", "boto3", "pydantic", "bridge.task", "bridge.worker") == set()


def test_routes_loads_the_tasks_and_no_worker(run: Run) -> None:
    """``brigade routes`` imports the task modules and asks their routes; it starts nothing and makes no client."""
    shown = run(BIN / "brigade", "routes", "--json", "s3://any/children/a.csv", env={"BRIDGE_TASK_MODULES": TASKS})

    assert shown.code == 0, shown.output
    assert json.loads(shown.output)["task"] == f"{TASKS}.look"
    assert {TASKS, "bridge.task.registry", "bridge.messages.routing"} <= shown.modules
    assert (WORKER | ENGINE | SERVERS | {"boto3"}) & shown.modules == set()


def test_a_script_that_sends_loads_no_worker(run: Run, moto_server: SqsServer, queues: QueueFactory) -> None:
    """``from my_tasks import t; t.delay(…)`` sends, and loads neither the worker's root nor receivers nor servers."""
    queue = queues(moto_server, prefix="tasks")

    sent = run(sys.executable, "-c", SENDER, env=environment_for(moto_server) | {"SQS_TASK_QUEUE_URL": queue.url})

    assert sent.code == 0, sent.output
    [message] = receive(moto_server, queue.url)
    headers = json.loads(message["Body"])["headers"]
    assert headers["task"] == f"{TASKS}.double"
    assert sent.output.split() == [headers["id"], "1"], "the script has more than its own thread"
    assert {"bridge.task.app", "bridge.worker.transport"} <= sent.modules
    assert (WORKER | ENGINE | SERVERS) & sent.modules == set()


def test_a_module_of_tasks_alone_loads_less(run: Run) -> None:
    """Who imports tasks and calls them (a user's tests) needs no SDK, no transport and no settings."""
    called = run(sys.executable, "-c", f"from {TASKS} import double\nprint(double(21))\n")

    assert (called.code, called.output) == (0, "42\n")
    unneeded = WORKER | ENGINE | SERVERS | {"bridge.worker.transport", "bridge.settings.loading"}
    assert unneeded & called.modules == set()
    assert called.imported("boto3", "botocore", "pydantic") == set()


def test_flower_help_loads_the_bus_and_no_worker(run: Run) -> None:
    """``celery -A bridge.monitor flower --help`` has the bus, and nothing that takes messages or runs tasks."""
    shown = run(BIN / "celery", "-A", "bridge.monitor", "flower", "--help")

    assert shown.code == 0, shown.output
    assert {"bridge.monitor", "bridge.monitoring.bus"} <= shown.modules
    assert shown.imported("bridge.celery", "bridge.task", "bridge.worker", "bridge.delivery", "boto3") == set()


def test_inspect_loads_the_bus_and_no_worker(run: Run, tmp_path: Path) -> None:
    """``celery -A bridge.monitor inspect`` asks a real bus where nobody answers, and loads no part of a worker."""
    if missing := missing_server():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)
    with RedisServer(tmp_path / "redis.log") as redis:
        command = (BIN / "celery", "-A", "bridge.monitor", "inspect", "-t", "0.2", "ping")
        asked = run(*command, env={"BRIDGE_MONITOR_URL": redis.url})

    assert "No nodes replied" in asked.output
    assert {"bridge.monitor", "bridge.monitoring.control_client"} <= asked.modules
    assert asked.imported("bridge.celery", "bridge.task", "bridge.worker", "bridge.delivery", "boto3") == set()
