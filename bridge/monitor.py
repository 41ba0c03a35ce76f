"""The app for monitoring the workers: ``celery -A bridge.monitor flower|inspect|control|events``.

Its broker is the monitor bus (BRIDGE_MONITOR_URL), so everything of Celery that needs events or remote control works
as it does on Redis. It runs no tasks and sends none. Nothing is read when this is imported; a command reads the
settings when it starts, and what is wrong with them is one line and exit code 2.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

import click
from celery import Celery, signals

from bridge.errors import BridgeError, SettingsError, refuse
from bridge.monitoring.bus import INSTALL, client_is_missing, required_bus
from bridge.settings.rules import BROKER_NAMES, bus_url_fault, in_force


class MonitorApp(Celery):
    """Celery without a worker."""

    @property
    def Worker(self) -> NoReturn:  # noqa: N802 - Celery's name
        """Refuse: on the bus there are no tasks."""
        refuse("bridge.monitor runs no tasks: a worker is started by celery -A bridge worker")


def bus_settings(environ: dict[str, str]) -> dict[str, Any]:
    """Return Celery's settings for an app on the bus; raises BridgeError with what is missing or wrong."""
    for name in BROKER_NAMES:
        if name in in_force(environ):
            raise SettingsError(f"{name} is set (or -b was given): unset it, the bus is named by BRIDGE_MONITOR_URL")
    address = required_bus()
    if client_is_missing():
        raise SettingsError(f"the Redis client is not installed: {INSTALL}")
    return {
        "broker_url": address.url,
        "broker_use_ssl": address.tls or False,
        "broker_transport_options": address.transport_options,
        "broker_connection_retry_on_startup": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_routes": (_send_nothing,),
        "timezone": "UTC",
        "enable_utc": True,
    }


app = MonitorApp("bridge.monitor", control="bridge.monitoring.control_client:BusControl", set_as_current=False)
app.user_options["preload"].add(
    click.Option(
        ("--bus",),
        metavar="URL",
        help="The bus, in place of BRIDGE_MONITOR_URL. Without a password: a command line is seen by everybody.",
    )
)


@app.on_configure.connect(weak=False)
def _configure(sender: Any = None, **_: Any) -> None:
    try:
        sender.config_from_object(bus_settings(dict(os.environ)))
    except BridgeError as error:
        refuse(str(error))


@signals.user_preload_options.connect(weak=False, dispatch_uid="bridge.monitor")
def _on_options(app: Any = None, options: Any = None, **_: Any) -> None:
    """Take ``--bus``, and run Flower as the bridge wants it.

    Celery sends this signal before any of its commands, those of plugins included
    (https://docs.celeryq.dev/en/stable/userguide/signals.html#user-preload-options).
    """
    if not isinstance(app, MonitorApp):
        return
    if url := (options or {}).get("bus"):
        _use_bus(url)
    context = click.get_current_context()
    if context.info_name == "flower":
        from bridge.monitoring.flower_app import run_flower

        run_flower(app, context.params["tornado_argv"])


def _use_bus(url: str) -> None:
    if fault := bus_url_fault(url):
        refuse(f"--bus: {fault}")
    if "@" in url:
        refuse("--bus: a command line is seen by everybody; give a URL with a password in BRIDGE_MONITOR_URL")
    os.environ["BRIDGE_MONITOR_URL"] = url


def _send_nothing(name: str, *_: Any, **__: Any) -> NoReturn:
    raise BridgeError(f"{name} is not sent: the monitor bus carries no tasks (celery -A bridge sends to SQS)")
