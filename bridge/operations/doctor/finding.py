"""What ``brigade doctor`` says of one thing it looked at: plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``check`` is a word for what was looked at, ``subject`` which one of them; ``remedy`` how to correct it."""

    level: Level
    check: str
    subject: str
    text: str
    remedy: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)
