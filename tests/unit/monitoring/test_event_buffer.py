"""The buffer before the bus: bounded, newest first to survive, and every loss counted."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridge.monitoring.event_buffer import MAX_TEXT_CHARACTERS, EventBuffer

_STEPS = st.lists(st.one_of(st.integers(0, 60), st.just("take")), max_size=60)


@given(steps=_STEPS, most=st.integers(1, 10), characters=st.integers(1, 200))
def test_bounds_and_books(steps: list[Any], most: int, characters: int) -> None:
    """Whatever is added and taken: both bounds hold, order is kept, the newest stay, and each is accounted for."""
    dropped: list[int] = []
    buffer = EventBuffer(dropped.append, max_events=most, max_characters=characters)
    added, taken = 0, []
    for step in steps:
        if step == "take":
            taken += [event["n"] for event in buffer.take(3)]
        else:
            held_before = len(buffer)
            assert buffer.add({"n": added, "text": "x" * step}) == (held_before == 0)
            added += 1
        held = list(buffer._events)
        assert len(held) <= most
        assert len(held) <= 1 or sum(size for _, size in held) <= characters
    taken += [event["n"] for event in buffer.take(added)]
    assert taken == sorted(taken)
    assert len(taken) + sum(dropped) == added
    if added and (not steps or steps[-1] != "take"):
        assert taken[-1] == added - 1


def test_long_texts_are_cut() -> None:
    """A traceback keeps its tail and other texts their head; what is no text stays as it is."""
    buffer = EventBuffer(lambda _: None)
    buffer.add({"traceback": "a" * 50_000 + "END", "args": "BEGIN" + "b" * 50_000, "retries": 3})
    (event,) = buffer.take(1)
    assert (len(event["traceback"]), len(event["args"])) == (MAX_TEXT_CHARACTERS, MAX_TEXT_CHARACTERS)
    assert event["traceback"].endswith("END")
    assert event["args"].startswith("BEGIN")
    assert event["retries"] == 3
