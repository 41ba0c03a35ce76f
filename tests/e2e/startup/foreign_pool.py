"""A pool that the bridge does not know, in the place of gevent's and eventlet's."""

from __future__ import annotations

from celery.concurrency import solo


class TaskPool(solo.TaskPool):
    """Solo's under another module's name."""
