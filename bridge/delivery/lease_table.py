"""The lease table: every message this worker holds, in which state, until when, and who may touch it.

A message is renewed while something in this worker answers for it. The table is plain data under one lock, with the
time passed in; the thread that renews is in ``heartbeat``. The lock also decides between starting a message and handing
it back, so that it can never be both.

What it promises: a message is in exactly one state; nothing is renewed once a visibility change began; the same
message received again is no second lease while this worker is waiting with it, running it or ending it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from bridge.delivery.lease import RENEWAL_SHARE, Lease, LeaseState
from bridge.sqs.quotas import MAX_VISIBILITY_SECONDS

#: After a renewal that failed for a passing reason it is tried again this soon (or at a third, if sooner).
RENEWAL_RETRY_SECONDS = 1.0
#: Celery reports the end of a run within milliseconds of its last signal; later means never.
UNREPORTED_SECONDS = 10.0


class LeaseTable:
    """All leases of this worker. Every method may be called from any thread."""

    def __init__(self) -> None:
        """Start empty and open."""
        self.lock = threading.RLock()
        self.closed = False
        #: Called under the lock after every change of a state. A thread that waits for free slots is notified here, not
        #: by a condition: waking every receiver for every message cost more than the receives themselves.
        self.on_change: Callable[[], object] = _nothing
        self._renewal_done = threading.Condition(self.lock)
        self._by_tag: dict[str, Lease] = {}
        self._by_id: dict[tuple[str, str], Lease] = {}
        self._by_number: dict[int, Lease] = {}
        #: How many leases are in each state; for reading.
        self.counts = dict.fromkeys(LeaseState, 0)

    def take_in(self, lease: Lease, now: float) -> Lease | None:
        """Hold a message just received; return None, or the lease that already holds this very message.

        The same message again means that its lease had expired (an outage): whatever this worker is doing for it goes
        on, under the new receipt handle, because a delete with the old one succeeds without deleting. Only a message
        that was being let go of starts anew: that it came back says that it has been let go of.
        """
        with self.lock:
            key = (lease.queue.url, lease.message_id)
            older = self._by_id.get(key)
            if older is not None and older.state is LeaseState.RELEASING:
                older.lost = True  # a visibility change still to be sent would now hide or show the new receive
            elif older is not None:
                older.receipt_handle = lease.receipt_handle
                older.received_at = now
                older.lost = False
                # As long as this receive asked for, which may be less than the task's own length.
                older.expires_at, older.next_renewal_at = lease.expires_at, lease.next_renewal_at
                return older
            self._by_tag[lease.tag] = self._by_id[key] = self._by_number[lease.number] = lease
            self.counts[lease.state] += 1
            return None

    def get(self, tag: str) -> Lease | None:
        """Return the lease for a delivery tag of Kombu's, if it is still held."""
        return self._by_tag.get(tag)

    def numbered(self, number: int | None) -> Lease | None:
        """Return the lease with this number, if it is still held."""
        return self._by_number.get(number or 0)

    def start(self, lease: Lease, now: float) -> bool:
        """Let the pool have the message; False when it may not run: handed back, draining, or expired."""
        with self.lock:
            if self.closed or lease.state is not LeaseState.WAITING or lease.lost or now >= lease.expires_at:
                return False
            self._move(lease, LeaseState.RUNNING)
            return True

    def end(self, lease: Lease) -> bool:
        """The message is to be deleted, at once or after the dead letter: renewed until that is confirmed."""
        with self.lock:
            if lease.state not in (LeaseState.WAITING, LeaseState.RUNNING):
                return False
            self._move(lease, LeaseState.ENDING)
            return True

    def release(self, lease: Lease, *, only_waiting: bool = False) -> bool:
        """A visibility change is to come: stop renewing. ``await_renewal`` before making the call."""
        with self.lock:
            allowed = (LeaseState.WAITING,) if only_waiting else (LeaseState.WAITING, LeaseState.RUNNING)
            if lease.state not in allowed:
                return False
            self._move(lease, LeaseState.RELEASING)
            return True

    def await_renewal(self, leases: Iterable[Lease]) -> None:
        """Wait until no renewal of these is under way: a late one would overwrite the new visibility."""
        with self.lock:
            for lease in leases:
                self._renewal_done.wait_for(lambda lease=lease: not lease.renewing)  # type: ignore[misc]  # bound per loop

    def drop(self, lease: Lease) -> None:
        """Forget a message whose end SQS has confirmed, or that this worker no longer holds."""
        with self.lock:
            if lease.state is LeaseState.GONE:
                return
            self._move(lease, LeaseState.GONE)
            self._by_tag.pop(lease.tag, None)
            self._by_number.pop(lease.number, None)
            key = (lease.queue.url, lease.message_id)
            if self._by_id.get(key) is lease:
                del self._by_id[key]

    def close(self) -> list[Lease]:
        """Start nothing from now on; return what has not started, already marked for handing back."""
        with self.lock:
            self.closed = True
            waiting = [lease for lease in self._by_tag.values() if lease.state is LeaseState.WAITING]
            for lease in waiting:
                self._move(lease, LeaseState.RELEASING)
            self.on_change()
            return waiting

    def due_renewals(self, now: float, limit: int = 10) -> list[Lease]:
        """Return up to ``limit`` leases of one queue to renew now, marked as being renewed until ``renewal_done``.

        No more than go into one call: a hand-back would wait behind the calls for all the others.
        """
        with self.lock:
            due: list[Lease] = []
            for lease in self._by_tag.values():
                if (
                    lease.state is not LeaseState.RELEASING
                    and not lease.renewing
                    and not lease.lost
                    and lease.next_renewal_at <= now
                    and lease.room_seconds(now) > 0
                    and now < lease.expires_at
                    and (not due or lease.queue.url == due[0].queue.url)
                ):
                    due.append(lease)
                    if len(due) == limit:
                        break
            for lease in due:
                lease.renewing = True
            return due

    def renewal_done(self, lease: Lease, handle: str, sent_at: float, result: str) -> str:
        """Note a renewal's result, and return what it comes to.

        ``ok``; ``stale``: the handle is no longer good, or the lease had expired by this worker's clock; ``failed``:
        try again. Renewals go on until a delete is confirmed, so one may come to SQS just after the delete and find its
        handle stale: as far as anybody can know such a message was not lost, and the result is ``ended``.
        """
        with self.lock:
            if result == "stale" and lease.delete_asked_with == handle:
                result = "ended"
            lease.renewing = False
            if handle == lease.receipt_handle:  # else: received again meanwhile, the answer is about the old handle
                if result == "ok":
                    lease.held_until(sent_at)
                elif result in {"stale", "ended"}:
                    # Also after a delete was sent: if that fails, it is unknown who holds the message.
                    lease.lost = True
                else:
                    soon = min(RENEWAL_RETRY_SECONDS, lease.visibility_timeout_seconds * RENEWAL_SHARE)
                    lease.next_renewal_at = max(lease.next_renewal_at, sent_at) + soon
                    # It may have taken effect unheard, and ask for less than what the lease had.
                    lease.expires_at = min(lease.expires_at, sent_at + max(0, lease.room_seconds(sent_at)))
            self._renewal_done.notify_all()
            return result

    def orphaned(self, now: float) -> list[Lease]:
        """Return leases that may not stay, marked for handing back.

        Those are messages that no Celery request answers for (a strategy error, a consumer restart, a run of the
        threads pool that ended in a way Celery does not report), and unstarted ones so old that a run to their time
        limit would pass the twelve hours SQS lets anyone hold them.
        """
        with self.lock:
            gone = [lease for lease in self._by_tag.values() if _orphan(lease, now, draining=self.closed)]
            for lease in gone:
                self._move(lease, LeaseState.RELEASING)
            return gone

    def in_state(self, *states: LeaseState) -> list[Lease]:
        """Return the leases in these states."""
        with self.lock:
            return [lease for lease in self._by_tag.values() if lease.state in states]

    def count(self, *states: LeaseState) -> int:
        """Return how many leases are in these states; cheap enough for every message."""
        return sum([self.counts[state] for state in states])

    def _move(self, lease: Lease, state: LeaseState) -> None:
        self.counts[lease.state] -= 1
        if state is not LeaseState.GONE:
            self.counts[state] += 1
        lease.state = state
        self.on_change()


def _nothing() -> None:
    """No thread waits for free slots yet."""


def _orphan(lease: Lease, now: float, *, draining: bool) -> bool:
    if draining and lease.state is LeaseState.RUNNING:
        return False  # the drain stops it before it hands it back
    if lease.state is LeaseState.WAITING and lease.age_seconds(now) + lease.time_limit_seconds > MAX_VISIBILITY_SECONDS:
        return True
    if lease.state not in (LeaseState.WAITING, LeaseState.RUNNING):
        return False
    if lease.run_ended_at is not None and now - lease.run_ended_at > UNREPORTED_SECONDS:
        return True
    return lease.delivered and (lease.request is None or lease.request() is None)
