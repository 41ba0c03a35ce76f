"""SendMessageBatch and DeleteMessageBatch. Every entry of the answer is read, and only entries that SQS confirms count.

``BatchSender`` sends many messages to one queue, ten per call and several calls at a time. It confirms them in order:
every message before a confirmed one is confirmed too, so a stopped sender can resume after the last confirmed message.
A message without an answer is sent again, so each message is sent at least once.
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
#: Pauses in seconds before each retry of the entries that SQS failed; after the last retry they count as failed.
PAUSES_SECONDS = (0.2, 1.0, 3.0, 9.0)

_T = TypeVar("_T")


@dataclass
class BatchAnswer:
    """Entries by position: ``done`` holds SQS's answer for a confirmed entry, ``failed`` the reason for any other."""

    done: dict[int, dict[str, Any]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)


class SendFailed(BridgeError):  # noqa: N818 - says what happened, as ObjectGone does
    """SQS refused messages, or kept failing them until the retries ended; the text says how many and why."""


@dataclass(frozen=True, slots=True)
class Outgoing(Generic[_T]):
    """A message body, and the item that it was made from."""

    item: _T
    body: str


class BatchSender(Generic[_T]):
    """Sends to one queue. ``client`` must retry (``sqs_client("send")``) and have PARALLEL connections.

    ``rate`` is the limit in messages per second, or None for no limit. Setting ``stop`` ends the sending: no further
    call starts, and calls in progress are awaited.
    """

    def __init__(self, client: Any, queue_url: str, *, rate: float | None, stop: threading.Event) -> None:
        self._client = client
        self._queue_url = queue_url
        self._rate = rate
        self._stop = stop
        self.calls = 0
        self._count_lock = threading.Lock()

    def send(self, messages: Iterable[Outgoing[_T]]) -> Iterator[Sequence[_T]]:
        """Yield the items of each batch once SQS has confirmed all of its messages, in the order of ``messages``.

        Raises SendFailed, an error of the SDK, or the error that ``messages`` raises. All batches before the error are
        yielded first.
        """
        in_progress: deque[tuple[list[_T], Future[None]]] = deque()
        source_error: Exception | None = None
        batches = self._paced(messages)
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="send") as pool:
            while True:
                try:
                    batch = next(batches, None)
                except Exception as error:  # noqa: BLE001 - raised again below, after the batches in progress
                    source_error, batch = error, None
                if batch is None:
                    break
                in_progress.append(([m.item for m in batch], pool.submit(self._send, [m.body for m in batch])))
                while in_progress and (len(in_progress) >= 2 * PARALLEL or in_progress[0][1].done()):
                    yield _confirmed(in_progress)
            while in_progress:
                yield _confirmed(in_progress)
        if source_error is not None:
            raise source_error

    def _paced(self, messages: Iterable[Outgoing[_T]]) -> Iterator[list[Outgoing[_T]]]:
        # A low rate uses small batches, so that nine messages do not wait seconds for the tenth.
        size = MAX_BATCH_ENTRIES if self._rate is None else max(1, min(MAX_BATCH_ENTRIES, int(self._rate)))
        source, due = iter(messages), time.monotonic()
        while not self._stop.is_set() and (batch := list(islice(source, size))):
            if self._rate is not None:
                if self._stop.wait(max(0.0, due - time.monotonic())):
                    return
                # The later of the two times: after a slow answer no burst catches up.
                due = max(due, time.monotonic() - 1) + len(batch) / self._rate
            yield batch

    def _send(self, bodies: list[str]) -> None:
        entries = [{"MessageBody": body} for body in bodies]
        answer = _batch(self._counted_send, self._queue_url, entries, wait=self._stop.wait, whole=True)
        if answer.failed:
            why = "; ".join(sorted(set(answer.failed.values())))
            raise SendFailed(f"SQS did not accept {len(answer.failed)} of {len(bodies)} messages: {why}")

    def _counted_send(self, **arguments: Any) -> Any:
        with self._count_lock:
            self.calls += 1
        return self._client.send_message_batch(**arguments)


def _confirmed(in_progress: deque[tuple[list[_T], Future[None]]]) -> list[_T]:
    items, future = in_progress.popleft()
    future.result()
    return items


def send_batch(client: Any, url: str, entries: Sequence[dict[str, Any]]) -> BatchAnswer:
    """Send at most ten messages; ``done`` holds SQS's answer (with the MessageId) for each. Raises the SDK's errors."""
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
    """Make one batch call, and repeat it for the entries that SQS failed without SenderFault.

    ``wait`` waits the given number of seconds and returns True to end the retries. With ``whole`` a partial result is
    useless to the caller, so a refused entry or a call that raises ends the retries at once.
    """
    answer = BatchAnswer()
    remaining = list(range(len(entries)))
    for pause_seconds in (*PAUSES_SECONDS, None):
        try:
            numbered = [{**entries[position], "Id": str(position)} for position in remaining]
            response = call(QueueUrl=url, Entries=numbered)
        except Exception:
            if whole or not answer.done:
                raise
            break  # earlier calls have confirmed entries, which the caller must know; the others keep their reason
        for entry in response.get("Successful") or ():
            answer.done[int(entry["Id"])] = entry
        retryable, refused = [], False
        failed = {int(entry["Id"]): entry for entry in response.get("Failed") or ()}
        for position in remaining:
            if position in answer.done:
                continue
            entry = failed.get(position, {})
            answer.failed[position] = f"{entry.get('Code', 'no answer')}: {entry.get('Message') or ''}".rstrip(": ")
            if entry.get("SenderFault"):
                refused = True
            else:
                retryable.append(position)
        remaining = retryable
        if not remaining or (whole and refused) or pause_seconds is None or wait(pause_seconds):
            break
    answer.failed = {position: why for position, why in answer.failed.items() if position not in answer.done}
    return answer
