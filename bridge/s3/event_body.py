"""Write an S3 event: the message body that announces an object as S3 itself would. Pure.

The form is that of ``notification-content-structure.html`` in the S3 user guide, so that a worker, and any other reader
of the queue, takes it like a real one. Of a listed object S3 does not say how it was created, so the event's name is
always ``ObjectCreated:Put``; nor its sequencer, so there is none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote_plus

from bridge.s3.event import ObjectRecord
from bridge.times import iso_utc_z

#: The name of the notification configuration in a real event; here it names the command that wrote the event.
CONFIGURATION_ID = "brigade-backfill"
EVENT_NAME = "ObjectCreated:Put"


def event_body(record: ObjectRecord) -> str:
    """Return the message body that announces one object as S3 would."""
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
    """Return the body that announces an uploaded object as S3 would; its configurationId says where it comes from."""
    event = json.loads(event_body(record))
    event["Records"][0]["s3"]["configurationId"] = "brigade-put"
    return json.dumps(event)


def encoded_key(key: str) -> str:
    """Return a key as S3 writes it into an event: as HTML forms do, with "/" left as it is."""
    return quote_plus(key, safe="/")


def event_time(moment: datetime) -> str:
    """Return a moment as S3's events have it: UTC with milliseconds and a Z."""
    return iso_utc_z(moment.timestamp())


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
