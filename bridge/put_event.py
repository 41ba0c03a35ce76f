"""Whether a bucket itself announces an object to our queue, and the event to send when it does not. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from bridge.backfill_events import event_body
from bridge.globs import matches
from bridge.s3_event import ObjectRecord

Announced = Literal["yes", "perhaps", "no"]


def announced(configuration: Mapping[str, Any], key: str, event_name: str, queue_arn: str) -> Announced:
    """Say whether a bucket tells ``queue_arn`` of a new object ``key``; ``perhaps`` through SNS or EventBridge.

    ``event_name`` is the form without ``s3:``, such as ``ObjectCreated:Put``.
    ``configuration`` is the answer of GetBucketNotificationConfiguration. Whether a topic or a bus leads to the queue
    is not in it. Rules: "Configuring event notifications using object key name filtering", S3 user guide.
    """
    if any(
        _takes(entry, key, event_name) and entry.get("QueueArn") == queue_arn
        for entry in _entries(configuration, "Queue")
    ):
        return "yes"
    if any(_takes(entry, key, event_name) for entry in _entries(configuration, "Topic")):
        return "perhaps"
    return "perhaps" if configuration.get("EventBridgeConfiguration") is not None else "no"


def put_event_body(record: ObjectRecord) -> str:
    """Return the body that announces an uploaded object as S3 would; its configurationId says where it comes from."""
    event = json.loads(event_body(record))
    event["Records"][0]["s3"]["configurationId"] = "brigade-put"
    return json.dumps(event)


def _entries(configuration: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    return list(configuration.get(f"{kind}Configurations") or ())


def _takes(entry: Mapping[str, Any], key: str, event_name: str) -> bool:
    if not any(matches(pattern.removeprefix("s3:"), event_name) for pattern in entry.get("Events") or ()):
        return False
    rules = ((entry.get("Filter") or {}).get("Key") or {}).get("FilterRules") or ()
    for rule in rules:
        value = str(rule.get("Value") or "")
        if str(rule.get("Name", "")).lower() == "prefix" and not key.startswith(value):
            return False
        if str(rule.get("Name", "")).lower() == "suffix" and not key.endswith(value):
            return False
    return True
