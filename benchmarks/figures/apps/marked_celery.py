"""Stock Celery's task that says when it ran: the bench's app for the peers, and one task more."""

from __future__ import annotations

from celery_app import app
from marks import mark


@app.task(name="bench.mark")
def marked() -> None:
    """Note the time."""
    mark("done")
