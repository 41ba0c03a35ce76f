"""Tasks: the Celery app, the decorators, and what surrounds a run."""

from __future__ import annotations
