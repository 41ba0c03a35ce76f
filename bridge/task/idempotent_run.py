"""Run a task's function under a claim: the flow of docs/guide/idempotency.md, in the process that runs the task.

Claim → run → complete, or release. A claim that this process can no longer release (killed, stopped by the hard time
limit) is released by the parent: see ``bridge.worker.request``. What ends the run carries notes for it (``RUN_NOTES``).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from celery.exceptions import Ignore, Reject

from bridge.errors import ClaimLost, ObjectChanged, ObjectGone, ObjectTooLarge, StoreUnavailable
from bridge.idempotency.claiming import Claim, ClaimingRun, current_claimer
from bridge.idempotency.identity import ClaimRequest
from bridge.idempotency.transitions import Busy, Done, Outdated, claim_seconds, wait_seconds
from bridge.log import get_logger
from bridge.s3.progress import Progress
from bridge.sqs.quotas import MAX_VISIBILITY_SECONDS
from bridge.task.base import RUN_NOTES, BridgeTask, MustWait

log = get_logger(__name__)

#: Where nothing limits a run, SQS does: it ends every hold twelve hours after the receive.
LONGEST_RUN_SECONDS = float(MAX_VISIBILITY_SECONDS)
#: How long a message waits for a store that cannot be asked: twice as long each time, and so about as long again as it
#: has waited. Each wait is a receive, and those are bounded: with the defaults an outage of hours is outlasted.
FIRST_STORE_WAIT_SECONDS = 5.0
LONGEST_STORE_WAIT_SECONDS = 3600.0

#: These end the work on an object, or are not the task's failure: they count as no attempt.
_NO_FAILURES = (Reject, ObjectChanged, ObjectGone, ObjectTooLarge)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Nothing was run: the event was completed before (``duplicate``), or a newer one was (``outdated``)."""

    reason: Literal["duplicate", "outdated"]
    text: str
    result: Any = None


def claims_events(task: BridgeTask) -> bool:
    """Say whether this run is to claim what it works on: a store is set, the task wants it, and a worker runs it."""
    if current_claimer() is None or not wants_claims(task):
        return False
    request = task.request
    run_by_worker = not request.called_directly and not request.is_eager
    return run_by_worker and bool((request.get("bridge") or {}).get("owner"))


def wants_claims(task: BridgeTask) -> bool:
    """Say whether runs of the task claim what they work on, once a store is set: a file task's, unless it says no."""
    if task.idempotent is not None:
        return task.idempotent
    return task.route is not None and task.route.kind == "file"


def longest_claim_seconds(task: BridgeTask, own: float | None) -> float:
    """Return how long a run's claim lasts: by its hard time limit; ``own`` is the message's own one, seconds."""
    return claim_seconds(float(max(task.time_limit or 0, own or 0) or LONGEST_RUN_SECONDS))


@contextmanager
def claiming(task: BridgeTask) -> Iterator[None]:
    """Around all claims of one run: its end is reported to the parent process, with the claims that are open."""
    request = task.request
    request.update(bridge_owed=set(), bridge_retries=None, bridge_released=None)
    try:
        yield
    except BaseException as error:
        request.bridge_released = not request.bridge_owed
        for name in RUN_NOTES:
            if request.get(name) is not None:
                with suppress(AttributeError):  # an exception with __slots__: the parent then does without
                    setattr(error, name, request.get(name))
        raise


def run_claimed(task: BridgeTask, claim_request: ClaimRequest, call: Callable[[Progress], Any]) -> Any:
    """Return what ``call`` returned, or Skipped; raises MustWait when this run may not begin, or lost its claim.

    To be called inside ``claiming``.
    """
    request = task.request
    # Owed until its end is known: a call that failed may have taken effect.
    request.bridge_owed.add(claim_request.id)
    claim = _acquire(task, claim_request)
    if isinstance(claim, Skipped):
        return claim
    if claim is None:
        return call(Progress())
    retries = claim.retries + int(request.bridge.get("republished") or 0)
    request.update(retries=retries, bridge_retries=retries, bridge_retry_sent=None)
    try:
        result = call(Progress(claim))
    except ClaimLost as error:
        request.bridge_owed.discard(claim_request.id)
        raise _overtaken(claim_request, error) from error
    except Ignore:
        _complete(claim, claim_request, None, request)
        raise
    except BaseException as error:
        # Other BaseExceptions are Celery's own, of a worker that shuts down.
        if _release(claim, claim_request, failed=isinstance(error, Exception) and not isinstance(error, _NO_FAILURES)):
            request.bridge_owed.discard(claim_request.id)
        raise
    if request.bridge_retry_sent:
        # ``retry(throw=False)`` has sent a message that is to do the work: completed, it would be a duplicate.
        if _release(claim, claim_request, failed=True):
            request.bridge_owed.discard(claim_request.id)
    else:
        _complete(claim, claim_request, result, request)
    return result


def _acquire(task: BridgeTask, claim_request: ClaimRequest) -> Claim | Skipped | None:
    claimer = current_claimer()
    assert claimer is not None  # noqa: S101 - claims_events() was asked
    header = task.request.bridge
    receives = int(header["receives"])
    own = (task.request.timelimit or (None, None))[0]
    run = ClaimingRun(header["owner"], header["message_id"], receives, longest_claim_seconds(task, own))
    try:
        found = claimer.acquire(claim_request, run)
    except StoreUnavailable as error:
        # No traceback: the store's own words are in the error.
        log.warning(
            "store_unavailable",
            record=claim_request.id,
            about=claim_request.about,
            error=str(error),
            then=task.when_store_fails,
        )
        if task.when_store_fails == "run":
            return None
        raise _no_store(receives, error) from error
    if not isinstance(found, Claim):
        task.request.bridge_owed.discard(claim_request.id)
    match found:
        case Busy(seconds):
            wait = wait_seconds(seconds, receives, random.random())  # noqa: S311 - spreads looks, is no secret
            log.info(
                "claim_busy", record=claim_request.id, about=claim_request.about, claimed_for_seconds=round(seconds, 1)
            )
            raise MustWait("in-progress", wait, f"{claim_request.about}: another run is at work on it")
        case Done(result):
            return Skipped("duplicate", f"{claim_request.about}: completed before", result)
        case Outdated(newer):
            return Skipped(
                "outdated",
                f"{claim_request.about}: sequencer {claim_request.sequencer} is older than {newer}, completed before",
            )
    if found.took_over:
        log.warning("claim_taken_over", record=claim_request.id, about=claim_request.about)
    return found


def _complete(claim: Claim, claim_request: ClaimRequest, result: Any, request: Any) -> None:
    try:
        claim.complete(result)
        request.bridge_owed.discard(claim_request.id)
    except ClaimLost as error:
        request.bridge_owed.discard(claim_request.id)
        raise _overtaken(claim_request, error) from error
    except StoreUnavailable as error:
        # The work is done and cannot be noted down: it will be done again. The parent releases the claim when it can.
        log.warning("completion_lost", record=claim_request.id, about=claim_request.about, error=str(error))
        raise _no_store(int(request.bridge["receives"]), error) from error


def _release(claim: Claim, claim_request: ClaimRequest, *, failed: bool) -> bool:
    try:
        claim.release(failed=failed)
    except ClaimLost:
        log.warning("claim_lost", record=claim_request.id, about=claim_request.about)
    except StoreUnavailable as error:
        log.warning("claim_not_released", record=claim_request.id, about=claim_request.about, error=str(error))
        return False
    return True


def _overtaken(claim_request: ClaimRequest, error: ClaimLost) -> MustWait:
    """Return what ends a run whose claim another one took over: its result counts for nothing."""
    log.error("claim_lost", record=claim_request.id, about=claim_request.about, error=str(error))
    return MustWait("in-progress", wait_seconds(0.0, 1), str(error))


def _no_store(receives: int, error: StoreUnavailable) -> MustWait:
    longest = min(LONGEST_STORE_WAIT_SECONDS, FIRST_STORE_WAIT_SECONDS * 2 ** min(max(receives, 1) - 1, 10))
    seconds = longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, is no secret
    return MustWait("store-unavailable", seconds, str(error))
