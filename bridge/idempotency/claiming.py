"""A claim through a run: acquire it, keep its checkpoint, complete or release it. The one place that talks to a store.

Every write is conditional, and a refused one is never taken for an answer: the record is read again and the decision
made anew (bridge/idempotency/transitions.py), a few times, before the store counts as unavailable.
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

#: Reads and decides this often before it gives up on a record that changes all the time.
TRIES = 6
#: A completion that cannot be written is tried for this long: what is not noted down is done again.
COMPLETE_SECONDS = 60.0
#: A result above this is not kept: a record should fit one unit of what stores charge for, and is no place for data.
MAX_RESULT_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class ClaimingRun:
    """The run that claims: its owner token, its message, whether SQS delivers it for the first time, its time limit."""

    owner: str
    message_id: str
    receives: int
    claim_seconds: float


class Claim:
    """A claim that was granted. Methods may be called from any thread of the run."""

    def __init__(
        self, claimer: Claimer, claim_request: ClaimRequest, run: ClaimingRun, stored: Stored, granted: Granted
    ) -> None:
        """Made by ``Claimer.acquire`` only."""
        self._claimer = claimer
        self._wish = claim_request
        self._run = run
        self._tag = stored.tag
        self._record = granted.record
        self._lock = threading.Lock()
        self.retries = granted.retries
        self.took_over = granted.took_over

    @property
    def progress(self) -> dict[str, Any]:
        """The checkpoint that was saved last, by this run or an earlier one; empty when there is none."""
        return copy.deepcopy(dict(self._record.progress or {}))

    def save(self, progress: Mapping[str, Any]) -> None:
        """Keep a checkpoint of JSON values; raises ClaimLost when another run has taken over, StoreUnavailable."""
        self._change(lambda mine: transitions.save_progress(mine, progress))

    def complete(self, result: Any) -> None:
        """Note that the work is done; raises ClaimLost, or StoreUnavailable when it could not be noted in a minute."""
        kept = _fit_to_keep(result)
        # One moment for all tries: a try that got through although it failed then wrote the very text of the next.
        expires_at = self._claimer.expires_at()
        deadline = time.monotonic() + COMPLETE_SECONDS
        pause = 0.5
        while True:
            try:
                self._change(lambda mine: transitions.complete(mine, self._wish, result=kept, expires_at=expires_at))
                return
            except StoreUnavailable:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads tries, is no secret
            pause = min(8.0, pause * 2)

    def release(self, *, failed: bool) -> None:
        """Let go of it for the next run, and count a failed one; raises ClaimLost, StoreUnavailable."""
        self._change(lambda mine: transitions.release(mine, self._run.message_id, failed=failed))

    def _change(self, change: Callable[[Record], Record]) -> None:
        with self._lock:
            for _ in range(TRIES):
                record = change(self._record)
                written = self._claimer.write(self._wish.id, record, self._tag)
                if isinstance(written, str):
                    self._record, self._tag = record, written
                    return
                found = self._claimer.parse(written)
                if found is None or not transitions.is_mine(found, self._run.owner) or written is None:
                    raise ClaimLost(f"{self._wish.about or self._wish.id}: another run has taken over its claim")
                self._record, self._tag = found, written.tag
            raise StoreUnavailable(f"{self._wish.id}: the record changed {TRIES} times under a run that owns it")


class Claimer:
    """Claims records in a store."""

    def __init__(self, store: Store, *, ttl_seconds: int, clock: Callable[[], float] = time.time) -> None:
        """``ttl_seconds`` is how long a record is kept after its last claim or completion."""
        self._store = store
        self._ttl_seconds = ttl_seconds
        self._clock = clock

    def expires_at(self) -> int:
        """When a record that is written now may go, in whole seconds since 1970."""
        return int(self._clock()) + self._ttl_seconds

    def acquire(self, claim_request: ClaimRequest, run: ClaimingRun) -> Claim | Done | Outdated | Busy:
        """Claim the record, or say why there is nothing to claim; raises StoreUnavailable.

        One call for an event that is new, and one for a repeat, wherever the store allows it.
        """
        # A message that SQS delivers for the first time is mostly of an event that nobody has seen.
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
        raise StoreUnavailable(f"{claim_request.id}: the record changed {TRIES} times while it was claimed")

    def release(self, claim_request: ClaimRequest, run: ClaimingRun, *, failed: bool) -> int | None:
        """Let go of the claim of a run that has ended, on its behalf; None when it holds none (any more).

        Returns how many runs of its message have failed, this one included. Raises StoreUnavailable.
        """
        for _ in range(TRIES):
            stored = self._store.read(claim_request.id)
            found = self.parse(stored)
            if found is None or stored is None or not transitions.is_mine(found, run.owner):
                return None
            record = transitions.release(found, run.message_id, failed=failed)
            if isinstance(self.write(claim_request.id, record, stored.tag), str):
                return record.failures.get(run.message_id, 0)
        raise StoreUnavailable(f"{claim_request.id}: the record changed {TRIES} times while it was released")

    def write(self, record_id: str, record: Record, tag: str | None) -> str | Stored | None:
        """Write a record where none is (``tag`` None) or in place of one; return the new tag, or what is there."""
        text = to_json(record)
        if tag is None:
            answer = self._store.create(record_id, text, record.expires_at)
        else:
            answer = self._store.replace(record_id, text, tag, record.expires_at)
        if isinstance(answer, str):
            return answer
        found = answer.found or self._store.read(record_id)
        if found is not None and found.text == text and found.tag != tag:
            return found.tag  # our own write, of which the answer was lost: no other run writes this text
        return found

    @staticmethod
    def parse(stored: Stored | None) -> Record | None:
        """Return the record; raises StoreUnavailable for a text that is none of ours: nothing is guessed from it."""
        if stored is None:
            return None
        try:
            return from_json(stored.text)
        except UnreadableRecord as error:
            raise StoreUnavailable(f"a record cannot be read: {error}") from error


_claimer: Claimer | None = None


def use_claimer(claimer: Claimer | None) -> None:
    """Claim with this guard from now on in this process and those that it forks; None: claim nothing."""
    global _claimer  # noqa: PLW0603 - a process has one store
    _claimer = claimer


def current_claimer() -> Claimer | None:
    """Return the guard in use."""
    return _claimer


def _fit_to_keep(result: Any) -> Any:
    try:
        text = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None  # what JSON cannot hold is no matter of the claim: Celery's result backend decides about it
    return result if len(text.encode()) <= MAX_RESULT_BYTES else None
