"""Settling: what was decided for a message is carried out in SQS, off the event loop, in the order that loses nothing.

- delete: renewed until the delete is confirmed;
- retry and hand back: renewing stops, a renewal under way is awaited, then the visibility changes;
- dead letter: sent and confirmed first, then deleted, renewed all the while.

The first verdict on a message wins; every later one is refused. A message counts as settled when SQS confirmed it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from logging import INFO
from typing import Any

from bridge import metrics
from bridge.aws_errors import error_code, is_stale_handle
from bridge.delivery.batcher import Again, Batcher
from bridge.delivery.lease import Lease, LeaseState
from bridge.delivery.lease_table import LeaseTable
from bridge.delivery.settle_calls import LINGER_SECONDS, THREADS, Deletes, Settlement
from bridge.log import body_fields, get_logger
from bridge.messages.dead_letter import cause, send_arguments
from bridge.messages.retry_policy import cut_delay
from bridge.messages.verdicts import DeadLetter, Delete, HandBack, RetryIn, Verdict

log = get_logger(__name__)

#: Reasons that lie in what the body is or names, before any task saw it: the log then says which body it was.
BODY_REASONS = frozenset({"malformed", "forbidden-bucket", "unrouted", "mixed", "test-event", "own-output"})


class Settler:
    """Carries out verdicts. ``settle`` may be called from any thread and never blocks on SQS."""

    def __init__(
        self, client: Any, table: LeaseTable, *, worker: str, on_slot_free: Callable[[], None], sender: Any = None
    ) -> None:
        """``worker`` is the name in dead letters; ``on_slot_free`` is called when a running task's place is free.

        ``sender`` is the client that sends dead letters; else ``client`` does.
        """
        self._client = client
        self._sender = sender or client
        self._table = table
        self._worker = worker
        self._on_slot_free = on_slot_free
        deletes = Deletes(client, self._all_confirmed, self._expired)
        self._deletes: Batcher[Settlement] = Batcher(
            "delete", deletes.call, linger_seconds=LINGER_SECONDS, threads=THREADS
        )
        self._visibility: Batcher[Settlement] = Batcher("visibility", self._change_visibility, threads=2)
        self._dead_letters: Batcher[Settlement] = Batcher(
            "dead-letter", self._send_dead_letter, batch_size=1, threads=2
        )
        self._batchers = (self._deletes, self._visibility, self._dead_letters)
        self._batcher_of: dict[type[Verdict], Batcher[Settlement]] = {
            Delete: self._deletes,
            DeadLetter: self._dead_letters,
        }

    def start(self) -> None:
        """Start the threads of the batchers."""
        for batcher in self._batchers:
            batcher.start()

    def settle(self, lease: Lease, verdict: Verdict) -> bool:
        """Carry out ``verdict``; False when the message's end was decided before."""
        was_running = lease.state is LeaseState.RUNNING
        keeps_renewing = isinstance(verdict, (Delete, DeadLetter))
        if not (self._table.end(lease) if keeps_renewing else self._table.release(lease)):
            return False
        self.carry_out(lease, verdict)
        if was_running:
            self._on_slot_free()
        return True

    def carry_out(self, lease: Lease, verdict: Verdict) -> None:
        """Put a message whose state was already changed (a hand-back decided by the table) into its batcher."""
        self._batcher_of.get(type(verdict), self._visibility).add(lease.queue.url, Settlement(lease, verdict))

    @property
    def pending(self) -> int:
        """How many messages are decided and not confirmed."""
        return sum(batcher.pending for batcher in self._batchers)

    def flush_hand_backs(self, timeout_seconds: float) -> bool:
        """Wait until every visibility change is confirmed; False when time ran out."""
        return self._visibility.flush(timeout_seconds)

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until everything is confirmed; False when time ran out."""
        deadline = time.monotonic() + timeout_seconds
        # Dead letters first: each ends as a delete.
        order = (self._visibility, self._dead_letters, self._deletes)
        flushed = [batcher.flush(max(0.0, deadline - time.monotonic())) for batcher in order]
        return all(flushed)

    def stop(self) -> None:
        """End the threads."""
        for batcher in self._batchers:
            batcher.stop()

    def _change_visibility(self, batch: list[Settlement]) -> Iterator[Again[Settlement]]:
        self._table.await_renewal([s.lease for s in batch])
        for settlement in batch:
            if settlement.lease.lost:
                self._expired(settlement)
        batch = [
            s for s in batch if s.lease.state is not LeaseState.GONE
        ]  # a new list: the batcher still counts the old one
        if not batch:
            return
        now = time.monotonic()
        handles = [s.lease.receipt_handle for s in batch]
        delays = [_delay(s.verdict, s.lease.age_seconds(now)) for s in batch]
        try:
            answer = self._client.change_message_visibility_batch(
                QueueUrl=batch[0].lease.queue.url,
                Entries=[
                    {"Id": str(n), "ReceiptHandle": handles[n], "VisibilityTimeout": delays[n]}
                    for n in range(len(batch))
                ],
            )
        except Exception as error:  # noqa: BLE001 - any failure of the call means: not confirmed, so try again
            log.warning("visibility_failed", messages=len(batch), error_type=error_code(error), error=str(error))
            yield from self._try_again(batch)
            return
        confirmed = {int(entry["Id"]) for entry in answer.get("Successful", [])}
        failed = {int(entry["Id"]): entry for entry in answer.get("Failed", [])}
        for n, settlement in enumerate(batch):
            if n in confirmed and time.monotonic() < settlement.lease.expires_at:
                self._all_confirmed([settlement], delay_seconds=delays[n])
            elif n in confirmed:
                self._expired(settlement)
            else:
                entry = failed.get(n, {})
                if is_stale_handle(entry.get("Code", ""), entry.get("Message", "")):
                    self._expired(settlement)
                else:
                    yield from self._try_again([settlement])

    def _send_dead_letter(self, batch: list[Settlement]) -> Iterator[Again[Settlement]]:
        for settlement in batch:
            lease, verdict = settlement.lease, settlement.verdict
            assert isinstance(verdict, DeadLetter)  # noqa: S101 - only dead letters are put into this batcher
            why = cause(
                verdict,
                raw=lease.raw,
                task=lease.task,
                task_id=lease.task_id,
                attempts=lease.attempts,
                source_queue=lease.queue.name,
                now=time.time(),
                worker=self._worker,
            )
            arguments = send_arguments(
                lease.raw, why, queue_url=lease.queue.dlq_url, max_bytes=lease.queue.dlq_max_bytes
            )
            try:
                self._sender.send_message(**arguments)
            except Exception as error:  # noqa: BLE001 - not confirmed: the message stays ours and is tried again
                log.warning(
                    "dead_letter_failed", **_fields(settlement) | {"error_type": error_code(error), "error": str(error)}
                )
                yield from self._try_again([settlement])
                continue
            attributes = arguments.get("MessageAttributes", {})
            log.warning(
                "dead_lettered", **_fields(settlement), **({} if "BridgeCause" in attributes else {"cause": why})
            )
            settlement.tries = 0
            self._deletes.add(lease.queue.url, settlement)

    def _try_again(self, batch: list[Settlement]) -> Iterator[Again[Settlement]]:
        now = time.monotonic()
        for settlement in batch:
            if settlement.lease.lost or now >= settlement.lease.expires_at:
                self._failed(settlement)
            else:
                yield settlement.again()

    def _all_confirmed(self, batch: Sequence[Settlement], **fields: Any) -> None:
        with self._table.lock:
            # One that is gone was counted: its batch was tried again after an error of ours.
            batch = [settlement for settlement in batch if settlement.lease.state is not LeaseState.GONE]
            for settlement in batch:
                self._table.drop(settlement.lease)
        for settlement in batch:
            verdict = settlement.verdict
            metrics.settled_as(settlement.lease.queue.name, verdict.outcome, verdict.reason or "").inc()
            if log.is_enabled_for(INFO):
                log.info("message_settled", **_fields(settlement), **fields)

    def _expired(self, settlement: Settlement) -> None:
        # The lease ended before SQS had our answer: the message may be with another worker, so nothing is claimed.
        self._table.drop(settlement.lease)
        metrics.count_expired(settlement.lease.queue.name)
        log.warning("message_expired", **_fields(settlement))
        log.warning("message_lapsed", **_fields(settlement))  # its former name, for one release

    def _failed(self, settlement: Settlement) -> None:
        self._table.drop(settlement.lease)
        reason = settlement.verdict.reason or settlement.verdict.outcome
        metrics.settled.labels(settlement.lease.queue.name, "settle_failed", reason).inc()
        log.error("settle_failed", **{**_fields(settlement), "outcome": "settle_failed", "reason": reason})


def _delay(verdict: Verdict, age_seconds: float) -> int:
    return cut_delay(verdict.delay_seconds, age_seconds) if isinstance(verdict, RetryIn) else 0


def _fields(settlement: Settlement) -> dict[str, Any]:
    lease, verdict = settlement.lease, settlement.verdict
    fields: dict[str, Any] = {**lease.log_fields, "outcome": verdict.outcome, "reason": verdict.reason}
    if isinstance(verdict, (RetryIn, DeadLetter)):
        fields |= {"error_type": verdict.error_type, "error": verdict.error}
    if isinstance(verdict, HandBack):
        fields["receives"] = lease.receives
    if verdict.reason in BODY_REASONS:
        fields |= body_fields(lease.raw["Body"])
    return {name: value for name, value in fields.items() if value is not None}
