"""Makes moto's SQS take one call at a time, and conditional writes decide as AWS's do; moto by itself does neither.

Each request runs in a thread of its own, and between "is it visible" and "it is received now" nothing keeps a second
receive from taking the same message; a delete puts a new list in place of the one to which a send is just appending.
And between "does the condition hold" and "it is written" nothing keeps a second conditional write from finding it true.
Seen with four receivers and two senders (moto 5.2.5): messages received twice. A demo or a test of "exactly once" would
fail now and then, and the bridge would be blamed.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

from moto.dynamodb.models import DynamoDBBackend
from moto.s3.responses import S3Response
from moto.sqs.models import Queue, SQSBackend

_done = False
_write = threading.RLock()


def serialize_requests() -> None:
    """Let SQS calls change moto's queues one at a time, in this process, from now on.

    All queues get one condition instead of one each. A long poll waits on it, and so gives up its turn altogether.
    """
    global _done  # noqa: PLW0603 - moto's classes are global, and wrapping them twice would lock a thread out
    if _done:
        return
    _done = True
    turn = threading.Condition(threading.RLock())

    def one_at_a_time(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def in_turn(*args: Any, **kwargs: Any) -> Any:
            with turn:
                return function(*args, **kwargs)

        return in_turn

    created = Queue.__init__

    def with_the_shared_condition(queue: Queue, *args: Any, **kwargs: Any) -> None:
        created(queue, *args, **kwargs)
        queue._messages_lock = turn

    Queue.__init__ = with_the_shared_condition  # type: ignore[assignment, method-assign]  # patching is the point
    for name, function in inspect.getmembers(SQSBackend, inspect.isfunction):
        if not name.startswith("_"):
            setattr(SQSBackend, name, one_at_a_time(function))
    for owner, name in ((S3Response, "put_object"), (S3Response, "_key_response_post"), (DynamoDBBackend, "put_item")):
        setattr(owner, name, _undivided(getattr(owner, name)))


def _undivided(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let no two calls check their conditions at the same time; a lock of its own, since a put may send to SQS."""

    @functools.wraps(function)
    def alone(*args: Any, **kwargs: Any) -> Any:
        with _write:
            return function(*args, **kwargs)

    return alone
