"""Reading a whole dead-letter queue: every message once, held meanwhile, and all handed back in the end.

SQS has no way to look at a message without receiving it. So each one is received with a visibility timeout, which keeps
it from being received a second time while the rest is read, and what was only looked at gets visibility 0 afterwards.
A process that is killed leaves its messages hidden for ``HOLD_SECONDS`` at most; none is lost.
Source: "Amazon SQS visibility timeout" and ReceiveMessage, AWS documentation.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, Self

import click

from bridge.operations.stopping import Stop
from bridge.sqs.queue_lookup import attributes_of, count
from bridge.sqs.quotas import MAX_BATCH_ENTRIES

HOLD_SECONDS = 120
WAIT_SECONDS = 1  # a long poll asks all of SQS's servers, a short one only some of them
_EMPTY_POLLS = 4
_MARGIN_SECONDS = 10


@dataclass
class _Hold:
    handle: str
    until: float


class Reader:
    """Reads one dead-letter queue; to be used in ``with``, which hands everything back that is still held."""

    def __init__(self, client: Any, url: str, stop: Stop) -> None:
        self._client = client
        self.url = url
        self._stop = stop
        self._held: dict[str, _Hold] = {}
        self._seen: set[str] = set()
        self._renewals: deque[tuple[float, list[str]]] = deque()
        #: How many messages the queue had at the start, as far as SQS knows.
        self.expected = 0
        #: The start by SQS's own clock, cut to the second, in seconds since the epoch.
        self.started_at = 0.0
        #: At the end of the reading: messages that others hold, and those that SQS counts and did not give.
        self.elsewhere = 0
        self.unread = 0
        #: How many different messages were read so far.
        self.read = 0

    def __enter__(self) -> Self:
        attributes = attributes_of(self._client, self.url)  # also reports a queue that does not exist
        self.expected = count(attributes)
        self.started_at = self._server_time()
        if attributes.get("RedrivePolicy"):
            click.echo(
                "brigade: this queue has a redrive policy of its own: each reading counts as a receive there", err=True
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is KeyboardInterrupt:  # the second Ctrl-C: at once means at once
            click.echo(f"brigade: {len(self._held)} messages are visible again in {HOLD_SECONDS} s", err=True)
        else:
            self.hand_back()

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the messages of each receive, each message once; an empty list for a receive that brought none.

        Ends when the queue is read, or after a signal. Raises the SDK's errors.
        """
        empty = 0
        while not self._stop:
            self.keep()
            messages = self._receive()
            yield messages
            empty = 0 if messages else empty + 1
            if empty:
                attributes = attributes_of(self._client, self.url)
                self.elsewhere = max(0, count(attributes, "NotVisible") - len(self._held))
                # SQS's count may lag behind, and a receive may find nothing although something is there.
                self.unread = count(attributes)
                if not self.unread or empty == _EMPTY_POLLS:
                    return

    def handle(self, message_id: str) -> str | None:
        """Return the receipt handle of a message that is surely ours for the next seconds, else None."""
        hold = self._held.get(message_id)
        return hold.handle if hold and time.monotonic() < hold.until - _MARGIN_SECONDS else None

    def gone(self, message_id: str) -> None:
        """Forget a message that was deleted."""
        self._held.pop(message_id, None)
        self._seen.discard(message_id)

    def keep(self) -> None:
        """Renew what has been held for half of its time."""
        now = time.monotonic()
        while self._renewals and self._renewals[0][0] <= now:
            ids = [i for i in self._renewals.popleft()[1] if i in self._held]
            asked_at = time.monotonic()
            for message_id in self._change_visibility(ids, HOLD_SECONDS):
                # Its hold had expired: another reader may have it, so it is neither sent nor handed back.
                del self._held[message_id]
            self._hold([message_id for message_id in ids if message_id in self._held], asked_at)

    def hand_back(self) -> None:
        """Make everything that is still held visible again, at once."""
        # An expired message is visible already, or with another reader, from whom it must not be taken.
        now = time.monotonic()
        ids = iter([message_id for message_id, hold in self._held.items() if hold.until > now])
        failed = 0
        try:
            while batch := list(islice(ids, MAX_BATCH_ENTRIES)):
                failed += len(self._change_visibility(batch, 0))
                for message_id in batch:
                    self._held.pop(message_id, None)
        except Exception as error:  # noqa: BLE001 - it must not hide the error that brought us here
            click.echo(f"brigade: cannot hand back: {error}", err=True)
            failed = max(1, len(self._held))
        if failed:
            click.echo(f"brigade: {failed} messages not handed back are visible again in {HOLD_SECONDS} s", err=True)

    def _receive(self) -> list[dict[str, Any]]:
        asked_at = time.monotonic()  # not when the answer came: it may have been long under way
        answer = self._client.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=MAX_BATCH_ENTRIES,
            WaitTimeSeconds=WAIT_SECONDS,
            VisibilityTimeout=HOLD_SECONDS,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        new, ids = [], []
        for message in answer.get("Messages") or ():
            message_id = message["MessageId"]
            self._held[message_id] = _Hold(message["ReceiptHandle"], 0.0)
            ids.append(message_id)
            if message_id not in self._seen:
                self._seen.add(message_id)
                self.read += 1
                new.append(message)
        self._hold(ids, asked_at)
        return new

    def _hold(self, ids: list[str], since: float) -> None:
        for message_id in ids:
            self._held[message_id].until = since + HOLD_SECONDS
        if ids:
            self._renewals.append((since + HOLD_SECONDS / 2, ids))

    def _change_visibility(self, ids: Sequence[str], seconds: int) -> list[str]:
        """Return the ids of those for which it failed."""
        if not ids:
            return []
        entries = [
            {"Id": str(n), "ReceiptHandle": self._held[message_id].handle, "VisibilityTimeout": seconds}
            for n, message_id in enumerate(ids)
        ]
        answer = self._client.change_message_visibility_batch(QueueUrl=self.url, Entries=entries)
        confirmed = {int(entry["Id"]) for entry in answer.get("Successful") or ()}
        return [message_id for n, message_id in enumerate(ids) if n not in confirmed]

    def _server_time(self) -> float:
        answer = self._client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(date).timestamp() if date else float(int(time.time()))
