"""A worker on queues of its own, with the fault proxy between it and SQS, and what a test asks about a message.

Everything a test learns comes from outside: from the server (queues and dead letters), from the proxy (the worker's
calls) and from the worker's output (its log, and the notes that tasks print, see ``outcome_tasks.note``).
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Self
from urllib.parse import quote_plus

from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import QueueFactory, QueuePair, SqsServer, counts, environment_for, receive
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

POD_NAME = "pod-of-the-test"
TASKS = "tests.e2e.outcomes.outcome_tasks"
# Long enough for a busy machine; a test that passes never waits for it.
END_SECONDS = 45.0
_LAST = {"deleted", "ignored", "dead_lettered"}


class Rig:
    """Queues and a bucket that nobody else uses, and one worker on them.

    ``main`` is the queue of most messages; a test that looks at a queue as a whole names one of its own. ``tasks``, if
    named, is the queue for Celery's own messages.
    """

    worker: WorkerProcess

    def __init__(self, server: SqsServer, *names: str) -> None:
        """``names`` are the queues beside ``main``."""
        self.server = server
        self.bucket = f"e2e-{uuid.uuid4().hex[:8]}"
        #: MessageIds of what a fixture sent before the worker started, under names of its choice.
        self.earlier: dict[str, list[str]] = {}
        self._names = ("main", *names)
        self._sent: dict[str, tuple[str, str]] = {}
        self._dead: dict[str, list[Any]] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        factory = QueueFactory()
        self._stack.callback(factory.delete_all)
        self.queues: dict[str, QueuePair] = {name: factory(self.server, prefix=name) for name in self._names}
        self.server.s3.create_bucket(Bucket=self.bucket)
        self.proxy = self._stack.enter_context(FaultProxy(self.server.endpoint_url))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_worker(self, *args: str, **settings: str) -> WorkerProcess:
        """Start the worker; ``args`` are the command line's, ``settings`` come on top of the environment."""
        events = ",".join(pair.url for name, pair in self.queues.items() if name != "tasks")
        tasks = {"SQS_TASK_QUEUE_URL": self.queues["tasks"].url} if "tasks" in self.queues else {}
        environment = {
            **environment_for(self.server),
            "AWS_ENDPOINT_URL_SQS": self.proxy.url,
            "SQS_QUEUE_URL": events,
            **tasks,
            "BRIDGE_TASK_MODULES": TASKS,
            "BRIDGE_WAIT_TIME_SECONDS": "1",
            "BRIDGE_VISIBILITY_TIMEOUT_SECONDS": "30",
            "BRIDGE_RETRY_BACKOFF_SECONDS": "1",
            "BRIDGE_DRAIN_SECONDS": "3",
            "BRIDGE_POD_NAME": POD_NAME,
            **settings,
        }
        self.worker = self._stack.enter_context(WorkerProcess(environment, *args))
        return self.worker

    # ---- what is sent

    def put(self, key: str, content: bytes = b"hello\n", *, bucket: str | None = None) -> dict[str, Any]:
        """Put an object, and return the record that S3 would announce it with."""
        bucket = bucket or self.bucket
        answer = self.server.s3.put_object(Bucket=bucket, Key=key, Body=content)
        return self.record(key, answer["ETag"].strip('"'), len(content), bucket=bucket)

    def record(self, key: str, etag: str = "0" * 32, size: int = 6, *, bucket: str | None = None) -> dict[str, Any]:
        """Return the record of an event for an object that need not be there."""
        return {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": "us-east-1",
            "eventTime": "2026-03-14T09:26:53.589Z",
            "eventName": "ObjectCreated:Put",
            "s3": {
                "s3SchemaVersion": "1.0",
                "bucket": {"name": bucket or self.bucket},
                # The sequencer makes every body unlike all others, so that a dead letter tells whose it is.
                "object": {"key": quote_plus(key), "size": size, "eTag": etag, "sequencer": uuid.uuid4().hex.upper()},
            },
        }

    def upload(self, key: str, content: bytes = b"hello\n", *, queue: str = "main") -> str:
        """Put an object and announce it; returns the MessageId."""
        return self.announce(self.put(key, content), queue=queue)

    def announce(self, *records: Mapping[str, Any], queue: str = "main") -> str:
        """Send an event with these records."""
        return self.send(json.dumps({"Records": list(records)}), queue=queue)

    def send(
        self,
        body: str,
        *,
        queue: str = "main",
        attributes: Mapping[str, Any] | None = None,
        trace_header: str | None = None,
    ) -> str:
        """Send ``body``, past the proxy, and return the MessageId."""
        trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": trace_header}} if trace_header else {}
        sent = self.server.sqs.send_message(
            QueueUrl=self.queues[queue].url,
            MessageBody=body,
            MessageAttributes=dict(attributes or {}),
            MessageSystemAttributes=trace,  # type: ignore[arg-type]  # a dict with the one key that is allowed
        )
        self._sent[sent["MessageId"]] = (queue, body)
        return sent["MessageId"]

    # ---- what became of it

    def settled(self, message_id: str) -> list[dict[str, Any]]:
        """Return how the message was settled so far, once for each receive."""
        return self.worker.found("message_settled", message_id=message_id)

    def end(self, message_id: str) -> dict[str, Any]:
        """Return the settlement that ended the message, waited for."""
        return self.worker.wait_for(
            lambda e: (
                e.get("event") == "message_settled" and e.get("message_id") == message_id and e["outcome"] in _LAST
            ),
            END_SECONDS,
            f"end of {message_id}",
        )

    def course(self, message_id: str) -> list[tuple[str, str | None]]:
        """Return (outcome, reason) of every settlement up to the last one, which is waited for."""
        self.end(message_id)
        return [(e["outcome"], e.get("reason")) for e in self.settled(message_id)]

    def notes(self, message_id: str, event: str = "run") -> list[dict[str, Any]]:
        """Return what the tasks noted about this message so far."""
        return self.worker.found(event, message_id=message_id)

    def retries(self, message_id: str) -> list[int]:
        """Return ``request.retries`` of each run so far."""
        return [note["retries"] for note in self.notes(message_id)]

    def dead_letters(self, message_id: str) -> Sequence[Any]:
        """Return the messages in the DLQ with the body of this one, as ReceiveMessage gives them."""
        queue, body = self._sent[message_id]
        found = self._dead.setdefault(queue, [])
        # Each is seen once only, because none becomes visible again during the tests.
        while batch := receive(self.server, self.queues[queue].dlq_url, visibility_timeout_seconds=3600):
            found.extend(batch)
        return [letter for letter in found if letter["Body"] == body]

    def cause(self, message_id: str) -> dict[str, Any]:
        """Return the ``BridgeCause`` of the message's dead letter, waited for; there must be exactly one letter."""
        end = self.end(message_id)
        assert end["outcome"] == "dead_lettered", end
        letters = self.dead_letters(message_id)
        assert len(letters) == 1
        cause: dict[str, Any] = json.loads(letters[0]["MessageAttributes"]["BridgeCause"]["StringValue"])
        assert cause["reason"] == end["reason"]
        return cause

    def wait_empty(self, queue: str) -> None:
        """Wait until the queue holds nothing, neither visible nor in flight nor delayed."""
        url = self.queues[queue].url
        wait_until(lambda: counts(self.server, url).total == 0, END_SECONDS, f"an empty queue {queue}")
