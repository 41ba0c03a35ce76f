"""Write an S3 event: a message body that announces an object as S3 itself does. Pure.

The form follows ``notification-content-structure.html`` in the S3 user guide, so a worker, or any other reader of the
queue, accepts it like a real event. A listing does not say how an object was created, so the event's name is always
``ObjectCreated:Put``. A listing has no sequencer either, so the event has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote_plus

from bridge.s3.event import ObjectRecord
from bridge.times import iso_utc_z

#: In a real event this is the id of the notification configuration; here it names the command that wrote the event.
CONFIGURATION_ID = "brigade-backfill"
EVENT_NAME = "ObjectCreated:Put"


def event_body(record: ObjectRecord) -> str:
    """Return a message body that announces one object as S3 does."""
    described = {"key": encoded_key(record.key), "size": record.size, "eTag": record.etag}
    event = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": record.region,
        "eventTime": record.event_time,
        "eventName": record.event_name,
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": CONFIGURATION_ID,
            "bucket": {"name": record.bucket, "arn": f"arn:aws:s3:::{record.bucket}"},
            "object": _without_none({**described, "versionId": record.version_id}),
        },
    }
    return json.dumps({"Records": [_without_none(event)]})


def put_event_body(record: ObjectRecord) -> str:
    """Return a message body that announces an uploaded object as S3 does; its configurationId is ``brigade-put``."""
    event = json.loads(event_body(record))
    event["Records"][0]["s3"]["configurationId"] = "brigade-put"
    return json.dumps(event)


def encoded_key(key: str) -> str:
    """Return a key as S3 writes it in an event: encoded like an HTML form, with "/" unchanged."""
    return quote_plus(key, safe="/")


def event_time(moment: datetime) -> str:
    """Return a time in the form of S3 events: UTC with milliseconds and a Z."""
    return iso_utc_z(moment.timestamp())


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
