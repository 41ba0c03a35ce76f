"""For tests that run a command in this process: tasks which other tests have declared here must not take part."""

from __future__ import annotations

import importlib

import pytest

from bridge.task import registry


def hide_foreign_tasks(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Leave only the tasks of ``modules`` declared, until the test ends.

    They are imported first: what was declared during the test would be forgotten after it.
    """
    for module in modules:
        importlib.import_module(module)
    ours = {name: task for name, task in registry._declared.items() if task.module in modules}
    monkeypatch.setattr(registry, "_declared", ours)
