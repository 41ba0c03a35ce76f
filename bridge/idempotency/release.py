"""Letting go of claims on behalf of runs that can do so themselves no more: killed, out of time, or cut off the store.

In the parent process, on threads of its own. Without it the message's next delivery would meet a live claim and wait
for its expiry, an hour by default.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Thread

from bridge.errors import StoreUnavailable
from bridge.idempotency.guard import Run, present_guard
from bridge.idempotency.identity import Wish
from bridge.lanes import Again, Lane
from bridge.log import get_logger

log = get_logger(__name__)

LONGEST_PAUSE_SECONDS = 15.0
_THREADS = 2


@dataclass(eq=False, slots=True)
class Release:
    """Claims of one run to let go of. ``then`` is told how many runs of its message failed; None when nobody knows."""

    wishes: Sequence[Wish]
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

    def add(self, release: Release) -> None:
        """Let go of these claims soon; to be called in one thread at a time or not, it never blocks."""
        release.began = time.monotonic()
        if not self._started:
            self._started = True
            self._lane.start()
        self._lane.add("release", release)

    def _call(self, batch: list[Release]) -> Iterator[Again[Release]]:
        for release in batch:
            try:
                failures = release_now(release)
            except StoreUnavailable as error:
                log.warning("claim_not_released", tries=release.tries, error=str(error))
                # The message is not held up for the store: the receive count says about as much.
                _tell(release, None)
                release.tries += 1
                if time.monotonic() - release.began < release.run.claim_seconds:
                    pause = min(LONGEST_PAUSE_SECONDS, 0.5 * 2 ** min(release.tries, 10))
                    yield Again(release, pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads tries, is no secret
                continue
            except Exception:
                _tell(release, None)  # an error of ours must not keep the message
                raise
            _tell(release, failures)


def release_now(release: Release) -> int | None:
    """Let go of every claim of the run; return the highest count of failures, None when it held none."""
    guard = present_guard()
    if guard is None:
        return None
    counts = [guard.release(wish, release.run, failed=release.failed) for wish in release.wishes]
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
