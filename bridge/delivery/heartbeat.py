"""The heartbeat: a daemon thread that renews every held lease, waiting and running alike, ten per call.

It uses a client of its own, so that neither receives nor deletes can keep it waiting. What it renews, and when, is
decided in ``leases``; what it hands back (messages that nothing answers for) goes to ``settle``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from bridge import metrics
from bridge.aws_errors import error_code, is_stale_handle
from bridge.delivery.lease import Lease
from bridge.delivery.lease_table import LeaseTable
from bridge.log import get_logger
from bridge.sqs.quotas import MAX_BATCH_ENTRIES

log = get_logger(__name__)

#: How often the table is looked at; a third of the shortest visibility timeout (6 s) is 2 s.
_TICK_SECONDS = 0.5
#: How often messages are looked for that nothing answers for any more.
_SWEEP_SECONDS = 5.0


class Heartbeat:
    """Renews leases until stopped."""

    def __init__(
        self,
        client: Any,
        table: LeaseTable,
        on_orphaned: Callable[[Lease], None],
        *,
        renew: bool,
        on_sweep: Callable[[], object] = lambda: None,
    ) -> None:
        """``renew=False`` is ``BRIDGE_HEARTBEAT=off``: leases simply last their visibility timeout.

        ``on_sweep`` is called every few seconds too, by a thread that makes no call to SQS.
        """
        self._on_sweep = on_sweep
        self._client = client
        self._table = table
        self._on_orphaned = on_orphaned
        self._stopped = threading.Event()
        turns = [("sweep", self.sweep, _SWEEP_SECONDS), *([("heartbeat", self.beat, _TICK_SECONDS)] if renew else [])]
        # Two threads: a renewal may wait long for an SQS that does not answer, and the sweep is what notices.
        self._threads = [
            threading.Thread(target=self._run, args=(turn, seconds), name=f"bridge-{name}", daemon=True)
            for name, turn, seconds in turns
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads, after the call that is under way."""
        self._stopped.set()

    def _run(self, turn: Callable[[], None], seconds: float) -> None:
        while not self._stopped.wait(seconds):
            try:
                turn()
            except Exception:  # the thread must outlive any bug: without it every lease of the worker expires
                log.exception("heartbeat_bug")

    def sweep(self) -> None:
        """Hand back what nothing in this worker answers for."""
        self._on_sweep()
        for lease in self._table.orphaned(time.monotonic()):
            log.warning("lease_orphaned", **lease.log_fields)
            log.warning("lease_unanswered", **lease.log_fields)  # its former name, for one release
            self._on_orphaned(lease)

    def beat(self) -> None:
        """Renew the leases that are due, one call for ten leases of a queue."""
        now = time.monotonic()  # of the start: what fails meanwhile is due again in the next turn, not in this one
        while not self._stopped.is_set() and (leases := self._table.due_renewals(now, MAX_BATCH_ENTRIES)):
            self._renew_batch(leases[0].queue.url, leases)

    def _renew_batch(self, url: str, leases: list[Lease]) -> None:
        sent_at = time.monotonic()
        handles = [lease.receipt_handle for lease in leases]
        results = ["failed"] * len(leases)
        try:
            answer = self._client.change_message_visibility_batch(
                QueueUrl=url,
                Entries=[
                    {"Id": str(n), "ReceiptHandle": handles[n], "VisibilityTimeout": lease.room_seconds(sent_at)}
                    for n, lease in enumerate(leases)
                ],
            )
            answered_at = time.monotonic()
            for entry in answer.get("Successful", []):
                n = int(entry["Id"])
                # AWS answers "ok" to an expired handle too, and does nothing (localstack#9632), so after the expiry an
                # "ok" proves nothing. Other servers do hide the message again: it would not come back with a new
                # handle for as long as it is renewed, so the renewing ends here.
                results[n] = "ok" if answered_at < leases[n].expires_at else "stale"
            for entry in answer.get("Failed", []):
                if is_stale_handle(entry.get("Code", ""), entry.get("Message", "")):
                    results[int(entry["Id"])] = "stale"
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the leases stay and are tried again
            log.warning("lease_renewal_failed", leases=len(leases), error_type=error_code(error), error=str(error))
        finally:
            for lease, handle, result in zip(leases, handles, results, strict=True):
                comes_to = self._table.renewal_done(lease, handle, sent_at, result)
                metrics.renewals.labels(comes_to).inc()
                if comes_to == "stale":
                    log.warning("lease_lost", **lease.log_fields)
