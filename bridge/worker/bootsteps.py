"""The consumer bootsteps: the bridge between Celery's consumer and its pool, and the monitor bus.

https://docs.celeryq.dev/en/stable/userguide/extending.html#consumer
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker import state as worker_state

from bridge.monitoring.bus import bus_address
from bridge.monitoring.event_sender import CLOSE_SECONDS, event_bus
from bridge.worker.context import worker_context
from bridge.worker.event_loop import MainLoop, SpentTimers
from bridge.worker.pool import pool_kind
from bridge.worker.remote_control import Commands, RemoteControl
from bridge.worker.runtime import WorkerRuntime


class BridgeStep(bootsteps.StartStopStep):
    """Puts the bridge between Celery's consumer and its pool."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        """Stand in for ``on_task_request`` before any strategy keeps a reference to it."""
        super().__init__(consumer, **options)
        self.runtime = WorkerRuntime(worker_context(), consumer)
        self._spent_timers = SpentTimers()
        consumer.on_task_request = self.runtime.dispatch.run_queue.submit

    def start(self, consumer: Any) -> None:
        """Start the parts; the receivers start when Celery consumes."""
        self.runtime.start()
        self.runtime.attach(consumer.task_consumer.channel)

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        """Let our threads wake the main loop, and keep the loop's timer small."""
        self.runtime.register(hub)
        self._spent_timers.register(hub)

    def stop(self, consumer: Any) -> None:
        """Begin the drain, unless the consumer only restarts: then its requests are void, and ours go on."""
        if consumer.blueprint.state == bootsteps.RUN:
            self.runtime.dispatch.run_queue.forget()
        elif worker_state.should_terminate:
            # A cold shutdown (SIGQUIT, a second Ctrl-C) leaves without waiting: it has to be held up here.
            self.runtime.drain.request(forced=True)
            self.runtime.drain.wait()
        else:
            self.runtime.drain.request()


class BusStep(bootsteps.StartStopStep):
    """Joins a worker to the monitor bus, if BRIDGE_MONITOR_URL names one: starts and stops remote control.

    Events need only be flushed, for the dispatcher sends them.
    """

    requires = ("bridge.worker.bootsteps:BridgeStep",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        """Nothing is connected yet, and never on the main loop."""
        super().__init__(consumer, **options)
        self._address = bus_address()
        self._main_loop = MainLoop()
        self._remote: RemoteControl | None = None

    def include_if(self, consumer: Any) -> bool:
        """Only with a bus."""
        return self._address is not None

    def start(self, consumer: Any) -> None:
        """Listen to commands, with the pool and the queues there."""
        assert self._address is not None  # noqa: S101 - include_if
        commands = Commands(
            consumer,
            self._main_loop,
            pool_kind=pool_kind(consumer.pool),
            on_room=consumer.task_consumer.channel.runtime.dispatch.wake,
        )
        self._remote = RemoteControl(self._address, commands)
        self._remote.start()

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        """Let commands be run on the main loop."""
        self._main_loop.register(hub)

    def stop(self, consumer: Any) -> None:
        """Hear no further command: from here on the main loop runs none."""
        if self._remote is not None:
            self._remote.stop()

    def shutdown(self, consumer: Any) -> None:
        """All tasks have ended: send what is left, within a fixed time, whatever the bus does."""
        assert self._address is not None  # noqa: S101 - include_if
        event_bus(self._address).close(CLOSE_SECONDS)
