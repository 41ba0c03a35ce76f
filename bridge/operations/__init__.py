"""What the commands of `brigade` do, apart from the command line."""

from __future__ import annotations
