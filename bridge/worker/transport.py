"""The Kombu transport: SQS's, with our receivers in place of its polling. Wiring only.

Kombu's own chain of receives ends at the first failed one, asks for no visibility timeout, and drops a batch when one
message of it cannot be translated; so ``basic_consume`` starts our receivers instead. What arrives is given to the
consumer's callback as if Kombu had received it. Acknowledgements do not pass here: ``bridge.worker.request`` settles,
and what still comes this way is a message that Celery could not read, which is dead-lettered, never deleted.
"""

from __future__ import annotations

import math
import os
from datetime import UTC, datetime
from typing import Any, Protocol

from amqp.protocol import queue_declare_ok_t
from kombu.transport import SQS, virtual

from bridge.delivery.lease_table import LeaseTable
from bridge.errors import BridgeError, NoTaskQueue
from bridge.messages.verdicts import DeadLetter
from bridge.settings.task_queue import task_queue_settings
from bridge.sqs.clients import sqs_client
from bridge.sqs.queues import queue_name
from bridge.sqs.quotas import MAX_DELAY_SECONDS


class Runtime(Protocol):
    """What the channel needs of ``WorkerRuntime``."""

    leases: LeaseTable
    settler: Any

    def knows(self, task: str | None) -> bool:
        """Say whether a task of this name is registered."""

    def consume(self, queue: str, channel: Channel) -> None:
        """Start receiving."""

    def request_forced_drain(self) -> None:
        """Go to the last steps of the drain."""


class QoS(virtual.QoS):
    """Keeps no books: the lease table does, and Kombu's may be changed by the consuming thread only."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Nothing to remember."""

    def can_consume(self) -> bool:
        """The window is the receivers' affair."""
        return True

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Nothing to restore: the drain has handed everything back (stock: one blocking call a message, not to 0)."""
        self._on_collect.cancel()


class Message(SQS.Channel.Message):
    """A message that the bridge wrote has a decoded body (``envelope.for_event``); Celery's own are text."""

    def decode(self) -> Any:
        """Return ``[args, kwargs, embed]``."""
        return self.body if isinstance(self.body, list) else super().decode()


class Channel(SQS.Channel):
    """SQS's channel without its receives, its blocking deletes and its credentials from the URL."""

    QoS = QoS
    Message = Message
    do_restore = False
    #: A readable body in the console and in dead letters; Kombu reads plain JSON as well as base64.
    body_encoding = None
    sqs_base64_encoding = False
    #: The running worker; set by the consumer bootstep, absent in a process that only sends.
    runtime: Runtime

    @property
    def predefined_queues(self) -> dict[str, dict[str, str]]:
        """The queues by name: the worker's, or in a process that only sends, the task queue."""
        queues: dict[str, dict[str, str]] = self.transport_options.get("predefined_queues") or _task_queue()
        return queues

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any) -> None:
        """Register Celery's callback and start our receivers, in place of Kombu's polling."""
        virtual.Channel.basic_consume(self, queue, no_ack, callback, consumer_tag, **kwargs)
        self.runtime.consume(queue, self)

    def deliver(self, queue: str, payload: dict[str, Any]) -> None:
        """Give one message to Celery's consumer; raises KeyError when there is no consumer any more."""
        self.connection._callbacks[queue](payload)

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Celery acknowledges what it cannot decode, that is: it would delete it."""
        self._give_up(delivery_tag, "malformed", "Celery could not decode the message")

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Celery rejects what names no registered task, or has headers that it cannot use."""
        lease = self.runtime.leases.get(delivery_tag)
        if lease is not None and self.runtime.knows(lease.task):
            self._give_up(delivery_tag, "malformed", f"Celery could not use the message for task {lease.task}")
        elif lease is not None:
            self._give_up(delivery_tag, "unrouted", f"no task {lease.task!r} is registered in this worker")

    def queue_declare(self, queue: str | None = None, **kwargs: Any) -> Any:
        """Declare nothing: queues are made by people (stock Kombu asks SQS for the size, one call per publisher)."""
        return queue_declare_ok_t(queue, 0, 0)

    def sqs(self, queue: str | None = None) -> Any:
        """Return the client for sending; one per process."""
        return self.connection.sending_client()

    def _new_queue(self, queue: str, **kwargs: Any) -> str:
        url = self.predefined_queues.get(queue, {}).get("url")
        if url is None:
            raise NoTaskQueue(
                f"there is no queue {queue!r} to send to: SQS_TASK_QUEUE_URL names the queue for .delay()"
            )
        return url

    def _purge(self, queue: str) -> int:
        raise BridgeError(
            f"purging {queue} would delete every waiting event permanently; if you want that, use SQS's PurgeQueue"
        )

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        eta = (message.get("headers") or {}).get("eta")
        if eta:
            delay = math.ceil((datetime.fromisoformat(eta) - datetime.now(UTC)).total_seconds())
            message["properties"].setdefault("DelaySeconds", min(max(0, delay), MAX_DELAY_SECONDS))
        super()._put(queue, message, **kwargs)

    def _give_up(self, delivery_tag: str, reason: str, error: str) -> None:
        lease = self.runtime.leases.get(delivery_tag)
        if lease is not None:
            self.runtime.settler.settle(lease, DeadLetter(reason, None, error))


class Transport(SQS.Transport):
    """``bridge.worker.transport:Transport``, named in the app's ``broker_transport``."""

    Channel = Channel

    def __init__(self, client: Any, **kwargs: Any) -> None:
        """Make no client yet: a worker that only consumes needs none here."""
        super().__init__(client, **kwargs)
        self._sending_client: tuple[int, Any] = (0, None)

    def sending_client(self) -> Any:
        """Return the client for sending, made on first use and again after a fork: sockets are not shared."""
        pid, client = self._sending_client
        if pid != os.getpid():
            region = self.client.transport_options.get("region") or task_queue_settings().region
            client = sqs_client("send", region)
            self._sending_client = (os.getpid(), client)
        return client


def _task_queue() -> dict[str, dict[str, str]]:
    url = task_queue_settings().sqs_task_queue_url
    return {queue_name(url): {"url": url}} if url else {}
