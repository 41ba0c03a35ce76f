from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import QueueFactory, SqsServer, environment_for

pytestmark = pytest.mark.slow

HERE = "tests.e2e.startup"
#: Celery warns whoever runs it as root, as containers in CI often do, and that would be a second line.
NOT_AS_ROOT = "ignore:You're running the worker with superuser privileges"


@pytest.fixture(scope="module")
def on(sqs_server: SqsServer) -> Iterator[SimpleNamespace]:
    """A server, a queue with a DLQ, one without, and the environment of a worker that would start."""
    yield from _on(sqs_server)


@pytest.fixture(scope="module")
def sound(moto_server: SqsServer) -> Iterator[SimpleNamespace]:
    """The same on moto alone, for what the worker refuses before it asks SQS."""
    yield from _on(moto_server)


def _on(server: SqsServer) -> Iterator[SimpleNamespace]:
    queues = QueueFactory()
    queue, bare = queues(server, prefix="refusals"), queues.single(server)
    env = environment_for(server) | {
        "SQS_QUEUE_URL": queue.url,
        "BRIDGE_TASK_MODULES": f"{HERE}.sound",
        "PYTHONWARNINGS": NOT_AS_ROOT,
    }
    yield SimpleNamespace(server=server, queue=queue, bare=bare, env=env)
    queues.delete_all()


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Starts a worker that must refuse: returns its one line, after checking that it is one, and the exit code."""

    def start(env: dict[str, str], *args: str, before: tuple[str, ...] = ()) -> str:
        command = [sys.executable, "-m", "celery", "-A", "bridge", *before, "worker", "-c", "1", *args]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert re.fullmatch(r"bridge: \S.*\n", done.stderr), done.stderr
        assert "ready" not in done.stdout
        return done.stderr

    return start


def without(env: dict[str, str], *names: str) -> dict[str, str]:
    """Return the environment without these variables."""
    return {name: value for name, value in env.items() if name not in names}


@pytest.mark.parametrize("name", ["SQS_QUEUE_URL", "BRIDGE_TASK_MODULES"])
def test_a_missing_setting_is_named(sound: SimpleNamespace, refused: Callable[..., str], name: str) -> None:
    """Without a setting that is required the worker does not start, and names it."""
    assert f"{name} is not set" in refused(without(sound.env, name))


def test_all_faults_are_told_at_once(sound: SimpleNamespace, refused: Callable[..., str]) -> None:
    """Several faults are told together, in the one line."""
    said = refused(without(sound.env, "SQS_QUEUE_URL", "BRIDGE_TASK_MODULES") | {"BRIDGE_LOG_FORMAT": "xml"})
    assert all(name in said for name in ("SQS_QUEUE_URL", "BRIDGE_TASK_MODULES", "BRIDGE_LOG_FORMAT=xml"))


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        (
            "BRIDGE_WAIT_TIME_SECOND",
            "5",
            ["unknown setting BRIDGE_WAIT_TIME_SECOND;", "did you mean BRIDGE_WAIT_TIME_SECONDS?"],
        ),
        ("BRIDGE_WAIT_TIME_SECONDS", "21", ["BRIDGE_WAIT_TIME_SECONDS=21", "between 0 and 20"]),
        ("SQS_QUEUE_URL", "http://127.0.0.1:1/123456789012/uploads.fifo", ["SQS_QUEUE_URL=", "FIFO"]),
        ("CELERY_BROKER_URL", "redis://:secret@redis/0", ["CELERY_BROKER_URL", "SQS_QUEUE_URL"]),
        ("BROKER_URL", "redis://:secret@redis/0", ["SQS_QUEUE_URL"]),
        ("BRIDGE_TASK_MODULES", "my_module_is_away", ["BRIDGE_TASK_MODULES=my_module_is_away", "no module"]),
        ("BRIDGE_TASK_MODULES", f"{HERE}.broken", ["ValueError", "password is missing", "broken.py:"]),
        ("BRIDGE_TASK_MODULES", f"{HERE}.needs_more", [f"{HERE}.needs_more", "a_package_nobody_has", "needs_more.py:"]),
        ("BRIDGE_TASK_MODULES", f"{HERE}.early_ack", [f"{HERE}.early_ack.early", "acks_late=False"]),
        ("BRIDGE_TASK_MODULES", f"{HERE}.early_ack_file", [f"{HERE}.early_ack_file", "acks_late=False"]),
        (
            "BRIDGE_TASK_MODULES",
            f"{HERE}.foreign_base",
            [f"{HERE}.foreign_base.foreign", "bridge.task.base.BridgeTask"],
        ),
        ("BRIDGE_HEARTBEAT", "off", ["BRIDGE_HEARTBEAT=off", "time limit", "visibility timeout"]),
    ],
)
def test_a_wrong_setting_is_refused(
    sound: SimpleNamespace, refused: Callable[..., str], setting: str, value: str, words: list[str]
) -> None:
    """A wrong setting ends the start with one line that has the setting, the value and the rule, and no password."""
    said = refused(sound.env | {setting: value})
    assert all(word in said for word in words), said
    assert "secret" not in said


def test_another_broker_on_the_command_line_is_refused(sound: SimpleNamespace, refused: Callable[..., str]) -> None:
    """`-b` would silently take the queue's place: the worker refuses, naming the setting to use."""
    said = refused(sound.env, before=("-b", "redis://:secret@redis/0"))
    assert "SQS_QUEUE_URL" in said
    assert "secret" not in said


def test_a_limit_above_a_lease_without_heartbeat_is_refused(
    sound: SimpleNamespace, refused: Callable[..., str]
) -> None:
    """With BRIDGE_HEARTBEAT=off a task whose own time limit is longer than its lease is named."""
    env = {
        "BRIDGE_HEARTBEAT": "off",
        "BRIDGE_TASK_TIME_LIMIT_SECONDS": "60",
        "BRIDGE_TASK_MODULES": f"{HERE}.long_task",
    }
    said = refused(sound.env | env)
    assert all(word in said for word in ("BRIDGE_HEARTBEAT=off", f"{HERE}.long_task.long_one", "300 s", "120 s")), said


def test_no_credentials_are_refused(sound: SimpleNamespace, refused: Callable[..., str], tmp_path: Path) -> None:
    """Where the SDK finds no credentials at all, waiting mends nothing: the worker says so and ends."""
    env = without(sound.env, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") | {"HOME": str(tmp_path)}
    assert "credentials" in refused(env)


def test_a_pool_that_is_not_supported_is_refused(sound: SimpleNamespace, refused: Callable[..., str]) -> None:
    """A pool that the bridge cannot drain is refused, and those it can are named."""
    env = sound.env | {"CELERY_CUSTOM_WORKER_POOL": f"{HERE}.foreign_pool:TaskPool"}
    said = refused(env, "-P", "custom")
    assert all(word in said for word in ("foreign_pool", "prefork", "threads", "solo"))


def test_a_queue_that_does_not_exist_is_refused(on: SimpleNamespace, refused: Callable[..., str]) -> None:
    """A queue that SQS does not know is named, with the setting."""
    url = f"{on.queue.url}-away"
    said = refused(on.env | {"SQS_QUEUE_URL": url})
    assert "SQS_QUEUE_URL" in said
    assert url in said


def test_a_queue_without_dlq_is_refused(on: SimpleNamespace, refused: Callable[..., str]) -> None:
    """Without a dead-letter queue there is nowhere to put bad messages: refused, with both ways to mend it."""
    said = refused(on.env | {"SQS_QUEUE_URL": on.bare})
    assert all(word in said for word in (on.bare, "RedrivePolicy", "SQS_DLQ_URL"))


def test_a_task_queue_without_dlq_is_refused(on: SimpleNamespace, refused: Callable[..., str]) -> None:
    """The queue of Celery's own messages needs a dead-letter queue too."""
    said = refused(on.env | {"SQS_TASK_QUEUE_URL": on.bare})
    assert all(word in said for word in (on.bare, "RedrivePolicy", "SQS_DLQ_URL"))


def test_a_dlq_that_does_not_exist_is_refused(on: SimpleNamespace, refused: Callable[..., str]) -> None:
    """A SQS_DLQ_URL that SQS does not know is named: the first dead letter would find out too late."""
    url = f"{on.queue.url}-dlq-away"
    assert url in refused(on.env | {"SQS_DLQ_URL": url})


def test_a_queue_that_is_its_own_dlq_is_refused(sound: SimpleNamespace, refused: Callable[..., str]) -> None:
    """A dead letter must not land where it came from."""
    said = refused(sound.env | {"SQS_DLQ_URL": sound.queue.url})
    assert "SQS_DLQ_URL" in said
    assert "again and again" in said


@pytest.mark.parametrize("action", ["GetQueueAttributes", "GetQueueUrl"])
def test_denied_access_is_refused(on: SimpleNamespace, refused: Callable[..., str], action: str) -> None:
    """Where SQS denies what the worker must know, it ends and names the permission that is missing."""
    with FaultProxy(on.server.endpoint_url) as proxy:
        proxy.fail(action, status=403, code="AccessDenied", times=None)
        said = refused(on.env | {"AWS_ENDPOINT_URL_SQS": proxy.url})
    assert on.queue.url in said
    assert f"sqs:{action}" in said


@pytest.mark.parametrize("code", ["InvalidClientTokenId", "UnrecognizedClientException"])
def test_wrong_credentials_are_refused(sound: SimpleNamespace, refused: Callable[..., str], code: str) -> None:
    """Credentials that AWS does not know will not be known later either: refused."""
    with FaultProxy(sound.server.endpoint_url) as proxy:
        proxy.fail("*", status=403, code=code, times=None)
        said = refused(sound.env | {"AWS_ENDPOINT_URL_SQS": proxy.url})
    assert "credentials" in said
