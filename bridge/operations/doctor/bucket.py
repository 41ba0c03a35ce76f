"""The doctor's verdicts on a bucket: where its notifications go, and whether S3 may send them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bridge.operations.doctor.finding import Finding
from bridge.s3.notification import entries, to_eventbridge
from bridge.s3.outputs import Output
from bridge.sqs.queue_policy import right_of_s3


def check_notification(bucket: str, configuration: Mapping[str, Any], queue_arns: Sequence[str]) -> Finding:
    """Say whether the bucket sends its events to one of the queues."""
    found = entries(configuration)
    ours = [entry for entry in found if entry.arn in queue_arns]
    if ours:
        sources = "; ".join(
            f"{' '.join(e.events)} of {e.prefix or ''}*{e.suffix or ''} → {e.arn.rsplit(':', 1)[-1]}" for e in ours
        )
        return Finding("ok", "notification", bucket, sources)
    others = sorted({entry.target for entry in found} - {"queue"})
    if to_eventbridge(configuration):
        others.append("EventBridge")
    if others:
        text = f"goes to {', '.join(others)} and not straight to our queue; what comes behind that was not looked at"
        return Finding("warning", "notification", bucket, text, "see that it is forwarded to the queue")
    text = "no notification sends events of its objects to the queue"
    return Finding("error", "notification", bucket, text, f"brigade provision --bucket {bucket} --queue …")


def check_outputs(
    bucket: str, configuration: Mapping[str, Any], queue_arns: Sequence[str], outputs: Sequence[Output]
) -> list[Finding]:
    """What we write must not come back as events: an endless loop if a task takes it, an endless bill if none does."""
    found = []
    # What a topic or EventBridge leaves out is not known here.
    ours = [entry for entry in entries(configuration) if entry.arn in queue_arns]
    for output in (o for o in outputs if o.bucket == bucket):
        covering = [(entry, cover) for entry in ours if (cover := entry.covers(output.prefix))]
        whole = next((entry for entry, cover in covering if cover == "whole"), None)
        remedy = "another bucket for the outputs, or a prefix filter on the notification"
        if whole is not None:
            text = f"the notification {whole.id or whole.arn} covers {output.url} ({output.setting})"
            found.append(Finding("error", "own output", bucket, text, remedy))
        elif covering:
            text = f"{output.url} ({output.setting}) is covered for keys *{covering[0][0].suffix}"
            found.append(Finding("warning", "own output", bucket, text, remedy))
        else:
            found.append(Finding("ok", "own output", bucket, f"{output.url} is not covered"))
    return found


def check_policy(queue: str, policy: str | None, queue_arn: str, bucket: str) -> Finding:
    """Say whether the queue's policy lets S3 send for this bucket, and for no other account."""
    partition = queue_arn.split(":")[1] if queue_arn.count(":") >= 2 else "aws"
    right = right_of_s3(policy, queue_arn, f"arn:{partition}:s3:::{bucket}")
    remedy = f"brigade provision --bucket {bucket} --queue {queue}"
    subject = f"{bucket} → {queue}"
    match right:
        case "none":
            return Finding("error", "queue policy", subject, "does not let S3 send for this bucket", remedy)
        case "denied":
            return Finding("error", "queue policy", subject, "denies it to S3", "take the Deny statement out")
        case "unlimited":
            text = "lets S3 send for any bucket of any account: anybody can fill the queue"
            return Finding("warning", "queue policy", subject, text, "conditions aws:SourceArn and aws:SourceAccount")
        case "no-account":
            text = "names the bucket but not its account: the next owner of that bucket name could send"
            return Finding("warning", "queue policy", subject, text, "a condition aws:SourceAccount")
        case "unclear":
            text = "has a condition that is not understood here; put a file and see"
            return Finding("warning", "queue policy", subject, text)
    return Finding("ok", "queue policy", subject, "S3 may send, for this account's bucket only")
