"""A settlement: one message on its way to its end, with what was decided and how often it was tried."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from bridge.aws_errors import error_code, is_stale_handle
from bridge.delivery.batcher import Again
from bridge.delivery.lease import Lease
from bridge.log import get_logger
from bridge.messages.verdicts import Verdict

log = get_logger(__name__)

#: After an error of our own with a message: long enough not to spin, and the receive count ends it some day.
BUG_DELAY_SECONDS = 60
#: Between tries: long enough not to add to a throttling, short enough to resume within 5 s of AWS coming back.
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 3.0


#: A delete waits this long for nine others; the lease goes on meanwhile.
LINGER_SECONDS = 0.1
#: Calls in flight at once: at a 10 ms round trip four of ten messages each carry 4,000 messages/s.
THREADS = 4


@dataclass(eq=False, slots=True)
class Settlement:
    """What the batchers carry."""

    lease: Lease
    verdict: Verdict
    tries: int = 0

    def again(self) -> Again[Settlement]:
        """Return this settlement to be tried again, after a pause that doubles and is jittered."""
        self.tries += 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self.tries, 10))
        return Again(self, pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, is no secret


class Deletes:
    """Makes the delete calls and says which messages are gone (``on_confirmed``) or no longer ours (``on_expired``)."""

    def __init__(
        self,
        client: Any,
        on_confirmed: Callable[[Sequence[Settlement]], None],
        on_expired: Callable[[Settlement], None],
    ) -> None:
        """``client`` is an SQS client that does not retry by itself."""
        self._client = client
        self._on_confirmed = on_confirmed
        self._on_expired = on_expired

    def call(self, batch: list[Settlement]) -> Iterator[Again[Settlement]]:
        """Delete up to ten messages of one queue; yield those to be tried again."""
        handles = [s.lease.receipt_handle for s in batch]
        lost = [s.lease.lost for s in batch]
        for settlement, handle in zip(batch, handles, strict=True):
            settlement.lease.delete_asked_with = handle
        try:
            answer = self._client.delete_message_batch(
                QueueUrl=batch[0].lease.queue.url,
                Entries=[{"Id": str(n), "ReceiptHandle": handle} for n, handle in enumerate(handles)],
            )
        except Exception as error:  # noqa: BLE001 - any failure of the call means: not confirmed, so try again
            log.warning("delete_failed", messages=len(batch), error_type=error_code(error), error=str(error))
            for settlement in batch:
                if isinstance(error, ClientError):  # refused; any other error leaves open what SQS did
                    settlement.lease.delete_asked_with = ""
                yield settlement.again()
            return
        failed = {int(entry["Id"]): entry for entry in answer.get("Failed", [])}
        confirmed = {int(entry["Id"]) for entry in answer.get("Successful", [])}
        gone = []
        for n, settlement in enumerate(batch):
            lease = settlement.lease
            if handles[n] != lease.receipt_handle:
                yield Again(settlement, 0.0)  # received again meanwhile: only the new handle deletes
            elif n in confirmed:
                if not lost[n] and time.monotonic() < lease.expires_at:
                    gone.append(settlement)
                else:
                    self._on_expired(settlement)
            else:
                entry = failed.get(n, {"Code": "NotAnswered"})
                code, message = entry.get("Code", ""), entry.get("Message", "")
                log.warning("delete_failed", **lease.log_fields, error_type=code, error=message)
                if is_stale_handle(code, message):
                    self._on_expired(settlement)
                else:
                    if n in failed:
                        lease.delete_asked_with = ""
                    yield settlement.again()
        self._on_confirmed(gone)
