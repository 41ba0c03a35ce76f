"""What bridge.worker.request leans on in Celery's Request: who calls acknowledge or reject, and what it stores."""

from __future__ import annotations

import inspect
from uuid import uuid4

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery, signals
from celery.backends.base import DisabledBackend
from celery.exceptions import InvalidTaskError, Retry, TimeLimitExceeded, WorkerLostError
from celery.worker import state
from celery.worker.request import Request, create_request_cls

from tests.contract import message_for, new_app


class EndedRequest(Request):
    """Notes how it was ended, as bridge.worker.request's does, and never calls the broker."""

    def __init__(self, message, **options):
        super().__init__(message, **options)
        self.ends = []

    def acknowledge(self):
        if not self.acknowledged:
            self.acknowledged = True
            self.ends.append("acknowledge")

    def reject(self, requeue=False):
        if not self.acknowledged:
            self.acknowledged = True
            self.ends.append("reject")


class Pool:
    """Takes what a request hands over."""

    def apply_async(self, target, **options):
        self.options = options


def _nothing():
    pass


@pytest.fixture
def app():
    """An app with the bridge's settings."""
    return new_app()


@pytest.fixture
def task(app):
    """A task as the bridge configures them; its results are in memory."""
    return app.task(shared=False, name="some.task", time_limit=60, soft_time_limit=54)(_nothing)


@pytest.fixture
def request_of(app, task):
    """Make a request of the class that a strategy makes; the ids it leaves in Celery's global state are removed."""
    made = []

    def make(pool=None, **headers):
        headers.setdefault("tag", uuid4().hex)  # the store in memory is one for all tests
        cls = create_request_cls(EndedRequest, task, pool or Pool(), "host", None, app=app)
        made.append(cls(message_for("some.task", **headers), app=app, task=task, hostname="host"))
        return made[-1]

    yield make
    for request in made:
        state.revoked.discard(request.id)
        state.task_ready(request)


def _info(exc, internal=False):
    try:
        raise exc
    except type(exc):
        return ExceptionInfo(internal=internal)


def _state(app, request):
    return app.AsyncResult(request.id).state


def test_the_strategys_class_overrides_nothing_but_two_methods(app, task):
    """execute_using_pool and on_success are Celery's own; all that we override stays ours."""
    cls = create_request_cls(EndedRequest, task, Pool(), "host", None, app=app)
    assert {name for name in vars(cls) if not name.startswith("__")} == {"execute_using_pool", "on_success"}


def test_the_pool_is_given_our_handlers_and_the_tasks_time_limits(request_of):
    """apply_async gets on_accepted, on_timeout, on_success and on_failure; a message without limits has the task's."""
    pool = Pool()
    request = request_of(pool)
    request.execute_using_pool(pool)
    assert pool.options["error_callback"] == request.on_failure
    assert pool.options["timeout_callback"] == request.on_timeout
    assert pool.options["accept_callback"] == request.on_accepted
    assert (pool.options["timeout"], pool.options["soft_timeout"]) == (60, 54)


@pytest.mark.parametrize(
    ("error", "stored", "sent"),
    [
        (ValueError("x"), "FAILURE", ["task_failure"]),
        (TimeLimitExceeded(1), "PENDING", []),  # on_timeout comes afterwards and stores it
        (WorkerLostError("x"), "PENDING", []),  # counted as requeued, so bridge.worker.request announces it
    ],
)
def test_each_failure_is_rejected_once(app, request_of, error, stored, sent):
    """Never acknowledged, with acks_late and task_acks_on_failure_or_timeout off; what is stored differs."""
    request, seen = request_of(), []

    def on_task_failure(**_):
        seen.append("task_failure")

    signals.task_failure.connect(on_task_failure)
    try:
        request.on_failure(_info(error))
    finally:
        signals.task_failure.disconnect(on_task_failure)
    assert request.ends == ["reject"]
    assert (_state(app, request), seen) == (stored, sent)


def test_on_failure_with_memory_error_raises_in_the_parent(request_of):
    """Why bridge.worker.request ends that one by itself."""
    with pytest.raises(MemoryError):
        request_of().on_failure(_info(MemoryError("x")))


def test_the_hard_time_limit_rejects_and_stores_a_failure(app, request_of):
    """on_timeout(soft=False) stores FAILURE even when the request was ended before: a retried one must not reach it."""
    fresh, ended = request_of(tag="fresh"), request_of(tag="ended")
    fresh.on_timeout(False, 1)
    ended.acknowledge()
    ended.on_timeout(False, 1)
    assert (fresh.ends, ended.ends) == (["reject"], ["acknowledge"])
    assert (_state(app, fresh), _state(app, ended)) == ("FAILURE", "FAILURE")


def test_the_soft_time_limit_ends_nothing(app, request_of):
    """on_timeout(soft=True) only logs: the task gets SoftTimeLimitExceeded itself."""
    request = request_of()
    request.on_timeout(True, 1)
    assert (request.ends, _state(app, request)) == ([], "PENDING")


def test_a_retry_is_acknowledged(request_of):
    """on_failure hands a Retry to on_retry, which acknowledges: there the verdict has to be known."""
    request = request_of()
    request.on_failure(_info(Retry(exc=ValueError("x"), when=3)))
    assert request.ends == ["acknowledge"]


def test_a_success_that_was_stored_outlives_its_child(app, request_of):
    """_success_was_stored finds it, and on_failure acknowledges in place of rejecting."""
    request = request_of(tag="done-and-lost")
    app.backend.store_result(request.id, 1, "SUCCESS")
    assert request._success_was_stored()
    request.on_failure(_info(WorkerLostError("x")))
    assert request.ends == ["acknowledge"]
    assert not request_of(tag="never-done")._success_was_stored()


def test_a_revoked_request_acknowledges_before_it_answers(request_of):
    """revoked() ends the message itself, so the verdict has to be set around the call; a fresh one stays open."""
    request, other = request_of(tag="revoked"), request_of(tag="other")
    state.revoked.add("revoked")
    assert request.revoked()
    assert not other.revoked()
    assert (request.ends, other.ends) == (["acknowledge"], [])


def test_an_expired_request_counts_as_revoked(request_of):
    """Celery's ``expires`` goes the same way."""
    request = request_of(tag="late", expires="2020-01-01T00:00:00+00:00")
    assert request.revoked()
    assert request.ends == ["acknowledge"]


def test_terminate_acknowledges(request_of):
    """Request.terminate deletes the message of a running task, which is why the drain does not use it."""

    class Jobs(Pool):
        def terminate_job(self, pid, signal):
            pass

    request = request_of()
    request.time_start, request.worker_pid = 1.0, 1
    request.terminate(Jobs())
    assert request.ends == ["acknowledge"]


def test_on_success_cannot_read_a_bare_exception_info(request_of):
    """apply_target gives one for a BaseException (threads, solo): the request never ends; see TaskExited."""
    request = request_of()
    with pytest.raises(TypeError):
        request.on_success(_info(WorkerLostError("SystemExit(1)")))
    assert request.ends == []


def test_an_invalid_message_is_refused_while_the_request_is_made(request_of):
    """InvalidTaskError in __init__ is what Celery's consumer expects of a request that cannot be."""
    with pytest.raises(InvalidTaskError):
        request_of(expires="no time")


def test_time_limits_of_a_wrong_form_are_found_only_at_the_pool(request_of):
    """Nothing checks the header ``timelimit``: handing such a request over raises, after it counts as started."""
    request = request_of(Pool(), timelimit="soon")
    with pytest.raises(ValueError, match="unpack"):
        request.execute_using_pool(Pool())


def test_the_disabled_backend_takes_a_failure_and_knows_of_no_success():
    """Without a result backend both calls of bridge.worker.request do nothing, and raise nothing."""
    app = Celery("none", broker="memory://", set_as_current=False)
    task = app.task(shared=False, name="some.task")(_nothing)
    request = Request(message_for("some.task"), app=app, task=task)
    assert isinstance(task.backend, DisabledBackend)
    task.backend.mark_as_failure(request.id, ValueError(), request=request._context, store_result=request.store_errors)
    assert request._success_was_stored() is False


def test_what_we_override_has_the_same_parameters():
    """A new parameter would break our override at the worst moment."""
    expected = {
        "acknowledge": ["self"],
        "reject": ["self", "requeue"],
        "revoked": ["self"],
        "cancel": ["self", "pool", "signal", "emit_retry"],
        "on_accepted": ["self", "pid", "time_accepted"],
        "on_timeout": ["self", "soft", "timeout"],
        "on_failure": ["self", "exc_info", "send_failed_event", "return_ok"],
    }
    assert {name: list(inspect.signature(getattr(Request, name)).parameters) for name in expected} == expected
