"""SQS in memory, on a clock that only a test moves: what its answers mean, and what can go wrong on the way.

A standard queue as the AWS API reference describes it (ReceiveMessage, DeleteMessage, ChangeMessageVisibility):

- every receive gives a new receipt handle; only the newest one deletes, also after its visibility timeout; an older one
  *succeeds without deleting*;
- a visibility change works with the newest handle of a message in flight. With a handle that has expired or was
  replaced it fails (``stale="fails"``), or is answered as a success that changes nothing (``stale="ignored"``, which is
  what AWS itself was seen to do: localstack#9632);
- a message can be hidden for twelve hours (``hold_seconds``) from its receive, all changes together.

No answer takes time by itself. ``plans`` says of the coming calls, one each, what goes wrong and what else happens
while their callers wait.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

EPOCH_SECONDS = 1_800_000_000.0

#: What SQS says of an entry that fails: its code and its text.
INVALID = ("ReceiptHandleIsInvalid", "The input receipt handle is invalid.")
NOT_IN_FLIGHT = ("MessageNotInflight", "The specified message isn't in flight.")
NOT_AVAILABLE = ("InvalidParameterValue", "Value h for parameter ReceiptHandle is invalid. Reason: does not exist.")
TOO_LONG = ("InvalidParameterValue", "Value n for parameter VisibilityTimeout is invalid. Reason: beyond the limit.")
INTERNAL = ("InternalError", "An internal error occurred.")


class Clock:
    """Stands in for the ``time`` module."""

    def __init__(self):
        self.now = 1_000.0

    def monotonic(self):
        return self.now

    def time(self):
        return EPOCH_SECONDS + self.now


@dataclass(eq=False)
class FakeMessage:
    """One message; ``handles`` are those of all its receives, the newest last."""

    id: str
    body: str
    sent_at: float
    attributes: dict[str, Any]
    handles: list[str] = field(default_factory=list)
    visible_at: float = 0.0
    received_at: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What happens to one call.

    ``lost``: it takes effect, and the caller gets a time-out. ``refused``: it takes none. ``failed``: these entries of
    the batch come back under Failed and take none. ``before`` and ``after`` run before and after the effect, while the
    caller still waits for its answer.
    """

    fault: Literal["none", "lost", "refused", "throttled"] = "none"
    failed: frozenset[int] = frozenset()
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Change:
    """An entry of a batch as it reached SQS: who sent it, its handle, and the visibility timeout if it has one."""

    client: str
    action: str
    handle: str
    seconds: int | None


class FakeSqs:
    """Queues by URL; a queue that nobody made is there all the same."""

    def __init__(self, clock, stale="fails", hold_seconds=43_200):
        self.clock = clock
        self.stale = stale
        self.hold_seconds = hold_seconds
        self.plans = deque()
        self.outage = False
        self.queues = {}
        self.changes = []
        self.changed = set()
        self.on_change = lambda change, message: None
        self.deleted = {}
        self._by_handle = {}
        self._numbers = itertools.count(1)

    def client(self, name):
        """A client for one purpose; ``name`` is what the record calls it."""
        return FakeClient(self, name)

    def send(self, url, body, attributes=None):
        """Put a message into a queue; returns it."""
        message = FakeMessage(f"m{next(self._numbers)}", body, self.clock.now, attributes or {})
        self.queues.setdefault(url, []).append(message)
        return message

    def visible(self, url):
        """The messages of a queue that a receive would bring now."""
        return [message for message in self.queues.get(url, []) if message.visible_at <= self.clock.now]

    def of_handle(self, handle):
        """The message that a handle was given out for, deleted or not; None for a handle never given out."""
        return self._by_handle.get(handle)

    def holds(self, handle):
        """Whether this very handle keeps its message away from everybody else now."""
        message = self._by_handle[handle]
        newest = message.handles[-1] == handle
        return message.id not in self.deleted and newest and message.visible_at > self.clock.now

    def receive(self, url, count, visibility_timeout_seconds):
        """Hand out messages."""
        for message in (batch := self.visible(url)[:count]):
            handle = f"{message.id}-h{len(message.handles) + 1}"
            message.handles.append(handle)
            message.received_at = self.clock.now
            message.visible_at = self.clock.now + visibility_timeout_seconds
            self._by_handle[handle] = message
        return [self._as_received(message) for message in batch]

    def delete(self, url, handle):
        """Delete with a handle; the error, or None for a success, whatever that means."""
        message = self._by_handle.get(handle)
        if message is None:
            return INVALID
        if message.handles[-1] == handle and message.id not in self.deleted:
            self.queues[url].remove(message)
            self.deleted[message.id] = handle
        return None

    def change_visibility(self, handle, seconds):
        """Hide a message from now on for that long; the error, or None for a success, whatever that means."""
        message = self._by_handle.get(handle)
        if message is None:
            return INVALID
        if message.id in self.deleted:
            return NOT_AVAILABLE
        if not self.holds(handle):
            return None if self.stale == "ignored" else NOT_IN_FLIGHT
        if self.clock.now + seconds > message.received_at + self.hold_seconds:
            return TOO_LONG
        message.visible_at = self.clock.now + seconds
        self.changed.add(handle)
        return None

    def call(self, effect):
        """Carry out a call as the next plan has it; ``effect`` takes the entries that are to fail."""
        plan = self.plans.popleft() if self.plans else Plan()
        plan.before()
        if self.outage or plan.fault == "refused":
            raise EndpointConnectionError(endpoint_url="https://sqs")
        if plan.fault == "throttled":
            raise ClientError({"Error": {"Code": "RequestThrottled", "Message": "slower"}}, "Call")
        answer = effect(plan.failed)
        plan.after()
        if plan.fault == "lost":
            raise ReadTimeoutError(endpoint_url="https://sqs")
        return answer

    def note(self, client, action, handle, seconds=None):
        """Record what reached SQS, and tell whoever watches, before it takes effect."""
        change = Change(client, action, handle, seconds)
        self.changes.append(change)
        self.on_change(change, self._by_handle.get(handle))

    def _as_received(self, message):
        return {
            "MessageId": message.id,
            "ReceiptHandle": message.handles[-1],
            "Body": message.body,
            "MessageAttributes": message.attributes,
            "Attributes": {
                "ApproximateReceiveCount": str(len(message.handles)),
                "SentTimestamp": str(int((EPOCH_SECONDS + message.sent_at) * 1000)),
            },
        }


class FakeClient:
    """The calls of boto3's SQS client by which a worker settles and renews."""

    def __init__(self, sqs, name):
        self._sqs = sqs
        self._name = name

    def delete_message_batch(self, *, QueueUrl, Entries):  # noqa: N803 - boto3's names
        """Delete up to ten messages."""

        def delete(entry):
            self._sqs.note(self._name, "delete", entry["ReceiptHandle"])
            return self._sqs.delete(QueueUrl, entry["ReceiptHandle"])

        return self._sqs.call(partial(self._batch, Entries, delete))

    def change_message_visibility_batch(self, *, QueueUrl, Entries):  # noqa: N803 - boto3's names
        """Change up to ten visibility timeouts."""

        def change(entry):
            self._sqs.note(self._name, "visibility", entry["ReceiptHandle"], entry["VisibilityTimeout"])
            return self._sqs.change_visibility(entry["ReceiptHandle"], entry["VisibilityTimeout"])

        return self._sqs.call(partial(self._batch, Entries, change))

    def send_message(self, *, QueueUrl, MessageBody, MessageAttributes=None, **_):  # noqa: N803 - boto3's names
        """Send one message."""

        def send(_):
            return {"MessageId": self._sqs.send(QueueUrl, MessageBody, MessageAttributes).id}

        return self._sqs.call(send)

    def _batch(self, entries, effect, failed):
        assert 0 < len(entries) <= 10
        assert len({entry["Id"] for entry in entries}) == len(entries)
        answer = {"Successful": [], "Failed": []}
        for n, entry in enumerate(entries):
            error = INTERNAL if n in failed else effect(entry)
            if error is None:
                answer["Successful"].append({"Id": entry["Id"]})
            else:
                code, text = error
                answer["Failed"].append({"Id": entry["Id"], "Code": code, "Message": text, "SenderFault": False})
        return {name: found for name, found in answer.items() if found}
