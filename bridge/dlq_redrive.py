"""What redrive does with one letter: sent back as it was, with one more in its count of redrives, or left. Pure.

A letter goes back with its body, its attributes and its trace header, and without its cause: a worker that fails on it
again writes a new one. SQS allows ten message attributes and counts them in the message's size: a message that has no
room for the count goes back without it, for a redrive that cannot be counted is better than one that cannot be done.
Source of the limits: SendMessageBatch, AWS API reference; "Amazon SQS message quotas".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bridge.messages.dead_letter import CAUSE_ATTRIBUTE, REDRIVES_ATTRIBUTE, Letter, sendable, size_bytes
from bridge.sqs.quotas import MAX_BATCH_ENTRIES, MAX_MESSAGE_ATTRIBUTES, MAX_MESSAGE_BYTES

#: Redrives without ``--force``: what has failed after three of them fails for a reason that a fourth does not mend.
MAX_REDRIVES = 3

LeftBecause = Literal["redriven-too-often", "no-source", "came-back"]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of SendMessageBatch, still without its Id; ``redrives`` is None where there was no room for it."""

    fields: dict[str, Any]
    redrives: int | None
    size: int


def entry_for(letter: Letter, *, max_bytes: int) -> Entry:
    """Return what is sent for the letter to a queue whose messages may have ``max_bytes``."""
    attributes = {
        name: sendable(value)
        for name, value in (letter.raw.get("MessageAttributes") or {}).items()
        if name not in (CAUSE_ATTRIBUTE, REDRIVES_ATTRIBUTE)
    }
    size = len(letter.raw["Body"].encode("utf-8", "surrogatepass"))
    size += sum(size_bytes(name, value) for name, value in attributes.items())
    redrives = letter.redrives + 1
    count = {"DataType": "Number", "StringValue": str(redrives)}
    counted = len(attributes) < MAX_MESSAGE_ATTRIBUTES and size + size_bytes(REDRIVES_ATTRIBUTE, count) <= max_bytes
    if counted:
        attributes[REDRIVES_ATTRIBUTE] = count
        size += size_bytes(REDRIVES_ATTRIBUTE, count)
    fields: dict[str, Any] = {"MessageBody": letter.raw["Body"]}
    if attributes:
        fields["MessageAttributes"] = attributes
    trace = (letter.raw.get("Attributes") or {}).get("AWSTraceHeader")
    if trace:
        fields["MessageSystemAttributes"] = {"AWSTraceHeader": {"DataType": "String", "StringValue": trace}}
    return Entry(fields, redrives if counted else None, size)


def left_because(
    letter: Letter, *, started_at: float, returned: bool, has_target: bool, force: bool
) -> LeftBecause | None:
    """Return why the letter stays where it is, or None when it is sent back.

    ``returned``: this run has sent the same body, with the count that the letter has now. Where it also came in after
    ``started_at`` (the second in which the run began, by SQS's own clock), it failed again and stays: a task that fails
    at once would otherwise be redriven as fast as it fails, until its count forbids it.
    """
    if returned and (letter.sent_at is None or letter.sent_at >= started_at):
        return "came-back"
    if letter.redrives >= MAX_REDRIVES and not force:
        return "redriven-too-often"
    return None if has_target else "no-source"


def in_batches(
    sizes: Sequence[int], *, entries: int = MAX_BATCH_ENTRIES, max_bytes: int = MAX_MESSAGE_BYTES
) -> list[list[int]]:
    """Return the positions of ``sizes``, in order, in batches that SendMessageBatch takes; one too large goes alone."""
    batches: list[list[int]] = []
    used = 0
    for position, size in enumerate(sizes):
        if not batches or len(batches[-1]) == entries or used + size > max_bytes:
            batches.append([])
            used = 0
        batches[-1].append(position)
        used += size
    return batches
