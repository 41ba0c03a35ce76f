"""A worker's start: read the settings, import the tasks, look at the queues, and refuse what would go wrong later.

Runs on Celery's ``celeryd_init``, before the pool and the consumer exist. What a person has to mend ends the process
here with one line and exit code 2; what may pass (AWS unreachable, throttling) does not, the receivers wait for it.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from billiard.util import get_logger as billiard_logger
from botocore.exceptions import NoCredentialsError, PartialCredentialsError, ProfileNotFound
from celery import signals
from kombu import Exchange
from kombu import Queue as KombuQueue

from bridge import log as logs
from bridge import scratch
from bridge.aws import error_code, sqs_client
from bridge.banner import banner, banner_fields
from bridge.bounds import bound_children
from bridge.decorators import declared_routes
from bridge.errors import SettingsError
from bridge.intake import TaskLimits
from bridge.lifecycle import Plan, use_plan
from bridge.queues import Queue, look_up, named_queues
from bridge.region import is_aws_host, region_of_queue_url
from bridge.request import Request
from bridge.routing import Rules
from bridge.settings import WorkerSettings, load_worker_settings

log = logs.get_logger(__name__)

#: Soft limits come this much before hard ones: 10 s, but never more than a tenth.
SOFT_LIMIT_SECONDS = 10.0
#: What SQS answers for credentials that no waiting mends.
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "InvalidClientTokenId", "UnrecognizedClientException"})


def start_up(worker: Any, conf: Any, options: Mapping[str, Any]) -> None:
    """Prepare a Celery worker; ``conf`` is the app's configuration, ``options`` are the command line's."""
    try:
        _refuse_broker_option(conf)
        settings = load_worker_settings(os.environ)
        _set_up_logs(settings)
        import_tasks(settings.task_modules)
        routes = declared_routes(settings.task_modules)
        queues = find_queues(settings)
    except SettingsError as error:
        refuse(str(error))
    conf.task_queues = [KombuQueue(q.name, Exchange(""), routing_key=q.name) for q in queues]
    conf.broker_transport_options = {
        "predefined_queues": {q.name: {"url": q.url} for q in queues},
        "region": settings.region,
    }
    conf.imports = settings.task_modules  # a spawned pool child imports them again
    rules = Rules(
        routes=routes,
        allowed_buckets=settings.allowed_buckets,
        own_outputs=own_outputs(settings),
        unrouted=settings.unrouted,
    )

    @signals.worker_init.connect(weak=False, dispatch_uid="bridge.limits")
    def _on_worker_init(sender: Any = None, **_: Any) -> None:
        # Only now does the worker know its pool and its own --time-limit.
        if sender.task_events:
            log.warning("task_events_off", error="-E needs an event bus; SQS cannot carry Celery's events")
            sender.task_events = False
        try:
            limits = apply_defaults(sender.app.tasks, settings, sender.time_limit, sender.soft_time_limit)
        except SettingsError as error:
            refuse(str(error))
        use_plan(Plan(settings=settings, queues=queues, rules=rules, limits=limits))
        _warn_about_counts(queues, limits, settings)
        _warn_about_drain(limits, settings)
        bound_children(sender)
        scratch.claim()

    @signals.celeryd_after_setup.connect(weak=False, dispatch_uid="bridge.banner")
    def _on_after_setup(sender: Any = None, instance: Any = None, **_: Any) -> None:
        if _format(settings) == "json":
            instance.quiet = True  # Celery's own banner is no JSON
            log.info("worker_starting", **banner_fields(settings, queues, routes))
        elif not instance.quiet:
            sys.stdout.write(banner(settings, queues, routes))
            sys.stdout.flush()


def refuse(text: str) -> NoReturn:
    """End the process with one line on standard error and exit code 2."""
    sys.stderr.write(f"bridge: {text}\n")
    sys.stderr.flush()
    raise SystemExit(2)


def import_tasks(modules: Sequence[str]) -> None:
    """Import the task modules; raises SettingsError with the place of the error in a module that fails."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as ``celery -A`` does, and as a user of my_files.py expects
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                raise SettingsError(f"BRIDGE_TASK_MODULES={name}: there is no module {error.name}") from error
            raise SettingsError(f"BRIDGE_TASK_MODULES={name}: {_place(error)}") from error
        except (Exception, SystemExit) as error:  # anything a user's module may raise; a script among them may exit
            raise SettingsError(f"BRIDGE_TASK_MODULES={name}: {_place(error)}") from error


def find_queues(settings: WorkerSettings) -> tuple[Queue, ...]:
    """Return the queues with their dead-letter queues; those of an unreachable SQS without (the bridge asks again).

    Raises SettingsError for what a person has to mend.
    """
    queues = named_queues(settings.sqs_queue_urls, settings.sqs_task_queue_url)
    try:
        client = sqs_client("settle", settings.region)
        for queue in queues:
            check_endpoint(client, queue.url)
        return tuple(look_up(client, queue, settings.sqs_dlq_url) for queue in queues)
    except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
        raise SettingsError(f"AWS credentials: {error}") from error
    except SettingsError:
        raise
    except Exception as error:  # network errors, throttling, 5xx
        if error_code(error) in _DENIED:
            raise SettingsError(f"AWS refuses the credentials for {queues[0].url}: {error}") from error
        log.warning("sqs_unreachable", error_type=error_code(error), error=str(error))
        return queues


def check_endpoint(client: Any, queue_url: str) -> None:
    """Raise SettingsError when the SDK would ask another SQS than the one the queue is in.

    boto3 sends to its client's endpoint, whatever host the QueueUrl names, and SQS then says that there is no queue.
    """
    endpoint = client.meta.endpoint_url
    if not is_aws_host(endpoint):
        return
    if not is_aws_host(queue_url):
        raise SettingsError(f"{queue_url} is not on AWS: set AWS_ENDPOINT_URL_SQS to the address of its server")
    region = region_of_queue_url(queue_url)
    if region not in (None, client.meta.region_name):
        raise SettingsError(f"{queue_url} is in {region}, and the region is {client.meta.region_name}: set AWS_REGION")


def apply_defaults(
    tasks: Mapping[str, Any], settings: WorkerSettings, time_limit: float | None, soft_time_limit: float | None
) -> dict[str, TaskLimits]:
    """Give every task what it does not say, and return what the intake must know of each.

    ``time_limit`` and ``soft_time_limit`` are the worker's own (``--time-limit``, ``task_time_limit``), seconds.
    Raises SettingsError for a task that would lose messages.
    """
    limits: dict[str, TaskLimits] = {}
    for name, task in tasks.items():
        if not task.acks_late:
            raise SettingsError(f"task {name}: acks_late=False would delete a message before its task has run")
        if not _uses_our_request(task):
            raise SettingsError(f"task {name}: its base class must be bridge.task.BridgeTask or a subclass of it")
        if "max_retries" in task.left_alone:
            task.max_retries = settings.max_retries
        if "retry_backoff" in task.left_alone:
            task.backoff_seconds = settings.retry_backoff_seconds
        if "retry_backoff_max" in task.left_alone:
            task.backoff_max_seconds = settings.retry_backoff_max_seconds
        hard = task.time_limit or time_limit or settings.task_time_limit_seconds
        soft = task.soft_time_limit or (None if task.time_limit else soft_time_limit)
        task.time_limit = hard
        task.soft_time_limit = soft or hard - min(SOFT_LIMIT_SECONDS, hard / 10)
        # Without a heartbeat every lease is as long as the receive asks for: nothing would set a task's own length.
        own = task.visibility_timeout if settings.heartbeat else None
        visibility = own or settings.visibility_timeout_seconds
        if not settings.heartbeat and hard > visibility:
            raise SettingsError(
                f"BRIDGE_HEARTBEAT=off: task {name} may run {hard:g} s, longer than its lease of {visibility} s"
            )
        limits[name] = TaskLimits(task.max_retries, float(hard), int(visibility))
    return limits


def own_outputs(settings: WorkerSettings) -> tuple[tuple[str, str], ...]:
    """Return our output prefixes as (bucket, prefix); events from under them are ignored."""
    if settings.results_url is None:
        return ()
    bucket, _, prefix = settings.results_url.removeprefix("s3://").partition("/")
    return ((bucket, prefix),)


def _uses_our_request(task: Any) -> bool:
    from celery.utils.imports import symbol_by_name

    return issubclass(symbol_by_name(task.Request), Request)


def _refuse_broker_option(conf: Any) -> None:
    if conf.broker_url not in ("sqs://", None):
        raise SettingsError(
            "a broker URL was given (-b, or broker_url in the configuration); the worker reads SQS_QUEUE_URL, and "
            "another broker would silently take its place"
        )


def _warn_about_counts(queues: Sequence[Queue], limits: Mapping[str, TaskLimits], settings: WorkerSettings) -> None:
    most = max((limit.max_retries or 0 for limit in limits.values()), default=0)
    needed = most + 1 + settings.spare_receives
    for queue in queues:
        if queue.max_receives is not None and queue.max_receives <= needed:
            log.warning(
                "max_receive_count_low",
                queue=queue.name,
                max_receive_count=queue.max_receives,
                needed=needed + 1,
                error="SQS may move a message to the dead-letter queue before our retries are used up, without a cause",
            )


def _warn_about_drain(limits: Mapping[str, TaskLimits], settings: WorkerSettings) -> None:
    long = sorted(
        name
        for name, limit in limits.items()
        if limit.time_limit_seconds > settings.drain_seconds and not name.startswith("celery.")
    )
    if long:
        log.warning(
            "drain_shorter_than_limit",
            tasks=long,
            drain_seconds=settings.drain_seconds,
            error="a run that is stopped when BRIDGE_DRAIN_SECONDS end starts again from the beginning elsewhere",
        )


def _set_up_logs(settings: WorkerSettings) -> None:
    log_format = _format(settings)
    # A level of our own: Celery's -l defaults to WARNING, and a worker that says nothing cannot be traced.
    logging.getLogger("bridge").setLevel(settings.log_level)

    def use_ours(logger: Any = None, **_: Any) -> None:
        for each in (logger, billiard_logger()):  # the pool logs to one that does not propagate
            logs.use_format(each, log_format, pod_name=settings.pod_name)

    signals.after_setup_logger.connect(use_ours, weak=False, dispatch_uid="bridge.log")
    signals.after_setup_task_logger.connect(use_ours, weak=False, dispatch_uid="bridge.tasklog")


def _format(settings: WorkerSettings) -> Any:
    return settings.log_format or logs.default_format()


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())
    return f"cannot be imported: {type(error).__name__}: {text}{where}"
