"""The Celery app, and every Celery setting that the bridge decides, each with its reason.

Importing it reads no environment. What belongs to a worker (transport, events, remote control, bootsteps) is named by
its class path and imported when Celery needs it, so a process that only sends stays small.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from bridge.errors import NoTaskQueue
from bridge.settings.task_queue import task_queue_settings
from bridge.sqs.queues import queue_name

#: The module that ``celery -A bridge`` finds; it adds bootsteps and signals to the app.
ROOT_MODULE = "bridge.celery"


def to_task_queue(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> dict[str, str]:
    """Route everything that is sent (``.delay()``, chains, groups, chords) to the task queue.

    A Celery router: https://docs.celeryq.dev/en/stable/userguide/routing.html#routers. Raises NoTaskQueue when no
    ``SQS_TASK_QUEUE_URL`` is set: the only other queues are those of S3 events, where it would be a dead letter.
    """
    url = task_queue_settings().sqs_task_queue_url
    if not url:
        raise NoTaskQueue(f"{name} cannot be sent: set SQS_TASK_QUEUE_URL to a queue for Celery's own messages")
    return {"queue": queue_name(url)}


class BridgeApp(Celery):
    """Celery's app, of which a process has one: a spawned pool child uses this module's own, and no copy beside it.

    Celery pickles the app for a spawned child, and by itself would make a second app there. The tasks would run from
    that copy, while the decorators, the claims and the defaults belong to the app of this module.
    """

    def __reduce__(self) -> Any:
        """Pickle as the app of this module with the settings of the process that pickles it."""
        return (_app_with, (self.__reduce_keys__()["changes"],))


def _app_with(changes: dict[str, Any]) -> Celery:
    app.conf.update(changes)
    return app


app = BridgeApp(
    "bridge",
    task_cls="bridge.task.base:BridgeTask",
    broker="sqs://",
    # SQS can carry neither Celery's events nor remote control; with BRIDGE_MONITOR_URL both take the bus.
    events="bridge.monitoring.dispatcher:BusEvents",
    control="bridge.monitoring.control_client:BusControl",
    set_as_current=True,
)
app.conf.update(
    # Bootsteps and signals, for a worker and for its spawned children; a process that only sends imports neither.
    # Celery's loader imports these before it sends ``celeryd_init`` (celery.worker.worker.WorkController.__init__).
    imports=(ROOT_MODULE,),
    broker_transport="bridge.worker.transport:Transport",
    # The transport never raises a connection error on the main loop, so these only say: wait, do not exit.
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    task_routes=(to_task_queue,),
    # A message is deleted when its task has ended, not when it starts: a crash in between must not lose it.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # A failure must reach Request.reject with its verdict; acknowledging it would end as a delete.
    task_acks_on_failure_or_timeout=False,
    # Messages are untrusted input: JSON only, in every direction. No pickle, ever.
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    result_accept_content=["json"],
    task_protocol=2,
    # One message per process: a message that waits here could run on another worker.
    worker_prefetch_multiplier=1,
    # Pidbox and event queues do not exist on SQS; asking for them is an error per second (celery#4279). With a monitor
    # bus our own step listens there, and the start switches task events on.
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    # SQS has no connection: a network failure takes no receipt handle away, so running tasks go on.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_enable_prefetch_count_reduction=False,
    # The soft-shutdown wait would run inside a signal handler; the drain has its own budget and order.
    worker_soft_shutdown_timeout=0.0,
    # Celery's loggers keep their handlers; the format of a line is ours (bridge.log).
    worker_hijack_root_logger=True,
    # Redirected prints become log lines of their own and would break a JSON line of the task's in two.
    worker_redirect_stdouts=False,
    timezone="UTC",
    enable_utc=True,
)
