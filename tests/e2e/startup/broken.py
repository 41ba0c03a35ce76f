"""A module that cannot be imported."""

from __future__ import annotations

raise ValueError("the\ndatabase's password is missing")
