"""Letting go of claims on behalf of runs that can do so themselves no more: killed, out of time, or cut off the store.

In the parent process, on threads of its own. Without it the message's next delivery would meet a live claim and wait
for its expiry, an hour by default.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock, Thread

from bridge.errors import StoreUnavailable
from bridge.idempotency.claiming import Run, present_guard
from bridge.idempotency.identity import Wish
from bridge.lanes import Again, Lane
from bridge.log import get_logger

log = get_logger(__name__)

LONGEST_PAUSE_SECONDS = 15.0
#: Of releases that wait for the store. Every message that meets a store which is away leaves one, so without a bound a
#: long outage would fill the memory; a claim beyond it ends by itself.
MOST_WAITING = 1_000
_THREADS = 2


@dataclass(eq=False, slots=True)
class Release:
    """Claims of one run to let go of. ``then`` is told how many runs of its message failed; None when nobody knows.

    ``wishes`` is asked where the release is made, for a user's ``idempotency_key`` may read the object.
    """

    wishes: Callable[[], Sequence[Wish]]
    run: Run
    failed: bool
    then: Callable[[int | None], None] | None = None
    tries: int = 0
    began: float = 0.0


class Releases:
    """Takes releases from any thread and tries each until the store has answered, or the claim has ended by itself."""

    def __init__(self) -> None:
        """Start no thread until there is something to do: most workers never lose a child."""
        self._lane: Lane[Release] = Lane("release", self._call, batch_size=1, threads=_THREADS)
        self._started = False
        self._start = Lock()

    def add(self, release: Release) -> None:
        """Let go of these claims soon; may be called from any thread and never waits for the store."""
        release.began = time.monotonic()
        with self._start:  # the runs of a threads pool end in many threads at once
            if not self._started:
                self._started = True
                self._lane.start()
        if self._lane.pending >= MOST_WAITING:
            log.warning("claim_not_released", tries=0, error=f"{MOST_WAITING} others wait for the store")
            _tell(release, None)
            return
        # Two lines that take turns: a killed run's message waits, in its place in the pool, until it is told.
        self._lane.add("awaited" if release.then else "release", release)

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


def release_now(release: Release) -> int | None:
    """Let go of every claim of the run; return the highest count of failures, None when it held none."""
    guard = present_guard()
    if guard is None:
        return None
    counts = [guard.release(wish, release.run, failed=release.failed) for wish in release.wishes()]
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
