"""What each exception of a run means, as the parent process sees it: wrapped, pickled, and sometimes unpicklable."""

from __future__ import annotations

import pickle
import traceback
from datetime import UTC, datetime, timedelta

import pytest
from billiard.einfo import ExceptionInfo
from celery.exceptions import (
    Ignore,
    MaxRetriesExceededError,
    Reject,
    SoftTimeLimitExceeded,
    Terminated,
    TimeLimitExceeded,
    WorkerLostError,
)
from celery.utils.serialization import UnpickleableExceptionWrapper, get_pickleable_exception

from bridge.celery import app
from bridge.errors import ObjectChanged, ObjectGone, ObjectTooLarge, TaskExited
from bridge.messages.retry_policy import Attempt, decide
from bridge.messages.verdicts import DeadLetter
from bridge.task import registry
from bridge.task.base import NothingToDo, Republished, RetryInPlace
from bridge.task.decorators import file_task
from bridge.worker.failure import failure_of, text_of, type_name, unwrapped


class Special(OSError):  # noqa: N818 - what it is, and no user ever sees it
    """An error of a user's own."""


class Unpicklable(Exception):  # noqa: N818 - what it is, and no user ever sees it
    """Its constructor cannot be called with its args, so no pickle of it can be read."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


class Textless(Exception):  # noqa: N818 - what it is, and no user ever sees it
    """Its text cannot be asked for."""

    def __str__(self):
        raise RuntimeError("no text")


@pytest.fixture(autouse=True)
def _forget_tasks():
    """Undeclare the tasks of a test."""
    declared, known = dict(registry._declared), set(app.tasks)
    yield
    registry._declared.clear()
    registry._declared.update(declared)
    for name in set(app.tasks) - known:
        del app.tasks[name]


@pytest.fixture
def make_task():
    """A declared task with these options."""

    def make(**options):
        @file_task("failure/*", name="test_failure.task", **options)
        def task(obj):
            return None

        return task

    return make


def info_of(exc, *, through_pickle=False):
    """The ExceptionInfo of a raised exception, as the pool of a worker makes it."""
    try:
        raise exc
    except BaseException:  # noqa: BLE001 - tasks raise SystemExit too
        info = ExceptionInfo()
    return pickle.loads(pickle.dumps(info)) if through_pickle else info  # noqa: S301 - made a line above


both_ways = pytest.mark.parametrize("through_pickle", [False, True])


@both_ways
@pytest.mark.parametrize(
    ("exc", "kind", "retryable"),
    [
        (ValueError("bad"), "error", True),
        (ObjectGone("gone"), "object-gone", False),
        (ObjectTooLarge("large"), "too-large", False),
        (ObjectChanged("changed"), "error", False),
        (TaskExited("exit"), "error", True),
        (MaxRetriesExceededError("no more"), "error", True),
        (SoftTimeLimitExceeded(), "time-limit", True),
        (TimeLimitExceeded(5), "time-limit", True),
        (WorkerLostError("signal 9"), "worker-lost", True),
        (SystemExit(3), "worker-lost", True),
        (Terminated("9"), "worker-lost", True),
        (Reject("no", requeue=False), "reject", False),
        (Reject("no", requeue=True), "requeue", False),
        (Ignore(), "ignore", False),
    ],
)
def test_each_exception_has_its_meaning(make_task, exc, kind, retryable, through_pickle):
    """For a task left alone, whose every error is retried; the same from a child process as from a thread."""
    failure = failure_of(info_of(exc, through_pickle=through_pickle), make_task())
    assert (failure.kind, failure.retryable) == (kind, retryable)


@both_ways
def test_the_failure_tells_class_text_and_traceback(make_task, through_pickle):
    """What the dead letter will say: the class's name, the text, and this attempt's traceback."""
    failure = failure_of(info_of(Special("disk full"), through_pickle=through_pickle), make_task())
    assert (failure.error_type, failure.error) == ("Special", "disk full")
    assert "Traceback (most recent call last)" in failure.traceback
    assert "disk full" in failure.traceback


@both_ways
def test_an_in_place_retry_keeps_its_delay_and_its_cause(make_task, through_pickle):
    """The delay is a number of seconds, and the error that caused it is what the log names."""
    retry = RetryInPlace(exc=Special("busy"), when=12.5)
    failure = failure_of(info_of(retry, through_pickle=through_pickle), make_task())
    assert (failure.kind, failure.wanted_seconds) == ("retry-requested", 12.5)
    assert (failure.error_type, failure.error) == ("Special", "busy")


@pytest.mark.parametrize("naive", [True, False])
def test_a_retry_at_a_moment_becomes_seconds(make_task, naive):
    """An ETA, with a time zone or in UTC without one, counts from now; one that has passed means at once."""
    eta = datetime.now(UTC) + timedelta(seconds=100)
    failure = failure_of(info_of(RetryInPlace(when=eta.replace(tzinfo=None) if naive else eta)), make_task())
    assert failure.wanted_seconds == pytest.approx(100, abs=2)
    assert failure.error_type is None


def test_a_retry_at_a_past_moment_is_one_at_once(make_task):
    """The delay is never negative."""
    eta = datetime.now(UTC) - timedelta(days=1)
    assert failure_of(info_of(RetryInPlace(when=eta)), make_task()).wanted_seconds == 0


def test_a_republished_retry_is_no_failure(make_task):
    """Celery has sent it as a message of its own, so this one is done with."""
    assert failure_of(info_of(Republished(exc=ValueError("x"), when=5)), make_task()) is None


@both_ways
def test_nothing_to_do_says_why(make_task, through_pickle):
    """The reason of the outcome ``ignored`` survives the way to the parent."""
    info = info_of(NothingToDo("superseded", "b/k was overwritten"), through_pickle=through_pickle)
    failure = failure_of(info, make_task())
    assert (failure.kind, failure.reason) == ("ignore", "superseded")


def test_a_reject_says_why(make_task):
    """Its reason is the error text of the dead letter."""
    task = make_task()
    assert failure_of(info_of(Reject("not ours", requeue=False)), task).error == "not ours"
    assert failure_of(info_of(Reject(requeue=False)), task).error == "rejected"


def test_terminated_means_revoked_only_when_this_worker_was_told_to(make_task):
    """A child that was killed by somebody else is a lost one."""
    info, task = info_of(Terminated("9")), make_task()
    assert failure_of(info, task, revoked=True).kind == "revoked"
    assert failure_of(info, task, revoked=False).kind == "worker-lost"
    assert failure_of(info_of(ValueError()), task, revoked=True).kind == "error"


def test_celerys_own_errors_are_not_the_tasks(make_task):
    """An error around the task (a result that cannot be stored) is marked internal, and retried."""
    try:
        raise ValueError("backend")
    except ValueError:
        info = ExceptionInfo(internal=True)
    failure = failure_of(info, make_task(autoretry_for=()))
    assert (failure.kind, failure.error) == ("internal-error", "backend")


@pytest.mark.parametrize(
    ("options", "exc", "retryable"),
    [
        ({"autoretry_for": (OSError,)}, Special("x"), True),
        ({"autoretry_for": (OSError,)}, ValueError("x"), False),
        ({"autoretry_for": ()}, ValueError("x"), False),
        ({"dont_autoretry_for": (OSError,)}, Special("x"), False),
        ({"dont_autoretry_for": (OSError,)}, ValueError("x"), True),
        ({"autoretry_for": (Special,), "dont_autoretry_for": (OSError,)}, Special("x"), False),
        ({"dont_autoretry_for": (SoftTimeLimitExceeded,)}, SoftTimeLimitExceeded(), False),
        ({"dont_autoretry_for": (WorkerLostError,)}, WorkerLostError("x"), False),
        ({"autoretry_for": (OSError,)}, SoftTimeLimitExceeded(), True),
    ],
)
def test_the_tasks_own_lists_decide_what_is_permanent(make_task, options, exc, retryable):
    """An error outside ``autoretry_for`` or inside ``dont_autoretry_for`` was never to be retried."""
    assert failure_of(info_of(exc), make_task(**options)).retryable is retryable


def test_a_mark_from_task_retry_says_that_retries_are_used_up(make_task):
    """An error given to ``self.retry(exc=…)`` is exhausted although no list names it; the mark survives pickling."""
    exc = Special("x")
    exc.retries_exhausted = True
    assert failure_of(info_of(exc, through_pickle=True), make_task(autoretry_for=())).retryable


def test_an_exhausted_soft_limit_is_not_retried_again(make_task):
    """``self.retry(exc=limit, max_retries=1)`` that gave up is the end, although the task's own limit is higher."""
    exc = SoftTimeLimitExceeded()
    exc.retries_exhausted = True
    failure = failure_of(info_of(exc, through_pickle=True), make_task(max_retries=5))
    verdict = decide(failure, Attempt(retries=1, max_retries=5, age_seconds=0.0), jitter=1.0)
    assert isinstance(verdict, DeadLetter)


@pytest.mark.parametrize(
    ("options", "retryable"),
    [
        ({}, True),
        ({"autoretry_for": (Unpicklable,)}, True),
        ({"autoretry_for": (ValueError,)}, False),
        ({"dont_autoretry_for": (Unpicklable,)}, False),
    ],
)
def test_an_exception_that_cannot_be_pickled_is_known_by_its_name(make_task, options, retryable):
    """The child sends a stand-in with the class's name; it is compared with the task's lists by that name."""
    stand_in = get_pickleable_exception(Unpicklable("not", "picklable"))
    assert isinstance(stand_in, UnpickleableExceptionWrapper)
    failure = failure_of(info_of(stand_in, through_pickle=True), make_task(**options))
    assert (failure.kind, failure.error_type, failure.retryable) == ("error", "Unpicklable", retryable)
    assert "not picklable" in failure.error


def test_an_exception_without_a_text_still_has_a_failure(make_task):
    """A user's ``__str__`` that raises must not cost the message."""
    exc = Textless()
    assert text_of(exc) == "<Textless without a text>"
    info = info_of(ValueError("x"))
    info.exception = exc
    failure = failure_of(info, make_task())
    assert (failure.error_type, failure.error) == ("Textless", "<Textless without a text>")


def test_unwrapping_gives_an_exception_whatever_comes():
    """Celery wraps exceptions with their traceback; something that is none becomes one with its text."""
    exc = ValueError("x")
    assert unwrapped(exc) is exc
    wrapped = info_of(exc).exception
    assert unwrapped(wrapped) is exc
    assert str(unwrapped("a text")) == "a text"
    assert type_name(unwrapped(None)) == "RuntimeError"
    assert traceback.format_exception_only(unwrapped(wrapped)) == ["ValueError: x\n"]
