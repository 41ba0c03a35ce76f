"""The one place that counts a worker's calls to SQS. It also keeps the last call of each queue.

Calls of a boto3 client arrive through botocore's events, including the calls at the worker's start
(https://docs.aws.amazon.com/boto3/latest/guide/events.html). ``bridge.sqs.fast_client`` reports its own calls with
``ended``. Of a call only its time, its action and its error code are kept.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge import metrics
from bridge.aws_errors import error_code

OK = "ok"
_QUEUE = "bridge_queue_url"


@dataclass(frozen=True, slots=True)
class LastCall:
    """The call of a queue that ended last: ``result`` is ``ok`` or the error code; the time is in epoch seconds."""

    action: str
    result: str
    ended_at_seconds: float


# Queue URL → its last call. A worker uses one SQS endpoint, so the URL is unique. Dict assignments need no lock.
_last: dict[str, LastCall] = {}


def watch(client: Any) -> None:
    """Count all further calls of this boto3 SQS client."""
    client.meta.events.register("provide-client-params.sqs", _on_begin)
    client.meta.events.register("after-call.sqs", _on_answer)
    client.meta.events.register("after-call-error.sqs", _on_error)


def last_call(queue_url: str) -> LastCall | None:
    """Return the call of this queue that ended last, or None before the first one has ended."""
    return _last.get(queue_url)


def ended(action: str, queue_url: str | None, result: str) -> None:
    """Count a call that has ended; ``result`` is ``ok`` or the error code."""
    metrics.requests_of(action, result).inc()
    if queue_url is not None:
        _last[queue_url] = LastCall(action, result, time.time())


def _on_begin(params: Mapping[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
    # The later events carry the call's context but not its parameters; the event for an error lacks even the action.
    context[_QUEUE] = (model.name, params.get("QueueUrl"))


def _on_answer(http_response: Any, parsed: Mapping[str, Any], context: Mapping[str, Any], **_: Any) -> None:
    failed = http_response.status_code >= 300
    action, queue_url = context[_QUEUE]
    ended(action, queue_url, str(parsed.get("Error", {}).get("Code") or http_response.status_code) if failed else OK)


def _on_error(exception: Exception, context: Mapping[str, Any], **_: Any) -> None:
    action, queue_url = context[_QUEUE]
    ended(action, queue_url, error_code(exception))
