"""What a result was measured on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from benchmarks import REPOSITORY


def machine() -> dict[str, str]:
    """Return processor, cores, memory, kernel and Python; no names and no paths."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{int((_field('/proc/meminfo', 'MemTotal') or '0 kB').split()[0]) / 2**20:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def load() -> float:
    """Return the load average of the last minute: above about half a process before the start, others are at work."""
    return os.getloadavg()[0]


def servers() -> dict[str, str]:
    """Return the versions of the servers, of those that are there."""
    found = {"memory_sqs.py": "this checkout", "delay_proxy.py": "this checkout"}
    pom = (REPOSITORY / "tests" / "support" / "elasticmq" / "pom.xml").read_text()
    version = re.search(r"elasticmq-server[^<]*</artifactId>\s*<version>([^<]+)", pom)
    if shutil.which("java") and version:
        found["ElasticMQ"] = version[1]
    redis = shutil.which("redis-server") or shutil.which("valkey-server")
    if redis:
        said = subprocess.run([redis, "--version"], check=False, capture_output=True, text=True, timeout=30).stdout
        number = re.search(r"v=(\S+)", said)
        found[Path(redis).name] = number[1] if number else "unknown"
    return found


def revision() -> str:
    """Return the commit of this checkout, with ``, changed`` when it has been edited; ``unknown`` without git."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return f"{commit}, changed" if _git("status", "--porcelain", "--", "bridge") else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", *words],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout.strip()


def _field(file: str, name: str) -> str | None:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
