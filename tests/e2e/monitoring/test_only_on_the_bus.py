"""``flower`` and ``events`` of the main app, whose broker is SQS, are refused and name the app that has them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from celery import Celery

from bridge.celery import app
from tests.e2e.monitoring.celery_commands import environment, run_all
from tests.support.servers.redis import RedisServer
from tests.support.servers.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.alone]

WAIT_SECONDS = 60.0
#: Arguments after ``celery -A bridge``, the exit code, and what is said.
COMMANDS = [
    (["flower", "--port=0", "--basic-auth=me:secret"], 2, "use celery -A bridge.monitor flower"),
    (["events", "--dump"], 2, "use celery -A bridge.monitor events"),
    (["events", "--camera=x", "--detach"], 2, "use celery -A bridge.monitor events"),
    # All else is as it was.
    (["inspect", "ping"], 69, "set BRIDGE_MONITOR_URL"),
    (["inspect", "--only-on-the-bus", "ping"], 2, "No such option"),
    (["report"], 0, "broker_transport"),
]


@pytest.fixture(scope="module")
def answers() -> list[tuple[int, str]]:
    """Exit code and output of each."""
    return run_all("bridge", [(arguments, {}) for arguments, _, _ in COMMANDS])


@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=[" ".join(command[0]) for command in COMMANDS])
def test_main_app(answers: list[tuple[int, str]], number: int) -> None:
    """Flower and ``events`` end with one line and exit code 2 before they begin; other commands are Celery's."""
    code, output = answers[number]
    _, wanted, said = COMMANDS[number]
    assert code == wanted, output
    assert said in output
    if "bridge.monitor" in said:
        assert len(output.strip().splitlines()) == 1, output
        assert "secret" not in output


def test_the_option_is_not_seen() -> None:
    """What carries the check is in no help text and reaches no command, the worker's options included."""
    (option,) = app.user_options["preload"]
    assert (option.hidden, option.expose_value) == (True, False)


def test_events_works_where_the_line_says(redis_server: RedisServer) -> None:
    """``celery -A bridge.monitor events --dump`` shows what is sent over the bus."""
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "bridge.monitor", "events", "--dump"],
        env=environment(BRIDGE_MONITOR_URL=redis_server.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    sender = Celery("sender", broker=redis_server.url, set_as_current=False)
    try:
        assert process.stdout is not None
        assert "starting capture" in process.stdout.readline()
        wait_until(lambda: redis_server.ask("PUBSUB", "NUMPAT") != b":0\r\n", WAIT_SECONDS, "a listener on the bus")
        with sender.events.default_dispatcher(hostname="h@contract") as dispatcher:
            dispatcher.send("worker-online", freq=2.0)
        line = process.stdout.readline()
        assert "h@contract" in line
        assert "started" in line
    finally:
        sender.close()
        process.terminate()
        process.communicate(timeout=30)
