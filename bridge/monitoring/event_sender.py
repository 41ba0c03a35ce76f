"""The sender of Celery's events: one thread per process, which alone talks to the monitor bus.

Whoever has an event puts it into the buffer and goes on. The thread sends what is there in batches, as the lists that
Celery's own dispatcher sends (routing key ``task.multi``). Whatever the bus does (absent, refusing, hanging, gone), the
thread bears it: the buffer drops the oldest and counts them, and a later connection takes up from there. A batch whose
sending failed is dropped too, for a monitor would count it twice otherwise.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

from celery import signals
from celery.events.event import event_exchange
from celery.utils.time import utcoffset
from celery.worker import state as worker_state
from kombu import Exchange, Producer
from kombu.exceptions import EncodeError

from bridge import metrics
from bridge.log import get_logger
from bridge.monitoring.bus import BusAddress, BusLink, bus_connection
from bridge.monitoring.event_buffer import MAX_EVENTS, Event, EventBuffer

log = get_logger(__name__)

#: How long the thread gathers before it sends: a monitor is a fifth of a second late, and the main loop is left alone.
GATHER_SECONDS = 0.2
MAX_BATCH = 250
#: How often it looks whether a heartbeat is due or a broken connection may be tried again.
TICK_SECONDS = 0.5
#: What a shutdown waits for the last events.
CLOSE_SECONDS = 1.0


class EventBus:
    """Sends events until it is closed; ``send`` may be called from any thread and never waits."""

    def __init__(self, address: BusAddress) -> None:
        """The thread starts with the first event: a process that sends none has none."""
        self.buffer = EventBuffer(metrics.events_dropped.inc)
        self._address = address
        self._some = threading.Event()
        self._closing = threading.Event()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._link = BusLink(address.shown, "events")
        self._connected = metrics.monitor_connected.labels("events")
        self._producer: Any = None
        self._connection: Any = None
        self._beat: Event | None = None
        self._beat_at = 0.0

    def send(self, event: Event) -> None:
        """Have an event sent, soon, if the bus takes it; heartbeats are not kept for a bus that is away."""
        if event["type"] in ("worker-online", "worker-heartbeat"):
            self._beat, self._beat_at = event, time.monotonic()
            if event["type"] == "worker-heartbeat" and self._link.is_lost:
                return
        if self.buffer.add(event):
            self._some.set()
            if self._thread is None:
                self._start()

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Send what is left, a worker's last word with it, and end; waits ``timeout_seconds`` at most."""
        self._closing.set()
        self._some.set()
        if self._thread is not None and not self._link.is_lost:
            self._thread.join(timeout_seconds)
        if left := len(self.buffer.take(MAX_EVENTS)):
            metrics.events_dropped.inc(left)

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="bridge-monitor-events", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._some.wait(TICK_SECONDS)
            self._some.clear()
            self._closing.wait(GATHER_SECONDS if self.buffer else 0)
            self._beat_if_due()
            if self._link.is_lost:
                self._connect()  # also when there is nothing to send: the bus is to be known as back
            self._send_all()
        if self._beat is not None:
            self.buffer.add({**_worker_now(self._beat), "type": "worker-offline"})
        if not self._link.is_lost:
            self._send_all()
        self._disconnect()

    def _beat_if_due(self) -> None:
        """Speak for a main loop that is busy: inside a task (solo), or joining the pool in a drain.

        Celery's own heartbeat stops there, and a monitor would show a worker as gone that is not.
        """
        beat = self._beat
        if beat is not None and time.monotonic() - self._beat_at > 1.5 * float(beat.get("freq") or 2.0):
            self.send({**_worker_now(beat), "type": "worker-heartbeat"})

    def _send_all(self) -> None:
        while self.buffer and self._connect():
            batch = self.buffer.take(MAX_BATCH)
            offset = utcoffset()
            for event in batch:
                event["utcoffset"] = offset
            for routing_key, events in _grouped(batch):
                self._publish(routing_key, events)

    def _publish(self, routing_key: str, events: list[Event]) -> None:
        if self._producer is None:  # an earlier part of the same batch has failed
            metrics.events_dropped.inc(len(events))
            return
        try:
            self._producer.publish(
                events if routing_key.endswith(".multi") else events[0],
                routing_key=routing_key,
                exchange=event_exchange.name,
                serializer="json",
                headers={"hostname": events[0]["hostname"]},
                delivery_mode=1,
                retry=False,
            )
        except EncodeError as error:  # a user's own event has a value that is not JSON: it alone is dropped
            if len(events) == 1:
                metrics.events_dropped.inc()
                log.warning("event_not_sent", type=events[0]["type"], error_type=type(error).__name__, error=str(error))
            for event in events if len(events) > 1 else ():
                self._publish(routing_key, [event])
        except Exception as error:  # noqa: BLE001 - network, time-out, password, Redis's own errors: all mean not sent
            metrics.events_dropped.inc(len(events))
            self._disconnect()
            self._link.failed(error)

    def _connect(self) -> bool:
        if self._producer is not None:
            return True
        if not self._link.may_try():
            return False
        connection = bus_connection(self._address)
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
            # Fanout is what Celery's receivers expect on Redis (celery.events.event.get_exchange).
            exchange = Exchange(event_exchange.name, type="fanout")
            channel = connection.channel()
            exchange(channel).declare()
            self._producer = Producer(channel, exchange=exchange, serializer="json", auto_declare=False)
        except Exception as error:  # noqa: BLE001 - as above
            _close_quietly(connection)
            self._link.failed(error)
            return False
        self._connection = connection
        self._connected.set(1)
        self._link.works()
        return True

    def _disconnect(self) -> None:
        self._producer = None
        self._connected.set(0)
        connection, self._connection = self._connection, None
        if connection is not None:
            _close_quietly(connection)


class _PerProcess:
    """The bus of this process, made on first use; a forked child has its own, for threads do not survive a fork."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.lock = threading.Lock()
        self.buses: dict[BusAddress | None, EventBus] = {}


_here = _PerProcess()
os.register_at_fork(after_in_child=_here.forget)


@signals.worker_process_shutdown.connect(weak=False, dispatch_uid="bridge.events-end")
def _close_all(**_: Any) -> None:
    """Let a pool child send its tasks' own last events before it ends, replaced or stopped."""
    for bus in list(_here.buses.values()):
        bus.close()


def event_bus(address: BusAddress, make: Callable[[BusAddress], EventBus] = EventBus) -> EventBus:
    """Return this process's sender for the bus at ``address``."""
    with _here.lock:
        if address not in _here.buses:
            _here.buses[address] = make(address)
        return _here.buses[address]


def _grouped(batch: list[Event]) -> Iterator[tuple[str, list[Event]]]:
    """Yield (routing key, events) in order: task events as lists, as Celery sends them, all others one by one."""
    for is_task, events in groupby(batch, key=lambda event: str(event["type"]).startswith("task-")):
        if is_task:
            yield "task.multi", list(events)
        else:
            for event in events:
                yield str(event["type"]).replace("-", "."), [event]


def _worker_now(beat: Event) -> Event:
    """Return the fields of a worker's event as they are at this moment."""
    return {
        **beat,
        "timestamp": time.time(),
        "active": len(worker_state.active_requests),
        "processed": worker_state.all_total_count[0],
    }


def _close_quietly(connection: Any) -> None:
    try:
        connection.release()
    except Exception:  # noqa: BLE001 - it is broken, and nothing of it is needed any more
        return
