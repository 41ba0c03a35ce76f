"""A scratch directory for each run of a task, made on first use and gone when the run is, however it ended.

    <temp>/bridge-scratch/<worker>/run-<task id>

``directory()`` makes it in the process that runs the task, which also removes it at the end. A run that asks for none
costs nothing: not even a look whether there is one. A child that was killed
cannot: then the parent does (a lost child, a hard time limit, a drain stop). A worker that was killed cannot either:
then the next worker to start on this machine does, for every worker that no longer lives.
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

#: Names the directories of one worker; its children find it in their environment.
_OWNER = "_BUCKET_BRIGADE_SCRATCH_OWNER"
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


class run:  # noqa: N801 - used as a function: with scratch.run(task_id)
    """Around one run of a task: what ``directory`` makes in it is removed at its end."""

    __slots__ = ("_token", "made", "task_id")

    def __init__(self, task_id: str) -> None:
        """Nothing is made yet."""
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
    """Return the scratch directory of the task that runs here, empty when the run began.

    Raises RuntimeError outside a ``file_task`` or ``message_task``, and OSError when it cannot be made.
    """
    here = _run.get()
    if here is None:
        raise RuntimeError("a scratch directory belongs to a running file_task or message_task")
    path = _path(here.task_id)
    if not here.made:
        remove(here.task_id)  # of a run of the same message that was killed
        here.made = True  # before it is: a soft time limit may come at any line
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def remove(task_id: str) -> None:
    """Remove a run's directory, if it made one."""
    path = _path(task_id)
    if path.exists():
        shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            log.warning("scratch_left", task_id=task_id, path=str(path))


def claim() -> None:
    """At a worker's start: make this process the owner, and clear what dead workers left behind.

    In a container every worker has the same process id, so a directory of our own name is a dead worker's too.
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
    # A task id of Celery's own may be any text, ".." included: only what is safe in a file name goes into one.
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
