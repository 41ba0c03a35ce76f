"""Where the demo's files really ended: asked of S3 and SQS themselves, the worker's word is not enough."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from bridge.local.demo_state import GARBAGE_LABEL, DemoState
from bridge.local.sample_files import GARBAGE, Ending, SampleFile
from bridge.local.stack import LocalStack
from bridge.messages.dead_letter import CAUSE_ATTRIBUTE

#: Long enough to read the DLQ once through, short enough for it to be readable again when the table is shown.
_LOOK_SECONDS = 3


@dataclass(frozen=True)
class Finding:
    """One line of the final table."""

    label: str
    expected: str
    seen: str
    good: bool


def findings(stack: LocalStack, files: Sequence[SampleFile], state: DemoState) -> list[Finding]:
    """Return what became of each file and of the garbage, and whether the queue is empty."""
    manifests, letters = _manifests(stack), _dead_letters(stack)
    found = [_finding(file, state, manifests, letters) for file in files]
    reason = next((cause.get("reason", "") for body, cause in letters if body == GARBAGE), None)
    seen = "not in the DLQ" if reason is None else f"DLQ: {reason}"
    found.append(Finding(GARBAGE_LABEL, "DLQ: malformed", seen, seen == "DLQ: malformed"))
    sqs: Any = stack.sqs()
    attributes = sqs.get_queue_attributes(QueueUrl=stack.queue_url, AttributeNames=["All"])["Attributes"]
    left = [int(attributes[f"ApproximateNumberOfMessages{part}"]) for part in ("", "NotVisible", "Delayed")]
    found.append(Finding("(the queue)", "empty", "empty" if not any(left) else f"{sum(left)} left", not any(left)))
    return found


def _finding(
    file: SampleFile, state: DemoState, manifests: dict[str, Any], letters: list[tuple[str, dict[str, Any]]]
) -> Finding:
    letter = next((cause for body, cause in letters if _key_of(body) == file.key), None)
    runs = state.rows[file.key].runs
    numbers, ids = [n for _, n in runs], {task_id for task_id, _ in runs}
    match file.ending:
        case Ending.DESCRIBED:
            manifest = manifests.get(file.key)
            good = letter is None and manifest is not None and manifest["sha256"] == file.sha256()
            seen = "no manifest" if manifest is None else f"sha256 {manifest['sha256'][:12]}…, {manifest['size']} bytes"
        case Ending.RECOVERED:
            good = letter is None and numbers == [1, 2, 3] and len(ids) == 1
            seen = f"{len(runs)} runs under {len(ids)} task id, {'in the DLQ' if letter else 'then deleted'}"
        case Ending.DEAD_LETTERED:
            good = letter is not None and (letter["reason"], letter["attempts"]) == ("exhausted", 3) and len(runs) == 3
            seen = f"DLQ: {letter['reason']} after {letter['attempts']} runs" if letter else "not in the DLQ"
    return Finding(file.key, file.ending.value, seen, good)


def _manifests(stack: LocalStack) -> dict[str, Any]:
    s3 = stack.s3()
    listed = s3.list_objects_v2(Bucket=stack.results_bucket).get("Contents", [])
    bodies = [s3.get_object(Bucket=stack.results_bucket, Key=o["Key"])["Body"].read() for o in listed]
    return {manifest["object"]["key"]: manifest for manifest in map(json.loads, bodies)}


def _dead_letters(stack: LocalStack) -> list[tuple[str, dict[str, Any]]]:
    """Return (body, cause) of what lies in the DLQ; it stays there."""
    sqs: Any = stack.sqs()
    letters = []
    while messages := sqs.receive_message(
        QueueUrl=stack.dlq_url,
        MaxNumberOfMessages=10,
        MessageAttributeNames=["All"],
        VisibilityTimeout=_LOOK_SECONDS,
    ).get("Messages"):
        for message in messages:
            cause = message.get("MessageAttributes", {}).get(CAUSE_ATTRIBUTE, {}).get("StringValue", "{}")
            letters.append((message["Body"], json.loads(cause)))
    return letters


def _key_of(body: str) -> str | None:
    try:
        return unquote_plus(json.loads(body)["Records"][0]["s3"]["object"]["key"])
    except (ValueError, LookupError, TypeError):
        return None
