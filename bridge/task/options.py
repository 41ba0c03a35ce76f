"""What the decorators make of their options: checked, and turned into Celery's own.

What a decorator does not set (retries, backoff) is named in ``unset_options``, for the worker to fill in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from celery.exceptions import Reject, SoftTimeLimitExceeded

from bridge.errors import ObjectChanged, ObjectGone, ObjectTooLarge
from bridge.sqs.quotas import MAX_VISIBILITY_SECONDS
from bridge.task.base import DEFAULT_BACKOFF_MAX_SECONDS, DEFAULT_MAX_RETRIES, BridgeTask

#: The first three say that there is nothing to work on, and trying again cannot change that; Celery's autoretry would
#: take Reject for an error like any other.
_NEVER_RETRIED = (ObjectGone, ObjectChanged, ObjectTooLarge, Reject)


def check(options: Mapping[str, Any], visibility_timeout: int | None) -> None:
    """Raise ValueError for options that would lose a message."""
    if not options.get("acks_late", True):
        raise ValueError("acks_late=False would delete a message before its task has run: a crash would lose it")
    if visibility_timeout is not None and not 6 <= visibility_timeout <= MAX_VISIBILITY_SECONDS:
        raise ValueError(
            f"visibility_timeout={visibility_timeout}: must be between 6 and {MAX_VISIBILITY_SECONDS} seconds"
        )


def check_idempotency(
    idempotent: bool | None, key: Callable[[Any], str] | None, latest_only: bool, when_store_fails: str
) -> None:
    """Raise ValueError for options of idempotency that contradict each other, or say nothing."""
    if idempotent is False and (key is not None or latest_only):
        option = "latest_only=True" if latest_only else "idempotency_key"
        raise ValueError(f"{option} and idempotent=False contradict each other")
    if latest_only and key is not None:
        raise ValueError("latest_only=True orders the events of an object: it takes no idempotency_key")
    if key is not None and not callable(key):
        raise ValueError(f"idempotency_key is a function of the object, not {key!r}")
    if when_store_fails not in ("wait", "run"):
        raise ValueError(f"when_store_fails={when_store_fails!r}: must be 'wait' or 'run'")


def for_celery(given: dict[str, Any], visibility_timeout: int | None) -> dict[str, Any]:
    """Return the options for ``app.task``: those that were given, and what follows from those that were not."""
    base = given.get("base", BridgeTask)

    def said(name: str) -> bool:
        return name in given or getattr(base, name, None) is not getattr(BridgeTask, name, None)

    def value(name: str) -> tuple[type[BaseException], ...]:
        return tuple(given.get(name, getattr(base, name, ())))

    retry_kwargs = dict(given.get("retry_kwargs", getattr(base, "retry_kwargs", {})))
    # Bound at once, not on first use: the route needs the task's name, and a lazy proxy would hide mistakes.
    options = {**given, "base": base, "visibility_timeout": visibility_timeout, "lazy": False}
    unset_options = {name for name in ("max_retries", "retry_backoff", "retry_backoff_max") if not said(name)}
    if said("default_retry_delay"):
        unset_options -= {"retry_backoff", "retry_backoff_max"}
    if "max_retries" in unset_options:
        if "max_retries" in retry_kwargs:
            unset_options.remove("max_retries")
        options["max_retries"] = retry_kwargs.get("max_retries", DEFAULT_MAX_RETRIES)
    if "retry_backoff" in unset_options:
        if not {"countdown", "eta"} & retry_kwargs.keys():
            retry_kwargs["default_backoff"] = True
    elif factor := given.get("retry_backoff", getattr(base, "retry_backoff", False)):
        # Celery's own reading of the option (celery.app.autoretry); reckoned by us, so that a lost child and a time
        # limit get the same delays, and the worker's setting for the longest one holds.
        options["backoff_seconds"] = int(max(1.0, float(factor)))
        retry_kwargs["default_backoff"] = True
    if "retry_backoff_max" not in unset_options:
        longest = given.get("retry_backoff_max", getattr(base, "retry_backoff_max", DEFAULT_BACKOFF_MAX_SECONDS))
        options["backoff_max_seconds"] = int(longest)
    retried = value("autoretry_for") if said("autoretry_for") else (Exception,)
    return options | {
        "unset_options": frozenset(unset_options),
        "retry_kwargs": retry_kwargs,
        "autoretry_for": (*retried, SoftTimeLimitExceeded),
        "dont_autoretry_for": (*value("dont_autoretry_for"), *_NEVER_RETRIED),
    }
