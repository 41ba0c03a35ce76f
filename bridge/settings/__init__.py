"""The settings: their names, rules and defaults, and how they are read from the environment."""

from __future__ import annotations
