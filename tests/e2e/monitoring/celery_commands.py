"""Many commands of Celery as a user runs them, all at once: nearly all of the time is Python's start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tests import REPOSITORY

END_SECONDS = 100.0


def environment(**settings: str) -> dict[str, str]:
    """What each process has; the warnings are Celery's, whose ``events`` has two options -d."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore", **settings}


def run_all(app: str, commands: Sequence[tuple[Sequence[str], Mapping[str, str]]]) -> list[tuple[int, str]]:
    """Exit code and output of ``celery -A app`` with each command's arguments and settings, in their order."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", app, *arguments],
            env=environment(**settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for arguments, settings in commands
    ]
    try:
        outputs = [process.communicate(timeout=END_SECONDS)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]
