"""Dead-letter queues: read, filter, redrive."""

from __future__ import annotations
