"""The record of a claim, and its JSON. Pure.

Both stores keep the same JSON text. ``schema`` increases when a reader of the old form would misread the new one; a
record with an unknown schema is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA = 1
#: The upper limit of all times, in epoch seconds; a float holds it exactly.
LATEST = 10**15

Status = Literal["in-progress", "released", "completed"]
_STATUSES = ("in-progress", "released", "completed")
_KEPT_EMPTY = ("event", "result", "progress", "done_event", "sequencer")


class UnreadableRecord(ValueError):  # noqa: N818 - says what it is
    """A text that is not a record of the bridge, or has an unknown schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The state of an event (with ``latest_only``, of all events of an object).

    ``owner`` is the token of the run that holds or held the claim, ``claimed_until`` the time when the claim expires
    (epoch seconds), ``event`` the event it was claimed for. ``failures`` counts failed runs by SQS MessageId; a
    redriven message has a new id, so its count starts at 0. ``done_event`` and ``sequencer`` belong to the newest
    completed event. ``version`` identifies the object's version for ``event`` (``identity.version_of``), and
    ``done_version`` that for ``done_event`` if it is another event. Only ``brigade reconcile`` uses both; no claim is
    decided by them. ``expires_at`` (whole epoch seconds) is when the store may delete the record.
    """

    status: Status
    event: str
    expires_at: int
    owner: str = ""
    claimed_until: float = 0.0
    failures: Mapping[str, int] = field(default_factory=dict)
    progress: Mapping[str, Any] | None = None
    result: Any = None
    done_event: str | None = None
    sequencer: str | None = None
    about: str = ""
    version: Mapping[str, str] = field(default_factory=dict)
    done_version: Mapping[str, str] = field(default_factory=dict)

    @property
    def completed_version(self) -> Mapping[str, str]:
        """The object's version of ``done_event``; it is stored only once when ``event`` is the same event."""
        return self.version if self.event == self.done_event else self.done_version


def to_json(record: Record) -> str:
    """Return the record's text; equal records give the same text, and ``failures`` keeps its order."""
    values = {name: getattr(record, name) for name in Record.__dataclass_fields__}
    # Default values are omitted: None, and empty values except in the fields where empty differs from None.
    kept = {
        name: value
        for name, value in values.items()
        if value is not None and (value not in ("", {}) or name in _KEPT_EMPTY)
    }
    return json.dumps({"schema": SCHEMA, **kept}, allow_nan=False)


def from_json(text: str) -> Record:
    """Return the record of a text; raises UnreadableRecord for a text that ``to_json`` cannot have written."""
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UnreadableRecord(f"not JSON: {str(error)[:80]}") from error
    if not isinstance(values, dict) or not isinstance(values.get("schema"), int) or isinstance(values["schema"], bool):
        raise UnreadableRecord("not a claim record: it has no schema")
    if values["schema"] != SCHEMA:
        raise UnreadableRecord(f"schema {values['schema']} is not supported, only {SCHEMA} is: is this version old?")
    if fault := _fault(values):
        raise UnreadableRecord(fault)
    return Record(**{name: values[name] for name in Record.__dataclass_fields__ if name in values})


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _fault(values: dict[str, Any]) -> str | None:
    if values.get("status") not in _STATUSES:
        return "status is unknown"
    for name in ("event", "owner", "done_event", "sequencer", "about"):
        if not isinstance(values.get(name, ""), str):
            return f"{name} is not text"
    if "event" not in values:
        return "event is missing"
    expires_at = values.get("expires_at")
    if not isinstance(expires_at, int) or isinstance(expires_at, bool) or abs(expires_at) > LATEST:
        return "expires_at is not a valid number of seconds"
    until = values.get("claimed_until", 0.0)
    if not isinstance(until, int | float) or isinstance(until, bool) or abs(until) > LATEST:
        return "claimed_until is not a valid number of seconds"
    if values["status"] == "in-progress" and not (values.get("owner") and until):
        # Guessing is unsafe: such a claim might be live, and without an end no run could ever take it over.
        return "in-progress without owner or claimed_until"
    failures = values.get("failures", {})
    if not isinstance(failures, dict) or any(not isinstance(n, int) or isinstance(n, bool) for n in failures.values()):
        return "failures are not counts"
    if not isinstance(values.get("progress", {}), dict):
        return "progress is not an object"
    for name in ("version", "done_version"):
        version = values.get(name, {})
        if not isinstance(version, dict) or not all(isinstance(value, str) for value in version.values()):
            return f"{name} is not an object of texts"
    return None
