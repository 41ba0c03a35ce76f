"""Flower, as the bridge runs it: closed to the network unless it asks who is there, and truthful about the queues.

Flower itself would listen on all addresses, and would look for the depths of SQS's queues in Redis, where they are
always 0. So its application is subclassed and its own command's steps are taken with that. All of its options stay
(command line, ``FLOWER_…`` variables, ``flowerconfig.py``: https://flower.readthedocs.io/en/latest/config.html).
"""

from __future__ import annotations

import atexit
import copy
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import structlog
from celery.events import EventReceiver

from bridge.aws_errors import error_code
from bridge.errors import SettingsError, refuse
from bridge.monitoring.bus import BusLink, required_bus
from bridge.monitoring.flower_access import access_fault
from bridge.monitoring.queue_depths import STATES, watched
from bridge.settings.loading import load_queue_settings
from bridge.sqs.clients import sqs_client
from bridge.sqs.queue_lookup import look_up
from bridge.sqs.queues import named_queues

try:
    from flower import command as flower_command
    from flower.api.tasks import GetQueueLengths
    from flower.app import Flower
    from flower.events import Events
    from flower.options import options
    from flower.urls import settings as flower_settings
    from flower.views.broker import BrokerView
    from tornado import web
    from tornado.ioloop import IOLoop
    from tornado.options import Error as OptionError
except ModuleNotFoundError as missing:
    refuse(f"{missing.name} is not installed: pip install 'bucket-brigade[flower]'")

if TYPE_CHECKING:
    from celery import Celery

#: Each is a few KB, and Flower's own limit would be some hundred MB of them.
MAX_TASKS = 20_000
#: Pods come and go with names of their own: one that has been gone for so long is no longer news.
PURGE_OFFLINE_SECONDS = 600
#: Flower's own leave out what a task worked on, which here is the object.
COLUMNS = "name,args,state,retries,received,runtime,worker,uuid"
#: A page waits for SQS no longer than this, per queue.
_READ_SECONDS = 3.0


class BusReceiver(EventReceiver):
    """Celery's receiver, which also says when the bus is there."""

    def __init__(self, connection: Any, link: BusLink, **kwargs: Any) -> None:
        """``link`` is notified; all else is Celery's."""
        super().__init__(connection, **kwargs)
        self._link = link
        self._has_waited = False

    def on_iteration(self) -> None:
        """Kombu's hook before each wait for events, of a second at most.

        The first is passed over: a Redis that knows us, but lets us hear nothing, says so only in that wait.
        """
        if self._has_waited:
            self._link.works()
        self._has_waited = True


class BusEvents(Events):
    """Flower's thread that hears the events; stock, it waits twice as long after each failure, for ever."""

    def run(self) -> None:
        """Listen, and again soon after any failure of the bus."""
        link = BusLink(required_bus().shown, "flower")
        while True:
            try:
                with self.capp.connection() as connection:
                    receiver = BusReceiver(connection, link, handlers={"*": self.on_event}, app=self.capp)
                    receiver.capture(limit=None, timeout=None, wakeup=True)
            except Exception as error:  # noqa: BLE001 - network, password, Redis's own errors: try again
                link.failed(error)
                time.sleep(link.wait_seconds)


class BridgeFlower(Flower):
    """Flower with the pages that would otherwise look into Redis for what is in SQS."""

    def __init__(self, *, capp: Any, options: Any, **kwargs: Any) -> None:
        """The arguments are Flower's; handlers added later are asked before Flower's own."""
        events = BusEvents(
            capp,
            IOLoop.current(),
            db=options.db,
            persistent=options.persistent,
            enable_events=options.enable_events,
            state_save_interval=options.state_save_interval,
            max_workers_in_memory=options.max_workers,
            max_tasks_in_memory=options.max_tasks,
        )
        super().__init__(capp=capp, options=options, events=events, **kwargs)
        prefix = f"/{self.options.url_prefix.strip('/')}" if self.options.url_prefix else ""
        self.add_handlers(r".*", [(rf"{prefix}/broker", BrokerPage), (rf"{prefix}/api/queues/length", QueueLengths)])


class BrokerPage(BrokerView):
    """The page "Broker": the queues and dead-letter queues of SQS_QUEUE_URL, as SQS counts them."""

    @web.authenticated
    async def get(self) -> None:
        """Show the depths, or one line that says why there are none."""
        try:
            rows = await self.application.io_loop.run_in_executor(None, queue_rows, os.environ)
            title = "Queues in SQS (approximate, as SQS counts); dead-letter queues have no consumers"
        except Exception as error:  # noqa: BLE001 - whatever AWS, credentials or the network do, the page says it
            rows, title = [], f"The queues are in SQS and cannot be shown: {why(error)}"
        self.application.update_workers()  # for the next time; the page does not wait for workers to answer
        for row in rows:
            row["consumers"] = self._consumers(row["name"]) if row["kind"] != "dlq" else None
        self.render("broker.html", broker_url=title, queues=rows)

    def _consumers(self, name: str) -> int | None:
        """How many workers read the queue; None as long as none has been asked."""
        known = [info["active_queues"] for info in self.application.workers.values() if "active_queues" in info]
        return sum(any(queue["name"] == name for queue in of_worker) for of_worker in known) if known else None


class QueueLengths(GetQueueLengths):
    """``/api/queues/length``: the same as JSON."""

    @web.authenticated
    async def get(self) -> None:
        """Return the depths; status 503 with the reason when there are none."""
        try:
            rows = await self.application.io_loop.run_in_executor(None, queue_rows, os.environ)
        except Exception as error:
            raise web.HTTPError(503, why(error).replace("%", "%%")) from error
        self.write({"active_queues": rows})


def queue_rows(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return name, kind and depths of every queue and dead-letter queue, in the words of Flower's template.

    Raises SettingsError when none is named, and what boto3 raises.
    """
    given = load_queue_settings(environ)
    if not given.sqs_queue_urls and given.sqs_task_queue_url is None:
        raise SettingsError("SQS_QUEUE_URL is not set where Flower runs")
    client = sqs_client("settle", given.region, read_seconds=_READ_SECONDS, connections=1)
    queues = [
        look_up(client, queue, given.sqs_dlq_url)
        for queue in named_queues(given.sqs_queue_urls, given.sqs_task_queue_url)
    ]
    rows = []
    for queue in watched(queues):
        answer = client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=[*STATES.values()])
        depths = {state: int(answer["Attributes"][name]) for state, name in STATES.items()}
        rows.append(
            {
                "name": queue.name,
                "kind": queue.kind,
                "messages": sum(depths.values()),
                "messages_ready": depths["visible"],
                "messages_unacknowledged": depths["in_flight"],
            }
        )
    return rows


def why(error: Exception) -> str:
    """Return one line fit for a page."""
    text = str(error) if isinstance(error, SettingsError) else f"{error_code(error)}: {error}"
    return " ".join(text.split())[:300]


class FieldsInText(logging.Formatter):
    """A handler's own format, with the fields of the bridge's events in the text; Flower's would leave them out."""

    def __init__(self, inner: logging.Formatter) -> None:
        """``inner`` makes the line."""
        super().__init__()
        self._inner = inner
        self._fields = structlog.stdlib.ExtraAdder()
        self._shown = structlog.processors.KeyValueRenderer()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of ``record``, which stays as it is: other handlers have it too."""
        if record.name.startswith("bridge."):
            fields = self._fields(logging.getLogger(record.name), "", {"_record": record})
            del fields["_record"]
            record = copy.copy(record)
            record.msg, record.args = f"{record.getMessage()} {self._shown(None, '', fields)}".rstrip(), None
        return self._inner.format(record)


def run_flower(app: Celery, arguments: Sequence[str]) -> NoReturn:
    """Run Flower until it is stopped; exit code 2 and one line when it cannot, or must not, start."""
    options.address = "127.0.0.1"
    options.max_tasks = MAX_TASKS
    options.purge_offline_workers = PURGE_OFFLINE_SECONDS
    options.tasks_columns = COLUMNS
    options.enable_events = False  # our workers send them unasked
    try:
        flower_command.apply_env_options()
        flower_command.apply_options(sys.argv[0], arguments)
    except (OptionError, KeyError, ValueError, OSError) as error:
        refuse(f"Flower's options: {' '.join(str(error).split())}")
    if fault := access_fault(
        options.address, options.unix_socket, options.basic_auth, options.auth, options.auth_provider
    ):
        refuse(fault)
    app.conf.broker_url  # noqa: B018 - read now, so that a missing bus is reported before anything starts
    flower_command.extract_settings()
    flower_command.setup_logging()
    for handler in logging.getLogger().handlers:
        if handler.formatter is not None:
            handler.setFormatter(FieldsInText(handler.formatter))
    # Its client logs a line for each page otherwise.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    flower = BridgeFlower(capp=app, options=options, **flower_settings)
    atexit.register(flower.stop)
    signal.signal(signal.SIGTERM, flower_command.sigterm_handler)
    try:
        port = flower.start_http_server()
    except OSError as error:
        refuse(f"Flower cannot listen on {options.address}:{options.port}: {error.strerror or error}")
    flower_command.print_banner(app, "ssl_options" in flower_settings, port)
    try:
        flower.start()
    except KeyboardInterrupt:
        pass
    sys.exit(0)
