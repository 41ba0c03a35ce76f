"""Read a bucket's notification configuration and check which entries may coexist. Pure.

The form is that of GetBucketNotificationConfiguration (S3 API reference). The rules for overlapping entries and for the
encoding of filters: docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-filtering.html.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote_plus, unquote_plus

from bridge.globs import matches

_TARGETS = {
    "QueueConfigurations": ("queue", "QueueArn"),
    "TopicConfigurations": ("topic", "TopicArn"),
    "LambdaFunctionConfigurations": ("function", "LambdaFunctionArn"),
}
#: The suffix of everything that the shipped tasks and the idempotency stores write.
_OUR_SUFFIX = ".json"

Cover = Literal["whole", "other-suffix"]
Announced = Literal["yes", "perhaps", "no"]


@dataclass(frozen=True, slots=True)
class NotificationEntry:
    """One entry: which events of which keys S3 sends where.

    ``target`` is ``queue``, ``topic`` or ``function``. ``prefix`` and ``suffix`` are decoded; ``""`` matches any key.
    """

    id: str
    target: str
    arn: str
    events: tuple[str, ...]
    prefix: str = ""
    suffix: str = ""

    def covers(self, output_prefix: str) -> Cover | None:
        """Return whether S3 sends events for objects under ``output_prefix`` of the same bucket; None if not.

        ``whole``: also for what the bridge itself writes. ``other-suffix``: only for keys with a suffix that the bridge
        never writes; a user's task may write such keys.
        """
        if not any(_events_meet(event, "s3:ObjectCreated:*") for event in self.events):
            return None
        if not (self.prefix.startswith(output_prefix) or output_prefix.startswith(self.prefix)):
            return None
        return "whole" if _suffixes_meet(self.suffix, _OUR_SUFFIX) else "other-suffix"

    def takes(self, key: str, event_name: str) -> bool:
        """Return whether S3 sends the event ``event_name`` (without ``s3:``) of the object ``key`` (decoded)."""
        return (
            any(matches(pattern.removeprefix("s3:"), event_name) for pattern in self.events)
            and key.startswith(self.prefix)
            and key.endswith(self.suffix)
        )

    def includes(self, other: NotificationEntry) -> bool:
        """Return whether this entry already sends all events of ``other`` to the same target."""
        return (
            self.arn == other.arn
            and other.prefix.startswith(self.prefix)
            and other.suffix.endswith(self.suffix)
            and all(any(matches(own, event) for own in self.events) for event in other.events)
        )

    def overlaps(self, other: NotificationEntry) -> bool:
        """Return whether S3 refuses both entries together: they share an event type, and prefix and suffix overlap."""
        return (
            any(_events_meet(one, two) for one in self.events for two in other.events)
            and (self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix))
            and _suffixes_meet(self.suffix, other.suffix)
        )

    def to_configuration(self) -> dict[str, Any]:
        """Return the entry of ``QueueConfigurations`` for PutBucketNotificationConfiguration."""
        rules = [
            {"Name": name, "Value": quote_plus(value, safe="/")}
            for name, value in (("prefix", self.prefix), ("suffix", self.suffix))
            if value
        ]
        configuration: dict[str, Any] = {"Id": self.id, "QueueArn": self.arn, "Events": list(self.events)}
        return configuration | ({"Filter": {"Key": {"FilterRules": rules}}} if rules else {})


def entries(configuration: Mapping[str, Any]) -> tuple[NotificationEntry, ...]:
    """Return all entries of a notification configuration; EventBridge has no entry (see ``to_eventbridge``)."""
    found = []
    for kind, (target, arn_name) in _TARGETS.items():
        for entry in configuration.get(kind) or ():
            rules = ((entry.get("Filter") or {}).get("Key") or {}).get("FilterRules") or ()
            # S3 returns "Prefix" for a rule that was put as "prefix".
            filters = {str(r.get("Name", "")).lower(): unquote_plus(str(r.get("Value") or "")) for r in rules}
            found.append(
                NotificationEntry(
                    id=str(entry.get("Id") or ""),
                    target=target,
                    arn=str(entry.get(arn_name) or ""),
                    events=tuple(entry.get("Events") or ()),
                    prefix=filters.get("prefix", ""),
                    suffix=filters.get("suffix", ""),
                )
            )
    return tuple(found)


def to_eventbridge(configuration: Mapping[str, Any]) -> bool:
    """Return whether the bucket sends all its events to EventBridge."""
    return configuration.get("EventBridgeConfiguration") is not None


def announced(configuration: Mapping[str, Any], key: str, event_name: str, queue_arn: str) -> Announced:
    """Return whether a bucket notifies ``queue_arn`` of a new object ``key``; ``perhaps`` through SNS or EventBridge.

    ``event_name`` has no ``s3:``, such as ``ObjectCreated:Put``; ``key`` is the decoded key. ``configuration`` is the
    answer of GetBucketNotificationConfiguration, which does not say whether a topic or an event bus leads to the queue.
    Rules: "Configuring event notifications using object key name filtering", S3 user guide.
    """
    takers = [entry for entry in entries(configuration) if entry.takes(key, event_name)]
    if any(entry.target == "queue" and entry.arn == queue_arn for entry in takers):
        return "yes"
    if any(entry.target == "topic" for entry in takers):
        return "perhaps"
    return "perhaps" if to_eventbridge(configuration) else "no"


def merged(configuration: Mapping[str, Any], entry: NotificationEntry) -> dict[str, Any]:
    """Return the whole configuration with ``entry`` added, in place of an entry with the same id; all others stay.

    It must be the whole configuration, because PutBucketNotificationConfiguration replaces all entries.
    """
    kept = {name: value for name, value in configuration.items() if name != "ResponseMetadata"}
    queues: Sequence[Mapping[str, Any]] = kept.get("QueueConfigurations") or ()
    others = [queue for queue in queues if queue.get("Id") != entry.id]
    return {**kept, "QueueConfigurations": [*others, entry.to_configuration()]}


def _events_meet(one: str, other: str) -> bool:
    return matches(one, other) or matches(other, one)


def _suffixes_meet(one: str, other: str) -> bool:
    return one.endswith(other) or other.endswith(one)
