"""The consumer bootstep that puts the bridge between Celery's consumer and its pool.

https://docs.celeryq.dev/en/stable/userguide/extending.html#consumer
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker import state as worker_state

from bridge.lifecycle import Bridge
from bridge.plan import present_plan
from bridge.spent_timers import SpentTimers


class BridgeStep(bootsteps.StartStopStep):
    """Puts the bridge between Celery's consumer and its pool."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        """Stand in for ``on_task_request`` before any strategy keeps a reference to it."""
        super().__init__(consumer, **options)
        self.bridge = Bridge(present_plan(), consumer)
        self._spent_timers = SpentTimers()
        consumer.on_task_request = self.bridge.gate.submit

    def start(self, consumer: Any) -> None:
        """Start the parts; the receivers start when Celery consumes."""
        self.bridge.start()
        self.bridge.attach(consumer.task_consumer.channel)

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        """Let our threads wake the main loop, and keep the loop's timer small."""
        self.bridge.register(hub)
        self._spent_timers.register(hub)

    def stop(self, consumer: Any) -> None:
        """Begin the drain, unless the consumer only restarts: then its requests are void, and ours go on."""
        if consumer.blueprint.state == bootsteps.RUN:
            self.bridge.gate.forget()
        elif worker_state.should_terminate:
            # A cold shutdown (SIGQUIT, a second Ctrl-C) asks nobody on its way out: it has to be held up here.
            self.bridge.drain.request(forced=True)
            self.bridge.drain.wait()
        else:
            self.bridge.drain.request()
