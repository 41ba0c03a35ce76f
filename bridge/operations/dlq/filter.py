"""Which dead letters a command means. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bridge.globs import matches
from bridge.messages.dead_letter import Letter

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """The conditions for a message: all kinds must hold, and of each kind any one that was given.

    ``reasons``, ``tasks``, ``buckets`` and ``keys`` are globs (``*`` matches ``/`` too), ``ids`` are whole ids.
    ``not_after`` and ``not_before`` are seconds since the epoch. A bucket and a key must match the same object.
    """

    ids: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    buckets: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    not_after: float | None = None
    not_before: float | None = None

    @property
    def takes_all(self) -> bool:
        """Whether no condition was given."""
        return self == Filter()

    def takes(self, letter: Letter) -> bool:
        """Say whether the message is selected; one that lacks the value asked for is not."""
        return (
            (not self.ids or letter.message_id in self.ids or letter.id in self.ids)
            and _any(self.reasons, letter.reason)
            and _any(self.tasks, letter.task)
            and self._takes_an_object(letter)
            and (self.not_after is None or (letter.when is not None and letter.when <= self.not_after))
            and (self.not_before is None or (letter.when is not None and letter.when >= self.not_before))
        )

    def _takes_an_object(self, letter: Letter) -> bool:
        if not self.buckets and not self.keys:
            return True
        return any(_any(self.buckets, bucket) and _any(self.keys, key) for bucket, key in letter.objects)


def age_seconds(text: str) -> int:
    """Return the seconds of an age such as 90s, 30m, 12h, 7d or 2w. Raises ValueError with the rule."""
    found = re.fullmatch(r"([0-9]{1,6})([smhdw])", text.strip())
    if found is None:
        raise ValueError("must be a number and a unit, such as 90s, 30m, 12h, 7d or 2w")
    return int(found[1]) * _UNIT_SECONDS[found[2]]


def _any(globs: tuple[str, ...], text: str | None) -> bool:
    return not globs or (text is not None and any(matches(glob, text) for glob in globs))
