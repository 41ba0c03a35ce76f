"""Times as ISO 8601 text in UTC, in the two forms that the bridge writes. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal


def iso_utc(epoch_seconds: float, timespec: Literal["seconds", "milliseconds"] = "milliseconds") -> str:
    """Return text such as ``2026-11-21T09:30:00.000+00:00``; ``epoch_seconds`` is truncated, never rounded up."""
    return datetime.fromtimestamp(epoch_seconds, UTC).isoformat(timespec=timespec)


def iso_utc_z(epoch_seconds: float, timespec: Literal["seconds", "milliseconds"] = "milliseconds") -> str:
    """Return text such as ``2026-11-21T09:30:00.000Z``, the form in S3 events."""
    return iso_utc(epoch_seconds, timespec).replace("+00:00", "Z")
