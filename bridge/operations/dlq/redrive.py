"""Redrive: dead letters go back to their queue, sent and confirmed first, then deleted, so that none is lost.

A run that is killed between the two leaves a message in both queues, and it is processed twice: at least once, as SQS
itself delivers. Two runs at once share the messages, for SQS gives a held message to one of them only.

A message goes back with its body, its attributes and its trace header, and without its cause: a worker that fails on it
again writes a new one. SQS allows ten message attributes and counts them in the message's size: a message that has no
room for the count goes back without it, for a redrive that cannot be counted is better than one that cannot be done.
Source of the limits: SendMessageBatch, AWS API reference; "Amazon SQS message quotas".
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bridge.messages.dead_letter import (
    CAUSE_ATTRIBUTE,
    MAX_REDRIVES,
    REDRIVES_ATTRIBUTE,
    Letter,
    read_letter,
    sendable,
    size_bytes,
)
from bridge.operations.dlq.filter import Filter
from bridge.operations.dlq.reader import Reader
from bridge.operations.dlq.sources import RedriveTarget, Sources
from bridge.operations.rate_limit import RateLimit
from bridge.operations.stopping import Stop
from bridge.sqs.batches import delete_batch, send_batch
from bridge.sqs.quotas import MAX_BATCH_ENTRIES, MAX_MESSAGE_ATTRIBUTES, MAX_MESSAGE_BYTES

LeftBecause = Literal["redriven-too-often", "no-source", "came-back"]


@dataclass(frozen=True, slots=True)
class RedriveEntry:
    """An entry of SendMessageBatch, still without its Id; ``redrives`` is None where there was no room for it."""

    fields: dict[str, Any]
    redrives: int | None
    size: int


def entry_for(letter: Letter, *, max_bytes: int) -> RedriveEntry:
    """Return what is sent to a queue whose messages may have ``max_bytes``."""
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
    return RedriveEntry(fields, redrives if counted else None, size)


def left_because(
    letter: Letter, *, started_at: float, returned: bool, has_target: bool, force: bool
) -> LeftBecause | None:
    """Return why the message stays, or None when it is sent back.

    ``returned``: this run has sent the same body, with the count that the message has now. Where it also came in after
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


@dataclass
class RedriveTally:
    """What a run did, or with ``--dry-run`` would have done."""

    seen: int = 0
    redriven: Counter[str] = field(default_factory=Counter)  # by the name of the queue
    left: Counter[str] = field(default_factory=Counter)  # by the reason
    uncounted: int = 0
    failed: list[str] = field(default_factory=list)
    sent_not_deleted: list[str] = field(default_factory=list)

    @property
    def incomplete(self) -> int:
        """How many selected messages are not where they should be."""
        left = sum(number for reason, number in self.left.items() if reason != "came-back")
        return left + len(self.failed) + len(self.sent_not_deleted)


class Redriver:
    """One run over one dead-letter queue."""

    def __init__(
        self,
        client: Any,
        reader: Reader,
        sources: Sources,
        stop: Stop,
        *,
        chosen: Filter,
        force: bool,
        limit: int | None,
        rate: float | None,
        dry_run: bool,
        on_progress: Callable[[RedriveTally], None],
    ) -> None:
        """``limit`` counts messages, ``rate`` is messages per second; ``on_progress`` is called after each step."""
        self._client = client
        self._reader = reader
        self._sources = sources
        self._stop = stop
        self._chosen = chosen
        self._force = force
        self._limit = limit
        self._pace = RateLimit(rate, stop)
        self._dry_run = dry_run
        self._on_progress = on_progress
        self._taken = 0
        self._waiting: dict[RedriveTarget, list[Letter]] = {}
        self._sent: set[bytes] = set()
        self.tally = RedriveTally()

    def run(self) -> None:
        """Redrive until the queue is read, the limit is reached or a signal came. Raises the SDK's errors."""
        for batch in self._reader.batches():
            for raw in batch:
                self.tally.seen += 1
                letter = read_letter(raw)
                if self._chosen.takes(letter) and not self._done:
                    self._take(letter)
            # Full batches at once; what is left over waits for more, but not longer than the queue has more.
            self._send(at_least=MAX_BATCH_ENTRIES if batch and not self._done else 1)
            self._on_progress(self.tally)
            if self._done:
                break

    @property
    def _done(self) -> bool:
        return self._limit is not None and self._taken >= self._limit

    def _take(self, letter: Letter) -> None:
        target = self._sources.target(letter)
        reason = left_because(
            letter,
            started_at=self._reader.started_at,
            returned=_fingerprint(letter, letter.redrives) in self._sent,
            has_target=target is not None,
            force=self._force,
        )
        if reason is not None or target is None:
            self.tally.left[reason or "no-source"] += 1
            return
        self._taken += 1
        if self._dry_run:
            self.tally.redriven[target.name] += 1
        else:
            self._waiting.setdefault(target, []).append(letter)

    def _send(self, at_least: int) -> None:
        for target, letters in self._waiting.items():
            while len(letters) >= min(at_least, self._pace.batch) and letters and not self._stop:
                self._send_some(target, letters)

    def _send_some(self, target: RedriveTarget, letters: list[Letter]) -> None:
        entries = [entry_for(letter, max_bytes=target.max_bytes) for letter in letters[: self._pace.batch]]
        size = len(in_batches([entry.size for entry in entries])[0])
        self._pace.wait(size, self._reader.keep)
        if self._stop:
            return  # nothing of this batch was sent: it is handed back with the rest
        batch, letters[:size] = letters[:size], []
        # A message whose hold has expired may be with another reader, who sends it.
        handles = {letter.message_id: self._reader.handle(letter.message_id) for letter in batch}
        ours = [(letter, entry) for letter, entry in zip(batch, entries, strict=False) if handles[letter.message_id]]
        if not ours:
            return
        answer = send_batch(self._client, target.url, [entry.fields for _, entry in ours])
        self.tally.failed += [f"{ours[position][0].id}: {why}" for position, why in answer.failed.items()]
        sent = [ours[position] for position in sorted(answer.done)]
        self.tally.redriven[target.name] += len(sent)
        self.tally.uncounted += sum(entry.redrives is None for _, entry in sent)
        self._sent |= {_fingerprint(letter, entry.redrives or 0) for letter, entry in sent}
        self._delete([letter for letter, _ in sent], handles)

    def _delete(self, letters: list[Letter], handles: dict[str, str | None]) -> None:
        if not letters:
            return
        ids = [letter.message_id for letter in letters]
        try:
            answer = delete_batch(self._client, self._reader.url, [handles[message_id] or "" for message_id in ids])
        except Exception:
            self.tally.sent_not_deleted += ids
            raise
        for position in answer.done:
            self._reader.gone(ids[position])
        self.tally.sent_not_deleted += [ids[position] for position in answer.failed]


def _fingerprint(letter: Letter, redrives: int) -> bytes:
    digest = hashlib.sha256(letter.raw["Body"].encode("utf-8", "surrogatepass"))
    digest.update(f"|{redrives}".encode())
    return digest.digest()[:16]
