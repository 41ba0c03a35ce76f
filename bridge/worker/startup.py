"""A worker's start: read the settings, import the tasks, look at the queues, and refuse what would go wrong later.

Runs on Celery's ``celeryd_init``, before the pool and the consumer exist. An error that a person must correct ends the
process here with one line and exit code 2; what may pass (AWS unreachable, throttling) does not, the receivers wait for
it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import ProfileNotFound
from celery import signals
from celery.app.trace import build_tracer
from celery.concurrency import get_implementation
from kombu import Exchange
from kombu import Queue as KombuQueue

from bridge import scratch
from bridge.errors import SettingsError, refuse
from bridge.health.server import HealthServer
from bridge.idempotency.claiming import Claimer, use_claimer
from bridge.idempotency.factory import open_store
from bridge.log import get_logger
from bridge.messages.retry_policy import TaskLimits
from bridge.messages.routing import Rules
from bridge.monitoring.bus import INSTALL, client_is_missing
from bridge.s3.outputs import output_prefixes, pairs
from bridge.settings.loading import WorkerSettings, legacy_names_in_use, load_worker_settings
from bridge.sqs.clients import new_session
from bridge.sqs.queue_lookup import find_queues
from bridge.sqs.queues import Queue
from bridge.task import run_context
from bridge.task.app import ROOT_MODULE
from bridge.task.defaults import apply_defaults, normalize_plain_tasks
from bridge.task.registry import declared_routes, import_tasks
from bridge.worker.banner import banner, banner_fields
from bridge.worker.context import WorkerContext, use_worker_context
from bridge.worker.logs import log_format, set_up_logs, set_up_logs_of_child
from bridge.worker.pool import bound_children, pool_kind

log = get_logger(__name__)


def start_up(worker: Any, conf: Any, options: Mapping[str, Any]) -> None:
    """Prepare a Celery worker; ``conf`` is the app's configuration, ``options`` are the command line's."""
    try:
        settings = load_worker_settings(os.environ)  # names CELERY_BROKER_URL, which is where -b arrives
        _refuse_broker_option(conf)
        set_up_logs(settings)
        for old, ours in legacy_names_in_use(os.environ).items():
            log.warning("old_setting_name", setting=old, use=ours)
        import_tasks(settings.task_modules)
        routes = declared_routes(settings.task_modules)
        session = open_session(settings)
        queues = find_queues(settings, session)
        check_options(options, [q.name for q in queues])
        if settings.monitor_url is not None and client_is_missing():
            raise SettingsError(f"BRIDGE_MONITOR_URL is set, and the Redis client is not installed: {INSTALL}")
    except SettingsError as error:
        refuse(str(error))
    use_store(settings)
    conf.task_queues = [KombuQueue(q.name, Exchange(""), routing_key=q.name) for q in queues]
    conf.broker_transport_options = {
        "predefined_queues": {q.name: {"url": q.url} for q in queues},
        "region": settings.region,
    }
    conf.imports = (ROOT_MODULE, *settings.task_modules)  # a spawned pool child imports them again
    rules = Rules(
        routes=routes,
        allowed_buckets=settings.allowed_buckets,
        own_outputs=own_outputs(settings),
        unrouted=settings.unrouted,
    )

    @signals.worker_init.connect(weak=False, dispatch_uid="bridge.limits")
    def _on_worker_init(sender: Any = None, **_: Any) -> None:
        # Only now does the worker know its pool and its own --time-limit.
        if sender.task_events and settings.monitor_url is None:
            log.warning("task_events_off", error="-E needs BRIDGE_MONITOR_URL; SQS cannot carry Celery's events")
        sender.task_events = settings.monitor_url is not None
        try:
            pool = pool_kind(get_implementation(sender.pool_cls))
            limits = apply_defaults(sender.app.tasks, settings, sender.time_limit, sender.soft_time_limit)
            # A spawned child gets the configuration, and not the command line.
            conf.update(task_time_limit=sender.time_limit, task_soft_time_limit=sender.soft_time_limit)
            normalize_plain_tasks(sender.app.tasks)
            # Last of the checks, and before the pool is forked: a refused worker has left nothing behind.
            health = HealthServer(settings.health_host, settings.health_port) if settings.health_port else None
        except SettingsError as error:
            refuse(str(error))
        use_worker_context(
            WorkerContext(settings=settings, queues=queues, rules=rules, limits=limits, health=health, session=session)
        )
        _warn_about_counts(queues, limits, settings)
        _warn_about_drain(limits, settings)
        if settings.idempotency_url is None:
            log.warning(
                "no_idempotency_store",
                error="SQS delivers at least once: without BRIDGE_IDEMPOTENCY_URL a task may run again for its event",
            )
        bound_children(sender)
        scratch.claim()
        run_context.bind_runs()
        run_context.trace_runs(os.environ, in_children=pool == "prefork")

    @signals.celeryd_after_setup.connect(weak=False, dispatch_uid="bridge.banner")
    def _on_after_setup(sender: Any = None, instance: Any = None, **_: Any) -> None:
        if log_format(settings) == "json":
            instance.quiet = True  # Celery's own banner is not JSON
            log.info("worker_starting", **banner_fields(settings, queues, routes))
        elif not instance.quiet:
            sys.stdout.write(banner(settings, queues, routes))
            sys.stdout.flush()


def open_session(settings: WorkerSettings) -> Any:
    """Return the boto3 session of the worker's clients; raises SettingsError for a profile that does not exist."""
    try:
        return new_session(settings.region)
    except ProfileNotFound as error:
        raise SettingsError(f"AWS credentials: {error}") from error


def check_options(options: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise SettingsError for options of ``celery worker`` that would do harm, or name no queue of ours."""
    if options.get("purge"):
        raise SettingsError(
            "--purge would delete every waiting event permanently; if you want that, use SQS's PurgeQueue"
        )
    for option, flag in (("queues", "-Q"), ("exclude_queues", "-X")):
        chosen = options.get(option) or ()
        for name in chosen.split(",") if isinstance(chosen, str) else chosen:
            if name not in names:
                raise SettingsError(f"{flag} {name}: there is no such queue, only {', '.join(names)}")


def prepare_child(app: Any, hostname: str) -> None:
    """Make a spawned pool child what a forked one is born as: its task modules imported, the defaults applied."""
    settings = load_worker_settings(os.environ)
    set_up_logs_of_child(settings)
    run_context.bind_runs()
    run_context.trace_runs(os.environ, in_children=False)
    import_tasks(settings.task_modules)
    use_store(settings)
    apply_defaults(app.tasks, settings, app.conf.task_time_limit, app.conf.task_soft_time_limit)
    normalize_plain_tasks(app.tasks)
    for name, task in app.tasks.items():
        # Celery built the tracers before it sent ``worker_process_init``, around what the tasks were then.
        task.__trace__ = build_tracer(name, task, app.loader, hostname, app=app)


def use_store(settings: WorkerSettings) -> None:
    """Let runs in this process and those that it forks claim their events in the store, if there is one."""
    if settings.idempotency_url is None:
        use_claimer(None)
        return
    store = open_store(settings.idempotency_url, settings.region)
    use_claimer(Claimer(store, ttl_seconds=settings.idempotency_ttl_seconds))


def own_outputs(settings: WorkerSettings) -> tuple[tuple[str, str], ...]:
    """Return our output prefixes as (bucket, prefix); events from under them are ignored."""
    return pairs(
        output_prefixes(
            results_url=settings.results_url,
            archive_url=settings.archive_url,
            idempotency_url=settings.idempotency_url,
        )
    )


def _refuse_broker_option(conf: Any) -> None:
    if conf.broker_url not in ("sqs://", None):
        raise SettingsError(
            "broker_url is set in the configuration; the worker reads SQS_QUEUE_URL, and another broker would silently "
            "take its place"
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
                error="SQS may move a message to the dead-letter queue before the retries are used up, without a cause",
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
