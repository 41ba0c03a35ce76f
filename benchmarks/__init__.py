"""The worker beside its peers, on one machine: `make bench`. See README.md in this folder."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parent
#: The environments of the contestants, the logs of failed runs, and the results of partial runs.
CACHE = REPOSITORY / ".cache" / "bench"
