from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import REPOSITORY


def python_blocks(document: str) -> list[str]:
    """The Python blocks of a document of ours."""
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / document).read_text(), re.DOTALL)


@pytest.mark.slow
def test_the_test_that_the_readme_shows_passes(tmp_path: Path) -> None:
    """A user who copies the README's task and the README's test sees it pass."""
    task, test = python_blocks("README.md")
    (tmp_path / "my_files.py").write_text(task)
    (tmp_path / "test_my_files.py").write_text(test)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_test_in_the_readme_is_six_lines() -> None:
    """The test of a task stays as short as the README promises."""
    lines = [line for line in python_blocks("README.md")[1].splitlines() if line.strip()]
    assert len(lines) <= 6


def test_every_link_of_the_documents_leads_somewhere() -> None:
    """No document points to a file that is not there."""
    for document in [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]:
        prose = re.sub(r"```.*?```|`[^`]*`", "", document.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", prose):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_readme_names_every_outcome() -> None:
    """The table of outcomes and the code know the same words."""
    from typing import get_args

    from bridge.messages.verdicts import Outcome

    text = (REPOSITORY / "docs" / "reference" / "outcomes.md").read_text()
    assert all(f"`{outcome}`" in text for outcome in get_args(Outcome))
