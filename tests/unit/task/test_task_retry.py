"""Task.retry: in place where it can be, Celery's own message where it must be, and the end of the retries."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta

import pytest
from billiard.einfo import ExceptionInfo
from celery.app.trace import build_tracer
from celery.canvas import Signature
from celery.exceptions import MaxRetriesExceededError, Retry

from bridge.celery import app
from bridge.s3.object import S3Object
from bridge.task import registry
from bridge.task.base import BridgeTask, Republished, RetryInPlace, wanted_seconds
from bridge.task.decorators import file_task
from bridge.testing import run_event, s3_event
from bridge.worker.failure import failure_of, unwrapped

NAME = "test_task_retry.task"


class Busy(Exception):  # noqa: N818 - a state, not a mistake
    """An error to retry on."""


class Slotted(Exception):  # noqa: N818 - what it is
    """An exception that takes no further attribute, or at least refuses ours."""

    def __setattr__(self, name, value):
        raise AttributeError(name)


@pytest.fixture(autouse=True)
def _forget_tasks():
    """Only the tasks of a test are declared in it, and none after it."""
    declared, known = dict(registry._declared), set(app.tasks)
    registry._declared.clear()
    yield
    registry._declared.clear()
    registry._declared.update(declared)
    for name in set(app.tasks) - known:
        del app.tasks[name]


@pytest.fixture
def sent(monkeypatch):
    """What Celery would publish; publishing itself is tested with a real queue elsewhere."""
    published = []
    monkeypatch.setattr(Signature, "apply_async", lambda self, *args, **options: published.append(self))
    return published


def traced(task, *args, retries=0, kind="task", **request):
    """Run a task as a worker does, after so many retries; return its state and what it returned or raised."""
    headers = {"retries": retries, "is_eager": False, "bridge": {"kind": kind}, "delivery_info": {}} | request
    result = build_tracer(task.name, task, app=app)("id-1", list(args), {}, headers)
    if not result.info:
        return "SUCCESS", result.retval
    assert isinstance(result.retval, ExceptionInfo)
    return result.info.state, unwrapped(result.retval.exception)


def celery_task(function, **options):
    """A task for Celery's own messages, bound."""
    return app.task(bind=True, name=NAME, lazy=False, **options)(function)


def test_a_retry_publishes_nothing(sent):
    """It raises, with the delay and the error for the parent process; the message itself comes again."""

    def busy(self):
        raise self.retry(exc=Busy("later"), countdown=7)

    state, exc = traced(celery_task(busy))
    assert (state, type(exc), exc.when) == ("RETRY", RetryInPlace, 7)
    assert (type(exc.exc), str(exc.exc)) == (Busy, "later")
    assert sent == []


def test_a_retry_without_a_delay_takes_celerys_default():
    """180 s, or what the task says (default_retry_delay)."""

    def busy(self):
        self.retry()

    assert traced(celery_task(busy))[1].when == 180
    app.tasks.pop(NAME)
    assert traced(celery_task(busy, default_retry_delay=4))[1].when == 4


def test_a_retry_at_once_and_at_a_moment():
    """countdown=0 is no missing delay, and an ETA goes before a countdown."""
    eta = datetime.now(UTC) + timedelta(hours=1)

    def busy(self, which):
        self.retry(countdown=0) if which == "now" else self.retry(eta=eta, countdown=5)

    task = celery_task(busy)
    assert wanted_seconds(traced(task, "now")[1], datetime.now(UTC)) == 0
    assert traced(task, "eta")[1].when == eta


def test_the_retry_survives_the_way_to_the_parent():
    """In prefork it is pickled; class, delay and cause arrive."""
    retry = pickle.loads(pickle.dumps(RetryInPlace(exc=Busy("x"), when=3)))  # noqa: S301 - made on this line
    assert (type(retry), retry.when, type(retry.exc)) == (RetryInPlace, 3, Busy)


@pytest.mark.parametrize(("retries", "again"), [(0, True), (1, True), (2, False), (3, False)])
def test_the_limit_is_the_tasks(retries, again):
    """With max_retries=2 the third run is the last; then the error itself is raised, marked as exhausted."""

    def busy(self):
        raise self.retry(exc=Busy("x"), countdown=1)

    task = celery_task(busy, max_retries=2)
    state, exc = traced(task, retries=retries)
    if again:
        assert (state, type(exc)) == ("RETRY", RetryInPlace)
    else:
        assert (state, type(exc)) == ("FAILURE", Busy)
        assert failure_of(info_of(exc), task).retryable


def info_of(exc):
    """The ExceptionInfo of an exception."""
    try:
        raise exc
    except Exception:  # noqa: BLE001 - whichever it was given
        return ExceptionInfo()


def test_without_a_limit_there_is_always_another():
    """max_retries=None never gives up."""

    def busy(self):
        self.retry(countdown=1)

    assert traced(celery_task(busy, max_retries=None), retries=10_000)[0] == "RETRY"


def test_giving_up_without_an_error_says_so():
    """MaxRetriesExceededError, as Celery raises it, with the task's name."""

    def busy(self):
        self.retry()

    state, exc = traced(celery_task(busy, max_retries=0))
    assert (state, type(exc)) == ("FAILURE", MaxRetriesExceededError)
    assert NAME in str(exc)


def test_an_error_that_takes_no_mark_is_still_raised():
    """The mark is a help to the parent, not a condition."""

    def busy(self):
        raise self.retry(exc=Slotted("x"))

    assert type(traced(celery_task(busy, max_retries=0))[1]) is Slotted


def test_an_error_given_as_a_class_is_raised():
    """``raise self.retry(exc=ValueError)`` gives up with that error, as in Celery, and marks no class for ever."""

    def busy(self):
        raise self.retry(exc=ValueError)

    assert type(traced(celery_task(busy, max_retries=0))[1]) is ValueError


def bound_task(limit, **options):
    """A file task that retries with a limit of its own, inside Celery's autoretry on any error."""

    @file_task("retry/*", name=NAME, bind=True, retry_jitter=False, **options)
    def task(self, obj):
        raise self.retry(exc=Busy("x"), countdown=1, max_retries=limit)

    return task


def test_a_limit_in_the_call_binds_the_autoretry_around_it():
    """self.retry(max_retries=1) that gave up is not retried once more by autoretry_for=(Exception,)."""
    bound_task(1)
    event = s3_event("retry/k")
    assert run_event(event, receives=1).outcome == "retried"
    assert (run_event(event, receives=2).outcome, run_event(event, receives=2).reason) == ("dead_lettered", "exhausted")


def test_a_limit_in_the_call_is_for_that_run_only():
    """Another run of the same task, in the same process, has the task's own limit."""

    @file_task("retry/*", name=NAME, bind=True)
    def task(self, obj):
        if obj.key == "retry/limited":
            raise self.retry(exc=Busy("x"), max_retries=0)
        raise Busy("y")

    assert run_event(s3_event("retry/limited")).reason == "exhausted"
    assert run_event(s3_event("retry/free"), receives=5).outcome == "retried"
    assert run_event(s3_event("retry/free"), receives=6).reason == "exhausted"


@pytest.mark.parametrize("receives", [8, 9])
def test_a_higher_limit_in_the_call_is_reached_and_is_the_end(receives):
    """self.retry(max_retries=8) in a task whose own limit is five: eight retries, and then the dead letter."""
    bound_task(8)
    result = run_event(s3_event("retry/k"), receives=receives)
    assert (result.outcome, result.reason) == (("retried", None) if receives == 8 else ("dead_lettered", "exhausted"))


@pytest.mark.parametrize("options", [{"args": [1]}, {"kwargs": {"a": 1}}, {"throw": False}, {"queue": "other"}])
def test_a_retry_that_needs_a_new_message_is_refused_on_an_event_queue(options, sent):
    """The message there is S3's: it can come again, but not changed."""

    @file_task("retry/*", name=NAME, bind=True, autoretry_for=())
    def task(self, obj):
        self.retry(**options)

    result = run_event(s3_event("retry/k"))
    assert (result.outcome, result.reason) == ("dead_lettered", "permanent")
    assert "a message on a queue of S3 events is retried as it is" in result.error
    assert sent == []


def test_a_retry_with_new_arguments_is_sent_on_the_task_queue(sent):
    """Celery publishes it, with its count, and the message at hand is done with."""

    def busy(self, number):
        raise self.retry(args=[number + 1], countdown=5, exc=Busy("x"))

    task = celery_task(busy)
    state, exc = traced(task, 1, retries=1, args=[1], kwargs={})
    assert (state, type(exc)) == ("RETRY", Republished)
    assert failure_of(info_of(exc), task) is None
    [message] = sent
    assert (message.task, list(message.args), message.options["retries"], message.options["countdown"]) == (
        NAME,
        [2],
        2,
        5,
    )


def test_a_republished_retry_has_its_limit_too(sent):
    """Past the limit the error is raised and nothing is sent."""

    def busy(self, number):
        raise self.retry(args=[number + 1], exc=Busy("x"))

    state, exc = traced(celery_task(busy, max_retries=2), 1, retries=2, args=[1], kwargs={})
    assert (state, type(exc), sent) == ("FAILURE", Busy, [])


def test_celerys_own_tasks_keep_celerys_retry(sent):
    """chord_unlock polls by sending itself again: its message is not to fill the receive count."""

    def poll(self):
        raise self.retry(countdown=1)

    task = app.task(bind=True, name="celery.test_task_retry", lazy=False, max_retries=None)(poll)
    state, exc = traced(task, retries=50, args=[], kwargs={})
    assert (state, type(exc)) == ("RETRY", Republished)
    assert [message.options["retries"] for message in sent] == [51]


def test_a_plain_call_raises_the_error_itself():
    """Outside a worker there is nothing to retry: the user's test sees the user's error."""

    @file_task("retry/*", name=NAME, bind=True)
    def task(self, obj):
        raise self.retry(exc=Busy("x"))

    with pytest.raises(Busy):
        task(S3Object(bucket="b", key="k"))


def test_an_eager_run_retries_to_its_end():
    """task.apply() runs every retry at once, by Celery's rules, and ends with the error."""
    runs = []

    @file_task("retry/*", name=NAME, bind=True, max_retries=3)
    def task(self, obj):
        runs.append(self.request.retries)
        raise Busy("x")

    result = task.apply(args=[S3Object(bucket="b", key="k")])
    assert runs == [0, 1, 2, 3]
    assert (result.state, type(result.result)) == ("FAILURE", Busy)


@pytest.mark.parametrize(
    ("when", "seconds"),
    [(None, 0), (0, 0), (7.5, 7.5), (-3, 0), (datetime(2026, 1, 1, tzinfo=UTC), 60), (datetime(2025, 1, 1), 0)],  # noqa: DTZ001 - a naive moment is the case
)
def test_the_wanted_delay_in_seconds(when, seconds):
    """A number as it is, a moment from now on, and nothing below zero."""
    now = datetime(2026, 1, 1, tzinfo=UTC) - timedelta(seconds=60)
    assert wanted_seconds(Retry(when=when), now) == seconds


def test_every_task_of_the_app_is_a_bridge_task():
    """Celery's built-in ones too: their messages go through the same request."""
    assert all(isinstance(task, BridgeTask) for task in app.tasks.values())
