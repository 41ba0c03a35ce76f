"""Many messages to one queue, ten a call, a few calls at a time, and told back in order.

What comes back in order is what may be remembered: everything up to it is confirmed by SQS, so a sender that stops
there goes on behind it. A message whose answer never came is sent again: at least once, never less.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from bridge.errors import BridgeError
from bridge.sqs.quotas import MAX_BATCH_ENTRIES

PARALLEL = 4
#: Pauses before the entries that SQS has failed are sent again, in seconds; then it counts as an error.
PAUSES_SECONDS = (0.2, 1.0, 3.0, 9.0)

_T = TypeVar("_T")


class SendFailed(BridgeError):  # noqa: N818 - says what happened, as ObjectGone does
    """SQS refused messages, or failed them until the patience ended; the text says how many and why."""


@dataclass(frozen=True, slots=True)
class Outgoing(Generic[_T]):
    """A message body and what it stands for."""

    item: _T
    body: str


class BatchSender(Generic[_T]):
    """Sends to one queue; ``client`` must be one that retries (``sqs_client("send")``), with PARALLEL connections.

    ``rate`` is messages a second, None: as fast as it goes. ``stop`` ends it: nothing further is begun, and what is
    under way is waited for.
    """

    def __init__(self, client: Any, queue_url: str, *, rate: float | None, stop: threading.Event) -> None:
        self._client = client
        self._queue_url = queue_url
        self._rate = rate
        self._stop = stop
        self.calls = 0
        self._count_lock = threading.Lock()

    def send(self, messages: Iterable[Outgoing[_T]]) -> Iterator[Sequence[_T]]:
        """Yield the items of each batch that SQS has confirmed whole, in the order of ``messages``.

        Raises SendFailed, the SDK's error, or what ``messages`` raises, after all batches before it were yielded.
        """
        under_way: deque[tuple[list[_T], Future[None]]] = deque()
        broken: Exception | None = None
        batches = self._paced(messages)
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="send") as pool:
            while True:
                try:
                    batch = next(batches, None)
                except Exception as error:  # noqa: BLE001 - raised again below, when what is under way has been told
                    broken, batch = error, None
                if batch is None:
                    break
                under_way.append(([m.item for m in batch], pool.submit(self._send, [m.body for m in batch])))
                while under_way and (len(under_way) >= 2 * PARALLEL or under_way[0][1].done()):
                    yield _confirmed(under_way)
            while under_way:
                yield _confirmed(under_way)
        if broken is not None:
            raise broken

    def _paced(self, messages: Iterable[Outgoing[_T]]) -> Iterator[list[Outgoing[_T]]]:
        # At a low rate small batches: nine messages should not wait seconds for the tenth.
        size = MAX_BATCH_ENTRIES if self._rate is None else max(1, min(MAX_BATCH_ENTRIES, int(self._rate)))
        source, due = iter(messages), time.monotonic()
        while not self._stop.is_set() and (batch := list(islice(source, size))):
            if self._rate is not None:
                if self._stop.wait(max(0.0, due - time.monotonic())):
                    return
                # From the later of the two: a slow answer is not made good by a burst.
                due = max(due, time.monotonic() - 1) + len(batch) / self._rate
            yield batch

    def _send(self, bodies: list[str]) -> None:
        left = dict(enumerate(bodies))
        for pause_seconds in (*PAUSES_SECONDS, None):
            entries = [{"Id": str(position), "MessageBody": body} for position, body in left.items()]
            with self._count_lock:
                self.calls += 1
            answer = self._client.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
            for entry in answer.get("Successful", ()):
                left.pop(int(entry["Id"]), None)
            failed = answer.get("Failed", ())
            if not left:
                return
            refused = any(entry.get("SenderFault") for entry in failed)
            if refused or pause_seconds is None or self._stop.wait(pause_seconds):
                why = "; ".join(sorted({f"{e.get('Code')}: {e.get('Message', '')}" for e in failed})) or "no answer"
                raise SendFailed(f"SQS did not take {len(left)} of {len(bodies)} messages: {why}")


def _confirmed(under_way: deque[tuple[list[_T], Future[None]]]) -> list[_T]:
    items, future = under_way.popleft()
    future.result()
    return items
