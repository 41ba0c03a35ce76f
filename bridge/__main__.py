"""``python -m bridge`` is ``brigade``."""

from __future__ import annotations

from bridge.cli import main

main()
