"""Looks over the shoulder of a stepped worker: what reaches SQS, and what is said to be settled.

The worker survives errors of its own by catching them, so nothing here raises: what is wrong is written down.
"""

from __future__ import annotations

import logging

from bridge.delivery.lease import LeaseState
from bridge.messages.retry_policy import cut_delay
from bridge.messages.verdicts import DeadLetter, Delete, RetryIn


class Blocked(Exception):  # noqa: N818 - says what a thread would be
    """A thread would have to wait here: it is tried again later."""


class Watch(logging.Handler):
    """``violations`` is empty as long as the contract is kept. Listens to SQS and to the bridge's log."""

    def __init__(self, sqs, worker):
        super().__init__(logging.INFO)
        self._sqs = sqs
        self._worker = worker
        self._settling = set()
        self.violations = []
        self._logger = logging.getLogger("bridge")
        self._before = (self._logger.level, self._logger.propagate)
        self._logger.addHandler(self)
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        sqs.on_change = self._on_change

    def close(self):
        """Leave the loggers as they were."""
        self._logger.removeHandler(self)
        self._logger.setLevel(self._before[0])
        self._logger.propagate = self._before[1]
        super().close()

    def says(self, violation):
        """Write it down."""
        self.violations.append(violation)

    def emit(self, record):
        """Errors that were caught are errors all the same; and what counts as settled must be so."""
        if record.exc_info and not isinstance(record.exc_info[1], Blocked):
            self.says(f"{record.msg}: {record.exc_info[1]!r}")
        elif record.msg == "message_settled":
            self._check_settled(record.message_id, record.outcome)

    def _check_settled(self, message_id, outcome):
        if outcome in ("deleted", "ignored", "dead_lettered"):
            if self._sqs.deleted.get(message_id) not in self._worker.handles:
                self.says(f"{message_id} counts as {outcome} and was not deleted by this worker")
        elif outcome == "retried" and not self._settling & self._sqs.changed & self._handles(message_id):
            self.says(f"{message_id} counts as retried and its visibility was not changed")

    def _on_change(self, change, message):
        """Just before an entry of a batch takes effect."""
        if change.handle not in self._worker.handles:
            self.says(f"{change} has a handle that was never received")
        elif change.client == "heartbeat":
            self._check_renewal(change)
        elif change.action == "visibility":
            self._check_visibility(change, message)
        elif message.handles[-1] == change.handle and message.id not in self._sqs.deleted:
            self._check_delete(message)

    def _check_renewal(self, change):
        if change.handle in self._settling:
            self.says(f"{change.handle} was renewed after its visibility settle")
        if not change.seconds > 0:
            self.says(f"{change} shows the message to others")

    def _check_visibility(self, change, message):
        self._settling.add(change.handle)
        if any(run.lease.message_id == message.id for run in self._worker.running) and self._sqs.holds(change.handle):
            self.says(f"{message.id} was let go of while it ran")
        leases = [lease for lease in self._worker.verdicts if lease.receipt_handle == change.handle]
        for lease in leases:
            verdict = self._worker.verdicts[lease]
            delay = verdict.delay_seconds if isinstance(verdict, RetryIn) else 0
            # The call may have been under way for a while, and the age was that of its start.
            if not cut_delay(delay, self._sqs.clock.now - lease.received_at) <= change.seconds <= delay:
                self.says(f"{change}: wanted {verdict}")
        if not leases:
            self.says(f"{change} was not asked for")

    def _check_delete(self, message):
        verdicts = [
            verdict
            for lease, verdict in self._worker.verdicts.items()
            if lease.message_id == message.id and lease.state is LeaseState.ENDING
        ]
        if len(verdicts) != 1 or not isinstance(verdicts[0], (Delete, DeadLetter)):
            self.says(f"{message.id} is deleted with the verdicts {verdicts}")
        elif isinstance(verdicts[0], DeadLetter) and message.body not in self._worker.dead_letters():
            self.says(f"{message.id} is deleted before its dead letter was there")
        if any(run.lease.message_id == message.id for run in self._worker.running):
            self.says(f"{message.id} is deleted while it runs")

    def _handles(self, message_id):
        return {handle for handle in self._worker.handles if self._sqs.of_handle(handle).id == message_id}
