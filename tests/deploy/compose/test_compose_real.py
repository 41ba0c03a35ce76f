"""`docker compose` itself, where there is an engine. There is none in CI, so this is skipped there too."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.deploy.compose.compose_file import REPOSITORY
from tests.support.servers.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
#: Not the project's own name: a system that already runs here is left alone.
PROJECT = "bucket-brigade-test"


def compose(*arguments: str, seconds: float = 900) -> subprocess.CompletedProcess[str]:
    """Run ``docker compose`` on the file, under a project name of the tests' own."""
    command = ["docker", "compose", "--project-name", PROJECT, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=seconds, check=False)


def why_not() -> str | None:
    """Return what is missing to run containers here."""
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except FileNotFoundError:
            return "needs `docker` on the PATH"
        if done.returncode:
            return f"`{' '.join(command)}` fails here: {(done.stderr.strip().splitlines() or ['?'])[0]}"
    return None


@pytest.fixture
def up() -> Iterator[None]:
    """The whole system, built and healthy; taken down with its volumes afterwards."""
    if missing := why_not():
        pytest.skip(missing)
    try:
        started = compose("up", "--build", "--wait")
        assert started.returncode == 0, started.stderr[-4000:]
        yield
    finally:
        compose("down", "--volumes", "--timeout", "60")


def test_the_real_thing(up: None) -> None:
    """A file that is put ends as a processed task, and garbage as a dead letter that is listed."""
    assert compose("run", "--rm", "brigade", "put", "README.md").returncode == 0
    assert compose("run", "--rm", "brigade", "send", "garbage").returncode == 0
    wait_until(lambda: '"task_succeeded"' in compose("logs", "worker").stdout, 120, "the task")
    wait_until(lambda: "malformed" in compose("run", "--rm", "brigade", "dlq", "list").stdout, 120, "the dead letter")
