"""One standard queue of the in-memory SQS server, and its messages."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
import json
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

ACCOUNT = "000000000000"
#: Receipt handles of the real service are about this long, and every delete carries them.
HANDLE_CHARACTERS = 340


class Refused(Exception):  # noqa: N818 - says what SQS did
    """An answer of 400 with SQS's error code."""

    def __init__(self, code: str, text: str) -> None:
        """``code`` is what SDKs read."""
        super().__init__(text)
        self.code = code


class Stored:
    """One message; its JSON is made once, at its send."""

    __slots__ = ("deleted", "first_received_ms", "handle", "number", "prefix", "receives", "system", "visible_at")

    def __init__(self, number: int, entry: dict[str, Any]) -> None:
        """``entry`` is a SendMessage request."""
        body = entry["MessageBody"]
        self.number = number
        self.receives = 0
        self.first_received_ms = 0
        self.handle = ""
        self.deleted = False
        self.visible_at = 0.0
        fields: dict[str, Any] = {
            "MessageId": str(uuid.UUID(int=number + (1 << 100))),
            "MD5OfBody": hashlib.md5(body.encode(), usedforsecurity=False).hexdigest(),
            "Body": body,
        }
        if entry.get("MessageAttributes"):
            fields["MessageAttributes"] = entry["MessageAttributes"]
        self.prefix = json.dumps(fields)[:-1]
        self.system = f'"SenderId":"{ACCOUNT}","SentTimestamp":"{int(time.time() * 1000)}"'
        for name, value in (entry.get("MessageSystemAttributes") or {}).items():
            self.system += f",{json.dumps(name)}:{json.dumps(value['StringValue'])}"

    @property
    def id(self) -> str:
        """The MessageId."""
        return str(uuid.UUID(int=self.number + (1 << 100)))

    def received(self) -> str:
        """Return the message's JSON for one more receive, under a new handle."""
        self.receives += 1
        if self.receives == 1:
            self.first_received_ms = int(time.time() * 1000)
        self.handle = f"{self.number}.{self.receives}.".ljust(HANDLE_CHARACTERS, "A")
        return (
            f'{self.prefix},"ReceiptHandle":"{self.handle}","Attributes":{{{self.system},'
            f'"ApproximateReceiveCount":"{self.receives}",'
            f'"ApproximateFirstReceiveTimestamp":"{self.first_received_ms}"}}}}'
        )


class Queue:
    """A standard queue."""

    def __init__(self, loop: asyncio.AbstractEventLoop, attributes: dict[str, str]) -> None:
        """Empty."""
        self.attributes = attributes
        self._loop = loop
        self._visible: deque[Stored] = deque()
        self._in_flight: dict[int, Stored] = {}
        self._hidden: list[tuple[float, int, Stored]] = []  # a heap by the time of becoming visible
        self._numbers = itertools.count(1)
        self._order = itertools.count()
        self._polls: deque[tuple[int, int, Callable[[str], None], asyncio.TimerHandle]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.sent = 0
        self.deleted = 0

    def send(self, entry: dict[str, Any]) -> Stored:
        """Take a message."""
        message = Stored(next(self._numbers), entry)
        self.sent += 1
        delay = entry.get("DelaySeconds") or 0
        if delay:
            self._hide(message, delay)
        else:
            self._visible.append(message)
            self._answer_polls()
        return message

    def receive(self, request: dict[str, Any], answer: Callable[[str], None]) -> None:
        """Answer now or, when there is nothing, when there is or the wait is over."""
        self._reveal()
        size = request.get("MaxNumberOfMessages") or 1
        visibility = request.get("VisibilityTimeout")
        timeout = int(self.attributes.get("VisibilityTimeout", 30)) if visibility is None else visibility
        wait = request.get("WaitTimeSeconds")
        if wait is None:
            wait = int(self.attributes.get("ReceiveMessageWaitTimeSeconds", 0))
        if self._visible or not wait:
            answer(self._hand_out(size, timeout))
            return
        poll: list[Any] = [size, timeout, answer]
        timer = self._loop.call_later(wait, self._end_poll, poll)
        poll.append(timer)
        self._polls.append(poll)  # type: ignore[arg-type]  # a list, so that its timer can name it
        self._watch_hidden()

    def delete(self, handle: str) -> None:
        """Delete, if the handle is the newest; an old one is answered as a success, as SQS does."""
        message = self._by_handle(handle)
        if message is not None and message.handle == handle:
            message.deleted = True
            self._in_flight.pop(message.number, None)
            self.deleted += 1

    def change_visibility(self, handle: str, seconds: int) -> None:
        """Hide the message for so long from now; raises Refused for a handle that is none of ours any more."""
        message = self._by_handle(handle)
        if message is None or message.handle != handle or message.deleted:
            raise Refused("InvalidParameterValue", "The receipt handle has expired or is not known.")
        self._hide(message, seconds)
        self._reveal()
        self._answer_polls()

    def shown(self) -> dict[str, str]:
        """Return the attributes, with the counts."""
        self._reveal()
        return {
            "VisibilityTimeout": "30",
            "MaximumMessageSize": "262144",
            "MessageRetentionPeriod": "345600",
            **self.attributes,
            "ApproximateNumberOfMessages": str(len(self._visible)),
            "ApproximateNumberOfMessagesNotVisible": str(len(self._in_flight)),
            "ApproximateNumberOfMessagesDelayed": "0",
        }

    def purge(self) -> None:
        """Forget everything."""
        self._visible.clear()
        self._in_flight.clear()
        self._hidden.clear()

    def _by_handle(self, handle: str) -> Stored | None:
        try:
            return self._in_flight.get(int(handle.partition(".")[0]))
        except ValueError:
            raise Refused("ReceiptHandleIsInvalid", "The input receipt handle is invalid.") from None

    def _hand_out(self, size: int, timeout: int) -> str:
        now, taken = self._loop.time(), []
        while self._visible and len(taken) < size:
            message = self._visible.popleft()
            if message.deleted:
                continue
            taken.append(message.received())
            self._in_flight[message.number] = message
            message.visible_at = now + timeout
            heapq.heappush(self._hidden, (message.visible_at, next(self._order), message))
        return f'{{"Messages":[{",".join(taken)}]}}' if taken else "{}"

    def _hide(self, message: Stored, seconds: float) -> None:
        message.visible_at = self._loop.time() + seconds
        self._in_flight[message.number] = message
        heapq.heappush(self._hidden, (message.visible_at, next(self._order), message))
        self._watch_hidden()

    def _reveal(self) -> None:
        now = self._loop.time()
        while self._hidden and self._hidden[0][0] <= now:
            due, _, message = heapq.heappop(self._hidden)
            # An entry for every change; only the latest counts. The handle stays good until the next receive.
            if not message.deleted and message.visible_at == due and message.number in self._in_flight:
                self._visible.append(message)

    def _answer_polls(self) -> None:
        while self._polls and self._visible:
            size, timeout, answer, timer = self._polls.popleft()
            timer.cancel()
            answer(self._hand_out(size, timeout))

    def _end_poll(self, poll: Any) -> None:
        self._polls.remove(poll)
        poll[2]("{}")

    def _watch_hidden(self) -> None:
        """Wake when the next hidden message is due, while somebody waits for it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._polls and self._hidden:
            self._timer = self._loop.call_at(self._hidden[0][0], self._on_due)

    def _on_due(self) -> None:
        self._timer = None
        self._reveal()
        self._answer_polls()
        self._watch_hidden()
