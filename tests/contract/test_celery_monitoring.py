"""What the monitor bus leans on in Celery, Kombu and Flower."""

from __future__ import annotations

import inspect
import ssl
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import click
import pytest
from celery import Celery, signals
from celery.app.control import Control
from celery.app.events import Events
from celery.bin.base import consume_preload_options
from celery.events.receiver import EventReceiver
from celery.events.state import State
from celery.worker import loops
from celery.worker.consumer import events as events_step
from celery.worker.control import Panel
from celery.worker.request import create_request_cls
from kombu import Connection
from kombu.pidbox import Mailbox, Node


def test_an_app_takes_its_own_events_and_control() -> None:
    """``Celery(events=…, control=…)`` are the classes behind ``app.events`` and ``app.control``."""

    class OurEvents(Events):
        pass

    class OurControl(Control):
        pass

    app = Celery("contract", broker="memory://", events=OurEvents, control=OurControl, set_as_current=False)
    assert isinstance(app.events, OurEvents)
    assert isinstance(app.control, OurControl)


def test_the_worker_makes_its_dispatcher_from_the_app() -> None:
    """The bootstep Events takes ``app.events.Dispatcher``, tells it host, groups and whether events are wanted."""
    made: dict[str, Any] = {}

    def dispatcher(connection: Any, **options: Any) -> Any:
        made.update(options)
        return SimpleNamespace(connection=None)

    consumer = SimpleNamespace(
        event_dispatcher=None,
        hub=None,
        amqheartbeat=0,
        hostname="celery@h",
        connection_for_write=lambda heartbeat: SimpleNamespace(),
        app=SimpleNamespace(events=SimpleNamespace(Dispatcher=dispatcher)),
    )
    step = events_step.Events(consumer, task_events=True)
    step.start(consumer)
    assert (made["hostname"], made["enabled"], made["groups"]) == ("celery@h", True, None)


def test_a_dispatcher_may_have_no_connection() -> None:
    """The event loop asks an event connection for its heartbeats, and is content when there is none."""
    assert loops._enable_amqheartbeats(None, None) == [None]


def test_receivers_take_lists_of_events() -> None:
    """A message that is a list is heard as so many events, in order (that is how Celery sends ``task.multi``)."""
    app = Celery("contract", broker="memory://", set_as_current=False)
    heard: list[str] = []
    with app.connection() as connection:
        receiver = EventReceiver(connection, handlers={"*": lambda e: heard.append(e["uuid"])}, app=app)
        receiver._receive([{"type": "task-started", "uuid": str(n), "clock": n} for n in range(3)], None)
    assert heard == ["0", "1", "2"]


def test_a_worker_without_heartbeats_is_offline_soon() -> None:
    """A monitor takes a worker for gone when twice its heartbeat's interval has passed: 4 s by default."""
    state = State()
    state.event(
        {"type": "worker-heartbeat", "hostname": "h", "freq": 2.0, "timestamp": 1.0, "local_received": 1.0, "clock": 1}
    )
    assert state.workers["h"].heartbeat_expires == 5.0


def test_limits_are_read_when_the_strategy_is_built() -> None:
    """``control time_limit`` changes the task, and requests made by an older strategy keep the old limits."""
    source = inspect.getsource(create_request_cls)
    assert "default_time_limit = task.time_limit" in source
    assert "default_time_limit = task.time_limit" not in source.split("class Request(base)")[1]


def test_commands_of_the_panel() -> None:
    """The commands that the bridge refuses, or treats in its own way, have these names."""
    wanted = {"add_consumer", "cancel_consumer", "pool_restart", "pool_grow", "pool_shrink", "autoscale"}
    assert wanted | {"rate_limit", "time_limit", "revoke", "terminate", "shutdown", "ping"} <= set(Panel.data)


def test_a_mailbox_asks_for_its_producer() -> None:
    """Commands and replies are published with what ``producer_or_acquire`` yields, with endless retries asked for."""
    published: list[dict[str, Any]] = []

    class OurMailbox(Mailbox):
        def producer_or_acquire(self, producer: Any = None, channel: Any = None) -> Any:
            class _Producer:
                def __enter__(self) -> Any:
                    return self

                def __exit__(self, *_: object) -> None: ...

                def publish(self, *_: Any, **options: Any) -> None:
                    published.append(options)

            return _Producer()

    with Connection("memory://") as connection:
        mailbox = OurMailbox("contract", type="fanout")(connection)
        mailbox.abcast("ping")
        node = Node("h", mailbox=mailbox, handlers={"ping": lambda state: "pong"}, channel=connection.channel())
        node.dispatch("ping", reply_to={"exchange": "x", "routing_key": "y"}, ticket="t")
    assert [options["retry"] for options in published] == [True, True]


def test_a_node_hands_its_commands_to_handle() -> None:
    """An error of a command becomes its reply; what ends a worker does not."""
    seen: list[Any] = []

    class OurNode(Node):
        def handle(self, method: str, arguments: Any = None) -> Any:
            seen.append((method, arguments))
            raise ValueError("no")

        def reply(self, data: Any, **_: Any) -> None:
            seen.append(data)

    node = OurNode("h", mailbox=Mailbox("contract"), handlers={})
    node.dispatch("anything", {"a": 1}, reply_to={"exchange": "x", "routing_key": "y"}, ticket="t")
    assert seen == [("anything", {"a": 1}), {"h": {"error": "ValueError('no')"}}]


def test_preload_options_reach_plugins() -> None:
    """Before a plugin's command (Flower's) runs, Celery sends ``user_preload_options`` with the app."""
    app = SimpleNamespace(user_options={"preload": {click.Option(("--bus",))}})
    heard: list[Any] = []

    def on_options(app: Any = None, options: Any = None, **_: Any) -> None:
        heard.append((app, options))

    signals.user_preload_options.connect(on_options)
    try:
        context = click.Context(click.Command("flower"), obj=SimpleNamespace(app=app))
        with context:
            consume_preload_options(lambda: heard.append("ran"))(bus="redis://b")
    finally:
        signals.user_preload_options.disconnect(on_options)
    assert heard == [(app, {"bus": "redis://b"}), "ran"]


ASKED = """
import click
from celery import Celery
from celery.bin.celery import celery

def ask(context, parameter, value):
    print("asked", context.info_name, context.obj.app is app, value)
    raise SystemExit(3)

app = Celery("contract")
app.user_options["preload"].add(
    click.Option(("--ask",), is_flag=True, hidden=True, expose_value=False, callback=ask)
)
celery([{command!r}])
"""


@pytest.mark.parametrize("command", ["events", "flower"])
def test_preload_options_are_asked_before_a_command_runs(command: str) -> None:
    """Click calls a preload option's callback, given or not, with the command's name and the app, plugins included."""
    # In a process of its own: Celery adds the app's options to the commands for good.
    script = [sys.executable, "-W", "ignore", "-c", ASKED.format(command=command)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (3, f"asked {command} True False\n"), done.stderr


def test_a_receiver_says_that_it_waits() -> None:
    """Kombu calls ``on_iteration`` before each wait for events, of a second at most."""
    app = Celery("contract", broker="memory://", set_as_current=False)
    calls: list[None] = []

    class OurReceiver(EventReceiver):
        def on_iteration(self) -> None:
            calls.append(None)
            self.should_stop = len(calls) == 2

    with app.connection() as connection:
        OurReceiver(connection, app=app).capture(wakeup=False, timeout=10)
    assert len(calls) == 2


@pytest.mark.filterwarnings("ignore")
def test_kombu_itself_verifies_no_certificate() -> None:
    """``rediss://`` alone means no verification to Kombu, so the bridge says what it wants."""
    assert Connection("rediss://h").ssl == {"ssl_cert_reqs": ssl.CERT_NONE}
