"""An SQS server in memory, as fast as Python allows: the ceiling for what a consumer can reach.

It speaks SQS's JSON protocol over HTTP with standard queues' semantics: long polls, visibility timeouts, receive
counts, receipt handles that a later receive makes stale, batches of ten. It has no redrive (the attribute is kept and
shown, so that a worker finds its dead-letter queue), no order promises and no checks of permissions.
Source of the forms: AWS SQS API reference, JSON protocol.

    python benchmarks/memory_sqs.py --port 0      # prints "ready http://127.0.0.1:<port>"
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import heapq
import itertools
import json
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, cast

ACCOUNT = "000000000000"
BATCH = 10
#: Receipt handles of the real service are about this long, and every delete carries them.
HANDLE_CHARACTERS = 340

Answer = dict[str, Any] | str


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


class Service:
    """All queues, by name, and the API's actions."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """No queues yet."""
        self._loop = loop
        self.url = ""
        self._queues: dict[str, Queue] = {}

    def act(self, action: str, request: dict[str, Any], answer: Callable[[str], None]) -> None:
        """Answer the request, at once or later; raises Refused."""
        if action == "ReceiveMessage":
            self._queue(request).receive(request, answer)
            return
        method = getattr(self, f"_{action}", None)
        if method is None:
            raise Refused("InvalidAction", f"{action} is not implemented here")
        answer(json.dumps(method(request)))

    def _queue(self, request: dict[str, Any]) -> Queue:
        name = request["QueueUrl"].rpartition("/")[2]
        queue = self._queues.get(name)
        if queue is None:
            raise Refused("QueueDoesNotExist", f"no queue {name}")
        return queue

    def _CreateQueue(self, request: dict[str, Any]) -> Answer:  # noqa: N802 - the action's own name
        name = request["QueueName"]
        self._queues.setdefault(name, Queue(self._loop, {})).attributes.update(request.get("Attributes") or {})
        return {"QueueUrl": f"{self.url}/{ACCOUNT}/{name}"}

    def _GetQueueUrl(self, request: dict[str, Any]) -> Answer:  # noqa: N802 - the action's own name
        self._queue({"QueueUrl": request["QueueName"]})
        return {"QueueUrl": f"{self.url}/{ACCOUNT}/{request['QueueName']}"}

    def _ListQueues(self, request: dict[str, Any]) -> Answer:  # noqa: N802 - the action's own name
        prefix = request.get("QueueNamePrefix") or ""
        return {"QueueUrls": [f"{self.url}/{ACCOUNT}/{name}" for name in self._queues if name.startswith(prefix)]}

    def _GetQueueAttributes(self, request: dict[str, Any]) -> Answer:  # noqa: N802 - the action's own name
        wanted = set(request.get("AttributeNames") or ["All"])
        name = request["QueueUrl"].rpartition("/")[2]
        shown = {**self._queue(request).shown(), "QueueArn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}"}
        return {"Attributes": {n: v for n, v in shown.items() if "All" in wanted or n in wanted}}

    def _SetQueueAttributes(self, request: dict[str, Any]) -> Answer:  # noqa: N802 - the action's own name
        self._queue(request).attributes.update(request["Attributes"])
        return {}

    def _PurgeQueue(self, request: dict[str, Any]) -> Answer:  # noqa: N802 - the action's own name
        self._queue(request).purge()
        return {}

    def _SendMessage(self, request: dict[str, Any]) -> Answer:  # noqa: N802 - the action's own name
        return self._sent(self._queue(request), request)

    def _SendMessageBatch(self, request: dict[str, Any]) -> Answer:  # noqa: N802 - the action's own name
        queue = self._queue(request)
        return {"Successful": [{"Id": e["Id"], **self._sent(queue, e)} for e in _entries(request)], "Failed": []}

    def _sent(self, queue: Queue, entry: dict[str, Any]) -> dict[str, str]:
        message = queue.send(entry)
        return {
            "MessageId": message.id,
            "MD5OfMessageBody": hashlib.md5(entry["MessageBody"].encode(), usedforsecurity=False).hexdigest(),
        }

    def _DeleteMessage(self, request: dict[str, Any]) -> Answer:  # noqa: N802 - the action's own name
        self._queue(request).delete(request["ReceiptHandle"])
        return {}

    def _DeleteMessageBatch(self, request: dict[str, Any]) -> Answer:  # noqa: N802 - the action's own name
        queue = self._queue(request)
        return _batch(request, lambda e: queue.delete(e["ReceiptHandle"]))

    def _ChangeMessageVisibility(self, request: dict[str, Any]) -> Answer:  # noqa: N802 - the action's own name
        self._queue(request).change_visibility(request["ReceiptHandle"], request["VisibilityTimeout"])
        return {}

    def _ChangeMessageVisibilityBatch(self, request: dict[str, Any]) -> Answer:  # noqa: N802 - the action's own name
        queue = self._queue(request)
        return _batch(request, lambda e: queue.change_visibility(e["ReceiptHandle"], e["VisibilityTimeout"]))

    def _Counts(self, request: dict[str, Any]) -> Answer:  # noqa: N802 - no action of SQS: for the benchmark
        queue = self._queue(request)
        return {"sent": queue.sent, "deleted": queue.deleted}


def _entries(request: dict[str, Any]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = request["Entries"]
    if not entries:
        raise Refused("EmptyBatchRequest", "no entries")
    if len(entries) > BATCH:
        raise Refused("TooManyEntriesInBatchRequest", f"{len(entries)} entries")
    return entries


def _batch(request: dict[str, Any], act: Callable[[dict[str, Any]], None]) -> Answer:
    done, failed = [], []
    for entry in _entries(request):
        try:
            act(entry)
        except Refused as error:
            failed.append({"Id": entry["Id"], "Code": error.code, "Message": str(error), "SenderFault": True})
        else:
            done.append({"Id": entry["Id"]})
    return {"Successful": done, "Failed": failed}


class Connection(asyncio.Protocol):
    """One keep-alive HTTP connection; a client sends its next request after the answer, as SDKs do."""

    def __init__(self, service: Service) -> None:
        """Not connected yet."""
        self._service = service
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Answer no more."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Take bytes; act when a request is whole."""
        self._buffer += data
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end]
            lower = head.lower()
            length = _number_after(lower, b"\r\ncontent-length:")
            if len(self._buffer) < end + 4 + length:
                if b"\r\nexpect: 100-continue" in lower and self._transport:
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            at = lower.find(b"\r\nx-amz-target:")
            target = b"" if at < 0 else head[at + 15 : (head.find(b"\r\n", at + 2) + 1 or len(head) + 1) - 1].strip()
            self._act(target.decode().rpartition(".")[2], body)

    def _act(self, action: str, body: bytes) -> None:
        try:
            self._service.act(action, json.loads(body or b"{}"), self._answer)
        except Refused as refusal:
            error = {"__type": f"com.amazonaws.sqs#{refusal.code}", "message": str(refusal)}
            self._answer(json.dumps(error), b"400 Bad Request")
        except (KeyError, TypeError, ValueError) as error:
            text = json.dumps({"__type": "com.amazonaws.sqs#InvalidParameterValue", "message": repr(error)})
            self._answer(text, b"400 Bad Request")

    def _answer(self, text: str, status: bytes = b"200 OK") -> None:
        if self._transport is None:
            return
        body = text.encode()
        head = b"HTTP/1.1 %s\r\nContent-Type: application/x-amz-json-1.0\r\nx-amzn-RequestId: 0\r\n" % status
        self._transport.write(b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body))


def _number_after(head: bytes, name: bytes) -> int:
    at = head.find(name)
    if at < 0:
        return 0
    end = head.find(b"\r\n", at + 2)
    return int(head[at + len(name) : end if end >= 0 else len(head)])


async def serve(port: int) -> None:
    """Serve on 127.0.0.1 until the process ends."""
    loop = asyncio.get_running_loop()
    service = Service(loop)
    server = await loop.create_server(lambda: Connection(service), "127.0.0.1", port)
    service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(f"ready {service.url}", flush=True)
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(serve(parser.parse_args().port))
