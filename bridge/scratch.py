"""A scratch directory for each task run, created on first use and removed when the run ends, however it ends.

    <temp>/bridge-scratch/<worker>/run-<task id>

``directory()`` creates it in the process that runs the task. The same process removes it at the end of the run. A run
that never asks for one costs nothing, not even a check whether one exists. When a pool child is killed (lost child,
hard time limit, end of the drain), the parent removes it. When a whole worker is killed, the next worker that starts on
this machine removes the directories of all workers that no longer run.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from contextvars import ContextVar
from pathlib import Path

from bridge.log import get_logger

log = get_logger(__name__)

#: The environment variable with the owner's process id, which names a worker's directory; pool children inherit it.
_OWNER = "_BUCKET_BRIGADE_SCRATCH_OWNER"
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


class run:  # noqa: N801 - used as a function: with scratch.run(task_id)
    """Context manager around one task run: at its end it removes what ``directory`` created."""

    __slots__ = ("_token", "made", "task_id")

    def __init__(self, task_id: str) -> None:
        """Create no directory yet."""
        self.task_id = task_id
        self.made = False

    def __enter__(self) -> None:
        self._token = _run.set(self)

    def __exit__(self, *_: object) -> None:
        _run.reset(self._token)
        if self.made:
            remove(self.task_id)


_run: ContextVar[run | None] = ContextVar("bridge_scratch_run", default=None)


def directory() -> Path:
    """Return the scratch directory of the running task; the first call of a run returns it empty.

    Raises RuntimeError outside a ``file_task`` or ``message_task``, and OSError when it cannot be created.
    """
    here = _run.get()
    if here is None:
        raise RuntimeError(
            "a scratch directory exists only inside a running file_task or message_task; "
            "elsewhere, call download() with a path"
        )
    path = _path(here.task_id)
    if not here.made:
        remove(here.task_id)  # left by a killed run of the same message
        here.made = True  # set before mkdir: a soft time limit can interrupt at any line
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def remove(task_id: str) -> None:
    """Remove a run's directory, if there is one."""
    path = _path(task_id)
    if path.exists():
        shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            log.warning("scratch_left", task_id=task_id, path=str(path))


def claim() -> None:
    """Make this process the owner, at the start of a worker, and remove the directories that dead workers left.

    In a container every worker has the same process id, so a directory with this process's own id is also a leftover.
    """
    os.environ[_OWNER] = str(os.getpid())
    base = _base()
    if not base.is_dir():
        return
    for left in base.iterdir():
        if left.name == str(os.getpid()) or not _is_alive(left.name):
            shutil.rmtree(left, ignore_errors=True)


def _base() -> Path:
    return Path(tempfile.gettempdir()) / "bridge-scratch"


def _path(task_id: str) -> Path:
    # A Celery task id may be any text, even "..", so unsafe characters are replaced.
    name = _UNSAFE.sub("_", task_id)[:200]
    if name != task_id:
        name += "-" + hashlib.sha256(task_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return _base() / os.environ.get(_OWNER, str(os.getpid())) / f"run-{name}"


def _is_alive(name: str) -> bool:
    if not (name.isascii() and name.isdigit()):
        return False
    try:
        os.kill(int(name), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
