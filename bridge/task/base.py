"""The Task base class: Celery's, with retries that stay in place.

``Task.retry`` here publishes nothing: it raises, and the worker's parent process turns that into a visibility change
of the very same SQS message. So ``autoretry_for``, ``retry_backoff`` and ``self.retry(countdown=…)`` keep their
meaning, the receive count goes on counting, and the last failure can be dead-lettered
(stock Celery sends a new message, deletes the old one and acknowledges the last failure: the work is lost).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any, ClassVar, Literal, NoReturn

from celery import Task
from celery.exceptions import (
    Ignore,
    MaxRetriesExceededError,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    WorkerShutdown,
    WorkerTerminate,
)

from bridge.errors import TaskExited
from bridge.idempotency.identity import ClaimRequest
from bridge.messages.retry_policy import backoff
from bridge.messages.routing import Route

#: What "left alone" means where no worker has read its settings: a plain call, a test, an eager run.
DEFAULT_MAX_RETRIES = 5
DEFAULT_BACKOFF_SECONDS = 2
DEFAULT_BACKOFF_MAX_SECONDS = 600

#: What a run under a claim notes on the exception that ends it, for the parent process: how many runs of the message
#: had failed before, and that its claim is released (else the parent releases it).
RUN_NOTES = ("bridge_retries", "bridge_released")


class _NotedRetry(Retry):
    """A Retry that takes its notes along to the parent process."""

    def __reduce__(self) -> Any:
        # Celery's own leaves out what was noted on the exception, and the parent process reads it
        # (bridge/task/idempotent_run.py).
        noted = {name: value for name, value in vars(self).items() if name in RUN_NOTES}
        return (type(self), (self.message, self.exc, self.when), noted)


class RetryInPlace(_NotedRetry):
    """The task is to run again from the same SQS message, after ``when`` (seconds or a datetime)."""


class Republished(_NotedRetry):
    """Celery itself sent the retry as a new message, so the one at hand is done with."""


class NothingToDo(Ignore):
    """The task found that there is nothing (left) to do; ``reason`` is the public word for why."""

    def __init__(self, reason: str = "", text: str = "") -> None:
        """``reason`` becomes the reason of the outcome ``ignored``."""
        super().__init__(reason, text)
        self.reason = reason


class MustWait(Ignore):
    """The run could not begin; the same message comes again in ``seconds``, and that does not count as an attempt."""

    def __init__(self, reason: str = "", seconds: float = 0.0, text: str = "") -> None:
        """``reason`` is the public word for what it waits for."""
        super().__init__(reason, seconds, text)
        self.reason = reason
        self.seconds = seconds
        self.text = text


class BridgeTask(Task):
    """Base class of every task of the app, Celery's built-in ones included."""

    abstract = True
    Request = "bridge.worker.request:Request"
    #: A soft time limit is retried like a hard one, unless the task says otherwise (``dont_autoretry_for``).
    autoretry_for: ClassVar[tuple[type[BaseException], ...]] = (SoftTimeLimitExceeded,)
    dont_autoretry_for: ClassVar[tuple[type[BaseException], ...]] = ()
    #: What the task takes from a queue of events; None for tasks that only Celery messages name.
    route: ClassVar[Route | None] = None
    #: The name of the function's parameter for the object or message, which Celery's own messages may use.
    takes: ClassVar[str] = ""
    #: Length of the lease of its messages in seconds; None: BRIDGE_VISIBILITY_TIMEOUT_SECONDS.
    visibility_timeout: int | None = None
    #: The default backoff, for tasks that do not say; a worker puts its settings here.
    backoff_seconds = DEFAULT_BACKOFF_SECONDS
    backoff_max_seconds = DEFAULT_BACKOFF_MAX_SECONDS
    retry_jitter: bool = True
    #: Which of max_retries, retry_backoff and retry_backoff_max the decorator does not set.
    unset_options: frozenset[str] = frozenset()
    #: Whether runs claim their event in the idempotency store; None: a file task does when there is a store.
    idempotent: bool | None = None
    #: Whether an event older than one completed for its object is ignored.
    latest_only: bool = False
    #: What becomes of a message while the store cannot be asked: it waits in place, or runs without a claim.
    when_store_fails: Literal["wait", "run"] = "wait"

    def claim_requests(self, argument: Any) -> list[ClaimRequest]:
        """Return what a run with this first argument claims, in its order; nothing for Celery's own kind of task."""
        return []

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        default_backoff: bool = False,
        **options: Any,
    ) -> Any:
        """Raise Retry, as Celery's documentation says; the same message comes back after the delay.

        https://docs.celeryq.dev/en/stable/userguide/tasks.html#retrying. Other arguments, ``throw=False`` and options
        of the publishing need a new message: on the task queue Celery sends one, on a queue of events a ValueError
        says so. ``default_backoff`` is how the decorator asks for the worker's default delay.
        """
        request = self.request
        if default_backoff:
            jitter = _random() if self.retry_jitter else 1.0
            countdown = backoff(request.retries, self.backoff_seconds, self.backoff_max_seconds, jitter)
        if request.called_directly or request.is_eager:
            return super().retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)
        new_message = args is not None or kwargs is not None or not throw or bool(options)
        if self.name.startswith("celery.") or new_message:
            return self._republish(args, kwargs, exc, throw, eta, countdown, max_retries, options)
        limit = self.max_retries if max_retries is None else max_retries
        retries = request.retries
        if (
            request.get("bridge_retries") is None
            and None not in (max_retries, self.max_retries)
            and limit > self.max_retries
        ):
            # request.retries stops at the task's own limit; a higher one in the call counts the receives themselves.
            retries = max(retries, (request.get("bridge") or {}).get("receives", 1) - 1)
        # A limit given in the task's own call to retry() also binds the autoretry around it, in this run only.
        if request.get("retries_exhausted") or (limit is not None and retries >= limit):
            request.retries_exhausted = True
            _give_up(exc, self, request)
        if eta is None and countdown is None:
            countdown = self.default_retry_delay
        if not isinstance(eta, datetime | None) or not isinstance(countdown, int | float | None):
            raise TypeError(f"retry() takes seconds as countdown and a datetime as eta, not {countdown!r} and {eta!r}")
        retry = RetryInPlace(exc=exc, when=eta or countdown)
        for name in RUN_NOTES:  # of a claim that was released before Celery's autoretry came here
            if (noted := request.get(name)) is not None:
                setattr(retry, name, noted)
        raise retry

    def _republish(
        self,
        args: Any,
        kwargs: Any,
        exc: BaseException | None,
        throw: bool,
        eta: datetime | None,
        countdown: float | None,
        max_retries: int | None,
        options: dict[str, Any],
    ) -> Any:
        if (self.request.get("bridge") or {}).get("kind") == "event":
            raise ValueError(
                "retry() with args, kwargs, throw=False or publishing options would send a new message; a message on a "
                "queue of S3 events is retried as it is"
            )
        try:
            retry = super().retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)
        except Retry as sent:
            raise Republished(sent.message, sent.exc, sent.when) from exc
        except Reject as unsent:
            # Celery could not publish it and would have the message rejected: here it can wait where it is.
            raise RetryInPlace(exc=exc or unsent, when=eta or countdown or self.default_retry_delay) from unsent
        self.request.bridge_retry_sent = True  # read by bridge/task/idempotent_run.py
        return retry


def normalize_exit(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``run`` with every end turned into one that a worker can take.

    ``sys.exit()`` and its kin become TaskExited, an ordinary error: left alone they end a pool child, end a solo
    worker, and leave a thread's message unanswered (celery.concurrency.base.apply_target hands its end to a callback
    that cannot read it). The reason of a Reject or Ignore becomes a text: an exception that does not unpickle would
    end the whole worker, whose parent reads it (celery.concurrency.asynpool).
    """

    @wraps(run)
    def normalized(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except (WorkerShutdown, WorkerTerminate):
            raise  # Celery's own, from a signal that met a solo worker in its task
        except NothingToDo:
            raise
        except Reject as error:
            raise Reject(_text(error.reason), requeue=error.requeue) from error
        except Ignore as error:
            raise Ignore(*map(_text, error.args)) from error
        except Exception:
            raise
        except SystemExit as error:
            raise TaskExited(f"the task called sys.exit({error.code!r})") from error
        except BaseException as error:
            raise TaskExited(f"the task ended itself with {type(error).__name__}: {_text(error)}") from error

    return normalized


def _text(value: Any) -> str | None:
    try:
        return None if value is None else str(value)
    except Exception:  # noqa: BLE001 - whatever a user's __str__ does
        return type(value).__name__


def normalize_exits_of(task: Any) -> None:
    """Do the same for a task that Celery's own decorator made."""
    name = "_orig_run" if hasattr(task, "_orig_run") else "run"  # the latter is autoretry's wrapper around the former
    setattr(task, name, normalize_exit(getattr(task, name)))


def wanted_seconds(retry: Retry, now: datetime) -> float:
    """Return the delay that a Retry asks for, in seconds; 0 for a moment that has passed."""
    when = retry.when
    if isinstance(when, datetime):
        return max(0.0, ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds())
    return max(0.0, float(when)) if isinstance(when, int | float) else 0.0


def _give_up(exc: BaseException | None, task: BridgeTask, request: Any) -> NoReturn:
    if isinstance(exc, type):
        exc = exc()  # "raise self.retry(exc=ValueError)"; the mark below must not stay on the class
    error: Any = exc or MaxRetriesExceededError(
        f"Can't retry {task.name}[{request.id}]: {request.retries} retries are used up",
        task_args=request.args,
        task_kwargs=request.kwargs,
    )
    try:
        error.retries_exhausted = True  # travels to the parent in the pickled __dict__
    except AttributeError:
        pass  # an exception with __slots__: the parent then compares its class with autoretry_for
    raise error


def _random() -> float:
    import random

    return random.random()  # noqa: S311 - spreads retries, is no secret
