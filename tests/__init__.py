"""Tests of the bridge and the shipped tasks; a package, so that tests share `tests.support` by its full name."""

from __future__ import annotations

from pathlib import Path

#: The top folder of the project.
REPOSITORY = Path(__file__).resolve().parents[1]
