"""The bench's own calls to the queue's server: fill it before a run, and ask how much has been done.

Straight to the server, past the proxy, on one connection, by SQS's JSON protocol: an SDK would use more of the machine
that is being measured.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable
from itertools import islice
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

CALL_SECONDS = 30


class QueueClient(Protocol):
    """What a run needs of a queue, wherever it is."""

    def fill(self, bodies: Iterable[str]) -> int:
        """Send all of them; return how many there were."""
        ...

    def done(self) -> int:
        """Return how many messages are gone for good."""
        ...


class SqsQueue:
    """One SQS queue, made anew with its dead-letter queue."""

    def __init__(self, url: str, name: str, *, counts_deletes: bool) -> None:
        """``counts_deletes`` says that the server is ours, which tells the number of deleted messages itself."""
        place = urlsplit(url)
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=CALL_SECONDS)
        self._counts_deletes = counts_deletes
        self._sent = 0
        self.dead_letter_url: str = self._call("CreateQueue", QueueName=f"{name}-dlq")["QueueUrl"]
        # Long enough for every run: what comes back in the middle would be counted twice.
        self.url: str = self._call("CreateQueue", QueueName=name, Attributes={"VisibilityTimeout": "600"})["QueueUrl"]

    def fill(self, bodies: Iterable[str]) -> int:
        """Send all bodies, ten a call."""
        rest = iter(bodies)
        while ten := list(islice(rest, 10)):
            entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(ten)]
            answer = self._call("SendMessageBatch", QueueUrl=self.url, Entries=entries)
            if len(answer["Successful"]) != len(ten):
                raise RuntimeError(f"SendMessageBatch: {answer.get('Failed')}")
            self._sent += len(ten)
        return self._sent

    def done(self) -> int:
        """Return how many messages have been deleted."""
        if self._counts_deletes:
            return int(self._call("Counts", QueueUrl=self.url)["deleted"])
        return self._sent - self._left(self.url)

    def dead_letters(self) -> int:
        """Return how many messages the dead-letter queue holds."""
        return self._left(self.dead_letter_url)

    def _left(self, url: str) -> int:
        answer = self._call("GetQueueAttributes", QueueUrl=url, AttributeNames=["All"])["Attributes"]
        kinds = ("", "NotVisible", "Delayed")
        return sum(int(answer[f"ApproximateNumberOfMessages{kind}"]) for kind in kinds)

    def _call(self, action: str, **request: Any) -> dict[str, Any]:
        headers = {"X-Amz-Target": f"AmazonSQS.{action}", "Content-Type": "application/x-amz-json-1.0"}
        self._connection.request("POST", "/", json.dumps(request), headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{action}: {answer.status} {text[:200]!r}")
        return dict(json.loads(text or b"{}"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()


class RedisQueue:
    """The list that Celery reads on Redis. Done is what is neither in it nor delivered without acknowledgement."""

    def __init__(self, url: str, name: str) -> None:
        place = urlsplit(url)
        self._name = name.encode()
        self._socket = socket.create_connection((place.hostname or "", place.port or 6379), CALL_SECONDS)
        self._answers = self._socket.makefile("rb")
        self._sent = 0

    def fill(self, bodies: Iterable[str]) -> int:
        """Push all bodies, a hundred a call; Celery takes from the other end."""
        rest = iter(bodies)
        while hundred := [body.encode() for body in islice(rest, 100)]:
            self._ask(b"LPUSH", self._name, *hundred)
            self._sent += len(hundred)
        return self._sent

    def done(self) -> int:
        """Return how many messages were acknowledged; Celery acknowledges when a pool process has taken the task."""
        return self._sent - self._ask(b"LLEN", self._name) - self._ask(b"HLEN", b"unacked")

    def _ask(self, *words: bytes) -> int:
        self._socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        line = self._answers.readline()
        if not line.startswith(b":"):
            raise RuntimeError(f"Redis: {line!r}")
        return int(line[1:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._answers.close()
        self._socket.close()
