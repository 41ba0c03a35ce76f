"""What else may land on a queue of S3 events, and what becomes of it."""

from __future__ import annotations
