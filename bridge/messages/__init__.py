"""What a message is and what becomes of it: parse, route, retry, verdict, cause of a dead letter. Pure."""

from __future__ import annotations
