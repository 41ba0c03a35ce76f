"""Messages and their outcome: parsing, routing, retry policy, verdicts, cause of a dead-lettered message. Pure."""

from __future__ import annotations
