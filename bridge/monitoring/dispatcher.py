"""Celery's events, taken off the main loop: what the worker knows as its event dispatcher.

Named to the app as its ``events`` class (https://docs.celeryq.dev/en/stable/reference/celery.html#celery.Celery), so
that everything of Celery that has an event to send gets this one. It has the methods and attributes that the worker
uses of ``celery.events.dispatcher.EventDispatcher``, and no connection: the worker's event loop asks an event
connection for its heartbeat interval, which would connect there and then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery.app import app_or_default
from celery.app.events import Events
from celery.utils.nodenames import anon_nodename

from bridge.monitoring.bus import bus_address
from bridge.monitoring.event_sender import event_bus


class BusDispatcher:
    """Hands events to this process's sender; does nothing when there is no bus."""

    app: Any = None
    connection = None
    producer = publisher = None

    def __init__(
        self,
        connection: Any = None,
        hostname: str | None = None,
        enabled: bool = True,
        channel: Any = None,
        buffer_while_offline: bool = True,
        app: Any = None,
        groups: Any = None,
        **_: Any,
    ) -> None:
        """The signature is Celery's; a connection that it offers is SQS's, which carries no events, and is closed."""
        if connection is not None:
            connection.release()
        self.app = app_or_default(app or self.app)
        self.hostname = hostname or anon_nodename()
        self._forward = self.app.clock.forward
        self.headers = {"hostname": self.hostname}
        self.pid = os.getpid()
        #: Remote control takes "task" out and puts it in again (``control disable_events``).
        self.groups: set[str] = set(groups or ("task", "worker"))
        self.on_enabled: set[Callable[[], object]] = set()
        self.on_disabled: set[Callable[[], object]] = set()
        address = bus_address() if enabled else None
        self._bus = event_bus(address) if address is not None else None
        self.enabled = self._bus is not None

    def __enter__(self) -> BusDispatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(
        self,
        type: str,  # noqa: A002 - Celery's name, given as a keyword by some of its callers
        blind: bool = False,
        utcoffset: Any = None,
        retry: bool = False,
        retry_policy: Any = None,
        Event: Any = None,  # noqa: N803 - Celery's name
        **fields: Any,
    ) -> None:
        """Have an event sent; never waits and never fails. The fields are those of Celery's events."""
        # A worker's last word is the sender's own affair: Celery says "offline" when the drain begins.
        if self._bus is None or not self.enabled or type == "worker-offline":
            return
        if "task" not in self.groups and type.startswith("task-"):
            return
        # Into what is ours already: three events a task are a sixth of a short one's cost.
        fields["type"] = type
        fields["hostname"] = self.hostname
        fields["pid"] = self.pid
        fields["clock"] = None if blind else self._forward()
        fields["timestamp"] = time.time()
        self._bus.send(fields)

    def publish(self, type: str, fields: dict[str, Any], producer: Any, blind: bool = False, **_: Any) -> None:  # noqa: A002 - Celery's name
        """Send an event over the bus, not with ``producer``, which is SQS's (``task_send_sent_event``)."""
        self.send(type, blind=blind, **fields)

    def enable(self) -> None:
        """Begin to send, if there is a bus."""
        self.enabled = self._bus is not None
        for callback in tuple(self.on_enabled):
            callback()

    def disable(self) -> None:
        """Stop sending; the sender itself lives as long as the process."""
        if self.enabled:
            self.enabled = False
            for callback in tuple(self.on_disabled):
                callback()

    def close(self) -> None:
        """Nothing to close: no connection is held here."""

    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Nothing to flush: nothing is held back here."""

    def extend_buffer(self, other: Any) -> None:
        """Nothing to take over: all dispatchers of a process share one buffer."""


class BusEvents(Events):
    """The app's ``events``: Celery's, with this dispatcher."""

    dispatcher_cls = "bridge.monitoring.dispatcher:BusDispatcher"

    @contextmanager
    def default_dispatcher(
        self, hostname: str | None = None, enabled: bool = True, buffer_while_offline: bool = False
    ) -> Iterator[BusDispatcher]:
        """For a task's own events (``self.send_event``); Celery's opens a connection to the task broker for each."""
        yield self.Dispatcher(hostname=hostname, enabled=enabled)
