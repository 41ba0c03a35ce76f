"""How a record may change: claim, complete, release, save progress. Pure: no clock, no store.

    absent ──claim──> in-progress ──complete──> completed
                       │  ^    ^
               release │  │    └── claim by another, once claimed_until has passed (take-over)
                       v  │ claim
                     released

Every change is written on condition that the record is still the one that was read, so two runs can never both succeed
with one: what this file decides holds whatever the clocks of two machines say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bridge.idempotency.identity import ClaimRequest, is_older, is_same
from bridge.idempotency.record import Record

#: Of how many messages a record remembers the failures: one event comes as one message, or as a few duplicates.
MESSAGES_REMEMBERED = 20
#: How long a message that meets a live claim waits before it looks again: four times as long each time.
FIRST_WAIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who claims: the run's ``owner`` token and its message, until when, and when the record may go (since 1970)."""

    owner: str
    message_id: str
    at: float
    until: float
    expires_at: int


@dataclass(frozen=True, slots=True)
class Granted:
    """Claimed, once ``record`` is written in place of what was read. ``retries`` are failed runs of this message."""

    record: Record
    retries: int
    took_over: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """Completed before: there is nothing to do; ``result`` is what that run returned, where it was kept."""

    result: Any = None


@dataclass(frozen=True, slots=True)
class Outdated:
    """A newer event of the same object was completed before (``latest_only``)."""

    newer: str


@dataclass(frozen=True, slots=True)
class Busy:
    """Another run has a live claim, for at most ``seconds`` more."""

    seconds: float


def claim(found: Record | None, claim_request: ClaimRequest, who: Claimant) -> Granted | Done | Outdated | Busy:
    """Decide whether this run may begin; ``found`` is the record as it was read, None when there is none."""
    if found is None or (found.expires_at <= who.at and not _is_live(found, who.at)):
        # DynamoDB and S3 remove expired records some time later, at their leisure.
        return Granted(
            _claimed(Record(status="released", event=claim_request.event, expires_at=0), claim_request, who), 0
        )
    if found.status == "in-progress" and found.owner == who.owner and found.event == claim_request.event:
        # Our own write, of which the answer was lost.
        return Granted(found, found.failures.get(who.message_id, 0))
    if _is_live(found, who.at) and found.owner != who.owner:
        return Busy(found.claimed_until - who.at)
    if found.done_event == claim_request.event:
        return Done(found.result)
    if claim_request.latest_only and is_same(claim_request.sequencer, found.sequencer):
        return Done()  # an event without a place in the order was completed since
    if claim_request.latest_only and is_older(claim_request.sequencer, found.sequencer):
        return Outdated(found.sequencer or "")
    return Granted(
        _claimed(found, claim_request, who),
        retries=found.failures.get(who.message_id, 0),
        took_over=found.status == "in-progress" and found.owner != who.owner,
    )


def complete(mine: Record, claim_request: ClaimRequest, *, result: Any, expires_at: int) -> Record:
    """Return the record of a completed run; to be written in place of ``mine`` only."""
    newest = (
        mine.sequencer
        if is_older(claim_request.sequencer, mine.sequencer)
        else claim_request.sequencer or mine.sequencer
    )
    return replace(
        mine,
        status="completed",
        claimed_until=0.0,
        progress=None,
        result=result,
        done_event=claim_request.event,
        done_version={},
        sequencer=newest,
        expires_at=expires_at,
    )


def release(mine: Record, message_id: str, *, failed: bool) -> Record:
    """Return the record of a run that ended without completing; ``failed`` counts it among the message's failures."""
    failures = dict(mine.failures)
    if failed:
        count = failures.pop(message_id, 0) + 1
        failures[message_id] = count  # at the end: the oldest are forgotten first
    return replace(
        mine,
        status="released",
        owner="",
        claimed_until=0.0,
        failures=dict(list(failures.items())[-MESSAGES_REMEMBERED:]),
    )


def save_progress(mine: Record, progress: Mapping[str, Any]) -> Record:
    """Return the record with a new checkpoint."""
    return replace(mine, progress=dict(progress))


def is_mine(found: Record | None, owner: str) -> bool:
    """Say whether this run still holds the record: nobody has taken it over, whatever the clock says."""
    return found is not None and found.status == "in-progress" and found.owner == owner


def claim_seconds(time_limit_seconds: float) -> float:
    """Return how long a claim lasts: the hard limit, and a tenth more for clocks that differ and kills that lag."""
    return time_limit_seconds + min(60.0, max(10.0, time_limit_seconds / 10))


def wait_seconds(busy_seconds: float, receives: int, jitter: float = 1.0) -> float:
    """Return how long a message waits that met a live claim; ``jitter`` is a number from 0 to 1.

    Never much beyond the claim's own end, and the last wait reaches it: jitter must not have it only approached.
    Fourfold each time: every look is a receive, and a queue's maxReceiveCount bounds those; a claim of an hour is
    outlasted in about eight, one of twelve hours in ten.
    """
    fourfold = FIRST_WAIT_SECONDS * 4.0 ** min(max(receives, 1) - 1, 20)
    return min(busy_seconds + (1.0 + jitter) / 2, fourfold * (1.0 + jitter) / 2)


def _is_live(found: Record, at: float) -> bool:
    return found.status == "in-progress" and found.claimed_until > at


def _claimed(found: Record, claim_request: ClaimRequest, who: Claimant) -> Record:
    same = found.event == claim_request.event
    return replace(
        found,
        status="in-progress",
        owner=who.owner,
        claimed_until=who.until,
        event=claim_request.event,
        progress=found.progress if same else None,
        expires_at=who.expires_at,
        about=claim_request.about,
        version=claim_request.version,
        done_version=found.done_version if same or found.event != found.done_event else found.version,
    )
