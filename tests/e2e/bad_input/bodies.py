"""Bodies that are no S3 event, or none that we may take: each with the reason it is dead-lettered for."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

ALLOWED_BUCKETS = "uploads-*"
GOOD_BUCKET = "uploads-tests"
"""A bucket that ALLOWED_BUCKETS lets through; that of every record below but one."""


class Bad(NamedTuple):
    """One body; ``reason`` is BridgeCause's."""

    name: str
    body: str
    reason: str = "malformed"


def event(key: object, **fields: Any) -> dict[str, Any]:
    """Return an S3 event of one record, sound unless told otherwise: ``fields`` replace those of the record.

    ``key`` is put in as it is, already percent-encoded; a field given as None is left out.
    """
    record: dict[str, Any] = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-01-02T03:04:05.678Z",
        "eventName": "ObjectCreated:Put",
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": GOOD_BUCKET, "arn": f"arn:aws:s3:::{GOOD_BUCKET}"},
            "object": {"key": key, "size": 3, "eTag": "0123456789abcdef0123456789abcdef", "sequencer": "0055AED6DC"},
        },
    }
    changed = {name: value for name, value in (record | fields).items() if value is not None}
    return {"Records": [changed]}


def _json(value: object) -> str:
    return json.dumps(value)


def _sns(message: str) -> Mapping[str, str]:
    return {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:us-east-1:123456789012:uploads",
        "Message": message,
        "Timestamp": "2026-01-02T03:04:05.678Z",
    }


def _without_key() -> dict[str, Any]:
    made = event("x")
    del made["Records"][0]["s3"]["object"]["key"]
    return made


def _in_bucket(bucket: str) -> dict[str, Any]:
    made = event("a.txt")
    made["Records"][0]["s3"]["bucket"] = {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"}
    return made


BAD_BODIES = (
    Bad("one space", " "),
    Bad("empty object", "{}"),
    Bad("empty list", "[]"),
    Bad("number", "42"),
    Bad("null", "null"),
    Bad("truncated JSON", _json(event("truncated.txt"))[:-9]),
    Bad("250 KB of text", "All work and no play makes Jack a dull boy.\n" * 5_818),
    Bad("invalid base64", "eyJib2R5IjogIlcxM*"),
    Bad("base64 of binary", base64.b64encode(bytes(range(256))).decode()),
    Bad("properties: empty", '{"properties": {}}'),
    Bad("properties: null", '{"properties": null}'),
    Bad("properties: text", '{"properties": "x"}'),
    Bad("properties and a number as body", '{"properties": {}, "body": 5}'),
    Bad("no records", '{"Records": []}'),
    Bad("records are text", '{"Records": "x"}'),
    Bad("record without s3", _json(event("x", s3=None))),
    Bad("record without key", _json(_without_key())),
    Bad("record with an empty key", _json(event(""))),
    Bad("record whose key is a number", _json(event(7))),
    Bad("record whose key is a list", _json(event(["a.txt"]))),
    Bad("unknown eventSource", _json(event("x", eventSource="aws:s4"))),
    Bad("eventVersion 3.0", _json(event("x", eventVersion="3.0"))),
    Bad("SNS envelope without JSON", _json(_sns("Hello from the topic"))),
    Bad("nested 4,000 deep", "[" * 4_000 + "]" * 4_000),
    Bad("nested 4,000 deep in a record", '{"Records": ' + '{"s3":' * 4_000 + "1" + "}" * 4_000 + "}"),
    Bad("NUL in the key, percent-encoded", _json(event("a%00b.txt"))),
    Bad("NUL in the key, escaped", _json(event("a\0b.txt"))),
    Bad("lone surrogate in the key, percent-encoded", _json(event("a%ED%A0%80b.txt"))),
    Bad("lone surrogate in the key, escaped", _json(event("a\ud800b.txt"))),
    Bad("forbidden bucket", _json(_in_bucket("somebody-elses")), "forbidden-bucket"),
)
