"""The S3 events of a run, as S3 writes them: for us, and for the consumers that take any body."""

from __future__ import annotations

import hashlib
import json

from benchmarks.peers.apps.work import BUCKET, OBJECT_BYTES


def etag(key: str) -> str:
    """The eTag under which the bench's S3 server holds ``key``: 32 hex digits, without quotes."""
    return hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()


def message(workload: str, number: int) -> str:
    """Return the body of message ``number``, for an object whose key begins with the workload's name.

    Source of the form: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
    """
    key = f"{workload}/2026/11/21/file-{number:08d}.csv"
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-11-21T12:00:00.000Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AWS:AIDAEXAMPLEEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {
            "x-amz-request-id": "C3D13FE58DE4C810",
            "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S/JRWeUWerMUE5JgHvANOjpD",
        },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "uploads",
            "bucket": {
                "name": BUCKET,
                "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                "arn": f"arn:aws:s3:::{BUCKET}",
            },
            "object": {
                "key": key,
                "size": OBJECT_BYTES,
                "eTag": etag(key),
                "sequencer": f"{0x0055AED6DCD90281E5 + number:018X}",
            },
        },
    }
    return json.dumps({"Records": [record]})
