"""Imported by every interpreter whose path leads here: at its end it writes what it has imported into NOTED_MODULES."""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path

atexit.register(lambda: Path(os.environ["NOTED_MODULES"]).write_text("\n".join(sys.modules), encoding="utf-8"))
