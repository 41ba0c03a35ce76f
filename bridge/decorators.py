"""file_task and message_task: a Celery task, and what it takes from the queue of S3 events.

Importing a module of tasks reads no setting and needs no AWS. What a decorator was not told (retries, backoff, time
limit) is filled in by the worker from its settings, when it starts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, Literal

from celery.exceptions import SoftTimeLimitExceeded

from bridge.celery import app
from bridge.errors import ObjectChanged, ObjectGone, TaskExited
from bridge.log import get_logger
from bridge.message import Message
from bridge.routing import Route
from bridge.s3_object import S3Object
from bridge.task import DEFAULT_MAX_RETRIES, BridgeTask, NothingToDo

log = get_logger(__name__)

#: Every declared task in the order of definition: (sequence, module, route).
_declared: dict[str, tuple[int, str, Route]] = {}
_sequence = itertools.count()

#: These say that the object is not there to be worked on; trying again cannot bring it back.
_NEVER_RETRIED = (ObjectGone, ObjectChanged)


def file_task(
    key: str = "*",
    bucket: str = "*",
    events: str | Sequence[str] = "ObjectCreated:*",
    *,
    missing_ok: bool = False,
    allow_changed: bool = False,
    visibility_timeout: int | None = None,
    **celery_options: Any,
) -> Callable[[Callable[..., Any]], Any]:
    """Declare a task for the objects whose key, bucket and event name match these globs (``*`` matches ``/`` too).

    The function takes one S3Object; a message with several records calls it for each in order, in one run, under one
    time limit. ``missing_ok``: an object that is gone is ignored instead of dead-lettered. ``allow_changed``: an object
    overwritten since its event is read as it is now. ``visibility_timeout``: lease of its messages, 6–43200 seconds.
    Every other option is Celery's and means what Celery's documentation says
    (https://docs.celeryq.dev/en/stable/userguide/tasks.html#list-of-options).
    Raises ValueError for ``acks_late=False`` and for a visibility timeout out of range.
    """
    names = tuple(e.removeprefix("s3:") for e in ([events] if isinstance(events, str) else events))

    def each_object(call: Callable[[S3Object], Any], argument: Any) -> Any:
        if isinstance(argument, list):
            return _run_all([S3Object.from_dict(a) for a in argument], call, missing_ok, allow_changed)
        if isinstance(argument, S3Object):
            return call(argument)
        return _run_all([S3Object.from_dict(argument)], call, missing_ok, allow_changed)[0]

    def declare(function: Callable[..., Any]) -> Any:
        def route(name: str) -> Route:
            return Route(task=name, kind="file", key=key, bucket=bucket, events=names)

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

    def position(entry: tuple[int, str, Route]) -> tuple[int, int]:
        sequence, module, _ = entry
        owners = [n for n, name in enumerate(modules) if module == name or module.startswith(f"{name}.")]
        return (owners[0] if owners else len(modules), sequence)

    return tuple(route for _, _, route in sorted(_declared.values(), key=position))


def _declare(
    function: Callable[..., Any],
    adapt: Callable[[Callable[[Any], Any], Any], Any],
    route: Callable[[str], Route],
    visibility_timeout: int | None,
    options: dict[str, Any],
) -> Any:
    _check(options, visibility_timeout)
    bound = bool(options.get("bind"))

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        # The first parameter (after self) is ours; whatever else the user's function takes is passed on.
        own, (argument, *rest) = args[: int(bound)], args[int(bound) :]
        try:
            return adapt(lambda converted: function(*own, converted, *rest, **kwargs), argument)
        except SystemExit as error:
            raise TaskExited(f"the task called sys.exit({error.code!r})") from error

    task = app.task(**_celery_options(options, visibility_timeout))(run)
    made = route(task.name)
    task.route = made
    _declared[task.name] = (next(_sequence), function.__module__, made)
    return task


def _check(options: Mapping[str, Any], visibility_timeout: int | None) -> None:
    if not options.get("acks_late", True):
        raise ValueError("acks_late=False would delete a message before its task has run: a crash would lose it")
    if visibility_timeout is not None and not 6 <= visibility_timeout <= 43_200:
        raise ValueError(f"visibility_timeout={visibility_timeout}: must be between 6 and 43200 seconds")


def _celery_options(given: dict[str, Any], visibility_timeout: int | None) -> dict[str, Any]:
    options = {**given, "base": given.get("base", BridgeTask), "visibility_timeout": visibility_timeout}
    # Bound at once, not on first use: the route needs the task's name, and a lazy proxy would hide mistakes.
    options["lazy"] = False
    left_alone = {"max_retries", "retry_backoff", "retry_backoff_max"} - given.keys()
    if "default_retry_delay" in given:
        left_alone -= {"retry_backoff", "retry_backoff_max"}
    options["left_alone"] = frozenset(left_alone)
    options.setdefault("max_retries", DEFAULT_MAX_RETRIES)
    retried = tuple(given.get("autoretry_for", (Exception,)))
    options["autoretry_for"] = (*retried, SoftTimeLimitExceeded)
    options["dont_autoretry_for"] = (*given.get("dont_autoretry_for", ()), *_NEVER_RETRIED)
    if "retry_backoff" in left_alone:
        options["retry_kwargs"] = {"default_backoff": True} | dict(given.get("retry_kwargs", {}))
        if "countdown" in options["retry_kwargs"] or "eta" in options["retry_kwargs"]:
            options["retry_kwargs"].pop("default_backoff")
        if "retry_backoff_max" in given:
            options["backoff_max_seconds"] = given["retry_backoff_max"]
    return options


Skipped = Literal["superseded", "object-gone"]


def _run_all(
    objects: list[S3Object], call: Callable[[S3Object], Any], missing_ok: bool, allow_changed: bool
) -> list[Any]:
    """Run the task for each object; one that is gone or superseded does not keep the others from running."""
    results: list[Any] = []
    skipped: list[tuple[Skipped, str]] = []
    for obj in objects:
        obj = replace(obj, allow_changed=True) if allow_changed else obj  # noqa: PLW2901 - the same object
        try:
            results.append(call(obj))
        except ObjectChanged as error:
            skipped.append(("superseded", str(error)))
        except ObjectGone as error:
            if not missing_ok:
                raise
            skipped.append(("object-gone", str(error)))
    for reason, text in skipped:
        log.info("object_skipped", reason=reason, error=text)
    if skipped and not results:
        raise NothingToDo(*skipped[0])
    return results
