"""Whose run it is: bound for as long as a task runs, in the process and thread that runs it.

Every log line in between carries it, the user's own ``logging`` calls included, in pool children as in threads; and so
does the run's span, where tracing is on. Celery's signals ``task_prerun`` and ``task_postrun`` mark the two ends; both
are sent in the thread of the run (https://docs.celeryq.dev/en/stable/userguide/signals.html#task-prerun).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any

from celery import signals
from celery.exceptions import Ignore, Reject, Retry
from structlog.contextvars import bind_contextvars, reset_contextvars

from bridge.log import get_logger
from bridge.task.tracing import OpenSpan, Spans, TracingOff, find_exporters, wanted_exporters

log = get_logger(__name__)

#: How long the end of a process may wait for its last spans to be sent.
FLUSH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Run:
    task_id: str
    tokens: Mapping[str, Token[Any]]
    span: OpenSpan | None


#: The runs under way in this thread; more than one when a task calls another with ``.apply()``.
_runs: ContextVar[tuple[_Run, ...]] = ContextVar("bridge_runs", default=())
_spans: Spans | None = None


def run_fields(task: Any, args: Any) -> dict[str, Any]:
    """Return what the lines of a run say of it: the message fields of docs/reference/logs.md.

    A run that no message began (``.apply()`` inside a task) has no more than ``task_id`` and ``task`` of its own.
    """
    request = task.request
    message = request.get("bridge") or {}
    fields: dict[str, Any] = {"task_id": request.id, "task": task.name}
    if not message:
        return fields
    fields |= {"message_id": message.get("message_id"), "queue": message.get("queue")}
    if message.get("kind") == "event":
        fields |= _object_fields(args[0] if args else None)
    return fields | {"attempt": request.retries + 1}


def _object_fields(argument: Any) -> dict[str, Any]:
    """The first object, and how many; nothing for a message that is not an S3 event."""
    records = argument if isinstance(argument, list) else [argument]
    match records:
        case [{"bucket": str(bucket), "key": str(key)}, *_]:
            fields: dict[str, Any] = {"bucket": bucket, "key": key}
            return fields if len(records) == 1 else fields | {"objects": len(records)}
    return {}


def bind_runs() -> None:
    """Bind every run of this process, and of the pool children forked from it."""
    signals.task_prerun.connect(_begin, weak=False, dispatch_uid="bridge.run-begins")
    signals.task_postrun.connect(_end, weak=False, dispatch_uid="bridge.run-ends")


def trace_runs(environ: Mapping[str, str], *, in_children: bool) -> None:
    """Make spans of the runs, if the standard variables ask for it; else, or when it cannot be, do nothing.

    ``in_children``: this process only forks those that run tasks, and each makes its spans by itself.
    """
    names = wanted_exporters(environ)
    if not names:
        return
    try:
        exporters = find_exporters(names)
    except TracingOff as error:
        log.warning("tracing_off", error=str(error))
        return

    def start(**_: Any) -> None:
        global _spans  # noqa: PLW0603 - a process has one tracer provider
        try:
            _spans = Spans(exporters)
        except Exception as error:  # noqa: BLE001 - an exporter may dislike its settings in any way; the work goes on
            log.warning("tracing_off", error=f"{type(error).__name__}: {error}")

    def stop(**_: Any) -> None:
        if _spans is not None:
            _spans.flush(FLUSH_SECONDS)

    if in_children:
        signals.worker_process_init.connect(start, weak=False, dispatch_uid="bridge.spans")
        signals.worker_process_shutdown.connect(stop, weak=False, dispatch_uid="bridge.spans-end")
    else:
        start()
        for signal in (signals.worker_process_shutdown, signals.worker_shutdown):
            signal.connect(stop, weak=False, dispatch_uid="bridge.spans-end")


def _begin(task_id: str = "", task: Any = None, args: Any = None, **_: Any) -> None:
    fields = run_fields(task, args)
    span = None
    if _spans is not None:
        span = _spans.begin(fields, (task.request.get("bridge") or {}).get("trace"))
        fields |= span.ids
    _runs.set((*_runs.get(), _Run(task_id, bind_contextvars(**fields), span)))


def _end(task_id: str = "", state: str | None = None, retval: Any = None, **_: Any) -> None:
    runs = _runs.get()
    if not runs or runs[-1].task_id != task_id:
        return
    _runs.set(runs[:-1])
    run = runs[-1]
    try:
        if run.span is not None:
            run.span.end(state, _failure(retval, state))
    finally:
        reset_contextvars(**run.tokens)


def _failure(retval: Any, state: str | None) -> BaseException | None:
    """What the run failed with. A retry is a failed run, too: its cause is what the task raised."""
    if state == "SUCCESS" or not isinstance(retval, BaseException):
        return None
    if isinstance(retval, Retry):
        return retval.exc if isinstance(retval.exc, BaseException) else None
    if isinstance(retval, Ignore) or (isinstance(retval, Reject) and retval.requeue):
        return None
    return retval
