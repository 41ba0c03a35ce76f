"""Three real workers, one of each pool, each run once a session; their tests only read what they noted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.contract import run_python


class Worker:
    """What a worker of ``pool`` went through: its exit code, its output and its notes."""

    def __init__(self, pool: str, run: SimpleNamespace) -> None:
        self.pool, self.code, self.out, self.err, self.all = pool, run.code, run.out, run.err, run.notes

    def notes(self, *what: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the notes of these kinds with these fields, in order."""
        found = [note for note in self.all if note["what"] in what and fields.items() <= note.items()]
        assert found, f"the {self.pool} worker noted no {what} {fields}; it said:\n{self.err[-3000:]}"
        return found

    def course(self, task: str) -> list[str]:
        """Return what the Request of a task was told once the task had started."""
        told = self.notes("on_failure", "on_timeout", "ended", id=task)
        return [note["how"] if note["what"] == "ended" else note["what"] for note in told]


def _run(pool: str, factory: pytest.TempPathFactory) -> Worker:
    # Four processes, because three tasks end theirs, and the next must not wait for its replacement.
    arguments = ("-m", "celery", "-A", "tests.contract.probe", "worker", "-P", pool, "-c", "4", "--time-limit", "77")
    return Worker(pool, run_python(*arguments, cwd=factory.mktemp(pool)))


@pytest.fixture(scope="session")
def prefork(tmp_path_factory):
    """A worker with the prefork pool."""
    return _run("prefork", tmp_path_factory)


@pytest.fixture(scope="session")
def threads(tmp_path_factory):
    """A worker with the threads pool."""
    return _run("threads", tmp_path_factory)


@pytest.fixture(scope="session")
def solo(tmp_path_factory):
    """A worker with the solo pool."""
    return _run("solo", tmp_path_factory)


@pytest.fixture(params=["prefork", "threads", "solo"])
def worker(request):
    """Each of the three in turn."""
    return request.getfixturevalue(request.param)
