"""How a worker starts: what it says, what it refuses, and what it waits for."""

from __future__ import annotations
