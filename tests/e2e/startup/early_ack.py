"""A plain Celery task that wants its message deleted before it runs."""

from __future__ import annotations

from bridge.celery import app


@app.task(acks_late=False)
def early() -> None:
    """Would be lost in a crash."""
