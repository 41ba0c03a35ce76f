"""Renders overlays as users do, from a copy of k8s/ in which an overlay can be filled in and given components."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import REPOSITORY

K8S = REPOSITORY / "k8s"
#: What the test fills in for the placeholders of overlays/production.
ANSWERS = {
    "REPLACE_ACCOUNT_ID": "123456789012",
    "REPLACE_REGION": "eu-west-1",
    "REPLACE_QUEUE_NAME": "uploads",
    "REPLACE_BUCKET_NAME": "uploads-eu",
    "REPLACE_TASK_MODULES": "tasks.describe",
    "REPLACE_TABLE_NAME": "bucket-brigade",
    "REPLACE_TAG": "0.1.0",
    "REPLACE_EXPORTER_ROLE_NAME": "bucket-brigade-exporter",
    "REPLACE_WORKER_ROLE_NAME": "bucket-brigade-worker",
    "REPLACE_INGRESS_CLASS": "nginx",
    "REPLACE_FLOWER_HOST": "flower.example.com",
}

Document = dict[str, Any]


@lru_cache
def command() -> tuple[str, ...]:
    """``kubectl kustomize``, or kustomize itself; a skip without either, and a failure where CI=true."""
    if shutil.which("kubectl"):
        return ("kubectl", "kustomize")
    if shutil.which("kustomize"):
        return ("kustomize", "build")
    message = "neither kubectl nor kustomize is installed"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run kustomize on a folder."""
    return subprocess.run([*command(), str(folder)], capture_output=True, text=True, check=False, timeout=60)


def render(folder: Path) -> list[Document]:
    """The documents that kustomize makes of a folder."""
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


def read(text: str) -> list[Document]:
    """The documents of a YAML text."""
    # The same safe loader in C, where PyYAML was built with it: ten times faster.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(text, Loader=loader) if document]


def copy(folder: Path) -> Path:
    """A copy of k8s/ to edit."""
    shutil.copytree(K8S, folder / "k8s")
    return folder / "k8s"


def fill_in(k8s: Path) -> None:
    """Answer every placeholder, as a user does before the first apply."""
    for path in k8s.rglob("*"):
        if path.suffix in (".yaml", ".env"):
            text = path.read_text()
            path.write_text(re.sub("|".join(ANSWERS), lambda found: ANSWERS[found[0]], text))


def use(overlay: Path, *components: str) -> None:
    """Name components in an overlay, as the comment in its kustomization says."""
    path = overlay / "kustomization.yaml"
    text = path.read_text()
    for name in components:
        line = f"#  - ../../components/{name}\n"
        assert text.count(line) == 1, f"{path} does not offer {name}"
        text = text.replace(line, line[1:])
    path.write_text(text)


def one(documents: list[Document], kind: str, name: str) -> Document:
    """The document of this kind and name."""
    [found] = [doc for doc in documents if doc["kind"] == kind and doc["metadata"]["name"] == name]
    return found
