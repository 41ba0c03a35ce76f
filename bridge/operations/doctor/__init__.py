"""`brigade doctor`: what is read, and what is found."""

from __future__ import annotations
