"""Which task takes a message. Pure: declared routes and a parsed message in, a task or a verdict out.

Routes are tried in the order of ``BRIDGE_TASK_MODULES`` and, within a module, of their definition; the first match
wins. All objects of a message must go to one task, because they share one receipt handle and so one outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bridge.errors import MalformedEvent
from bridge.globs import matches
from bridge.messages.celery_message import is_celery_message
from bridge.messages.verdicts import DeadLetter, Delete, Verdict
from bridge.s3.event import ObjectRecord, TestEvent, parse


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What one declared task takes; patterns are case-sensitive shell globs, and ``*`` also matches ``/``."""

    task: str
    kind: Literal["file", "message"]
    key: str = "*"
    bucket: str = "*"
    events: tuple[str, ...] = ("ObjectCreated:*",)
    max_bytes: int | None = None
    where: tuple[tuple[str, str], ...] = ()
    everything: bool = False

    def takes_object(self, record: ObjectRecord) -> bool:
        """Return whether this is a file task that matches the object."""
        return (
            self.kind == "file"
            and matches(self.key, record.key)
            and matches(self.bucket, record.bucket)
            and any(matches(pattern, record.event_name) for pattern in self.events)
        )

    def takes_attributes(self, message_attributes: Mapping[str, Mapping[str, Any]]) -> bool:
        """Return whether this is a message task that matches these message attributes (SQS's own shape)."""
        if self.kind != "message":
            return False
        for name, pattern in self.where:
            value = message_attributes.get(name, {}).get("StringValue")
            if not isinstance(value, str) or not matches(pattern, value):
                return False
        return True


@dataclass(frozen=True, slots=True)
class Rules:
    """The input of routing beside the message: the routes in order, and the settings that affect them."""

    routes: tuple[Route, ...]
    allowed_buckets: tuple[str, ...] = ("*",)
    own_outputs: tuple[tuple[str, str], ...] = ()
    unrouted: Literal["dead-letter", "ignore"] = "dead-letter"


@dataclass(frozen=True, slots=True)
class ToTask:
    """The message goes to this task, with its objects or as a whole (``objects`` is None)."""

    task: str
    objects: tuple[ObjectRecord, ...] | None


def route(body: str, message_attributes: Mapping[str, Mapping[str, Any]], rules: Rules) -> ToTask | Verdict:
    """Return the task that takes this message, or the verdict when no task does. Never raises."""
    whole = [r for r in rules.routes if r.takes_attributes(message_attributes)]
    everything = [r for r in whole if r.everything]
    try:
        event = parse(body)
    except MalformedEvent as error:
        celery_message = is_celery_message(body)
        takers = everything if celery_message else whole
        if takers:
            return ToTask(takers[0].task, None)
        text = "a Celery message on a queue of S3 events never runs" if celery_message else str(error)
        return DeadLetter("malformed", "MalformedEvent", text)
    if isinstance(event, TestEvent):
        return ToTask(everything[0].task, None) if everything else Delete("ignored", "test-event")
    return _route_objects(event, everything, rules)


def _route_objects(objects: tuple[ObjectRecord, ...], everything: list[Route], rules: Rules) -> ToTask | Verdict:
    if rules.own_outputs:
        objects = tuple(o for o in objects if not is_own_output(o, rules.own_outputs))
        if not objects:
            return Delete("ignored", "own-output")
    takers: list[Route | None] = []  # not a set: hashing one takes longer than comparing the few there are
    for record in objects:
        if (taker := _first_taker(record, everything, rules.routes)) not in takers:
            takers.append(taker)
    only = takers[0] if len(takers) == 1 else None
    if only is not None and only.everything:
        return ToTask(only.task, None)
    for record in objects:
        if not any(matches(pattern, record.bucket) for pattern in rules.allowed_buckets):
            return DeadLetter("forbidden-bucket", None, f"bucket {record.bucket} is not in BRIDGE_ALLOWED_BUCKETS")
    if only is not None:
        return _too_large(only, objects) or ToTask(only.task, objects)
    if len(takers) > 1:
        return DeadLetter("mixed", None, f"its {len(objects)} records go to different tasks: {_names(takers)}")
    if rules.unrouted == "ignore":
        return Delete("ignored", "unrouted")
    first = objects[0]
    return DeadLetter("unrouted", None, f"no task takes {first.event_name} of s3://{first.bucket}/{first.key}")


def _too_large(taker: Route, objects: Sequence[ObjectRecord]) -> DeadLetter | None:
    for record in objects:
        if taker.max_bytes is not None and record.size is not None and record.size > taker.max_bytes:
            url = f"s3://{record.bucket}/{record.key}"
            text = f"{url} has {record.size} bytes, but {taker.task} takes at most {taker.max_bytes}"
            return DeadLetter("too-large", "ObjectTooLarge", text)
    return None


def _first_taker(record: ObjectRecord, everything: list[Route], routes: Sequence[Route]) -> Route | None:
    for candidate in routes:
        if candidate.takes_object(record) or candidate in everything:
            return candidate
    return None


def _names(takers: Sequence[Route | None]) -> str:
    return ", ".join(sorted(taker.task if taker else "no task" for taker in takers))


def is_own_output(record: ObjectRecord, own_outputs: Sequence[tuple[str, str]]) -> bool:
    """Return whether the object is under one of the bridge's own output prefixes, given as (bucket, prefix)."""
    return any(record.bucket == bucket and record.key.startswith(prefix) for bucket, prefix in own_outputs)
