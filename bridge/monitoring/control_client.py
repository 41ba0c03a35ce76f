"""``celery -A bridge inspect`` and ``control``, and ``app.control`` in any process: over the monitor bus, not SQS."""

from __future__ import annotations

from typing import Any

from celery.app.control import Control
from kombu.exceptions import OperationalError

from bridge.monitoring.bus import bus_connection, mailbox_for, required_bus


class BusControl(Control):
    """The app's ``control``: Celery's, on a connection to the bus.

    https://docs.celeryq.dev/en/stable/reference/celery.app.control.html
    """

    def __init__(self, app: Any = None) -> None:
        """Exchange the mailbox: Celery's replies and asks through the app's producers, that is by SQS."""
        super().__init__(app)
        self.mailbox = mailbox_for(app)

    def broadcast(self, command: str, *args: Any, connection: Any = None, **options: Any) -> Any:
        """Send a command to the workers, as Celery's does.

        Raises NoMonitorBus when BRIDGE_MONITOR_URL is not set, and Kombu's OperationalError when the bus fails.
        """
        if connection is not None:
            return super().broadcast(command, *args, connection=connection, **options)
        with bus_connection(required_bus()) as bus:
            try:
                return super().broadcast(command, *args, connection=bus, **options)
            except bus.connection_errors as error:
                raise OperationalError(str(error)) from error
