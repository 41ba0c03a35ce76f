"""A task that is not based on the bridge's class, and so would be settled by Celery."""

from __future__ import annotations

from celery import Task

from bridge.celery import app


@app.task(base=Task)
def foreign() -> None:
    """Would be acknowledged when it fails."""
