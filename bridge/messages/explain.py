"""Explain why each task takes a message or not, by the rules of bridge/messages/routing.py. Pure.

``route`` decides. This module only explains, rule by rule, so that a user sees which glob does not match.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.errors import MalformedEvent
from bridge.globs import matches
from bridge.messages.celery_message import is_celery_message
from bridge.messages.routing import Route, Rules, is_own_output
from bridge.s3.event import ObjectRecord, TestEvent, parse

Attributes = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Subject:
    """A routed part of a message: one object, or the message as a whole.

    ``tasks`` holds every task in routing order, each with the rules that prevent it from taking this part. A task
    without such rules matches, and the first match takes it.
    """

    name: str
    note: str | None
    tasks: tuple[tuple[str, tuple[str, ...]], ...]


def explain(body: str, attributes: Attributes, rules: Rules) -> list[Subject]:
    """Return the routed parts of a message, and why each task takes them or not. Never raises."""
    try:
        event = parse(body)
    except MalformedEvent as error:
        celery_message = is_celery_message(body)
        why = str(error).removeprefix("not an S3 event: ")
        name = "a Celery message" if celery_message else f"a message that is not an S3 event: {why}"
        return [Subject(name, None, _each(rules, lambda route: _not_message(route, attributes, celery_message)))]
    if isinstance(event, TestEvent):
        name = "s3:TestEvent"
        return [Subject(name, None, _each(rules, lambda route: _not_everything(route, attributes)))]
    return [_subject(record, attributes, rules) for record in event]


def _subject(record: ObjectRecord, attributes: Attributes, rules: Rules) -> Subject:
    note = None
    if is_own_output(record, rules.own_outputs):
        note = "is under an output prefix of the bridge: ignored, whatever the tasks match"
    elif not any(matches(pattern, record.bucket) for pattern in rules.allowed_buckets):
        note = f"bucket {record.bucket} is not in BRIDGE_ALLOWED_BUCKETS={','.join(rules.allowed_buckets)}"
    name = f"s3://{record.bucket}/{record.key}  {record.event_name}"
    return Subject(name, note, _each(rules, lambda route: _not_object(route, record, attributes)))


def _each(rules: Rules, reasons: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((route.task, tuple(reasons(route))) for route in rules.routes)


def _not_object(route: Route, record: ObjectRecord, attributes: Attributes) -> Sequence[str]:
    if route.kind == "message":
        return _not_everything(route, attributes)
    reasons = []
    if not matches(route.key, record.key):
        reasons.append(f"key does not match {route.key}")
    if not matches(route.bucket, record.bucket):
        reasons.append(f"bucket does not match {route.bucket}")
    if not any(matches(pattern, record.event_name) for pattern in route.events):
        reasons.append(f"event does not match {' or '.join(route.events)}")
    return reasons


def _not_message(route: Route, attributes: Attributes, celery_message: bool) -> Sequence[str]:
    if route.kind == "file":
        return ["takes S3 events only"]
    return _not_everything(route, attributes) if celery_message else _not_where(route, attributes)


def _not_everything(route: Route, attributes: Attributes) -> Sequence[str]:
    if route.kind == "file":
        return ["takes objects only"]
    if not route.everything:
        return ["takes messages that are not S3 events (everything=True takes all)"]
    return _not_where(route, attributes)


def _not_where(route: Route, attributes: Attributes) -> Sequence[str]:
    reasons = []
    for name, pattern in route.where:
        value = attributes.get(name, {}).get("StringValue")
        if not isinstance(value, str):
            reasons.append(f"the message has no text attribute {name}")
        elif not matches(pattern, value):
            reasons.append(f"message attribute {name} does not match {pattern}")
    return reasons


def describe(route: Route) -> str:
    """Return one route as text."""
    if route.kind == "file":
        return f"{route.task}  ←  s3://{route.bucket}/{route.key}  {' '.join(route.events)}"
    if route.everything:
        return f"{route.task}  ←  every message"
    where = ", ".join(f"{name}={pattern}" for name, pattern in route.where)
    return f"{route.task}  ←  messages that are not S3 events{f' with {where}' if where else ''}"
