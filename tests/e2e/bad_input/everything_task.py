"""A task that takes every body of its queue as it is, and writes it down.

Never imported by a test: it would take the messages of every other test in the process.
"""

from __future__ import annotations

from pathlib import Path

from bridge import Message, message_task
from bridge.celery import app

BODIES = Path("bodies")


@message_task(everything=True)
def keep(msg: Message) -> None:
    """Keep the body under the message's id."""
    BODIES.mkdir(exist_ok=True)
    (BODIES / msg.id).write_bytes(msg.body.encode())


@app.task
def leave_a_trace() -> None:
    """Be named by Celery messages, which are bodies like any other here."""
    Path("executed").touch()
