"""The actions of SQS's API, on the queues of the in-memory server."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any

from benchmarks.servers.memory_sqs_queue import ACCOUNT, Queue, Refused

BATCH = 10

Answer = dict[str, Any] | str


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
