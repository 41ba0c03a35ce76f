"""A queue's policies: what the access policy allows S3, the statement that allows it, and the RedrivePolicy. Pure.

Sources: docs.aws.amazon.com/AmazonS3/latest/userguide/grant-destinations-permissions-to-s3.html (the statement) and the
IAM user guide on policy elements. This is not a full policy simulator: it evaluates only what S3 needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from bridge.globs import matches

_S3 = "s3.amazonaws.com"
_MATCHING = {"arnlike", "arnequals", "stringlike", "stringequals", "stringequalsignorecase"}

Right = Literal["none", "denied", "unlimited", "no-account", "limited", "unclear"]
#: From worst to best. The best right wins: one good statement is enough.
_ORDER: tuple[Right, ...] = ("none", "unclear", "limited", "no-account", "unlimited")


def right_of_s3(policy: str | None, queue_arn: str, bucket_arn: str) -> Right:
    """Return what the policy allows S3 to do for a bucket.

    ``limited``: S3 may send for this bucket and account. ``no-account``: the policy names no account, so a later owner
    of a bucket with that name can send too. ``unlimited``: S3 may send for any bucket of any account. ``unclear``: the
    policy has a condition that this module does not know. ``denied``: a statement without conditions denies sending.
    ``none``: no statement allows it.
    """
    rights: list[Right] = ["none"]
    for statement in statements(policy):
        if not _concerns(statement, queue_arn):
            continue
        if statement.get("Effect") == "Deny":
            if not statement.get("Condition"):
                return "denied"
        elif statement.get("Effect") == "Allow":
            rights.append(_granted(statement.get("Condition"), bucket_arn))
    return max(rights, key=_ORDER.index)


def statements(policy: str | None) -> Iterator[Mapping[str, Any]]:
    """Yield the statements of a policy's JSON text; none if the text is not a policy."""
    try:
        document = json.loads(policy or "{}")
    except ValueError:
        return
    found = document.get("Statement", []) if isinstance(document, dict) else []
    for statement in found if isinstance(found, list) else [found]:
        if isinstance(statement, dict):
            yield statement


def send_statement(queue_arn: str, bucket_arn: str, account: str, sid: str) -> dict[str, Any]:
    """Return the statement that allows S3 to send for one bucket of one account, and for nothing else.

    Without its two conditions, any bucket of any account could fill the queue (the "confused deputy" problem).
    """
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"Service": _S3},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {
            "ArnLike": {"aws:SourceArn": bucket_arn},
            "StringEquals": {"aws:SourceAccount": account},
        },
    }


def with_statement(policy: str | None, statement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the policy with ``statement`` added, in place of a statement with the same Sid; all others stay."""
    kept = [s for s in statements(policy) if s.get("Sid") != statement["Sid"]]
    try:
        document = json.loads(policy or "{}")
    except ValueError:
        document = {}
    whole = document if isinstance(document, dict) else {}
    return {"Version": "2012-10-17", **whole, "Statement": [*kept, dict(statement)]}


def _concerns(statement: Mapping[str, Any], queue_arn: str) -> bool:
    """Return whether a statement applies to S3, to sqs:SendMessage and to this queue."""
    principal = statement.get("Principal")
    if isinstance(principal, dict):
        named = [*_texts(principal.get("Service")), *(p for p in _texts(principal.get("AWS")) if p == "*")]
    else:
        named = _texts(principal)
    if not any(p in ("*", _S3) for p in named):
        return False
    if not any(matches(action.lower(), "sqs:sendmessage") for action in _texts(statement.get("Action"))):
        return False
    return any(matches(resource, queue_arn) for resource in _texts(statement.get("Resource")))


def _granted(condition: Any, bucket_arn: str) -> Right:
    if not condition:
        return "unlimited"
    if not isinstance(condition, dict):
        return "unclear"
    has_source = has_account = False
    for operator, keys in condition.items():
        for key, value in keys.items() if isinstance(keys, dict) else ():
            name = key.lower()
            if operator.lower() not in _MATCHING or name not in ("aws:sourcearn", "aws:sourceaccount"):
                return "unclear"
            if name == "aws:sourceaccount":
                has_account = True
            elif any(matches(pattern, bucket_arn) for pattern in _texts(value)):
                has_source = True
            else:
                return "none"
    if has_source:
        return "limited" if has_account else "no-account"
    return "limited" if has_account else "unlimited"


def _texts(value: Any) -> list[str]:
    found = value if isinstance(value, list) else [value]
    return [item for item in found if isinstance(item, str)]


def redrive_policy(attributes: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the RedrivePolicy of a queue; empty when it has none or an unreadable one."""
    try:
        policy = json.loads(attributes.get("RedrivePolicy") or "{}")
    except ValueError:
        return {}
    return policy if isinstance(policy, dict) else {}
