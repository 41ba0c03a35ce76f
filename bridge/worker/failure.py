"""What an exception of a run means: Celery's and billiard's exceptions → the plain words of ``retry_policy``.

All failures reach the parent process as an ExceptionInfo, often with the exception wrapped (``.exc``), and an exception
that could not be pickled as an UnpickleableExceptionWrapper that knows only its class's name.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.exceptions import (
    Ignore,
    MaxRetriesExceededError,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    Terminated,
    TimeLimitExceeded,
    WorkerLostError,
)
from celery.utils.serialization import UnpickleableExceptionWrapper

from bridge.errors import ObjectGone, ObjectTooLarge
from bridge.messages.retry_policy import Failure
from bridge.task.base import BridgeTask, MustWait, Republished, wanted_seconds


def failure_of(info: ExceptionInfo, task: BridgeTask, *, revoked: bool = False) -> Failure | None:
    """Return what the failure means; None when Celery has sent the retry as a message of its own.

    ``revoked`` says that this worker was asked to end the task (``revoke(terminate=True)``).
    """
    exc = unwrapped(info.exception)
    described: dict[str, Any] = {
        "error_type": type_name(exc),
        "error": text_of(exc),
        "traceback": str(info.traceback or "") or None,
    }
    never = isinstance(exc, tuple(getattr(task, "dont_autoretry_for", ()) or ()))
    match exc:
        case Republished():
            return None
        case Retry():
            cause = exc.exc
            return Failure(
                "retry-requested",
                wanted_seconds=wanted_seconds(exc, datetime.now(UTC)),
                error_type=type_name(cause) if cause else None,
                error=text_of(cause) if cause else str(exc),
            )
        case Reject():
            reason = "rejected" if exc.reason is None else text_of(exc.reason)
            return Failure("requeue" if exc.requeue else "reject", **{**described, "error": reason})
        case MustWait():
            return Failure("wait", wanted_seconds=exc.seconds, reason=exc.reason, error=exc.text or None)
        case Ignore():
            return Failure("ignore", reason=getattr(exc, "reason", None) or None)
        case ObjectGone():
            return Failure("object-gone", **described)
        case ObjectTooLarge():
            return Failure("too-large", **described)
        case SoftTimeLimitExceeded() | TimeLimitExceeded():
            gave_up = bool(getattr(exc, "retries_exhausted", False))
            return Failure("time-limit", retryable=not never, gave_up=gave_up, **described)
        case Terminated() if revoked:
            return Failure("revoked")
        case WorkerLostError() | Terminated() | SystemExit() | KeyboardInterrupt():
            return Failure("worker-lost", retryable=not never, **described)
    if getattr(info, "internal", False):
        return Failure("internal-error", **described)
    return Failure("error", retryable=_ran_out(exc, task), **described)


def unwrapped(exc: Any) -> BaseException:
    """Return the exception itself."""
    inner = exc.exc if isinstance(exc, ExceptionWithTraceback) else exc
    return inner if isinstance(inner, BaseException) else RuntimeError(str(inner))


def type_name(exc: BaseException) -> str:
    """Return the class name, of the original where it could not be pickled."""
    return str(exc.exc_cls_name) if isinstance(exc, UnpickleableExceptionWrapper) else type(exc).__name__


def text_of(exc: object) -> str:
    """Return the error's text; an exception whose own ``__str__`` raises must not cost its message."""
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 - whatever a user's __str__ does
        return f"<{type(exc).__name__} without a text>"


def _ran_out(exc: BaseException, task: BridgeTask) -> bool:
    """Say whether the task would have retried on this error, so that it must have used up its retries."""
    if getattr(exc, "retries_exhausted", False) or isinstance(exc, MaxRetriesExceededError):
        return True
    wanted = tuple(getattr(task, "autoretry_for", ()) or ())
    unwanted = tuple(getattr(task, "dont_autoretry_for", ()) or ())
    if isinstance(exc, UnpickleableExceptionWrapper):
        if any(c.__name__ == exc.exc_cls_name and c.__module__ == exc.exc_module for c in unwanted):
            return False
        return Exception in wanted or any(
            c.__name__ == exc.exc_cls_name and c.__module__ == exc.exc_module for c in wanted
        )
    return isinstance(exc, wanted) and not isinstance(exc, unwanted)
