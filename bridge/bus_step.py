"""The consumer bootstep that joins a worker to the monitor bus, if BRIDGE_MONITOR_URL names one.

https://docs.celeryq.dev/en/stable/userguide/extending.html#consumer
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps

from bridge.bus import bus_address
from bridge.event_bus import CLOSE_SECONDS, event_bus
from bridge.main_loop import MainLoop
from bridge.plan import pool_kind
from bridge.remote_control import Commands, RemoteControl


class BusStep(bootsteps.StartStopStep):
    """Starts and stops remote control; events need only be flushed, for the dispatcher sends them."""

    requires = ("bridge.bootstep:BridgeStep",)

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
            on_room=consumer.task_consumer.channel.bridge.waker.wake,
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
