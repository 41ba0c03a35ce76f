"""All figures, by name, and how one of them is run for the results."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

#: Each is a module of this package with a function of its name, which returns a dict for results.json.
NAMES = ("latency", "startup", "memory", "cost", "big_object", "bus", "ceiling")


def wanted(only: Sequence[str]) -> list[str]:
    """Return the names of all figures, or of those whose name holds a word of ``only``."""
    return [name for name in NAMES if not only or any(word in name for word in only)]


def run(name: str, quick: bool) -> dict[str, Any]:
    """Run one figure; what fails is said in its answer, as its ``problem``, and costs no other figure."""
    began = time.monotonic()
    print(f"figure {name}", end=": ", flush=True)
    try:
        answer = dict(getattr(import_module(f"benchmarks.figures.{name}"), name)(quick=quick))
    except Exception as error:  # noqa: BLE001 - a figure that cannot be had is said, and costs no other
        answer = {"problem": f"{type(error).__name__}: {error}"}
        print(answer["problem"], file=sys.stderr)
    answer["took_seconds"] = round(time.monotonic() - began, 1)
    print(f"{answer['took_seconds']:g} s", flush=True)
    return answer
