"""Celery's own messages: what is sent with ``.delay()`` and canvas, on the queue of ``SQS_TASK_QUEUE_URL``."""

from __future__ import annotations
