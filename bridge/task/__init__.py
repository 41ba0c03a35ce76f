"""Tasks: the Celery app, the decorators, and what surrounds a run.

``bridge.task.BridgeTask`` is ``bridge.task.base.BridgeTask`` under its former path, kept for one release.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name != "BridgeTask":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("bridge.task.base").BridgeTask
