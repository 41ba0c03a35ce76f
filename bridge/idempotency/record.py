"""The record of a claim, and its JSON. Pure.

Both stores keep this one JSON text, so that a record means the same everywhere. ``schema`` is raised when a reader of
the old form would misread the new one; a record of a newer schema is never guessed at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA = 1
#: No moment of ours lies beyond it, and every float holds it exactly (seconds since 1970).
LATEST = 10**15

Status = Literal["in-progress", "released", "completed"]
_STATUSES = ("in-progress", "released", "completed")
_KEPT_EMPTY = ("event", "result", "progress", "done_event", "sequencer")


class UnreadableRecord(ValueError):  # noqa: N818 - says what it is
    """A record that is none of ours, or of a newer schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of an event (or, with ``latest_only``, of the events of an object).

    ``owner`` is the token of the run that holds or held it, ``claimed_until`` when that claim ends by itself (seconds
    since 1970), ``event`` what it was claimed for. ``failures`` counts failed runs by SQS MessageId: a message that was
    redriven is a new one and starts anew. ``done_event`` and ``sequencer`` are those of the newest completed event.
    ``version`` says which version of the object ``event`` is of (``identity.version_of``), ``done_version`` the same of
    ``done_event`` where that is another one; nothing is decided by them, they are for ``brigade reconcile``.
    ``expires_at`` (whole seconds since 1970) is when the record may go.
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
        """Which version of the object ``done_event`` is of; it is kept once where that is ``event`` too."""
        return self.version if self.event == self.done_event else self.done_version


def to_json(record: Record) -> str:
    """Return the record's text; the same record always gives the same text, and ``failures`` keep their order."""
    values = {name: getattr(record, name) for name in Record.__dataclass_fields__}
    # What a reader takes for granted is left out: an empty value, save where it is another than none.
    kept = {
        name: value
        for name, value in values.items()
        if value is not None and (value not in ("", {}) or name in _KEPT_EMPTY)
    }
    return json.dumps({"schema": SCHEMA, **kept}, allow_nan=False)


def from_json(text: str) -> Record:
    """Return the record of a text; raises UnreadableRecord for one that was not written by ``to_json``."""
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UnreadableRecord(f"not JSON: {str(error)[:80]}") from error
    if not isinstance(values, dict) or not isinstance(values.get("schema"), int) or isinstance(values["schema"], bool):
        raise UnreadableRecord("not a record of ours: no schema")
    if values["schema"] != SCHEMA:
        raise UnreadableRecord(f"schema {values['schema']} is not known here, only {SCHEMA} is")
    if fault := _fault(values):
        raise UnreadableRecord(fault)
    return Record(**{name: values[name] for name in Record.__dataclass_fields__ if name in values})


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _fault(values: dict[str, Any]) -> str | None:
    if values.get("status") not in _STATUSES:
        return "status is none of ours"
    for name in ("event", "owner", "done_event", "sequencer", "about"):
        if not isinstance(values.get(name, ""), str):
            return f"{name} is no text"
    if "event" not in values:
        return "no event"
    expires_at = values.get("expires_at")
    if not isinstance(expires_at, int) or isinstance(expires_at, bool) or abs(expires_at) > LATEST:
        return "expires_at is no number of seconds"
    until = values.get("claimed_until", 0.0)
    if not isinstance(until, int | float) or isinstance(until, bool) or abs(until) > LATEST:
        return "claimed_until is no number of seconds"
    if values["status"] == "in-progress" and not (values.get("owner") and until):
        # A claim without an end would never be taken over: this is where others read a live claim as an orphan.
        return "in progress without an owner or an end"
    failures = values.get("failures", {})
    if not isinstance(failures, dict) or any(not isinstance(n, int) or isinstance(n, bool) for n in failures.values()):
        return "failures are no counts"
    if not isinstance(values.get("progress", {}), dict):
        return "progress is no object"
    for name in ("version", "done_version"):
        version = values.get(name, {})
        if not isinstance(version, dict) or not all(isinstance(value, str) for value in version.values()):
            return f"{name} is no object of texts"
    return None
