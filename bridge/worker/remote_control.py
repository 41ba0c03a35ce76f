"""Remote control over the monitor bus: Celery's own commands, heard by a thread and carried out on the main loop.

Stock Celery listens on the task broker's connection, on the main loop; here a Redis that hangs would then hang the
worker. So a thread with a connection of its own listens and answers, and hands each command to the main loop, where
alone Celery's books may be read and its pool changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.platforms import EX_OK
from celery.utils.collections import AttributeDict
from celery.worker import state as worker_state
from celery.worker.control import Panel
from kombu.exceptions import EncodeError
from kombu.pidbox import Node

from bridge import metrics
from bridge.log import get_logger
from bridge.monitoring.bus import BusAddress, BusLink, bus_connection, mailbox_for
from bridge.worker.event_loop import MainLoop, MainLoopBusy

if TYPE_CHECKING:
    from bridge.delivery.drain import PoolKind

log = get_logger(__name__)

#: What a caller waits by default is one second (``celery inspect -t``).
_START_SECONDS, _END_SECONDS = 5.0, 30.0
#: A solo worker's main loop is its task: what only reads, or only marks, is then done from here.
_SOLO_START_SECONDS = 0.3
_LISTEN_SECONDS = 0.5

#: Commands that would do harm here, and what is answered instead.
REFUSED = {
    "add_consumer": "a worker of the bridge reads the queues of SQS_QUEUE_URL: start one with another SQS_QUEUE_URL",
    "cancel_consumer": "a worker of the bridge reads its queues until it is stopped: control shutdown, or SIGTERM",
    "pool_restart": "a restart of the pool would lose running tasks: restart the worker, which drains",
}
#: Commands that change the pool or the worker itself and wait for a solo worker's task to end.
_MAIN_LOOP_ONLY = frozenset({"pool_grow", "pool_shrink", "autoscale", "rate_limit", "time_limit", "terminate"})
#: After these there may be free slots, and nothing else would look.
_ROOM_MADE = frozenset({"pool_grow", "pool_shrink", "autoscale"})


class Commands:
    """Celery's control panel, bound to this worker."""

    def __init__(
        self, consumer: Any, main_loop: MainLoop, *, pool_kind: PoolKind, on_room: Callable[[], object]
    ) -> None:
        """``on_room`` is called when the size of the pool was changed."""
        self._consumer = consumer
        self._main_loop = main_loop
        self._pool_kind = pool_kind
        self._on_room = on_room
        # What Celery's own mailbox gives its commands (celery.worker.pidbox). Sets are copied, for threads add to them.
        self.state = AttributeDict(app=consumer.app, hostname=consumer.hostname, consumer=consumer, tset=set)

    def run(self, method: str, arguments: dict[str, Any]) -> Any:
        """Carry out one command and return its reply; raises KeyError for one that there is not."""
        if method in REFUSED:
            return {"error": REFUSED[method]}
        if self._pool_kind != "prefork" and (method == "terminate" or arguments.get("terminate")):
            return {
                "error": f"a running task cannot be stopped in the {self._pool_kind} pool: revoke it without terminate"
            }
        command = Panel.data[method]
        try:
            return self._carry_out_somewhere(method, command, arguments)
        except (WorkerShutdown, WorkerTerminate):
            # Celery's command raises it where the event loop hears of it; asking for it does the same, and can reply.
            worker_state.should_stop = EX_OK
            self._on_room()
            return {"ok": "shutting down"}
        except SystemExit as error:
            # Of somebody's own command; it would end this thread, and all remote control with it.
            return {"error": f"the command called sys.exit({error.code!r})"}

    def _carry_out_somewhere(self, method: str, command: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """On the main loop; or here, if that is a solo worker's task and the command does not touch the pool."""
        solo = self._pool_kind == "solo"
        try:
            return self._main_loop.call(
                lambda: self._carry_out(method, command, arguments),
                start_seconds=_SOLO_START_SECONDS if solo else _START_SECONDS,
                end_seconds=_END_SECONDS,
            )
        except MainLoopBusy:
            if solo and method not in _MAIN_LOOP_ONLY:
                return self._carry_out(method, command, arguments)
            return {"error": "the worker's main loop is busy; the command was not carried out"}

    def _carry_out(self, method: str, command: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        reply = command(self.state, **arguments)
        if method == "time_limit" and isinstance(reply, dict) and "ok" in reply:
            # Celery reads a task's limits once, when it builds the task's strategy (create_request_cls).
            task = self._consumer.app.tasks[arguments["task_name"]]
            self._consumer.strategies[task.name] = task.start_strategy(self._consumer.app, self._consumer)
        if method in _ROOM_MADE:
            self._on_room()
        return reply


class RemoteControl:
    """Listens until it is stopped."""

    def __init__(self, address: BusAddress, commands: Commands) -> None:
        """``commands`` runs what is asked for."""
        app = commands.state.app
        self._address = address
        self._link = BusLink(address.shown, "remote control")
        self._connected = metrics.monitor_connected.labels("control")
        self._stopping = threading.Event()
        self._node = _Node(commands, mailbox_for(app))
        self._thread = threading.Thread(target=self._run, name="bridge-monitor-control", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to leave; it is not waited for."""
        self._stopping.set()

    def join(self, timeout_seconds: float) -> None:
        """Wait for the thread to have left, so that the bus forgets this worker's mailbox."""
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with bus_connection(self._address) as connection:
                    connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
                    self._listen(connection)
            except Exception as error:  # noqa: BLE001 - network, time-out, password, a full Redis: try again later
                self._link.failed(error)
                self._stopping.wait(self._link.wait_seconds)

    def _listen(self, connection: Any) -> None:
        self._node.channel = connection.channel()
        consumer = self._node.listen(callback=self._node.hear)
        self._link.works()
        self._connected.set(1)
        try:
            while not self._stopping.is_set():
                try:
                    connection.drain_events(timeout=_LISTEN_SECONDS)
                except TimeoutError:
                    pass
        finally:
            self._connected.set(0)
            if self._stopping.is_set():
                consumer.cancel()


class _ReplyFailed(Exception):  # noqa: N818 - says what happened
    """The bus, not the command, failed."""


class _Node(Node):
    """This worker's mailbox."""

    def __init__(self, commands: Commands, mailbox: Any) -> None:
        super().__init__(commands.state.hostname, state=commands.state, handlers=Panel.data, mailbox=mailbox)
        self._commands = commands

    def hear(self, body: Any, message: Any) -> None:
        """Take one message off the bus; whatever is in it, only a failure of the bus gets out of here."""
        try:
            self.handle_message(body, message)
        except _ReplyFailed as error:
            raise error.__cause__ or error from None
        except Exception as error:  # noqa: BLE001 - anybody who reaches the bus may send anything
            log.warning("control_message_ignored", error_type=type(error).__name__, error=str(error))

    def handle(self, method: str, arguments: Any = None) -> Any:
        return self._commands.run(method, dict(arguments or {}))

    def reply(self, data: Any, exchange: str, routing_key: str, ticket: str, **options: Any) -> None:
        try:
            try:
                super().reply(data, exchange, routing_key, ticket, **options)
            except EncodeError as error:
                problem = {self.hostname: {"error": f"the reply is not JSON: {error}"}}
                super().reply(problem, exchange, routing_key, ticket, **options)
        except Exception as error:
            raise _ReplyFailed from error
