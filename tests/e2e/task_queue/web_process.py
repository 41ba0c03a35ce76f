"""What a user's own process does, a web server say: send tasks, and wait for their results.

Run as ``python -m tests.e2e.task_queue.web_process``: sends all at once, then prints a JSON object for each as it ends.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery import chain, chord, group

from bridge.celery import app
from tests.e2e.task_queue.queue_tasks import add, always_fails, fails_twice, loses_its_child, total

SECONDS = 40


def countdown(seconds: int) -> Any:
    """Call a task that is to run so many seconds from now."""
    return add.apply_async((seconds, 0), countdown=seconds)


CALLS: dict[str, Callable[[], Any]] = {
    "loses_its_child": loses_its_child.delay,
    "fails_twice": fails_twice.delay,
    "always_fails": always_fails.delay,
    "countdown 3": lambda: countdown(3),
    "delay": lambda: add.delay(1, 2),
    "chain": chain(add.s(1, 2), add.s(40), add.s(80)).delay,
    "group": group(add.s(n, n) for n in range(5)).delay,
    "chord": chord((add.s(n, n) for n in range(5)), total.s()).delay,
    "unknown task": lambda: app.send_task("nobody.knows"),
}
#: Sent, and not waited for.
LEFT = {"countdown 2000": lambda: countdown(2000)}


def wait(name: str, result: Any, called_at: float) -> None:
    """Print what became of a call: its states while it was waited for, and its value or error."""
    states, deadline = [], time.monotonic() + SECONDS
    while name != "group" and time.monotonic() < deadline:
        state = result.state
        if state not in states:
            states.append(state)
        if result.ready():
            break
        time.sleep(0.01)
    end: dict[str, Any]
    try:
        end = {"value": result.get(timeout=SECONDS)}
    except Exception as error:  # noqa: BLE001 - whatever the task raised is what is to be told
        end = {"error_type": type(error).__name__, "error": str(error)}
    note = {"call": name, "id": result.id, "called_at": called_at, "states": states, "ended_at": time.time(), **end}
    sys.stdout.write(json.dumps(note) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Make all calls, then wait for each in a thread of its own."""
    made = []
    for name, call in (CALLS | LEFT).items():
        called_at = time.time()
        made.append((name, call(), called_at))
    with ThreadPoolExecutor(len(made)) as threads:
        for name, result, called_at in made:
            if name in LEFT:
                note = {"call": name, "id": result.id, "called_at": called_at, "state": result.state}
                sys.stdout.write(json.dumps(note) + "\n")
            else:
                threads.submit(wait, name, result, called_at)


if __name__ == "__main__":
    main()
