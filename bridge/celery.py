"""The Celery app, and every Celery setting that the bridge decides, each with its reason.

``celery -A bridge worker`` finds it. Importing it reads no environment: what a worker needs to know of its queues is
put into the configuration when the worker starts (``bridge.startup``).
"""

from __future__ import annotations

import os
from typing import Any

import click
from celery import Celery, signals

from bridge.errors import NoTaskQueue, refuse
from bridge.settings.task_queue import task_queue_settings
from bridge.sqs.queues import queue_name


def to_task_queue(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> dict[str, str]:
    """Route everything that is sent (``.delay()``, chains, groups, chords) to the task queue.

    A Celery router: https://docs.celeryq.dev/en/stable/userguide/routing.html#routers. Raises NoTaskQueue when no
    ``SQS_TASK_QUEUE_URL`` is set: the only other queues are those of S3 events, where it would be a dead letter.
    """
    url = task_queue_settings().sqs_task_queue_url
    if not url:
        raise NoTaskQueue(f"{name} cannot be sent: set SQS_TASK_QUEUE_URL to a queue for Celery's own messages")
    return {"queue": queue_name(url)}


app = Celery(
    "bridge",
    task_cls="bridge.task:BridgeTask",
    broker="sqs://",
    # SQS can carry neither Celery's events nor remote control; with BRIDGE_MONITOR_URL both take the bus.
    events="bridge.dispatcher:BusEvents",
    control="bridge.control_client:BusControl",
    set_as_current=True,
)
app.conf.update(
    broker_transport="bridge.transport:Transport",
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
    # One message a process in hand: what waits here, another worker could be running.
    worker_prefetch_multiplier=1,
    # Pidbox and event queues do not exist on SQS; asking for them is an error a second (celery#4279). With a monitor
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
app.steps["consumer"].add("bridge.bootstep:BridgeStep")
app.steps["consumer"].add("bridge.bus_step:BusStep")


def _only_on_the_bus(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    """Refuse the commands that read events from the app's broker, which here is SQS and has none.

    Flower would besides listen on all addresses, and ask nobody who is there.
    """
    if given:  # it is there for its callback alone
        raise click.NoSuchOption(parameter.opts[0], ctx=context)
    name = context.info_name
    if name in ("flower", "events") and context.obj.app is app and not context.resilient_parsing:
        refuse(f"SQS carries no events, so this app has no `{name}`: use celery -A bridge.monitor {name}")


# Celery gives preload options to every command, a plugin's too, and Click calls them before any of its code runs
# (https://docs.celeryq.dev/en/stable/userguide/extending.html#preload-options). What Flower and `events` use first of
# the app, a connection, a worker uses too, and Flower listens by then.
app.user_options["preload"].add(
    click.Option(("--only-on-the-bus",), is_flag=True, hidden=True, expose_value=False, callback=_only_on_the_bus)
)


@signals.celeryd_init.connect(weak=False, dispatch_uid="bridge.startup")
def _start_up(sender: Any = None, instance: Any = None, conf: Any = None, options: Any = None, **_: Any) -> None:
    # Imported here: boto3 and the receivers are of no use to a process that only sends, or tests its tasks.
    from bridge.startup import start_up

    start_up(instance, conf, options or {})


@signals.worker_process_init.connect(weak=False, dispatch_uid="bridge.child")
def _start_child(**_: Any) -> None:
    # Celery's own mark of a child that was spawned: a forked one has all of this from its parent.
    if os.environ.get("FORKED_BY_MULTIPROCESSING"):
        from bridge.startup import prepare_child

        prepare_child(app)
