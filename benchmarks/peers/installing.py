"""Puts a peer into a place of its own under ``.cache/bench``, at the exact versions of its lock file."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks import CACHE

_HERE = Path(__file__).resolve().parent
INSTALL_SECONDS = 600


def python_environment(name: str) -> Path:
    """Return the Python of the peer's environment, made at the first time and when ``locks/<name>.txt`` has changed.

    Raises RuntimeError with the last lines of pip's output.
    """
    lock = _HERE / "locks" / f"{name}.txt"
    folder = CACHE / name
    python = folder / "bin" / "python"
    wanted = _fingerprint(lock.read_bytes() + sys.version.encode())
    stamp = folder / ".installed"
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"installing {name} into {folder}", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        # --no-deps: the lock names every package, so none can come in another version.
        _run([*pip, "--no-deps", "-r", str(lock)])
        stamp.write_text(wanted)
    return python


def python_versions(name: str, *packages: str) -> dict[str, str]:
    """Return the versions in the lock of those packages, each of which it must name."""
    pinned = dict(line.split("==") for line in (_HERE / "locks" / f"{name}.txt").read_text().split())
    return {package: pinned[package] for package in packages}


def node_environment() -> Path:
    """Return the folder with node's packages, installed by ``npm ci`` from ``node/package-lock.json``.

    Raises RuntimeError when npm is missing, or with the last lines of its output.
    """
    if not (shutil.which("node") and shutil.which("npm")):
        raise RuntimeError("needs `node` (20 or later) and `npm` on the PATH")
    folder = CACHE / "node"
    files = [_HERE / "node" / "package.json", _HERE / "node" / "package-lock.json"]
    wanted = _fingerprint(b"".join(file.read_bytes() for file in files))
    stamp = folder / ".installed"
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"installing sqs-consumer into {folder}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, folder)
        _run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel", "error"], folder)
        stamp.write_text(wanted)
    # Node looks for packages beside the file that imports them.
    for script in (_HERE / "apps").glob("*.mjs"):
        shutil.copy(script, folder)
    return folder


def node_versions() -> dict[str, str]:
    """Return the versions of node, of the AWS SDK and of sqs-consumer."""
    pinned = json.loads((_HERE / "node" / "package.json").read_text())["dependencies"]
    node = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True, timeout=30)
    return {"node": node.stdout.strip().lstrip("v"), **{str(name): str(version) for name, version in pinned.items()}}


def _fingerprint(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _run(command: list[str], folder: Path | None = None) -> None:
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
        last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise RuntimeError(f"{' '.join(command)} failed:\n{last}")
