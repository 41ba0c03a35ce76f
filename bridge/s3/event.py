"""Parse S3 events from a message body, in every form in which they reach a queue.

Pure: text in, records out; no clock, no AWS, no Celery. The only error, for any text, is MalformedEvent.

Sources, all in the S3 user guide at docs.aws.amazon.com/AmazonS3/latest/userguide unless said otherwise:
``notification-content-structure.html`` (S3's own form and the test event), ``ev-events.html`` (EventBridge form),
``ev-mapping-troubleshooting.html`` (S3 event name of each EventBridge type), ``object-keys.html`` (length of keys)
and docs.aws.amazon.com/sns/latest/dg/sns-sqs-as-subscriber.html (the SNS envelope).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NoReturn
from urllib.parse import unquote_plus

from bridge.errors import MalformedEvent

_MAX_KEY_BYTES = 1024
_MAX_SIZE_BYTES = 2**63 - 1
_SHOWN_CHARACTERS = 40
_BOM = "\ufeff"
_WITH_BOM = "not JSON: Unexpected UTF-8 BOM (decode using utf-8-sig) at line 1, column 1"

_CREATED_BY = {
    "PutObject": "Put",
    "POST Object": "Post",
    "CopyObject": "Copy",
    "CompleteMultipartUpload": "CompleteMultipartUpload",
}
_DELETED_BY = {"Permanently Deleted": "Delete", "Delete Marker Created": "DeleteMarkerCreated"}
_OTHER_DETAIL_TYPES = {
    "Object Restore Initiated": "ObjectRestore:Post",
    "Object Restore Completed": "ObjectRestore:Completed",
    "Object Restore Expired": "ObjectRestore:Delete",
    "Object Tags Added": "ObjectTagging:Put",
    "Object Tags Deleted": "ObjectTagging:Delete",
    "Object ACL Updated": "ObjectAcl:Put",
    "Object Storage Class Changed": "LifecycleTransition",
    "Object Access Tier Changed": "IntelligentTiering",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRecord:
    """One decoded record of an event.

    ``key`` is the object's real key, never percent-encoded. ``etag`` has no surrounding quotes. ``size`` is in bytes.
    ``event_name`` is S3's own form without the leading ``s3:``, also for events from EventBridge. ``event_time`` is the
    event's ISO 8601 text, unchanged. A field that the event lacks is None: a removal, for example, has no size and
    usually no eTag.
    """

    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None
    size: int | None = None
    sequencer: str | None = None
    event_name: str = "ObjectCreated:Put"
    event_time: str | None = None
    region: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are not None, as JSON values; ``ObjectRecord(**r.to_dict())`` equals ``r``."""
        values = {name: getattr(self, name) for name in field_names(type(self))}
        return {name: value for name, value in values.items() if value is not None}


_field_names: dict[type, tuple[str, ...]] = {}


def field_names(kind: type[ObjectRecord]) -> tuple[str, ...]:
    """Return a dataclass's field names, cached: ``dataclasses.fields`` costs as much as the rest of a record's work."""
    if kind not in _field_names:
        _field_names[kind] = tuple(field.name for field in fields(kind))
    return _field_names[kind]


@dataclass(frozen=True, slots=True)
class TestEvent:
    """S3's ``s3:TestEvent``, sent when a bucket notification is configured; ``bucket`` is None if it names none."""

    __test__: ClassVar[bool] = False  # pytest would collect the class because of its name

    bucket: str | None


def parse(body: str) -> tuple[ObjectRecord, ...] | TestEvent:
    """Parse a message body; return the event's records in their order (at least one) or a TestEvent.

    Three forms are read: S3's own (``Records``, eventVersion 2.x, eventSource ``aws:s3``), EventBridge's (source
    ``aws.s3``) and ``s3:TestEvent``. Each may be bare or in one SNS envelope; SNS's raw delivery is the bare form. Keys
    are form-decoded exactly once; EventBridge keys are not encoded and stay as they are. One bad record makes the whole
    event malformed, because a message is settled as a whole.

    Optional fields: null, absent and ``""`` mean None. Any other text is kept. Any other type is malformed, because a
    wrong identity would fetch or skip the wrong object. ``size`` is an integer from 0 to 2**63 - 1, not a bool, a float
    or a string of digits. Text must not contain lone surrogates, which UTF-8 cannot encode, or NUL, which ends file
    names and C strings. Unknown event names are accepted; unknown fields are ignored.

    Raises only MalformedEvent, whose text says what is wrong and where.
    """
    event = _load(body)
    if not _is_sns(event):
        return _read(event)
    if event["Type"] != "Notification":
        _fail(f"SNS sent a {_shown(event['Type'])}, not a Notification")
    if not isinstance(event["Message"], str):
        _fail("the Message of the SNS Notification is not text")
    try:
        return _read(_load(event["Message"]))
    except MalformedEvent as error:
        raise MalformedEvent(f"in the SNS Message: {error}") from None


def _read(event: dict[str, Any]) -> tuple[ObjectRecord, ...] | TestEvent:
    # Records are checked first: a body with records that also looks like a test event must not be ignored.
    if "Records" in event:
        records = event["Records"]
        if not isinstance(records, list) or not records:
            _fail("Records is empty" if records == [] else "Records is not a list")
        return tuple(_s3_record(record, f"record {number}") for number, record in enumerate(records, start=1))
    if "detail-type" in event:
        return (_eventbridge_record(_Part(event, "the EventBridge event")),)
    if event.get("Service") == "Amazon S3" and event.get("Event") == "s3:TestEvent":
        return TestEvent(_Part(event, "the test event").text("Bucket"))
    if _is_sns(event):
        _fail("an SNS envelope inside an SNS envelope")
    _fail("not an S3 event: it has neither Records nor detail-type, and it is not an s3:TestEvent")


def _s3_record(values: object, where: str) -> ObjectRecord:
    if not isinstance(values, dict):
        _fail(f"{where} is not an object")
    record = _Part(values, where)
    record.expect("eventSource", "aws:s3")
    record.expect_major("eventVersion", "2")
    stored = record.part("s3").part("object")
    # S3 encodes keys like HTML forms: a space is "+". If a key with a literal "%25" or "+" were decoded twice, it would
    # name another object.
    encoded = stored.required("key")
    try:
        key = unquote_plus(encoded, errors="strict")
    except UnicodeDecodeError:
        _fail(f"{where} has an s3.object.key that does not decode to UTF-8: {_shown(encoded)}")
    return ObjectRecord(
        bucket=record.part("s3").part("bucket").required("name"),
        key=stored.storable("key", key, _MAX_KEY_BYTES),
        version_id=stored.text("versionId"),
        etag=_unquoted(stored.text("eTag")),
        size=stored.size(),
        sequencer=stored.text("sequencer"),
        event_name=record.required("eventName").removeprefix("s3:"),
        event_time=record.text("eventTime"),
        region=record.text("awsRegion"),
    )


def _eventbridge_record(event: _Part) -> ObjectRecord:
    event.expect("source", "aws.s3")
    detail = event.part("detail")
    if detail.values.get("event-version") is not None:  # events of the first years lack it
        detail.expect_major("event-version", "1")
    stored = detail.part("object")
    return ObjectRecord(
        bucket=detail.part("bucket").required("name"),
        key=stored.storable("key", stored.required("key"), _MAX_KEY_BYTES),
        version_id=stored.text("version-id"),
        etag=_unquoted(stored.text("etag")),
        size=stored.size(),
        sequencer=stored.text("sequencer"),
        event_name=_event_name(event.required("detail-type"), detail),
        event_time=event.text("time"),
        region=event.text("region"),
    )


def _event_name(detail_type: str, detail: _Part) -> str:
    # A missing or unknown reason becomes "Other": the object was still created or deleted, so a task for
    # "ObjectCreated:*" must get the event.
    reason = detail.text("reason")
    if detail_type == "Object Created":
        return "ObjectCreated:" + _CREATED_BY.get(reason or "", "Other")
    if detail_type == "Object Deleted":
        family = "LifecycleExpiration:" if reason == "Lifecycle Expiration" else "ObjectRemoved:"
        return family + _DELETED_BY.get(detail.text("deletion-type") or "", "Other")
    if detail_type not in _OTHER_DETAIL_TYPES:  # such as CloudTrail's, which share the source aws.s3
        _fail(f"{detail.where} has detail-type {_shown(detail_type)}, which is not an event of an object")
    return _OTHER_DETAIL_TYPES[detail_type]


class _Part:
    """A JSON object inside an event; ``where`` and ``path`` say in errors where it is."""

    __slots__ = ("path", "values", "where")

    def __init__(self, values: dict[str, Any], where: str, path: str = "") -> None:
        self.values = values
        self.where = where
        self.path = path

    def part(self, name: str) -> _Part:
        value = self.values.get(name)
        if not isinstance(value, dict):
            self.refuse(name, "is not an object")
        return _Part(value, self.where, f"{self.path}{name}.")

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            self.refuse(name, "is not text")
        return self.storable(name, value)

    def required(self, name: str) -> str:
        return self.text(name) or self.refuse(name, "is empty")

    def expect(self, name: str, known: str) -> None:
        if (value := self.required(name)) != known:
            self.refuse(name, f"is {_shown(value)}, but only {known!r} is supported")

    def expect_major(self, name: str, major: str) -> None:
        # AWS: a new minor version only adds fields, a new major version is incompatible. So only the major counts.
        if (version := self.required(name)).partition(".")[0] != major:
            self.refuse(name, f"is {_shown(version)}, but only {major}.x is supported")

    def size(self) -> int | None:
        value = self.values.get("size")
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_SIZE_BYTES:
            self.refuse("size", "is not a number of bytes")
        return value

    def storable(self, name: str, text: str, limit_bytes: int | None = None) -> str:
        if text.isascii() and "\0" not in text and (limit_bytes is None or len(text) <= limit_bytes):
            return text  # the fast path, for nearly every text
        try:
            size_bytes = len(text.encode())
        except UnicodeEncodeError:
            self.refuse(name, f"contains a lone surrogate: {_shown(text)}")
        if "\0" in text:
            self.refuse(name, f"contains NUL: {_shown(text)}")
        if limit_bytes is not None and size_bytes > limit_bytes:
            self.refuse(name, f"is longer than S3's {limit_bytes} bytes: {_shown(text)}")
        return text

    def refuse(self, name: str, fault: str) -> NoReturn:
        if self.values.get(name) is None:
            _fail(f"{self.where} has no {self.path}{name}")
        _fail(f"{self.path}{name} of {self.where} {fault}")


def _is_sns(event: dict[str, Any]) -> bool:
    return "Records" not in event and isinstance(event.get("Type"), str) and "Message" in event


def _load(text: str) -> dict[str, Any]:
    try:
        value = _decode(text) if not text.startswith(_BOM) else _fail(_WITH_BOM)
    except MalformedEvent:
        raise
    except json.JSONDecodeError as error:
        _fail(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}")
    except ValueError:  # an integer with more digits than Python converts (4,300)
        _fail("JSON that cannot be read: a number has too many digits")
    except RecursionError:
        _fail("JSON that cannot be read: it is nested too deeply")
    return value if isinstance(value, dict) else _fail("JSON, but not an object")


def _no_number(name: str) -> NoReturn:
    _fail(f"not JSON: {name} is not a JSON number")


_decode = json.JSONDecoder(parse_constant=_no_number).decode


def _unquoted(etag: str | None) -> str | None:
    # HTTP headers have the quotes and S3 events do not. Some S3-compatible servers copy the header into the event.
    return (etag or "").removeprefix('"').removesuffix('"') or None


def _shown(text: str) -> str:
    """Return the start of foreign text, printable and short: errors go into logs and dead-lettered messages."""
    return repr(text) if len(text) <= _SHOWN_CHARACTERS else repr(text[:_SHOWN_CHARACTERS]) + "…"


def _fail(message: str) -> NoReturn:
    raise MalformedEvent(message)
