"""Queues of a module's own, workers that use the monitor bus, and what is asked of them over it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self
from urllib.parse import quote_plus

from celery import Celery
from celery.events import EventReceiver

from bridge.celery import app as bridge_app
from tests.support.servers.sqs import QueueFactory, SqsServer, counts, environment_for, send
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

TASKS = "tests.e2e.monitoring.monitor_tasks"
# Long enough for a busy machine; a test that passes never waits for it.
END_SECONDS = 60.0


class Site:
    """One queue; ``bus_url`` is where its workers find the bus unless a test says otherwise."""

    def __init__(self, server: SqsServer, bus_url: str) -> None:
        self.server = server
        self.bus_url = bus_url
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        factory = QueueFactory()
        self._stack.callback(factory.delete_all)
        self._gates = Path(self._stack.enter_context(TemporaryDirectory()))
        self.queue = factory(self.server, prefix="monitor")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def environment(self, **settings: str) -> dict[str, str]:
        """The environment of a worker, of Flower and of the commands."""
        return {
            **environment_for(self.server),
            "SQS_QUEUE_URL": self.queue.url,
            "BRIDGE_TASK_MODULES": TASKS,
            "BRIDGE_MONITOR_URL": self.bus_url,
            "BRIDGE_WAIT_TIME_SECONDS": "1",
            "BRIDGE_VISIBILITY_TIMEOUT_SECONDS": "30",
            "BRIDGE_DRAIN_SECONDS": "3",
            "BRIDGE_HEALTH_PORT": "0",
            "MONITOR_GATES": str(self._gates),
            **settings,
        }

    def worker(self, *args: str, **settings: str) -> WorkerProcess:
        """A worker, to be started in ``with``."""
        return WorkerProcess(self.environment(**settings), *args)

    def put(self, key: str) -> str:
        """Announce an object (that need not be there); returns the MessageId, which is the task's id."""
        return send(
            self.server,
            self.queue.url,
            {
                "Records": [
                    {
                        "eventVersion": "2.1",
                        "eventSource": "aws:s3",
                        "awsRegion": "us-east-1",
                        "eventTime": "2026-03-14T09:26:53.589Z",
                        "eventName": "ObjectCreated:Put",
                        "s3": {
                            "s3SchemaVersion": "1.0",
                            "bucket": {"name": "uploads"},
                            "object": {
                                "key": quote_plus(key),
                                "size": 1,
                                "eTag": "0" * 32,
                                "sequencer": uuid.uuid4().hex.upper(),
                            },
                        },
                    }
                ]
            },
        )

    def open_gate(self, key: str) -> None:
        """Let the task ``gate`` for this key end."""
        (self._gates / key.replace("/", "_")).touch()

    def put_noops(self, count: int) -> None:
        """Send messages for the task that does nothing."""
        attribute = {"kind": {"DataType": "String", "StringValue": "noop"}}
        for first in range(0, count, 10):
            entries = [
                {"Id": str(n), "MessageBody": "{}", "MessageAttributes": attribute}
                for n in range(min(10, count - first))
            ]
            answer = self.server.sqs.send_message_batch(QueueUrl=self.queue.url, Entries=entries)  # type: ignore[arg-type]  # plain dicts
            assert len(answer["Successful"]) == len(entries)

    def waiting(self) -> int:
        """How many messages the queue holds, in whatever state."""
        return counts(self.server, self.queue.url).total

    def wait_empty(self) -> None:
        """Wait until everything is settled."""
        wait_until(lambda: self.waiting() == 0, END_SECONDS, "an empty queue")

    def asked(self, worker: WorkerProcess, question: Callable[[Any], Any], timeout_seconds: float = 30.0) -> Any:
        """What the one worker answers to ``question(inspect)``, asked until it does: a subscription takes a moment."""
        del worker  # named so that a test says whom it asks; there is one at a time

        def ask() -> Any:
            return question(bridge_app.control.inspect(timeout=5.0, limit=1))

        reply = wait_until(ask, timeout_seconds, "an answer over the bus")
        return next(iter(reply.values()))

    def told(self, command: str, **arguments: Any) -> Any:
        """What the one worker answers to a control command."""
        replies = bridge_app.control.broadcast(command, arguments=arguments, reply=True, timeout=10.0, limit=1)
        assert len(replies) == 1, replies
        return next(iter(replies[0].values()))

    def celery(self, *args: str, app: str = "bridge", **settings: str) -> subprocess.CompletedProcess[str]:
        """Run ``celery -A <app> …`` as a user does."""
        return subprocess.run(
            [sys.executable, "-m", "celery", "-A", app, *args],
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


class Listener:
    """Hears the events on a bus, as Flower does: with Celery's own receiver, in a thread of this process."""

    def __init__(self, url: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._app = Celery("listener", broker=url, set_as_current=False)
        self._connection = self._app.connection()
        self._ready = threading.Event()
        self._receiver = EventReceiver(self._connection, handlers={"*": self.events.append}, app=self._app)
        self._receiver.on_consume_ready = lambda *_, **__: self._ready.set()
        self._thread = threading.Thread(target=self._receiver.capture, kwargs={"wakeup": False}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def stop(self) -> None:
        """Hear no more, before the bus is taken away."""
        self._receiver.should_stop = True
        self._thread.join(10)

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._connection.release()
        self._app.close()

    def wait(self, wanted: Callable[[list[dict[str, Any]]], Any], timeout_seconds: float, what: str) -> Any:
        """Wait until ``wanted(events)`` is true, and return that."""
        return wait_until(lambda: wanted(list(self.events)), timeout_seconds, f"{what}; heard {self.types()[-40:]}")

    def types(self, uuid: str | None = None) -> list[str]:
        """The types heard so far, of one task or of all."""
        return [event["type"] for event in self.events if uuid is None or event.get("uuid") == uuid]

    def of(self, uuid: str, kind: str) -> list[dict[str, Any]]:
        """The events of one type about one task."""
        return [event for event in self.events if event.get("uuid") == uuid and event["type"] == kind]


def bus_in_this_process(url: str) -> Callable[[], None]:
    """Point ``app.control`` of this process at a bus; returns what undoes it."""
    before = os.environ.get("BRIDGE_MONITOR_URL")
    os.environ["BRIDGE_MONITOR_URL"] = url

    def undo() -> None:
        if before is None:
            del os.environ["BRIDGE_MONITOR_URL"]
        else:
            os.environ["BRIDGE_MONITOR_URL"] = before

    return undo
