"""file_task and message_task: a Celery task, and what it takes from the queue of S3 events.

Importing a module of tasks reads no setting and needs no AWS. What a decorator does not set (retries, backoff, time
limit) is filled in by the worker from its settings, when it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from inspect import signature
from typing import Any, Literal
from uuid import uuid4

from celery import current_task

from bridge import scratch
from bridge.errors import ObjectChanged, ObjectGone
from bridge.idempotency.identity import ClaimRequest, of_key, of_message, of_record
from bridge.log import get_logger
from bridge.messages.message import Message
from bridge.messages.routing import Route
from bridge.s3.object import S3Object
from bridge.task.app import app
from bridge.task.base import BridgeTask, MustWait, NothingToDo, normalize_exit
from bridge.task.idempotent_run import Skipped, claiming, claims_events, run_claimed
from bridge.task.options import check, check_idempotency, for_celery
from bridge.task.registry import declare, place_of

log = get_logger(__name__)


WhenStoreFails = Literal["wait", "run"]


def file_task(
    key: str = "*",
    bucket: str = "*",
    events: str | Sequence[str] = "ObjectCreated:*",
    *,
    missing_ok: bool = False,
    allow_changed: bool = False,
    max_bytes: int | None = None,
    visibility_timeout: int | None = None,
    idempotent: bool | None = None,
    idempotency_key: Callable[[S3Object], str] | None = None,
    latest_only: bool = False,
    when_store_fails: WhenStoreFails = "wait",
    **celery_options: Any,
) -> Callable[[Callable[..., Any]], Any]:
    """Declare a task for the objects whose key, bucket and event name match these globs (``*`` matches ``/`` too).

    The function takes one S3Object; a message with several records calls it for each in order, in one run, under one
    time limit. ``missing_ok``: an object that is gone is ignored instead of dead-lettered. ``allow_changed``: an object
    overwritten since its event is read as it is now. ``max_bytes``: a larger object is dead-lettered as ``too-large``
    before the task runs (or when it is read, if its event did not say its size). ``visibility_timeout``: lease of its
    messages, 6–43200 seconds.

    With a store (``BRIDGE_IDEMPOTENCY_URL``) each event takes effect once (docs/guide/idempotency.md).
    ``idempotent=False`` leaves the store alone, ``True`` refuses to start without one. ``idempotency_key`` gives a text
    for an object, and what has the same text is done once. ``latest_only``: an event older than one completed for its
    object is ignored. ``when_store_fails="run"`` runs without a claim when the store cannot be asked, instead of
    waiting in place.

    Every other option is Celery's and means what Celery's documentation says
    (https://docs.celeryq.dev/en/stable/userguide/tasks.html#list-of-options).
    Raises ValueError for ``acks_late=False``, a visibility timeout out of range, and options that contradict.
    """
    check_idempotency(idempotent, idempotency_key, latest_only, when_store_fails)
    names = tuple(e.removeprefix("s3:") for e in ([events] if isinstance(events, str) else events))

    def as_declared(obj: S3Object) -> S3Object:
        if not allow_changed and max_bytes == obj.max_bytes:
            return obj
        return replace(obj, allow_changed=allow_changed or obj.allow_changed, max_bytes=max_bytes)

    def objects(argument: Any) -> list[S3Object]:
        records = argument if isinstance(argument, list) else [argument]
        return [as_declared(S3Object.from_dict(record)) for record in records]

    def claim_request(task: BridgeTask, obj: S3Object) -> ClaimRequest:
        if idempotency_key is not None:
            return of_key(task.name, idempotency_key(obj))
        return of_record(task.name, obj, latest_only=latest_only)

    def each_object(task: BridgeTask, call: Callable[[S3Object], Any], argument: Any) -> Any:
        if isinstance(argument, S3Object):  # a plain call: the caller sees ObjectGone and ObjectChanged themselves
            return call(as_declared(argument).with_progress(argument.progress))

        def once(obj: S3Object) -> Any:
            return run_claimed(task, claim_request(task, obj), lambda progress: call(obj.with_progress(progress)))

        if claims_events(task):
            with claiming(task):
                results = _run_all(objects(argument), once, missing_ok)
        else:
            results = _run_all(objects(argument), call, missing_ok)
        return results if isinstance(argument, list) else results[0]

    def decorate(function: Callable[..., Any]) -> Any:
        def route(name: str) -> Route:
            return Route(task=name, kind="file", key=key, bucket=bucket, events=names, max_bytes=max_bytes)

        task = _declare(function, each_object, route, visibility_timeout, celery_options | idempotency_options)
        task.claim_requests = lambda argument: [claim_request(task, obj) for obj in objects(argument)]
        return task

    idempotency_options = {"idempotent": idempotent, "latest_only": latest_only, "when_store_fails": when_store_fails}
    return decorate


def message_task(
    where: Mapping[str, str] | None = None,
    *,
    everything: bool = False,
    visibility_timeout: int | None = None,
    idempotent: bool = False,
    idempotency_key: Callable[[Message], str] | None = None,
    when_store_fails: WhenStoreFails = "wait",
    **celery_options: Any,
) -> Callable[[Callable[..., Any]], Any]:
    """Declare a task for messages that are not S3 events; the function takes one Message.

    ``where`` maps names of message attributes to globs, all of which must match. ``everything=True`` takes every body
    of the queue as it is: S3 events, test events, Celery bodies, garbage. ``idempotent=True`` runs each MessageId once,
    and ``idempotency_key`` what has the same text; both need a store. Other options as for ``file_task``.
    """
    check_idempotency(idempotent or None, idempotency_key, False, when_store_fails)

    def claim_request(task: BridgeTask, message: Message) -> ClaimRequest:
        if idempotency_key is not None:
            return of_key(task.name, idempotency_key(message))
        return of_message(task.name, message.id)

    def whole_message(task: BridgeTask, call: Callable[[Message], Any], argument: Any) -> Any:
        if isinstance(argument, Message):
            return call(argument)
        message = Message.from_dict(argument)
        if not claims_events(task):
            return call(message)
        with claiming(task):
            result = run_claimed(task, claim_request(task, message), lambda _: call(message))
            if isinstance(result, Skipped):
                raise NothingToDo(result.reason, result.text)
            return result

    def decorate(function: Callable[..., Any]) -> Any:
        def route(name: str) -> Route:
            return Route(task=name, kind="message", where=tuple((where or {}).items()), everything=everything)

        task = _declare(function, whole_message, route, visibility_timeout, celery_options | idempotency_options)
        task.claim_requests = lambda argument: [claim_request(task, Message.from_dict(argument))]
        return task

    wanted = idempotent or idempotency_key is not None
    idempotency_options = {"idempotent": wanted, "when_store_fails": when_store_fails}
    return decorate


def _declare(
    function: Callable[..., Any],
    adapt: Callable[[BridgeTask, Callable[[Any], Any], Any], Any],
    route: Callable[[str], Route],
    visibility_timeout: int | None,
    options: dict[str, Any],
) -> Any:
    check(options, visibility_timeout)
    bound = bool(options.get("bind"))
    first = _first_parameter(function, bound)
    where = f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"
    name = options.get("name") or app.gen_task_name(function.__name__, function.__module__)
    if place_of(name) not in (None, where):
        # Celery keeps the first function of a name: the objects of the second would run the first.
        raise ValueError(f"two tasks are named {name}: one in {place_of(name)} and one in {where}")
    body = normalize_exit(function)

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        # The first parameter (after self) is ours; whatever else the user's function takes is passed on.
        own, given = args[: int(bound)], list(args[int(bound) :])
        if not given:
            given = [kwargs.pop(first)]
        with scratch.run(_run_id(task)):
            return adapt(task, lambda converted: body(*own, converted, *given[1:], **kwargs), given[0])

    task = app.task(**for_celery(options, visibility_timeout))(run)
    task.route = route(task.name)
    task.takes = first
    declare(function.__module__, where, task.route)
    return task


def _first_parameter(function: Callable[..., Any], bound: bool) -> str:
    parameters = list(signature(function).parameters)
    if len(parameters) <= int(bound):
        raise ValueError(f"{function.__qualname__}() takes no object: a task's function has a parameter for it")
    return parameters[int(bound)]


def _run_id(task: BridgeTask) -> str:
    """Return the id of the run at hand; a plain call is part of the run around it, or one without an id of Celery's."""
    own = task.request.id
    if own is None and current_task:
        own = current_task.request.id
    return str(own or uuid4())


def _run_all(objects: list[S3Object], call: Callable[[S3Object], Any], missing_ok: bool) -> list[Any]:
    """Run the task for each object; one that is gone, superseded or done does not keep the others from running.

    The result of one that was done before stands in the list as it was kept.
    """
    results: list[Any] = []
    skipped: list[tuple[str, str]] = []
    gone: ObjectGone | None = None
    again: MustWait | None = None
    for obj in objects:
        try:
            result = call(obj)
            if not isinstance(result, Skipped):
                results.append(result)
                continue
            skipped.append((result.reason, result.text))
            if result.reason == "duplicate" and len(objects) > 1:
                results.append(result.result)
        except MustWait as error:
            again = again or error
        except ObjectChanged as error:
            skipped.append(("superseded", str(error)))
        except ObjectGone as error:
            if missing_ok:
                skipped.append(("object-gone", str(error)))
            else:
                gone = error
    for reason, text in skipped:
        log.info("object_skipped", reason=reason, error=text)
    if again is not None:
        raise again
    if gone is not None:
        raise gone
    if skipped and len(skipped) == len(objects):
        raise NothingToDo(*skipped[0])
    return results
