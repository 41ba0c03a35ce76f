"""file_task and message_task: a Celery task, and what it takes from the queue of S3 events.

Importing a module of tasks reads no setting and needs no AWS. What a decorator was not told (retries, backoff, time
limit) is filled in by the worker from its settings, when it starts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from inspect import signature
from typing import Any, Literal, NamedTuple
from uuid import uuid4

from celery import current_task
from celery.exceptions import Reject, SoftTimeLimitExceeded

from bridge import scratch
from bridge.celery import app
from bridge.errors import ObjectChanged, ObjectGone, ObjectTooLarge
from bridge.log import get_logger
from bridge.message import Message
from bridge.routing import Route
from bridge.s3_object import S3Object
from bridge.task import DEFAULT_BACKOFF_MAX_SECONDS, DEFAULT_MAX_RETRIES, BridgeTask, NothingToDo, soundly_ended

log = get_logger(__name__)


class _Declared(NamedTuple):
    """A declared task: its place in the order of definition, its module, where its function stands, what it takes."""

    sequence: int
    module: str
    where: str
    route: Route


_declared: dict[str, _Declared] = {}
_sequence = itertools.count()

#: The first three say that there is nothing to work on, and trying again cannot change that; Celery's autoretry would
#: take Reject for an error like any other.
_NEVER_RETRIED = (ObjectGone, ObjectChanged, ObjectTooLarge, Reject)


def file_task(
    key: str = "*",
    bucket: str = "*",
    events: str | Sequence[str] = "ObjectCreated:*",
    *,
    missing_ok: bool = False,
    allow_changed: bool = False,
    max_bytes: int | None = None,
    visibility_timeout: int | None = None,
    **celery_options: Any,
) -> Callable[[Callable[..., Any]], Any]:
    """Declare a task for the objects whose key, bucket and event name match these globs (``*`` matches ``/`` too).

    The function takes one S3Object; a message with several records calls it for each in order, in one run, under one
    time limit. ``missing_ok``: an object that is gone is ignored instead of dead-lettered. ``allow_changed``: an object
    overwritten since its event is read as it is now. ``max_bytes``: a larger object is dead-lettered as ``too-large``
    before the task runs (or when it is read, if its event did not say its size). ``visibility_timeout``: lease of its
    messages, 6–43200 seconds.
    Every other option is Celery's and means what Celery's documentation says
    (https://docs.celeryq.dev/en/stable/userguide/tasks.html#list-of-options).
    Raises ValueError for ``acks_late=False`` and for a visibility timeout out of range.
    """
    names = tuple(e.removeprefix("s3:") for e in ([events] if isinstance(events, str) else events))

    def as_declared(obj: S3Object) -> S3Object:
        return replace(obj, allow_changed=allow_changed or obj.allow_changed, max_bytes=max_bytes)

    def each_object(call: Callable[[S3Object], Any], argument: Any) -> Any:
        if isinstance(argument, S3Object):  # a plain call: the caller sees ObjectGone and ObjectChanged themselves
            return call(as_declared(argument))
        records = argument if isinstance(argument, list) else [argument]
        results = _run_all([as_declared(S3Object.from_dict(r)) for r in records], call, missing_ok)
        return results if isinstance(argument, list) else results[0]

    def declare(function: Callable[..., Any]) -> Any:
        def route(name: str) -> Route:
            return Route(task=name, kind="file", key=key, bucket=bucket, events=names, max_bytes=max_bytes)

        return _declare(function, each_object, route, visibility_timeout, celery_options)

    return declare


def message_task(
    where: Mapping[str, str] | None = None,
    *,
    everything: bool = False,
    visibility_timeout: int | None = None,
    **celery_options: Any,
) -> Callable[[Callable[..., Any]], Any]:
    """Declare a task for messages that are no S3 events; the function takes one Message.

    ``where`` maps names of message attributes to globs, all of which must match. ``everything=True`` takes every body
    of the queue as it is: S3 events, test events, Celery bodies, garbage. Other options as for ``file_task``.
    """

    def whole_message(call: Callable[[Message], Any], argument: Any) -> Any:
        return call(argument if isinstance(argument, Message) else Message.from_dict(argument))

    def declare(function: Callable[..., Any]) -> Any:
        def route(name: str) -> Route:
            return Route(task=name, kind="message", where=tuple((where or {}).items()), everything=everything)

        return _declare(function, whole_message, route, visibility_timeout, celery_options)

    return declare


def declared_routes(modules: Sequence[str] = ()) -> tuple[Route, ...]:
    """Return the routes in the order of ``modules``, then of definition; a module's submodules count as it."""

    def position(declared: _Declared) -> tuple[int, int]:
        owners = [n for n, name in enumerate(modules) if f"{declared.module}.".startswith(f"{name}.")]
        return (owners[0] if owners else len(modules), declared.sequence)

    return tuple(declared.route for declared in sorted(_declared.values(), key=position))


def _declare(
    function: Callable[..., Any],
    adapt: Callable[[Callable[[Any], Any], Any], Any],
    route: Callable[[str], Route],
    visibility_timeout: int | None,
    options: dict[str, Any],
) -> Any:
    _check(options, visibility_timeout)
    bound = bool(options.get("bind"))
    first = _first_parameter(function, bound)
    where = f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"
    name = options.get("name") or app.gen_task_name(function.__name__, function.__module__)
    if name in _declared and _declared[name].where != where:
        # Celery keeps the first function of a name: the objects of the second would run the first.
        raise ValueError(f"two tasks are named {name}: the one of {_declared[name].where} and the one of {where}")
    body = soundly_ended(function)

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        # The first parameter (after self) is ours; whatever else the user's function takes is passed on.
        own, given = args[: int(bound)], list(args[int(bound) :])
        if not given:
            given = [kwargs.pop(first)]
        with scratch.run(_run_id()):
            return adapt(lambda converted: body(*own, converted, *given[1:], **kwargs), given[0])

    task = app.task(**_celery_options(options, visibility_timeout))(run)
    task.route = route(task.name)
    _declared[task.name] = _Declared(next(_sequence), function.__module__, where, task.route)
    return task


def _first_parameter(function: Callable[..., Any], bound: bool) -> str:
    parameters = list(signature(function).parameters)
    if len(parameters) <= int(bound):
        raise ValueError(f"{function.__qualname__}() takes no object: a task's function has a parameter for it")
    return parameters[int(bound)]


def _run_id() -> str:
    """Return the id of the run at hand; a plain call is a run too, without one of Celery's."""
    task_id = current_task.request.id if current_task else None
    return str(task_id or uuid4())


def _check(options: Mapping[str, Any], visibility_timeout: int | None) -> None:
    if not options.get("acks_late", True):
        raise ValueError("acks_late=False would delete a message before its task has run: a crash would lose it")
    if visibility_timeout is not None and not 6 <= visibility_timeout <= 43_200:
        raise ValueError(f"visibility_timeout={visibility_timeout}: must be between 6 and 43200 seconds")


def _celery_options(given: dict[str, Any], visibility_timeout: int | None) -> dict[str, Any]:
    base = given.get("base", BridgeTask)

    def said(name: str) -> bool:
        return name in given or getattr(base, name, None) is not getattr(BridgeTask, name, None)

    def value(name: str) -> tuple[type[BaseException], ...]:
        return tuple(given.get(name, getattr(base, name, ())))

    retry_kwargs = dict(given.get("retry_kwargs", getattr(base, "retry_kwargs", {})))
    # Bound at once, not on first use: the route needs the task's name, and a lazy proxy would hide mistakes.
    options = {**given, "base": base, "visibility_timeout": visibility_timeout, "lazy": False}
    left_alone = {name for name in ("max_retries", "retry_backoff", "retry_backoff_max") if not said(name)}
    if said("default_retry_delay"):
        left_alone -= {"retry_backoff", "retry_backoff_max"}
    if "max_retries" in left_alone:
        if "max_retries" in retry_kwargs:
            left_alone.remove("max_retries")
        options["max_retries"] = retry_kwargs.get("max_retries", DEFAULT_MAX_RETRIES)
    if "retry_backoff" in left_alone:
        if not {"countdown", "eta"} & retry_kwargs.keys():
            retry_kwargs["default_backoff"] = True
    elif factor := given.get("retry_backoff", getattr(base, "retry_backoff", False)):
        # Celery's own reading of the option (celery.app.autoretry); reckoned by us, so that a lost child and a time
        # limit get the same delays, and the worker's setting for the longest one holds.
        options["backoff_seconds"] = int(max(1.0, float(factor)))
        retry_kwargs["default_backoff"] = True
    if "retry_backoff_max" not in left_alone:
        longest = given.get("retry_backoff_max", getattr(base, "retry_backoff_max", DEFAULT_BACKOFF_MAX_SECONDS))
        options["backoff_max_seconds"] = int(longest)
    retried = value("autoretry_for") if said("autoretry_for") else (Exception,)
    return options | {
        "left_alone": frozenset(left_alone),
        "retry_kwargs": retry_kwargs,
        "autoretry_for": (*retried, SoftTimeLimitExceeded),
        "dont_autoretry_for": (*value("dont_autoretry_for"), *_NEVER_RETRIED),
    }


Skipped = Literal["superseded", "object-gone"]


def _run_all(objects: list[S3Object], call: Callable[[S3Object], Any], missing_ok: bool) -> list[Any]:
    """Run the task for each object; one that is gone or superseded does not keep the others from running."""
    results: list[Any] = []
    skipped: list[tuple[Skipped, str]] = []
    gone: ObjectGone | None = None
    for obj in objects:
        try:
            results.append(call(obj))
        except ObjectChanged as error:
            skipped.append(("superseded", str(error)))
        except ObjectGone as error:
            if missing_ok:
                skipped.append(("object-gone", str(error)))
            else:
                gone = error
    for reason, text in skipped:
        log.info("object_skipped", reason=reason, error=text)
    if gone is not None:
        raise gone
    if skipped and not results:
        raise NothingToDo(*skipped[0])
    return results
