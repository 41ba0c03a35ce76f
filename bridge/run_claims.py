"""What a run may have claimed in the idempotency store, as its parent process knows it, and who has to release it.

A run releases its claims itself and notes on its exception that it did (``bridge.once``). A killed one notes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery.exceptions import Ignore

from bridge.drain import RELEASE_SECONDS
from bridge.failure import text_of
from bridge.idempotency.guard import Run, present_guard
from bridge.idempotency.release import Release, release_all
from bridge.leases import Lease
from bridge.log import get_logger
from bridge.retry_policy import Failure
from bridge.task import MustWait

log = get_logger(__name__)

#: Ends that count as a failed attempt.
_COUNTED = frozenset({"retry-requested", "error", "internal-error", "time-limit", "worker-lost"})
#: How long a release is tried at most; the claim may end sooner by itself, and then there is nothing left to release.
CLAIM_SECONDS = 43_200.0


def owed(request: Any, exc: BaseException, failure: Failure) -> Release | None:
    """Return the release that a run which ended so left to its parent; None when it left nothing."""
    # Ignore completes; what is left of a lost answer there ends by itself.
    if getattr(exc, "bridge_released", False) or (isinstance(exc, Ignore) and not isinstance(exc, MustWait)):
        return None
    return _claims(request, failed=failure.kind in _COUNTED)


def release_stopped(leases: Iterable[Lease]) -> None:
    """Free what stopped runs had claimed, before their messages are handed back; a stopped run has not failed.

    A store that hangs gets ``RELEASE_SECONDS`` for all of them, and then the claims end by themselves.
    """
    requests = [lease.request() for lease in leases if lease.request is not None]
    releases = [_claims(request, failed=False) for request in requests if request is not None]
    release_all((release for release in releases if release is not None), RELEASE_SECONDS)


def _claims(request: Any, *, failed: bool) -> Release | None:
    """Return what lets go of all that the run may have claimed; None when runs of its task claim nothing."""
    task, arguments = request.task, request.args
    if present_guard() is None or task.idempotent is False or not arguments:
        return None
    try:
        wishes = task.wishes(arguments[0])
    except Exception as error:  # noqa: BLE001 - an idempotency_key of the user's: the run has told of it itself
        log.warning("claim_not_released", **request.lease.log_fields, error=text_of(error))
        return None
    if not wishes:
        return None
    header = request.request_dict["bridge"]
    return Release(wishes, Run(header["owner"], header["message_id"], header["receives"], CLAIM_SECONDS), failed)
