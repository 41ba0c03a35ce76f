"""Environments that hold what our worker needs and nothing else, as a stock Celery's holds what that one needs.

The checkout's own .venv also has Flower, moto, rich, cffi…, and Celery and structlog import such things when they find
them: a start there is a third longer than a user's. ``core`` holds the package's dependencies, ``image`` what the
container image holds, with Flower (whose plugin Celery loads at every start) and the libraries for Kubernetes and
OpenTelemetry. The versions are those of the project's lock files; the packages ``bridge`` and ``tasks`` come from the
checkout.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from benchmarks import CACHE, REPOSITORY

INSTALL_SECONDS = 600


def core_python() -> Path:
    """The Python of the environment with the package's dependencies, installed when it is missing or has changed."""
    wanted = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    pinned = re.findall(r"^([\w.-]+==\S+)", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE)
    return _environment("bridge-core", ["-c", "constraints.txt", *wanted], "\n".join(pinned))


def image_python() -> Path:
    """The Python of the environment with what the container image holds."""
    locked = (REPOSITORY / "requirements-image.lock").read_text()
    part = locked.partition("# part: image\n")[2].partition("# part: ")[0]
    return _environment("bridge-image", ["--require-hashes", "--no-deps", "-r", "constraints.txt"], part)


def _environment(name: str, arguments: list[str], constraints: str) -> Path:
    folder = CACHE / name
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = hashlib.sha256("\n".join([sys.version, *arguments, constraints]).encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"installing {name} into {folder}", file=sys.stderr, flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(folder)], REPOSITORY)
        (folder / "constraints.txt").write_text(constraints)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        _run([*pip, *arguments], folder)
        stamp.write_text(wanted)
    return python


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command,
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=INSTALL_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n" + "\n".join((done.stdout + done.stderr).splitlines()[-15:]))
