"""What bridge.task and bridge.task.decorators lean on in Celery's Task, Retry and autoretry."""

from __future__ import annotations

import inspect
import pickle
from datetime import UTC, datetime

import pytest
from celery import Task
from celery.app.task import Context
from celery.exceptions import Ignore, MaxRetriesExceededError, Retry, SoftTimeLimitExceeded
from celery.utils.serialization import UnpickleableExceptionWrapper, get_pickleable_exception

from tests.contract import new_app


class RetryHere(Retry):
    pass


class OddError(Exception):
    def __init__(self, one, two):
        super().__init__(one)


class RetryingTask(Task):
    """Notes how its retry is called, in place of sending."""

    abstract = True
    asked = ()

    def retry(self, **options):
        self.asked = (*self.asked, options)
        raise RetryHere(exc=options.get("exc"), when=1)


@pytest.fixture
def app():
    """An app with the bridge's settings and a Task class of our own."""
    app = new_app()
    app.task_cls = RetryingTask
    return app


def _task(app, error, **options):
    def work():
        raise error

    return app.task(shared=False, name="some.task", lazy=False, **options)(work)


@pytest.mark.parametrize("when", [2.5, datetime(2026, 1, 2, tzinfo=UTC)])
def test_a_subclass_of_retry_is_pickled_with_its_delay_and_its_cause(when):
    """It travels from the pool's child to the parent as itself: class, exc and when."""
    travelled = pickle.loads(pickle.dumps(RetryHere("why", exc=ValueError("x"), when=when)))  # noqa: S301 - our own
    assert type(travelled) is RetryHere
    assert (travelled.message, travelled.when, repr(travelled.exc)) == ("why", when, "ValueError('x')")


def test_autoretry_calls_our_retry_with_the_error_and_retry_kwargs(app):
    """So retry_kwargs={"default_backoff": True} arrives; without retry_backoff no countdown is given."""
    error = ValueError("x")
    task = _task(app, error, autoretry_for=(ValueError,), retry_kwargs={"default_backoff": True})
    with pytest.raises(RetryHere):
        task.run()
    assert task.asked == ({"exc": error, "default_backoff": True},)


def test_autoretry_with_retry_backoff_gives_a_countdown(app):
    """Celery's own backoff is kept: factor × 2^retries, bounded, as whole seconds."""
    task = _task(app, ValueError("x"), autoretry_for=(ValueError,), retry_backoff=3, retry_jitter=False)
    task.push_request(retries=2)
    with pytest.raises(RetryHere):
        task.run()
    assert task.asked[0]["countdown"] == 12


@pytest.mark.parametrize("error", [Ignore(), RetryHere(when=1)])
def test_autoretry_lets_ignore_and_retry_through(app, error):
    """Although both are exceptions, and autoretry_for names Exception."""
    task = _task(app, error, autoretry_for=(Exception,))
    with pytest.raises(type(error)):
        task.run()
    assert task.asked == ()


def test_dont_autoretry_for_wins_over_autoretry_for(app):
    """The error is raised as it is."""
    task = _task(app, KeyError("x"), autoretry_for=(Exception,), dont_autoretry_for=(LookupError,))
    with pytest.raises(KeyError):
        task.run()
    assert task.asked == ()


def test_autoretry_for_of_the_base_class_counts(app):
    """BridgeTask names SoftTimeLimitExceeded once for every task that does not say."""

    class Base(RetryingTask):
        abstract = True
        autoretry_for = (SoftTimeLimitExceeded,)

    task = _task(app, SoftTimeLimitExceeded(), base=Base)
    with pytest.raises(RetryHere):
        task.run()


def test_options_of_the_decorator_become_attributes(app):
    """Also those that Celery does not know: left_alone, visibility_timeout, backoff_max_seconds."""
    task = _task(app, ValueError(), unset_options=frozenset({"max_retries"}), visibility_timeout=9)
    assert (task.unset_options, task.visibility_timeout) == (frozenset({"max_retries"}), 9)


def test_a_task_that_does_not_say_takes_the_settings(app):
    """Task.from_config: what is None on the class is filled in from the configuration when it is bound."""
    task = _task(app, ValueError())
    assert (task.acks_late, task.reject_on_worker_lost) == (True, True)
    assert (task.acks_on_failure, task.acks_on_timeout) == (False, False)
    assert (task.time_limit, task.soft_time_limit) == (None, None)
    assert not task.retry_on_worker_lost


def test_celerys_own_tasks_have_our_task_class(app):
    """chord_unlock and its kin are made with the app's task_cls, so their Request is ours too."""
    app.finalize()
    builtin = [task for name, task in app.tasks.items() if name.startswith("celery.")]
    assert {"celery.chord_unlock", "celery.backend_cleanup"} <= {task.name for task in builtin}
    assert all(isinstance(task, RetryingTask) for task in builtin)


def test_chord_unlock_retries_by_task_retry(app):
    """It waits for its chord by calling self.retry, under a name that starts with "celery."."""
    unlock = app.tasks["celery.chord_unlock"]
    callback = app.signature("some.task").set(task_id="callback")
    with pytest.raises(RetryHere):
        unlock.run("group", callback, interval=3, result=[("never-done", None)])
    assert unlock.asked[0]["countdown"] == 3


def test_the_request_can_be_asked_and_marked():
    """Context.get answers for headers of our own; an attribute that is set stays for the run."""
    request = Context({"bridge": {"kind": "event"}, "retries": 1}, called_directly=False)
    assert request.get("bridge") == {"kind": "event"}
    assert request.get("retries_exhausted") is None
    request.retries_exhausted = True
    assert request.get("retries_exhausted") is True
    assert (request.called_directly, request.is_eager, request.retries) == (False, False, 1)


def test_a_plain_call_is_called_directly():
    """Where no worker runs the task, bridge.task leaves retry to Celery, which raises the error itself."""
    task = new_app().task(shared=False, name="some.task", lazy=False, bind=True)(_retries)
    assert task.request.called_directly
    with pytest.raises(ValueError, match="x"):
        task()


def _retries(self):
    raise self.retry(exc=ValueError("x"))


def test_the_parameters_of_retry_are_those_that_we_override():
    """A new parameter would fall into **options and count as one of the publishing."""
    names = ["self", "args", "kwargs", "exc", "throw", "eta", "countdown", "max_retries", "options"]
    assert list(inspect.signature(Task.retry).parameters) == names


def test_max_retries_exceeded_takes_the_tasks_arguments():
    """Named arguments of its own, the text first."""
    error = MaxRetriesExceededError("used up", task_args=[1], task_kwargs={"a": 2})
    assert (str(error), error.task_args, error.task_kwargs) == ("used up", [1], {"a": 2})


def test_what_cannot_be_pickled_is_wrapped_with_its_names():
    """failure.py compares exc_cls_name and exc_module with the classes a task retries on."""
    wrapped = get_pickleable_exception(OddError(1, 2))
    assert isinstance(wrapped, UnpickleableExceptionWrapper)
    assert (wrapped.exc_cls_name, wrapped.exc_module) == ("OddError", __name__)
