"""docs/architecture.md is the tree as it is: every file that it names, every wing, and the direction of the imports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import REPOSITORY
from tests.unit.test_imports import WINGS

BRIDGE = REPOSITORY / "bridge"
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")


def files_in(text: str) -> set[Path]:
    """Return the Python files that a text names; a path is relative to `bridge/` unless it begins with `tests/`."""
    names = re.findall(r"[\w/-]+\.py\b", text)
    return {(REPOSITORY if name.startswith("tests/") else BRIDGE) / name for name in names}


def section(heading: str) -> str:
    """Return the text between a heading of the second level and the next one."""
    [found] = re.findall(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    return str(found)


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the one table of a section, without its head."""
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    assert re.fullmatch(r"[| -]+", lines[1])
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_every_file_on_the_page_is_there() -> None:
    """No path in the text, the tables or the diagram names a file that does not exist."""
    missing = {str(file.relative_to(REPOSITORY)) for file in files_in(PAGE) if not file.is_file()}
    assert missing == set()


def test_the_direction_is_that_of_the_imports() -> None:
    """The line of the page has the wings, rows and order of the table that the test of imports holds."""
    [line] = re.findall(r"```text\n(.*?)```", section("Direction"), flags=re.DOTALL)
    steps = [re.findall(r"\w+", step) for step in line.split("→")]
    assert [sorted(step) for step in steps] == [sorted(row) for row in WINGS]
    assert [step.strip().startswith("{") for step in line.split("→")] == [len(row) > 1 for row in WINGS]


def test_the_table_has_every_wing_in_the_order_of_the_imports() -> None:
    """A folder of `bridge` is a wing, with one row in the table and a line on what it does."""
    named = [re.fullmatch(r"`(\w+)/`", wing) for wing, _ in rows("Direction")]
    folders = {file.parent.name for file in BRIDGE.glob("*/__init__.py")}
    assert [match and match[1] for match in named] == [wing for row in WINGS for wing in row if wing in folders]
    assert all(what for _, what in rows("Direction"))


@pytest.mark.parametrize("wing", ["delivery", "messages", "worker"])
def test_every_file_of_a_message_s_way_is_named(wing: str) -> None:
    """Whoever adds a file to a wing that messages pass through says here what it is for."""
    files = {file for file in (BRIDGE / wing).glob("*.py") if file.name != "__init__.py"}
    assert {file.name for file in files - files_in(PAGE)} == set()


def test_every_step_of_a_message_has_its_file() -> None:
    """The steps are numbered without a gap, and each is in one file."""
    steps = rows("The way of one message")
    assert [int(step.split()[0]) for step, _, _ in steps] == list(range(1, len(steps) + 1))
    assert [len(files_in(where)) for _, where, _ in steps] == [1] * len(steps)


def test_every_guarantee_has_files_and_tests() -> None:
    """Each guarantee names files of the bridge that keep it, and files with tests that would fail without it."""
    guarantees = rows("Where each guarantee is kept")
    assert len(guarantees) >= 9
    for guarantee, files, tests in guarantees:
        assert files_in(files), guarantee
        assert files_in(tests), guarantee
        assert all(file.is_relative_to(BRIDGE) for file in files_in(files)), guarantee
        assert all(file.name.startswith("test_") for file in files_in(tests)), guarantee


def test_every_behaviour_is_in_files_of_the_bridge() -> None:
    """What a reader may look for, twelve things at least, leads to a file each."""
    found = rows("Where do I find …")
    assert len(found) >= 12
    assert [behaviour for behaviour, files in found if not files_in(files)] == []
