"""Flower as the manifests start it: its own arguments and variables, in a process."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType

import pytest

from tests import REPOSITORY
from tests.deploy.k8s.conftest import Rendered
from tests.deploy.k8s.kustomize import one
from tests.support.servers.port import free_port
from tests.support.servers.waiting import wait_until

pytestmark = pytest.mark.slow


def status(url: str) -> int:
    """The answer's status; 0 while nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - http, ours
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code
    except OSError:
        return 0


def test_flower_starts_as_the_manifest_says(rendered: Rendered, check: ModuleType, tmp_path: Path) -> None:
    """Without its bus and without AWS, Flower answers its probe, and asks everybody else for the password."""
    documents = rendered("production")
    [container] = one(documents, "Deployment", "bucket-brigade-flower")["spec"]["template"]["spec"]["containers"]
    port = free_port()
    assert "--port=5555" in container["args"] and container["ports"][0]["containerPort"] == 5555
    arguments = [part.replace("5555", str(port)).replace("0.0.0.0", "127.0.0.1") for part in container["args"]]  # noqa: S104 - read
    env = {
        **check.environment(container, documents),
        "BRIDGE_MONITOR_URL": "redis://:secret@127.0.0.1:1/0",
        "FLOWER_BASIC_AUTH": "me:secret",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "HOME": str(tmp_path),
    }
    log = tmp_path / "flower.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], env=env, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            probe = container["readinessProbe"]["httpGet"]["path"]
            wait_until(
                lambda: process.poll() is not None or status(f"http://127.0.0.1:{port}{probe}") == 200,
                60,
                "Flower's answer to its probe",
            )
            assert process.poll() is None, log.read_text()[-2000:]
            assert status(f"http://127.0.0.1:{port}/api/tasks") == 401
            process.terminate()
            assert process.wait(30) == 0, log.read_text()[-2000:]
        finally:
            process.kill()
            process.wait(10)
