"""SendMessageBatch and DeleteMessageBatch: every entry of the answer is read, and only what SQS confirms counts as
done.

``BatchSender`` sends many messages to one queue, ten per call, several calls at a time, and confirms them in order:
everything before a confirmed message is confirmed too, so a sender that stops there can go on behind it. A message
whose answer never came is sent again: at least once, never less.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

from bridge.errors import BridgeError
from bridge.sqs.quotas import MAX_BATCH_ENTRIES

PARALLEL = 4
#: Pauses in seconds before the entries that SQS failed are tried again; after the last they count as failed.
PAUSES_SECONDS = (0.2, 1.0, 3.0, 9.0)

_T = TypeVar("_T")


@dataclass
class BatchAnswer:
    """Positions of the entries: those that SQS confirmed, with its entry of each, and the others, with the reason."""

    done: dict[int, dict[str, Any]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)


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
        entries = [{"MessageBody": body} for body in bodies]
        answer = _batch(self._counted_send, self._queue_url, entries, wait=self._stop.wait, whole=True)
        if answer.failed:
            why = "; ".join(sorted(set(answer.failed.values())))
            raise SendFailed(f"SQS did not take {len(answer.failed)} of {len(bodies)} messages: {why}")

    def _counted_send(self, **arguments: Any) -> Any:
        with self._count_lock:
            self.calls += 1
        return self._client.send_message_batch(**arguments)


def _confirmed(under_way: deque[tuple[list[_T], Future[None]]]) -> list[_T]:
    items, future = under_way.popleft()
    future.result()
    return items


def send_batch(client: Any, url: str, entries: Sequence[dict[str, Any]]) -> BatchAnswer:
    """Send at most ten messages; ``done`` has SQS's entry (MessageId) of each. Raises the SDK's errors."""
    return _batch(client.send_message_batch, url, entries)


def delete_batch(client: Any, url: str, handles: Sequence[str]) -> BatchAnswer:
    """Delete at most ten messages. Raises the SDK's errors."""
    return _batch(client.delete_message_batch, url, [{"ReceiptHandle": handle} for handle in handles])


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _batch(
    call: Any,
    url: str,
    entries: Sequence[dict[str, Any]],
    *,
    wait: Callable[[float], bool] = _sleep,
    whole: bool = False,
) -> BatchAnswer:
    """Make one batch call, and again for the entries that SQS failed through no fault of the sender.

    ``wait`` waits so many seconds and returns True to end the retries. ``whole``: only all of the entries will do, so
    an entry that is refused or a call that raises ends it at once.
    """
    answer = BatchAnswer()
    left = list(range(len(entries)))
    for pause_seconds in (*PAUSES_SECONDS, None):
        try:
            given = call(QueueUrl=url, Entries=[{**entries[position], "Id": str(position)} for position in left])
        except Exception:
            if whole or not answer.done:
                raise
            break  # the caller must hear what was done before, and the rest keeps its reason
        for entry in given.get("Successful") or ():
            answer.done[int(entry["Id"])] = entry
        again, refused = [], False
        failed = {int(entry["Id"]): entry for entry in given.get("Failed") or ()}
        for position in left:
            if position in answer.done:
                continue
            entry = failed.get(position, {})
            answer.failed[position] = f"{entry.get('Code', 'no answer')}: {entry.get('Message') or ''}".rstrip(": ")
            if entry.get("SenderFault"):
                refused = True
            else:
                again.append(position)
        left = again
        if not left or (whole and refused) or pause_seconds is None or wait(pause_seconds):
            break
    answer.failed = {position: why for position, why in answer.failed.items() if position not in answer.done}
    return answer
