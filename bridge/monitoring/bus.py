"""The way to the monitor bus: a Redis or Valkey beside SQS, for Celery's events and remote control alone.

Its connections are made from the URL itself and never through the app, whose transport options are SQS's. Every
socket operation has a time-out and nothing is tried again in here: who uses the bus decides what a failure means.
"""

from __future__ import annotations

import importlib
import os
import random
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kombu import Connection, Producer
from kombu.pidbox import Mailbox

from bridge.errors import NoMonitorBus
from bridge.log import get_logger
from bridge.text import without_credentials

#: A Redis answers in a millisecond; one that takes this long for one answer is not there.
ANSWER_SECONDS = 2.0

log = get_logger(__name__)

#: A bus that is restarted is used again within seconds, and one that is gone costs a try every few seconds.
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.5, 3.0
#: A bus that stays away is named in the log this often.
REMIND_SECONDS = 300.0

INSTALL = "pip install 'bucket-brigade[monitor]'"


@dataclass(frozen=True)
class BusAddress:
    """Where the bus is, in the form that Kombu and Celery take. ``url`` may hold a password and is never shown."""

    url: str = field(repr=False)
    tls: dict[str, Any] | None

    @property
    def shown(self) -> str:
        """The same without user and password, fit for logs."""
        return without_credentials(self.url)

    @property
    def transport_options(self) -> dict[str, Any]:
        """Options of Kombu's Redis transport: every wait has a time limit."""
        return {
            "socket_timeout": ANSWER_SECONDS,
            "socket_connect_timeout": ANSWER_SECONDS,
            # A subscription only listens: without this a server that is gone is never noticed.
            "socket_keepalive": True,
            "socket_keepalive_options": _keepalive(),
            "client_name": "bucket-brigade",
            # Kombu itself would try again for ever.
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0,
            "interval_max": 0,
        }


def bus_address() -> BusAddress | None:
    """Return where the bus is, None when BRIDGE_MONITOR_URL is not set; raises SettingsError when it is at fault."""
    return _address(os.environ.get("BRIDGE_MONITOR_URL", ""))


def required_bus() -> BusAddress:
    """Return where the bus is; raises NoMonitorBus when BRIDGE_MONITOR_URL is not set."""
    address = bus_address()
    if address is None:
        raise NoMonitorBus(
            "remote control and events need the monitor bus, for SQS cannot carry them: set BRIDGE_MONITOR_URL to the "
            "Redis that the workers use (redis://…)"
        )
    return address


def bus_connection(address: BusAddress) -> Any:
    """Return a Kombu connection that connects on first use."""
    return Connection(
        address.url,
        ssl=address.tls or False,
        connect_timeout=ANSWER_SECONDS,
        transport_options=address.transport_options,
    )


class _OneTry(Producer):
    """A producer that fails when the bus does."""

    def publish(self, *args: Any, **options: Any) -> Any:
        return super().publish(*args, **{**options, "retry": False})


class BusMailbox(Mailbox):
    """Celery's mailbox for commands and replies, on the connection it was given, and without endless patience.

    Stock, a producer comes from the app's pool, which is SQS's, and a message is tried again without end while the
    server is away, when no one waits for it any more.
    """

    @contextmanager
    def producer_or_acquire(self, producer: Any = None, channel: Any = None) -> Iterator[Any]:
        """Yield a producer on ``channel``."""
        yield _OneTry(channel, auto_declare=False)


def mailbox_for(app: Any) -> BusMailbox:
    """Return the mailbox of the app's workers, with the app's names for it."""
    return BusMailbox(
        app.conf.control_exchange,
        type="fanout",
        accept=["json"],
        serializer="json",
        clock=app.clock,
        queue_expires=app.conf.control_queue_expires,
        reply_queue_expires=app.conf.control_queue_expires,
    )


def client_is_missing() -> bool:
    """Say whether what Kombu needs to talk to Redis is not installed.

    Kombu's transport cannot be asked: without the client its import ends in an AttributeError.
    """
    try:
        for module in ("packaging.version", "redis"):
            importlib.import_module(module)
    except ImportError:
        return True
    return False


@lru_cache(maxsize=4)
def _address(_: str) -> BusAddress | None:
    from bridge.settings.loading import (
        load_monitor_settings,  # pydantic takes 0.1 s to import, and a task module needs none
    )

    secret = load_monitor_settings(os.environ).monitor_url
    if secret is None:
        return None
    url = secret.get_secret_value()
    parts = urlsplit(url)
    if parts.scheme == "redis":
        return BusAddress(url, None)
    # Kombu's own default for rediss:// verifies nothing (kombu.Connection._init_params).
    verified = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    return BusAddress(parts._replace(query="").geturl(), {**verified, **dict(parse_qsl(parts.query))})


def _keepalive() -> dict[int, int]:
    """Half a minute until the kernel gives a silent peer up; empty where the system has no such options."""
    wanted = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


class BusLink:
    """When to try the bus again, and what is logged: its loss once, a reminder now and then, its return."""

    def __init__(self, bus: str, use: str) -> None:
        """``bus`` is its address without a password, ``use`` what it is used for; the log names both."""
        self._bus = bus
        self._use = use
        self._pause_seconds = 0.0
        self._next_try_at = 0.0
        self._told_at: float | None = None
        self._lost_at = 0.0

    def may_try(self) -> bool:
        """Say whether the pause after the last failure is over."""
        return time.monotonic() >= self._next_try_at

    @property
    def is_lost(self) -> bool:
        """Whether the last try failed; False before the first."""
        return self._told_at is not None

    @property
    def wait_seconds(self) -> float:
        """How long that pause still is."""
        return max(0.0, self._next_try_at - time.monotonic())

    def failed(self, error: BaseException) -> None:
        """Wait a little longer than the last time, with jitter: the bus may be coming up for many workers at once."""
        now = time.monotonic()
        self._pause_seconds = min(MAX_PAUSE_SECONDS, max(MIN_PAUSE_SECONDS, self._pause_seconds * 2))
        self._next_try_at = now + self._pause_seconds * random.SystemRandom().uniform(0.75, 1.25)
        if self._told_at is None:
            self._lost_at = now
        if self._told_at is None or now - self._told_at > REMIND_SECONDS:
            self._told_at = now
            log.warning("bus_lost", bus=self._bus, use=self._use, error_type=type(error).__name__, error=str(error))

    def works(self) -> None:
        """Say that the bus is there (again)."""
        self._pause_seconds = 0.0
        if self._told_at is not None:
            seconds = round(time.monotonic() - self._lost_at, 1)
            log.info("bus_back", bus=self._bus, use=self._use, duration_seconds=seconds)
            self._told_at = None
