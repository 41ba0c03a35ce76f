"""The Celery worker: start, wiring of the delivery engine, and the seams with Celery."""

from __future__ import annotations
