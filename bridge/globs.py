"""Shell globs as routes, filters and policies use them. Pure."""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache
from typing import Any


def matches(pattern: str, text: str) -> bool:
    """Say whether ``text`` matches the shell glob ``pattern``, case-sensitively; ``*`` matches ``/`` too."""
    return pattern == "*" or _compiled(pattern)(text) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    return re.compile(translate(pattern)).match
