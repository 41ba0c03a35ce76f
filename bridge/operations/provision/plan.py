"""What ``brigade provision`` is going to do: what is there, what is wanted → steps, or reasons to refuse. Pure.

The rule about things of others: what carries our tag we may change; what does not, only with ``force``. A bucket's
notification entry is ours by its id, and all others stay as they are.

A queue that does not exist yet has no ARN, so steps hold ``<arn of NAME>``, ``<account>`` and ``<partition>`` in its
place until they are carried out; no such text can be in a queue's name, nor in an encoded filter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bridge.s3.notification import NotificationEntry, entries, merged
from bridge.s3.outputs import Output
from bridge.sqs.queue_policy import redrive_policy, right_of_s3, send_statement, with_statement

TAG = ("bucket-brigade", "provisioned")
#: The longest that SQS keeps a message: somebody may be on holiday.
DLQ_RETENTION_SECONDS = 1_209_600


@dataclass(frozen=True, slots=True)
class ExistingQueue:
    """A queue that exists: attributes as GetQueueAttributes gives them, and its tags."""

    name: str
    attributes: Mapping[str, str]
    tags: Mapping[str, str]

    @property
    def ours(self) -> bool:
        """Say whether we created it."""
        return self.tags.get(TAG[0]) == TAG[1]

    @property
    def arn(self) -> str:
        """The queue's ARN."""
        return self.attributes["QueueArn"]


@dataclass(frozen=True, slots=True)
class Found:
    """What is there; ``notification`` is the bucket's whole configuration, None when no bucket is wanted."""

    queue: ExistingQueue | None = None
    dlq: ExistingQueue | None = None
    notification: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What there shall be; ``events`` have S3's form with ``s3:`` in front."""

    queue: str
    dlq: str
    bucket: str | None = None
    events: tuple[str, ...] = ("s3:ObjectCreated:*",)
    prefix: str = ""
    suffix: str = ""
    max_receive_count: int = 20
    outputs: tuple[Output, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """``do`` is create-queue, set-attributes or put-notification; ``name`` the queue or the bucket.

    ``values`` are the attributes (texts, or JSON values for those that are JSON texts) or the configuration.
    """

    do: str
    name: str
    values: Mapping[str, Any]
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


@dataclass
class ProvisionPlan:
    """Steps in order; ``kept`` says what is as wanted already, ``refusals`` why nothing of it may be done."""

    steps: list[Step] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


def plan(found: Found, wanted: Wanted, *, force: bool = False) -> ProvisionPlan:
    """Return what leads from ``found`` to ``wanted``; carried out, the next plan has no steps."""
    made = ProvisionPlan()
    _plan_dlq(made, found, wanted, force=force)
    _plan_queue(made, found, wanted, force=force)
    if wanted.bucket is not None:
        _plan_notification(made, found, wanted, wanted.bucket)
    return made


def _plan_dlq(made: ProvisionPlan, found: Found, wanted: Wanted, *, force: bool) -> None:
    wanted_text = str(DLQ_RETENTION_SECONDS)
    if found.dlq is None:
        values = {"MessageRetentionPeriod": wanted_text, "SqsManagedSseEnabled": "true"}
        made.steps.append(Step("create-queue", wanted.dlq, values, "the dead-letter queue, which keeps for 14 days"))
    elif found.dlq.attributes.get("MessageRetentionPeriod", wanted_text) != wanted_text:
        change = {"MessageRetentionPeriod": wanted_text}
        _change(made, found.dlq, change, "dead letters are to be kept for 14 days", force=force)
    else:
        made.kept.append(f"queue {wanted.dlq}")


def _plan_queue(made: ProvisionPlan, found: Found, wanted: Wanted, *, force: bool) -> None:
    dlq_arn = found.dlq.arn if found.dlq else f"<arn of {wanted.dlq}>"
    redrive = {"deadLetterTargetArn": dlq_arn, "maxReceiveCount": wanted.max_receive_count}
    if found.queue is None:
        values: dict[str, Any] = {
            "RedrivePolicy": redrive,
            "ReceiveMessageWaitTimeSeconds": "20",
            "SqsManagedSseEnabled": "true",
        }
        made.steps.append(Step("create-queue", wanted.queue, values, f"for events, with dead letters to {wanted.dlq}"))
        if wanted.bucket is not None:
            # After the creation, for the statement names the queue by its ARN.
            policy = {"Policy": with_statement(None, _statement(found, wanted, wanted.bucket))}
            made.steps.append(Step("set-attributes", wanted.queue, policy, f"lets S3 send for {wanted.bucket}"))
        return
    changes: dict[str, Any] = {}
    reasons = []
    there = redrive_policy(found.queue.attributes)
    if there.get("deadLetterTargetArn") != dlq_arn or int(there.get("maxReceiveCount", 0)) < wanted.max_receive_count:
        changes["RedrivePolicy"] = redrive
        reasons.append(f"dead letters to {wanted.dlq} after {wanted.max_receive_count} receives")
    if wanted.bucket is not None:
        policy_text = found.queue.attributes.get("Policy")
        right = right_of_s3(policy_text, found.queue.arn, _bucket_arn(found, wanted.bucket))
        if right == "denied":
            made.refusals.append(f"the policy of queue {wanted.queue} denies S3 to send: take that statement out")
        elif right in ("unlimited", "no-account"):
            # Another statement would take nothing away from this one, which is not ours.
            made.notes.append(
                f"the policy of queue {wanted.queue} lets more in than S3 for {wanted.bucket}: brigade doctor"
            )
        elif right != "limited":
            changes["Policy"] = with_statement(policy_text, _statement(found, wanted, wanted.bucket))
            reasons.append(f"lets S3 send for {wanted.bucket}")
    if changes:
        _change(made, found.queue, changes, ", ".join(reasons), force=force)
    else:
        made.kept.append(f"queue {wanted.queue}")


def _plan_notification(made: ProvisionPlan, found: Found, wanted: Wanted, bucket: str) -> None:
    entry = NotificationEntry(
        id=f"bucket-brigade-{wanted.queue}",
        target="queue",
        arn=found.queue.arn if found.queue else f"<arn of {wanted.queue}>",
        events=wanted.events,
        prefix=wanted.prefix,
        suffix=wanted.suffix,
    )
    for output in (o for o in wanted.outputs if o.bucket == bucket):
        cover = entry.covers(output.prefix)
        if cover == "whole":
            made.refusals.append(
                f"the notification would cover {output.url} ({output.setting}): every object written there would be an "
                "event. Narrow it with --prefix, or write to another bucket"
            )
        elif cover:
            made.notes.append(f"objects *{wanted.suffix} under {output.url} ({output.setting}) will be events too")
    configuration = found.notification or {}
    there = entries(configuration)
    if any(other.includes(entry) for other in there):
        made.kept.append(f"notification of {bucket}")
        return
    for other in (o for o in there if o.id != entry.id and o.overlaps(entry)):
        made.refusals.append(
            f"bucket {bucket} notifies {other.arn} of some of the same objects ({other.id or 'no id'}), and S3 takes "
            "no two such entries: narrow one with --prefix or --suffix, or let SNS or EventBridge send to both"
        )
    why = f"{' '.join(wanted.events)} of s3://{bucket}/{wanted.prefix}*{wanted.suffix} to {wanted.queue}"
    made.steps.append(Step("put-notification", bucket, merged(configuration, entry), why))


def _change(made: ProvisionPlan, queue: ExistingQueue, changes: Mapping[str, Any], why: str, *, force: bool) -> None:
    if queue.ours or force:
        made.steps.append(Step("set-attributes", queue.name, changes, why))
        return
    text = (
        f"queue {queue.name} was not made by brigade provision, and would have to change ({', '.join(changes)}: {why})"
    )
    made.refusals.append(f"{text}: change it yourself, or say --force")


def _statement(found: Found, wanted: Wanted, bucket: str) -> dict[str, Any]:
    arn = found.queue.arn if found.queue else f"<arn of {wanted.queue}>"
    account = found.queue.arn.split(":")[4] if found.queue else "<account>"
    # A Sid may hold letters, digits, - and _ (80 at most), and a bucket's name dots.
    sid = f"bucket-brigade-{bucket.replace('.', '_')}"[:80]
    return send_statement(arn, _bucket_arn(found, bucket), account, sid)


def _bucket_arn(found: Found, bucket: str) -> str:
    partition = found.queue.arn.split(":")[1] if found.queue else "<partition>"
    return f"arn:{partition}:s3:::{bucket}"


def resolved(values: Mapping[str, Any], arns: Mapping[str, str]) -> dict[str, str]:
    """Return a queue's attributes as texts with the ARNs of ``arns`` (name → ARN) put in."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return {name: _filled(text, arns) for name, text in texts.items()}


def resolved_configuration(configuration: Mapping[str, Any], arns: Mapping[str, str]) -> dict[str, Any]:
    """Return a notification configuration with the ARNs put in."""
    filled: dict[str, Any] = json.loads(_filled(json.dumps(configuration), arns))
    return filled


def _filled(text: str, arns: Mapping[str, str]) -> str:
    for name, arn in arns.items():
        text = text.replace(f"<arn of {name}>", arn)
        text = text.replace("<partition>", arn.split(":")[1]).replace("<account>", arn.split(":")[4])
    return text
