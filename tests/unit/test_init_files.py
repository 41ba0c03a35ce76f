"""The `__init__` files of `bridge`: a wing is a folder, and to import one of its files imports nothing else of it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import REPOSITORY

BRIDGE = REPOSITORY / "bridge"
#: The lazy public names, a former path that is found lazily, and two groups of commands.
WITH_CODE = {"bridge", "bridge/task", "bridge/cli", "bridge/cli/dlq"}
#: Of those, the ones that give names on first use: at import they may load nothing of the project.
LAZY = {"bridge", "bridge/task"}

FOLDERS = {str(file.parent.relative_to(REPOSITORY)): file for file in sorted(BRIDGE.rglob("__init__.py"))}


def statements(file: Path) -> list[ast.stmt]:
    """Return what a file runs when it is imported, without its docstring and ``__future__``."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return [
        node
        for number, node in enumerate(body)
        if not (number == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        and not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
    ]


def imported_at_once(nodes: list[ast.stmt]) -> set[str]:
    """Return the modules that these statements import, without those under ``TYPE_CHECKING`` and in functions."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or ".")
    return names


def test_the_exceptions_are_there() -> None:
    """Every folder that may have code in its `__init__` exists and has some."""
    assert {folder for folder, file in FOLDERS.items() if statements(file)} == WITH_CODE


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_an_init_file_says_what_the_wing_is(folder: str) -> None:
    """Every `__init__` has a docstring; those of the wings have nothing beside it."""
    assert ast.get_docstring(ast.parse(FOLDERS[folder].read_text(encoding="utf-8")))
    if folder not in WITH_CODE:
        assert [ast.unparse(node) for node in statements(FOLDERS[folder])] == []


@pytest.mark.parametrize("folder", sorted(LAZY))
def test_a_lazy_init_file_imports_nothing_of_ours(folder: str) -> None:
    """The public names and former paths are loaded on first use: at import only the standard library is."""
    assert imported_at_once(statements(FOLDERS[folder])) <= {"importlib", "typing"}


def test_the_statements_of_a_file_are_seen() -> None:
    """A docstring and ``__future__`` do not count, an import and a call do."""
    file = REPOSITORY / "bridge" / "cli" / "__init__.py"

    assert {"click", "importlib", "sys"} <= imported_at_once(statements(file))
