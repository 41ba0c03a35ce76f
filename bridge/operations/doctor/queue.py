"""The doctor's verdicts on a queue and its dead-letter queue: attributes read, findings returned. Pure.

Attributes are those of GetQueueAttributes (SQS API reference), texts as SQS gives them; a server that leaves one out
(an emulator) is not blamed for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from bridge.operations.doctor.finding import Finding
from bridge.sqs.queue_policy import redrive_policy

Attributes = Mapping[str, str]

DAY_SECONDS = 86_400
#: S3 sends events of up to 64 KiB (notification-content-structure.html); a smaller limit makes SQS refuse them.
EVENT_BYTES = 65_536


def check_dead_letter_queue(name: str, attributes: Attributes, dlq_url: str | None, dlq: Attributes | None) -> Finding:
    """A queue without one makes the worker refuse to start. ``dlq_url`` is SQS_DLQ_URL; ``dlq`` what could be read."""
    target = str(redrive_policy(attributes).get("deadLetterTargetArn") or "")
    if not target and dlq_url is None:
        text = "has no dead-letter queue, and SQS_DLQ_URL is not set: the worker refuses to start"
        return Finding("error", "dead letters", name, text, "brigade provision, or a RedrivePolicy")
    if dlq is None:
        return Finding("error", "dead letters", name, f"{dlq_url or target} cannot be read", "see the errors about it")
    if not target:
        text = f"ours go to {dlq_url} (SQS_DLQ_URL), and the queue has no RedrivePolicy of its own"
        return Finding("warning", "dead letters", name, text, "a RedrivePolicy catches what kills every worker")
    return Finding("ok", "dead letters", name, f"go to {dlq_url or target}")


def check_receive_count(name: str, attributes: Attributes, max_retries: int | None, spare_receives: int) -> Finding:
    """Set maxReceiveCount against the most retries of any task; ``max_retries`` None: a task retries without end."""
    count = redrive_policy(attributes).get("maxReceiveCount")
    if count is None:
        return Finding("ok", "receive count", name, "SQS itself moves nothing (no RedrivePolicy)")
    count = int(count)
    if max_retries is None:
        text = f"SQS moves a message after {count} receives, and a task has max_retries=None"
        return Finding(
            "warning", "receive count", name, text, "its retries end there, in a dead letter without a cause"
        )
    runs, wanted = max_retries + 1, max_retries + 1 + spare_receives
    remedy = f"a maxReceiveCount of at least {wanted + 1} (brigade provision sets 20)"
    if count < runs:
        text = f"SQS moves a message after {count} receives, before its {max_retries} retries are used up"
        return Finding("error", "receive count", name, text, remedy)
    if count <= wanted:
        text = f"{count} receives are no more than {runs} runs and {spare_receives} spare (BRIDGE_SPARE_RECEIVES)"
        return Finding("warning", "receive count", name, f"{text}: a dead letter may lack its cause", remedy)
    return Finding("ok", "receive count", name, f"{count}, and {wanted} are needed at most")


def check_visibility(name: str, attributes: Attributes, lease_seconds: int, *, renewed: bool) -> Finding:
    """The lease is what our receives ask for; the queue's own timeout counts for everyone else only."""
    own = attributes.get("VisibilityTimeout", "?")
    how = "renewed while a task runs" if renewed else "never renewed (BRIDGE_HEARTBEAT=off)"
    return Finding("ok", "visibility", name, f"{lease_seconds} s, {how}; the queue's own {own} s is not used")


def check_retention(name: str, attributes: Attributes) -> Finding:
    """A message that is not processed when the retention ends is gone, without a dead letter."""
    retention = int(attributes.get("MessageRetentionPeriod") or 0)
    if 0 < retention < DAY_SECONDS:
        text = f"messages are deleted after {_days(retention)}, processed or not"
        return Finding("warning", "retention", name, text, "MessageRetentionPeriod of some days outlasts a weekend")
    return Finding("ok", "retention", name, _days(retention) if retention else "the server does not say")


def check_dlq_retention(name: str, attributes: Attributes, dlq: Attributes) -> Finding:
    """SQS counts a dead letter's age from the first send, so a DLQ that keeps no longer may lose it on arrival.

    docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html
    """
    own, theirs = (int(a.get("MessageRetentionPeriod") or 0) for a in (attributes, dlq))
    if own and theirs and theirs <= own:
        text = f"the dead-letter queue keeps for {_days(theirs)}, the queue itself for {_days(own)}"
        return Finding("error", "DLQ retention", name, text, "MessageRetentionPeriod 1209600 (14 days) on the DLQ")
    return Finding("ok", "DLQ retention", name, _days(theirs) if theirs else "the server does not say")


def check_dlq_allows(name: str, queue_arn: str, dlq: Attributes) -> Finding:
    """The DLQ's RedriveAllowPolicy may keep SQS from moving anything there."""
    try:
        policy = json.loads(dlq.get("RedriveAllowPolicy") or "{}")
    except ValueError:
        policy = {}
    kind = policy.get("redrivePermission", "allowAll") if isinstance(policy, dict) else "allowAll"
    if kind == "denyAll" or (kind == "byQueue" and queue_arn not in policy.get("sourceQueueArns", ())):
        text = f"the dead-letter queue does not take messages of this queue ({kind})"
        return Finding("error", "DLQ redrive", name, text, "name the queue in the DLQ's RedriveAllowPolicy")
    return Finding("ok", "DLQ redrive", name, "allowed")


def check_dlq_depth(name: str, dlq: Attributes) -> Finding:
    """Dead letters that wait for an operator."""
    count = int(dlq.get("ApproximateNumberOfMessages") or 0)
    if count:
        return Finding("warning", "DLQ depth", name, f"{count} dead letters wait", "brigade dlq list")
    return Finding("ok", "DLQ depth", name, "empty")


def check_encryption(name: str, attributes: Attributes, *, from_s3: bool) -> Finding:
    """S3 cannot use SQS's AWS managed key, whose policy cannot be changed (S3 user guide, "Granting permissions").

    ``from_s3``: S3 sends to this queue.
    """
    key = attributes.get("KmsMasterKeyId") or ""
    if key.endswith("alias/aws/sqs") and from_s3:
        text = "encrypted with the AWS managed key, with which S3 cannot send"
        return Finding("error", "encryption", name, text, "SqsManagedSseEnabled=true, or a customer managed key")
    if key:
        text = f"KMS key {key}"
        if from_s3:
            text += ": its policy must allow s3.amazonaws.com kms:GenerateDataKey and kms:Decrypt"
        return Finding("ok", "encryption", name, text)
    if attributes.get("SqsManagedSseEnabled") == "false":
        return Finding("warning", "encryption", name, "messages lie unencrypted", "SqsManagedSseEnabled=true")
    return Finding("ok", "encryption", name, "by SQS" if "SqsManagedSseEnabled" in attributes else "not said")


def check_message_size(name: str, attributes: Attributes) -> Finding:
    """S3's events must fit."""
    if "MaximumMessageSize" not in attributes:
        return Finding("ok", "message size", name, "the server does not say")
    limit = int(attributes["MaximumMessageSize"])
    if limit < EVENT_BYTES:
        text = f"messages of at most {limit} bytes: S3's events may have {EVENT_BYTES}, and are then refused"
        return Finding("error", "message size", name, text, "MaximumMessageSize of 65536 or more")
    return Finding("ok", "message size", name, f"{limit} bytes")


def _days(seconds: int) -> str:
    return f"{seconds / DAY_SECONDS:g} days" if seconds >= DAY_SECONDS else f"{seconds / 3600:g} h"
