"""When and where a part of the results was measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from benchmarks.runner import machine
from benchmarks.runner.quiet import MACHINE


def with_conditions(settings: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Measure; return what ``measure`` returns, with the time, the machine, the commit and the ``settings``."""
    load, began = machine.load(), time.monotonic()
    MACHINE.begin()
    started = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    measured = measure()
    return {
        "started": started,
        "minutes": (time.monotonic() - began) / 60,
        "load": load,
        "settings": settings,
        "revision": machine.revision(),
        "machine": machine.machine(),
        "quiet": MACHINE.told(),
        **measured,
    }
