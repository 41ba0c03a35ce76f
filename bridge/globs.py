"""Shell globs for routes, filters and policies. Pure."""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache
from typing import Any


def matches(pattern: str, text: str) -> bool:
    """Return whether ``text`` matches the shell glob ``pattern``, case-sensitively; ``*`` also matches ``/``."""
    return pattern == "*" or _compiled(pattern)(text) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    return re.compile(translate(pattern)).match
