"""SendMessageBatch and DeleteMessageBatch, with every entry of the answer read: only what SQS confirms is done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

#: Pauses before entries that failed through no fault of ours are tried again, in seconds.
PAUSES_SECONDS = (0.2, 1.0, 3.0)


@dataclass
class Answer:
    """Positions that SQS confirmed, with what it said of each, and those it did not, with the reason."""

    done: dict[int, dict[str, Any]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)


def send_batch(client: Any, url: str, entries: Sequence[dict[str, Any]]) -> Answer:
    """Send at most ten messages; ``done`` has SQS's entry (MessageId) of each. Raises the SDK's errors."""
    return _batch(client.send_message_batch, url, entries)


def delete_batch(client: Any, url: str, handles: Sequence[str]) -> Answer:
    """Delete at most ten messages. Raises the SDK's errors."""
    return _batch(client.delete_message_batch, url, [{"ReceiptHandle": handle} for handle in handles])


def _batch(call: Any, url: str, entries: Sequence[dict[str, Any]]) -> Answer:
    answer = Answer()
    left = list(range(len(entries)))
    for pause_seconds in (*PAUSES_SECONDS, None):
        try:
            given = call(QueueUrl=url, Entries=[{**entries[position], "Id": str(position)} for position in left])
        except Exception:
            if not answer.done:
                raise
            break  # the caller must hear what was done before, and the rest keeps its reason
        for entry in given.get("Successful") or ():
            answer.done[int(entry["Id"])] = entry
        again = []
        told = {int(entry["Id"]): entry for entry in given.get("Failed") or ()}
        for position in left:
            if position in answer.done:
                continue
            entry = told.get(position, {})
            answer.failed[position] = f"{entry.get('Code', 'no answer')}: {entry.get('Message') or ''}".rstrip(": ")
            if not entry.get("SenderFault"):
                again.append(position)
        left = again
        if not left or pause_seconds is None:
            break
        time.sleep(pause_seconds)
    answer.failed = {position: why for position, why in answer.failed.items() if position not in answer.done}
    return answer
