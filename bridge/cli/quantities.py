"""Sizes, moments and rates as people type them on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_UNITS = {"": 1, "B": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {f"{unit}B": factor for unit, factor in list(_UNITS.items()) if unit not in ("", "B")}
_UNITS |= {f"{unit}IB": 1024**power for power, unit in enumerate("KMGT", start=1)}
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Size(click.ParamType):  # type: ignore[type-arg]  # click has made it generic with 8.5 only
    """A number of bytes: ``500``, ``10MB`` (10,000,000), ``1GiB`` (1,073,741,824)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes; fails with the rule."""
        found = re.fullmatch(r"([0-9]{1,15})(?:\.([0-9]{1,3}))? ?([A-Za-z]{0,3})", str(value).strip(), re.ASCII)
        factor = _UNITS.get(found[3].upper()) if found else None
        if found is None or factor is None:
            self.fail(f"{value!r} is not a size: give a number of bytes, or a text such as 10MB or 1GiB", param, ctx)
        return int(found[1]) * factor + (int(found[2]) * factor // 10 ** len(found[2]) if found[2] else 0)


class Moment(click.ParamType):  # type: ignore[type-arg]  # as Size
    """A moment: ``2026-03-01``, ``2026-03-01T12:00``, with ``Z`` or an offset (else UTC); or ``7d``: so long ago."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the moment with its time zone; fails with the rule."""
        text = str(value).strip()
        try:
            if span := re.fullmatch(r"([0-9]{1,9})([smhdw])", text, re.ASCII):
                return datetime.now(UTC) - timedelta(seconds=int(span[1]) * _SPANS[span[2]])
            moment = datetime.fromisoformat(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is not a moment: give 2026-03-01, 2026-03-01T12:00Z, or 7d for a week ago", param, ctx
            )


class Rate(click.ParamType):  # type: ignore[type-arg]  # as Size
    """Messages per second, above zero."""

    name = "n/s"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        try:
            rate = float(value)
        except ValueError:
            rate = 0.0
        if not 0.001 <= rate <= 100_000:  # nan is not either
            self.fail(f"{value!r} must be a number of messages per second, 0.001 to 100000", param, ctx)
        return rate
