"""Test your tasks without a server: ``s3_object``, ``s3_event`` and ``run_event``, with a pytest plugin.

Only SQS and the network are replaced. A test runs the worker's own event parser, routing, Celery message, Celery tracer
and retry policy. Objects made by ``s3_object`` exist until the test ends; the plugin removes them.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import md5
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote_plus
from uuid import uuid4

from celery.app.trace import build_tracer

from bridge.errors import ObjectChanged, ObjectGone
from bridge.messages.envelope import Delivery, for_event
from bridge.messages.retry_policy import Attempt, decide, is_poison_message, request_retries
from bridge.messages.routing import Rules, ToTask, route
from bridge.messages.verdicts import DeadLetter, Delete, RetryIn, Verdict
from bridge.s3.object import S3Object, use_source
from bridge.s3.types import ObjectHead
from bridge.task.app import app
from bridge.task.registry import declared_routes
from bridge.worker.failure import failure_of

__all__ = ["RunResult", "run_event", "s3_event", "s3_object"]

#: The default of BRIDGE_SPARE_RECEIVES.
SPARE_RECEIVES = 10
_TIME = "2026-01-02T03:04:05.000Z"


@dataclass(frozen=True)
class RunResult:
    """The outcome of one message.

    ``outcome`` is the worker's own word: ``deleted``, ``ignored``, ``retried``, ``dead_lettered`` or ``handed_back``.
    ``reason`` is the worker's reason for it, if there is one. ``delay_seconds`` is set for ``retried`` only. ``task``
    is the name of the task that took the message, ``result`` its return value, ``error`` the text of its exception.
    """

    outcome: str
    reason: str | None = None
    delay_seconds: int | None = None
    task: str | None = None
    result: Any = None
    error: str | None = None


@dataclass
class _LocalObjects:
    """The objects of one test, as an ObjectSource in place of S3."""

    contents: dict[tuple[str, str], bytes | Path] = field(default_factory=dict)
    in_use: bool = False

    def content(self, obj: S3Object) -> bytes | Path:
        try:
            content = self.contents[obj.bucket, obj.key]
        except KeyError:
            raise ObjectGone(f"{obj.url} does not exist in this test: make it with s3_object()") from None
        if obj.etag is not None and obj.etag != _etag(content) and not obj.allow_changed:
            raise ObjectChanged(f"{obj.url} was overwritten after its event was sent")
        return content

    def open(self, obj: S3Object) -> BinaryIO:
        content = self.content(obj)
        obj.check_size(_size(content))
        return content.open("rb") if isinstance(content, Path) else io.BytesIO(content)

    def download(self, obj: S3Object, path: Path) -> None:
        content = self.content(obj)
        obj.check_size(_size(content))
        path.write_bytes(content.read_bytes() if isinstance(content, Path) else content)

    def head(self, obj: S3Object) -> ObjectHead:
        content = self.content(obj)
        return ObjectHead(
            size=_size(content),
            etag=_etag(content),
            content_type="binary/octet-stream",
            metadata={},
            last_modified=datetime.fromisoformat(_TIME),
            version_id=obj.version_id,
            storage_class="STANDARD",
        )

    def put_once(
        self, bucket: str, key: str, body: bytes | BinaryIO, content_type: str | None, metadata: dict[str, str]
    ) -> bool:
        if (bucket, key) in self.contents:
            return False
        self.contents[bucket, key] = body if isinstance(body, bytes) else body.read()
        return True


_objects = _LocalObjects()
_in_use = ExitStack()


def forget_objects() -> None:
    """Remove all objects. The pytest plugin calls it after each test."""
    _objects.contents.clear()
    _objects.in_use = False
    _in_use.close()


def s3_object(content: bytes | str | Path, key: str = "file", bucket: str = "test-bucket", **fields: Any) -> S3Object:
    """Make an object on which a task of this test can call ``open``, ``download`` and ``head``.

    ``content`` is bytes, text (stored as UTF-8) or the path of a file. ``fields`` are fields of S3Object
    (``version_id``, ``event_name``…). A second call with the same key and other content overwrites the object: reading
    the first S3Object then raises ObjectChanged.
    """
    if not _objects.in_use:
        _objects.in_use = True
        _in_use.enter_context(use_source(_objects))
    stored = content.encode() if isinstance(content, str) else content
    _objects.contents[bucket, key] = stored
    defaults: dict[str, Any] = {
        "size": _size(stored),
        "etag": _etag(stored),
        "event_time": _TIME,
        "sequencer": "0055AED6DCD90281E5",
    }
    return S3Object(bucket=bucket, key=key, **(defaults | fields))


def s3_event(*objects: S3Object | str, bucket: str = "test-bucket", event_name: str | None = None) -> dict[str, Any]:
    """Return an S3 event with one record per object; a str is the key of an object that need not exist."""
    made = [S3Object(bucket=bucket, key=o) if isinstance(o, str) else o for o in objects]
    return {"Records": [_record(o, event_name or o.event_name) for o in made]}


def run_event(
    event: Mapping[str, Any] | str,
    *,
    receives: int = 1,
    message_attributes: Mapping[str, Mapping[str, Any]] | None = None,
    allowed_buckets: tuple[str, ...] = ("*",),
) -> RunResult:
    """Run a message as a worker would, with the routes of all imported tasks, and return its outcome.

    ``event`` is the message body: a dict (sent as JSON) or a str. ``receives`` is how many times SQS has delivered the
    message, including this time. ``message_attributes`` have the shape of SQS's MessageAttributes. ``allowed_buckets``
    are globs, as in BRIDGE_ALLOWED_BUCKETS.
    """
    raw: dict[str, Any] = {
        "MessageId": str(uuid4()),
        "ReceiptHandle": str(uuid4()),
        "Body": event if isinstance(event, str) else json.dumps(event),
        "Attributes": {"ApproximateReceiveCount": str(receives)},
        "MessageAttributes": dict(message_attributes or {}),
    }
    target = route(raw["Body"], raw["MessageAttributes"], Rules(declared_routes(), allowed_buckets))
    if not isinstance(target, ToTask):
        return _result(target, None)
    task = app.tasks[target.task]
    if is_poison_message(receives, task.max_retries, SPARE_RECEIVES):
        return RunResult("dead_lettered", "worker-lost", task=task.name)
    retries = request_retries(receives, task.max_retries)
    delivery = Delivery("test-queue", "test-queue", raw["ReceiptHandle"], receives, retries, time.time())
    payload = for_event(raw, target, delivery)
    args, kwargs, _ = payload["body"]
    request = {**payload["headers"], "delivery_info": payload["properties"]["delivery_info"], "is_eager": False}
    with use_source(_objects):
        trace = build_tracer(task.name, task, app=app)
        traced = trace(raw["MessageId"], args, kwargs, request)
    if not traced.info:
        return RunResult("deleted", task=task.name, result=traced.retval)
    failure = failure_of(traced.retval, task)
    attempt = Attempt(retries, task.max_retries, 0.0, task.backoff_seconds, task.backoff_max_seconds)
    return _result(Delete() if failure is None else decide(failure, attempt, jitter=1.0), task.name)


def _result(verdict: Verdict, task: str | None) -> RunResult:
    return RunResult(
        outcome=verdict.outcome,
        reason=verdict.reason,
        delay_seconds=verdict.delay_seconds if isinstance(verdict, RetryIn) else None,
        task=task,
        error=verdict.error if isinstance(verdict, (RetryIn, DeadLetter)) else None,
    )


def _record(obj: S3Object, event_name: str) -> dict[str, Any]:
    described = {"key": quote_plus(obj.key), "size": obj.size, "eTag": obj.etag}
    described |= {"versionId": obj.version_id, "sequencer": obj.sequencer}
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": obj.region or "us-east-1",
        "eventTime": obj.event_time or _TIME,
        "eventName": event_name,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": obj.bucket, "arn": f"arn:aws:s3:::{obj.bucket}"},
            "object": {name: value for name, value in described.items() if value is not None},
        },
    }


def _size(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _etag(content: bytes | Path) -> str:
    data = content.read_bytes() if isinstance(content, Path) else content
    return md5(data, usedforsecurity=False).hexdigest()
