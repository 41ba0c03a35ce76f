"""Where Celery's events wait for the monitor bus: bounded in number and in size, the oldest go first.

The newest are kept, because they say how a task ended; a monitor that misses one of an earlier step still shows the
truth. Adding never waits for anything but this buffer's own short lock, so it costs the main loop about a microsecond.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

#: About two seconds of a busy worker's events (1,500 messages per second, three events each).
MAX_EVENTS = 10_000
#: The texts in them: arguments, tracebacks and errors are as long as a task makes them.
MAX_CHARACTERS = 16_000_000
#: Of each text; Celery's own limit for the representation of a result is 1,024.
MAX_TEXT_CHARACTERS = 8_000

Event = dict[str, Any]


class EventBuffer:
    """Filled from any thread, emptied by one."""

    def __init__(
        self,
        on_dropped: Callable[[int], object],
        *,
        max_events: int = MAX_EVENTS,
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        """``on_dropped`` gets the number of lost events, each time that some were."""
        self._on_dropped = on_dropped
        self._max_events = max_events
        self._max_characters = max_characters
        self._lock = threading.Lock()
        self._events: deque[tuple[Event, int]] = deque()
        self._characters = 0

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: Event) -> bool:
        """Add one event, its long texts cut; True when the buffer was empty before."""
        characters = _characters(event)
        dropped = 0
        with self._lock:
            was_empty = not self._events
            self._events.append((event, characters))
            self._characters += characters
            while len(self._events) > self._max_events or (
                self._characters > self._max_characters and len(self._events) > 1
            ):
                self._characters -= self._events.popleft()[1]
                dropped += 1
        if dropped:
            self._on_dropped(dropped)
        return was_empty

    def take(self, most: int) -> list[Event]:
        """Remove and return the oldest events, at most ``most``."""
        with self._lock:
            taken = [self._events.popleft() for _ in range(min(most, len(self._events)))]
            self._characters -= sum(characters for _, characters in taken)
        return [event for event, _ in taken]


def _characters(event: Event) -> int:
    characters = 0
    for value in event.values():
        if isinstance(value, str):
            characters += len(value)
    return characters if characters <= MAX_TEXT_CHARACTERS else _cut_texts(event)


def _cut_texts(event: Event) -> int:
    """Cut what is too long, a traceback to its tail and anything else to its head; returns the characters left."""
    characters = 0
    for name, value in event.items():
        if isinstance(value, str):
            if len(value) > MAX_TEXT_CHARACTERS:
                cut = (
                    f"…{value[1 - MAX_TEXT_CHARACTERS :]}"
                    if name == "traceback"
                    else (f"{value[: MAX_TEXT_CHARACTERS - 1]}…")
                )
                event[name] = cut  # a key that exists: the dict may be changed while it is read
                value = cut  # noqa: PLW2901 - what counts is what is kept
            characters += len(value)
    return characters
