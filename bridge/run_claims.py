"""What a run may have claimed in the idempotency store, as its parent process knows it, and who has to release it.

A run releases its claims itself and notes on its exception that it did (``bridge.once``). A killed one notes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from celery.exceptions import Ignore

from bridge.drain import RELEASE_SECONDS
from bridge.failure import text_of
from bridge.idempotency.claiming import Run, present_guard
from bridge.idempotency.identity import Wish
from bridge.idempotency.release import Release, release_all
from bridge.lease import Lease
from bridge.log import get_logger
from bridge.messages.retry_policy import Failure
from bridge.once import longest_claim_seconds, wants_claims
from bridge.task import MustWait

log = get_logger(__name__)

#: Ends that count as a failed attempt.
_COUNTED = frozenset({"retry-requested", "error", "internal-error", "time-limit", "worker-lost"})


def owed(request: Any, exc: BaseException, failure: Failure | None) -> Release | None:
    """Return the release that a run which ended so left to its parent; None when it left nothing.

    ``failure`` None: Celery sent the retry as a message of its own, which must find the claim free.
    """
    # Ignore completes; what is left of a lost answer there ends by itself.
    if getattr(exc, "bridge_released", False) or (isinstance(exc, Ignore) and not isinstance(exc, MustWait)):
        return None
    return _claims(request, failed=failure is None or failure.kind in _COUNTED)


def release_stopped(leases: Iterable[Lease]) -> None:
    """Free what stopped runs had claimed, before their messages are handed back; a stopped run has not failed.

    A store that hangs gets ``RELEASE_SECONDS`` for all of them, and then the claims end by themselves.
    """
    requests = [lease.request() for lease in leases if lease.request is not None]
    releases = [_claims(request, failed=False) for request in requests if request is not None]
    release_all((release for release in releases if release is not None), RELEASE_SECONDS)


def _claims(request: Any, *, failed: bool) -> Release | None:
    """Return what lets go of all that the run may have claimed; None when runs of its task claim nothing."""
    task = request.task
    if present_guard() is None or not wants_claims(task):
        return None
    # As it was sent: ``.delay(obj)``, or ``.delay(obj=obj)``.
    argument = request.args[0] if request.args else request.kwargs.get(task.takes)

    def wishes() -> Sequence[Wish]:
        try:
            found: Sequence[Wish] = task.wishes(argument)
        except Exception as error:  # noqa: BLE001 - an idempotency_key of the user's: the run has told of it itself
            log.warning("claim_not_released", **request.lease.log_fields, error=text_of(error))
            return ()
        return found

    header = request.request_dict["bridge"]
    # It is tried as long as the claim can last: then there is nothing left to release.
    seconds = longest_claim_seconds(task, (request.time_limits or (None, None))[0])
    return Release(wishes, Run(header["owner"], header["message_id"], header["receives"], seconds), failed)
