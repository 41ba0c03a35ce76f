"""Release the claims of runs that cannot do so themselves: killed, out of time, or cut off from the store.

A run releases its claims itself and notes on its exception that it did (``bridge.task.idempotent_run``). A killed one
notes nothing, so the parent process releases for it, on threads of its own. Otherwise the message's next delivery would
meet a live claim and wait until it expires, an hour by default.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any

from celery.exceptions import Ignore

from bridge.delivery.batcher import Again, Batcher
from bridge.delivery.drain import RELEASE_SECONDS
from bridge.delivery.lease import Lease
from bridge.errors import StoreUnavailable
from bridge.idempotency.claiming import ClaimingRun, current_claimer
from bridge.idempotency.identity import ClaimRequest
from bridge.log import get_logger
from bridge.messages.retry_policy import Failure
from bridge.task.base import MustWait
from bridge.task.idempotent_run import longest_claim_seconds, wants_claims
from bridge.worker.failure import text_of

log = get_logger(__name__)

LONGEST_PAUSE_SECONDS = 15.0
#: Of releases that wait for the store. Every message that meets a store which is away leaves one, so without a bound a
#: long outage would fill the memory; a claim beyond it ends by itself.
MOST_WAITING = 1_000
_THREADS = 2
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
    if current_claimer() is None or not wants_claims(task):
        return None
    # As it was sent: ``.delay(obj)``, or ``.delay(obj=obj)``.
    argument = request.args[0] if request.args else request.kwargs.get(task.takes)

    def claim_requests() -> Sequence[ClaimRequest]:
        try:
            found: Sequence[ClaimRequest] = task.claim_requests(argument)
        except Exception as error:  # noqa: BLE001 - an idempotency_key of the user's: the run has logged it itself
            log.warning("claim_not_released", **request.lease.log_fields, error=text_of(error))
            return ()
        return found

    header = request.request_dict["bridge"]
    # It is tried as long as the claim can last: then there is nothing left to release.
    seconds = longest_claim_seconds(task, (request.time_limits or (None, None))[0])
    return Release(
        claim_requests, ClaimingRun(header["owner"], header["message_id"], header["receives"], seconds), failed
    )


@dataclass(eq=False, slots=True)
class Release:
    """Claims of one run to let go of. ``then`` gets the number of failed runs of its message, or None when it is
    unknown.

    ``claim_requests`` is asked where the release is made, for a user's ``idempotency_key`` may read the object.
    """

    claim_requests: Callable[[], Sequence[ClaimRequest]]
    run: ClaimingRun
    failed: bool
    then: Callable[[int | None], None] | None = None
    tries: int = 0
    began: float = 0.0


class Releases:
    """Takes releases from any thread and tries each until the store has answered, or the claim has ended by itself."""

    def __init__(self) -> None:
        """Start no thread until there is something to do: most workers never lose a child."""
        self._batcher: Batcher[Release] = Batcher("release", self._call, batch_size=1, threads=_THREADS)
        self._started = False
        self._start = Lock()

    def add(self, release: Release) -> None:
        """Let go of these claims soon; may be called from any thread and never waits for the store."""
        release.began = time.monotonic()
        with self._start:  # the runs of a threads pool end in many threads at once
            if not self._started:
                self._started = True
                self._batcher.start()
        if self._batcher.pending >= MOST_WAITING:
            log.warning("claim_not_released", tries=0, error=f"{MOST_WAITING} others wait for the store")
            _tell(release, None)
            return
        # Two keys that take turns: a killed run's message waits, in its slot of the pool, for the answer.
        self._batcher.add("awaited" if release.then else "release", release)

    def _call(self, batch: list[Release]) -> Iterator[Again[Release]]:
        for release in batch:
            try:
                failures = release_now(release)
            except Exception as error:
                bug = None if isinstance(error, StoreUnavailable) else error
                log.warning("claim_not_released", tries=release.tries, error=str(error), exc_info=bug)
                # The message is not held up for the store: the receive count says about as much.
                _tell(release, None)
                release.tries += 1
                if time.monotonic() - release.began < release.run.claim_seconds:
                    pause = min(LONGEST_PAUSE_SECONDS, 0.5 * 2 ** min(release.tries, 10))
                    yield Again(release, pause * random.SystemRandom().uniform(0.5, 1.0))
                continue
            _tell(release, failures)


class AwaitedRelease:
    """A release that the end of its run waits for; the hard time limit may be reported meanwhile."""

    def __init__(self) -> None:
        """The release is under way."""
        self._lock = Lock()
        self._is_done = False
        self._timeout: float | None = None

    def puts_off(self, timeout: float) -> bool:
        """Keep the time limit (seconds) that was reported for ``done``; False when the release is done already."""
        with self._lock:
            if not self._is_done:
                self._timeout = timeout
            return not self._is_done

    def done(self) -> float | None:
        """Note that the run's end was dealt with; return the time limit that was reported meanwhile, or None."""
        with self._lock:
            self._is_done = True
            return self._timeout


def release_now(release: Release) -> int | None:
    """Let go of every claim of the run; return the highest count of failures, None when it held none."""
    claimer = current_claimer()
    if claimer is None:
        return None
    counts = [
        claimer.release(claim_request, release.run, failed=release.failed) for claim_request in release.claim_requests()
    ]
    return max((count for count in counts if count is not None), default=None)


def release_all(releases: Iterable[Release], seconds: float) -> None:
    """Let go of the claims of several runs at once, and wait for that, at most ``seconds``."""
    threads = [Thread(target=_quietly, args=(release,), name="bridge-release", daemon=True) for release in releases]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _quietly(release: Release) -> None:
    try:
        release_now(release)
    except Exception as error:  # noqa: BLE001 - a drain goes on whatever the store does; the claim ends by itself
        log.warning("claim_not_released", tries=0, error=str(error))


def _tell(release: Release, failures: int | None) -> None:
    then, release.then = release.then, None
    if then is not None:
        then(failures)
