"""How a record may change: claim, complete, release, save progress. Pure: no clock, no store.

    absent ──claim──> in-progress ──complete──> completed
                       │  ^    ^
               release │  │    └── claim by another, once claimed_until has passed (take-over)
                       v  │ claim
                     released

Every change is written only if the record is still the one that was read, so two runs can never both make a change.
These decisions are safe even when the clocks of two machines differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bridge.idempotency.identity import ClaimRequest, is_older, is_same
from bridge.idempotency.record import Record

#: For how many messages a record keeps the failures: one event comes as one message, or as a few duplicates.
MESSAGES_REMEMBERED = 20
#: The first wait of a message that meets a live claim, in seconds; each further wait is four times as long.
FIRST_WAIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Claimant:
    """The claiming run: its ``owner`` token and its message.

    ``at`` is the current time, ``until`` the end of the claim, ``expires_at`` the expiry of the record, all in epoch
    seconds.
    """

    owner: str
    message_id: str
    at: float
    until: float
    expires_at: int


@dataclass(frozen=True, slots=True)
class Granted:
    """Claimed as soon as ``record`` has replaced the record that was read.

    ``retries`` counts the failed runs of this message. ``took_over`` says that it replaced another run's expired claim.
    """

    record: Record
    retries: int
    took_over: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """Completed before, so there is nothing to do; ``result`` is that run's return value, if it was stored."""

    result: Any = None


@dataclass(frozen=True, slots=True)
class Outdated:
    """A newer event of the same object was completed before (``latest_only``)."""

    newer: str


@dataclass(frozen=True, slots=True)
class Busy:
    """Another run holds a live claim, for at most ``seconds`` more."""

    seconds: float


def claim(found: Record | None, claim_request: ClaimRequest, who: Claimant) -> Granted | Done | Outdated | Busy:
    """Decide whether this run may start; ``found`` is the record that was read, None when there is none."""
    if found is None or (found.expires_at <= who.at and not _is_live(found, who.at)):
        # DynamoDB and S3 delete expired records only some time later, so one may still be there.
        return Granted(
            _claimed(Record(status="released", event=claim_request.event, expires_at=0), claim_request, who), 0
        )
    if found.status == "in-progress" and found.owner == who.owner and found.event == claim_request.event:
        # This run's own write, whose answer was lost.
        return Granted(found, found.failures.get(who.message_id, 0))
    if _is_live(found, who.at) and found.owner != who.owner:
        return Busy(found.claimed_until - who.at)
    if found.done_event == claim_request.event:
        return Done(found.result)
    if claim_request.latest_only and is_same(claim_request.sequencer, found.sequencer):
        return Done()  # completed before; an event without a sequencer was completed after it
    if claim_request.latest_only and is_older(claim_request.sequencer, found.sequencer):
        return Outdated(found.sequencer or "")
    return Granted(
        _claimed(found, claim_request, who),
        retries=found.failures.get(who.message_id, 0),
        took_over=found.status == "in-progress" and found.owner != who.owner,
    )


def complete(mine: Record, claim_request: ClaimRequest, *, result: Any, expires_at: int) -> Record:
    """Return the record of a completed run; it may replace only ``mine``."""
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
        failures[message_id] = count  # at the end, so that the oldest are dropped first
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
    """Return whether this run still holds the claim: no other run has taken it over, whatever the clock says."""
    return found is not None and found.status == "in-progress" and found.owner == owner


def claim_seconds(time_limit_seconds: float) -> float:
    """Return how many seconds a claim lasts: the hard time limit plus a margin.

    The margin is a tenth of the limit, from 10 s to 60 s. It covers clock differences and a late kill of the process.
    """
    return time_limit_seconds + min(60.0, max(10.0, time_limit_seconds / 10))


def wait_seconds(busy_seconds: float, receives: int, jitter: float = 1.0) -> float:
    """Return how many seconds a message waits after it met a live claim; ``jitter`` is a number from 0 to 1.

    A wait never goes far beyond the end of the claim. The last wait always reaches that end, whatever the jitter. Each
    wait is four times the previous one, because each costs a receive and the queue's maxReceiveCount limits those. A
    claim of one hour takes about eight receives, a claim of twelve hours ten.
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
