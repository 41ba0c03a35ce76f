"""Acquire a claim, keep its checkpoint, complete or release it. Only this module talks to a store.

Every write is conditional, and a refused write decides nothing by itself. The record is read again and the decision
repeated (bridge/idempotency/transitions.py), a few times, before the store counts as unavailable.
"""

from __future__ import annotations

import copy
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.errors import ClaimLost, StoreUnavailable
from bridge.idempotency import transitions
from bridge.idempotency.identity import ClaimRequest
from bridge.idempotency.record import Record, UnreadableRecord, from_json, to_json
from bridge.idempotency.store import Store, Stored
from bridge.idempotency.transitions import Busy, Claimant, Done, Granted, Outdated

#: How many times to read and decide before giving up on a record that keeps changing.
TRIES = 6
#: How long to retry writing a completion, in seconds; work without a recorded completion is done again.
COMPLETE_SECONDS = 60.0
#: A larger result is not stored: a record should fit one unit that stores charge for, and is not meant for data.
MAX_RESULT_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class ClaimingRun:
    """The run that claims: its owner token, its message's id and receive count, and how many seconds a claim lasts."""

    owner: str
    message_id: str
    receives: int
    claim_seconds: float


class Claim:
    """A granted claim. Any thread of the run may call its methods."""

    def __init__(
        self, claimer: Claimer, claim_request: ClaimRequest, run: ClaimingRun, stored: Stored, granted: Granted
    ) -> None:
        """Only ``Claimer.acquire`` makes a claim."""
        self._claimer = claimer
        self._claim_request = claim_request
        self._run = run
        self._tag = stored.tag
        self._record = granted.record
        self._lock = threading.Lock()
        self.retries = granted.retries
        self.took_over = granted.took_over

    @property
    def progress(self) -> dict[str, Any]:
        """The checkpoint that this run or an earlier one saved last; empty when there is none."""
        return copy.deepcopy(dict(self._record.progress or {}))

    def save(self, progress: Mapping[str, Any]) -> None:
        """Store a checkpoint of JSON values; raises ClaimLost when another run has taken over, or StoreUnavailable."""
        self._change(lambda mine: transitions.save_progress(mine, progress))

    def complete(self, result: Any) -> None:
        """Record that the work is done; raises ClaimLost, or StoreUnavailable after COMPLETE_SECONDS of retries."""
        kept = _storable(result)
        # The same time for all tries: a try that seemed to fail but was written then wrote the same text as the next.
        expires_at = self._claimer.expires_at()
        deadline = time.monotonic() + COMPLETE_SECONDS
        pause = 0.5
        while True:
            try:
                self._change(
                    lambda mine: transitions.complete(mine, self._claim_request, result=kept, expires_at=expires_at)
                )
                return
            except StoreUnavailable:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads tries, not a secret
            pause = min(8.0, pause * 2)

    def release(self, *, failed: bool) -> None:
        """Release the claim for the next run; ``failed`` counts a failed run. Raises ClaimLost, StoreUnavailable."""
        self._change(lambda mine: transitions.release(mine, self._run.message_id, failed=failed))

    def _change(self, change: Callable[[Record], Record]) -> None:
        with self._lock:
            for _ in range(TRIES):
                record = change(self._record)
                written = self._claimer.write(self._claim_request.id, record, self._tag)
                if isinstance(written, str):
                    self._record, self._tag = record, written
                    return
                found = self._claimer.parse(written)
                if found is None or not transitions.is_mine(found, self._run.owner) or written is None:
                    about = self._claim_request.about or self._claim_request.id
                    raise ClaimLost(f"{about}: this run's claim expired and another run has taken it over")
                self._record, self._tag = found, written.tag
            raise StoreUnavailable(
                f"{self._claim_request.id}: the record changed {TRIES} times although this run owns it"
            )


class Claimer:
    """Claims records in a store."""

    def __init__(self, store: Store, *, ttl_seconds: int, clock: Callable[[], float] = time.time) -> None:
        """``ttl_seconds`` is how many seconds a record is kept after its last claim or completion."""
        self._store = store
        self._ttl_seconds = ttl_seconds
        self._clock = clock

    def expires_at(self) -> int:
        """Return when a record written now expires, in whole epoch seconds."""
        return int(self._clock()) + self._ttl_seconds

    def acquire(self, claim_request: ClaimRequest, run: ClaimingRun) -> Claim | Done | Outdated | Busy:
        """Claim the record, or return why the run cannot claim it; raises StoreUnavailable.

        A new event takes one call to the store; a repeated event too, if the store allows it.
        """
        # The first delivery of a message is usually that of a new event, so creating without a read saves a call.
        blind = self._store.refusal_tells or run.receives <= 1
        stored = None if blind else self._store.read(claim_request.id)
        for _ in range(TRIES):
            now = self._clock()
            who = Claimant(run.owner, run.message_id, now, now + run.claim_seconds, self.expires_at())
            decision = transitions.claim(self.parse(stored), claim_request, who)
            if not isinstance(decision, Granted):
                return decision
            if stored is not None and to_json(decision.record) == stored.text:
                return Claim(self, claim_request, run, stored, decision)
            written = self.write(claim_request.id, decision.record, stored.tag if stored else None)
            if isinstance(written, str):
                return Claim(self, claim_request, run, Stored("", written), decision)
            stored = written
        raise StoreUnavailable(f"{claim_request.id}: the record changed {TRIES} times while this run claimed it")

    def release(self, claim_request: ClaimRequest, run: ClaimingRun, *, failed: bool) -> int | None:
        """Release the claim of a run that has ended and cannot do so itself.

        Returns how many runs of its message have failed, including this one, or None when the run holds no claim (any
        more). Raises StoreUnavailable.
        """
        for _ in range(TRIES):
            stored = self._store.read(claim_request.id)
            found = self.parse(stored)
            if found is None or stored is None or not transitions.is_mine(found, run.owner):
                return None
            record = transitions.release(found, run.message_id, failed=failed)
            if isinstance(self.write(claim_request.id, record, stored.tag), str):
                return record.failures.get(run.message_id, 0)
        raise StoreUnavailable(f"{claim_request.id}: the record changed {TRIES} times during its release")

    def write(self, record_id: str, record: Record, tag: str | None) -> str | Stored | None:
        """Create a record (``tag`` None) or replace the one with ``tag``.

        Returns the new tag, or the record that prevented the write (None if there is none).
        """
        text = to_json(record)
        if tag is None:
            answer = self._store.create(record_id, text, record.expires_at)
        else:
            answer = self._store.replace(record_id, text, tag, record.expires_at)
        if isinstance(answer, str):
            return answer
        found = answer.found or self._store.read(record_id)
        if found is not None and found.text == text and found.tag != tag:
            return found.tag  # this run's own write, whose answer was lost: no other run writes this text
        return found

    @staticmethod
    def parse(stored: Stored | None) -> Record | None:
        """Return the record, None for None; raises StoreUnavailable for a text that is not a valid record."""
        if stored is None:
            return None
        try:
            return from_json(stored.text)
        except UnreadableRecord as error:
            raise StoreUnavailable(f"the store has a record that cannot be read: {error}") from error


_claimer: Claimer | None = None


def use_claimer(claimer: Claimer | None) -> None:
    """Use this claimer from now on, in this process and in those that it forks; None claims nothing."""
    global _claimer  # noqa: PLW0603 - a process has one store
    _claimer = claimer


def current_claimer() -> Claimer | None:
    """Return the claimer in use, or None."""
    return _claimer


def _storable(result: Any) -> Any:
    try:
        text = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None  # not JSON: the claim does not need it, and Celery's result backend handles it
    return result if len(text.encode()) <= MAX_RESULT_BYTES else None
