"""Delivery: receive, lease, renew, run queue, settle and drain. No Celery."""

from __future__ import annotations
