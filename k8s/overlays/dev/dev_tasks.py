"""The task of the development overlay: takes any message, and works on it for as long as it says."""

from __future__ import annotations

import time

from bridge import Message, message_task


@message_task(everything=True, max_retries=2)
def pretend(message: Message) -> dict[str, float]:
    """Sleep ``{"seconds": 20}``, or fail with ``{"fail": "why"}``; anything else takes five seconds."""
    try:
        wanted = message.json()
    except ValueError:
        wanted = None
    if not isinstance(wanted, dict):
        wanted = {}
    if wanted.get("fail"):
        raise RuntimeError(str(wanted["fail"]))
    seconds = min(max(float(wanted.get("seconds", 5)), 0.0), 3000.0)
    time.sleep(seconds)
    return {"seconds": seconds}
