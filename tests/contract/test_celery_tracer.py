"""What bridge.testing leans on in Celery's tracer, which it calls as a worker's pool does."""

from __future__ import annotations

import inspect
from uuid import uuid4

import pytest
from billiard.einfo import ExceptionInfo
from celery.app.trace import build_tracer, reset_worker_optimizations, setup_worker_optimizations
from celery.app.trace import fast_trace_task as _fast_trace_task
from celery.exceptions import Ignore, Reject, Retry

from tests.contract import new_app

REQUEST = {"delivery_info": {"exchange": "", "routing_key": "q", "redelivered": False}, "is_eager": False}


@pytest.fixture
def app():
    """An app with the bridge's settings."""
    return new_app()


def _trace(app, function, *args):
    task = app.task(shared=False, name="some.task", lazy=False, bind=True)(function)
    task_id = uuid4().hex
    traced = build_tracer(task.name, task, app=app)(task_id, list(args), {}, {**REQUEST, "id": task_id, "retries": 2})
    return traced, task_id


def test_a_success_has_no_info_and_its_result_as_text(app):
    """traced.info is None; the state in the store is SUCCESS."""

    def fine(self, value):
        return value + self.request.retries

    traced, task_id = _trace(app, fine, 40)
    assert (traced.info, traced.retval) == (None, 42)
    assert app.AsyncResult(task_id).state == "SUCCESS"


@pytest.mark.parametrize(
    ("error", "state", "stored", "internal"),
    [
        (ValueError("x"), "FAILURE", "FAILURE", False),
        (Retry(exc=ValueError("x"), when=3), "RETRY", "RETRY", False),
        (Reject("x"), "REJECTED", "PENDING", True),
        (Ignore(), "IGNORED", "PENDING", True),
    ],
)
def test_any_other_end_is_an_exception_info(app, error, state, stored, internal):
    """traced.retval is then an ExceptionInfo; a Retry stores RETRY and no FAILURE; Reject and Ignore are internal."""

    def fail(self):
        raise error

    traced, task_id = _trace(app, fail)
    assert isinstance(traced.retval, ExceptionInfo)
    exc = getattr(traced.retval.exception, "exc", traced.retval.exception)
    assert type(exc) is type(error) or exc is error.exc
    assert (traced.info.state, traced.retval.internal) == (state, internal)
    assert app.AsyncResult(task_id).state == stored


def test_an_error_of_celerys_own_is_internal(app):
    """A broken signal or backend is no fault of the task: failure.py calls it "internal-error", and it is retried."""

    class Broken(type(app.backend)):
        def mark_as_done(self, *args, **kwargs):
            raise RuntimeError("the store is down")

    def fine(self):
        return 1

    app.backend.__class__ = Broken
    with pytest.warns(RuntimeWarning, match="the store is down"):
        traced, _ = _trace(app, fine)
    assert traced.retval.internal is True


def test_a_base_exception_leaves_the_tracer(app):
    """SystemExit is nobody's here, so a task's sys.exit() is turned into TaskExited before."""

    def leave(self):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        _trace(app, leave)


def test_the_tracer_is_built_from_name_task_and_app():
    """The parameters that bridge.testing names."""
    assert {"name", "task", "app"} <= set(inspect.signature(build_tracer).parameters)


def test_without_a_content_type_the_body_is_not_decoded(app):
    """What a pool runs takes the arguments as they are then: bridge.worker.request has the body of an event decoded."""

    def add(self, value):
        return value + 1

    task = app.task(shared=False, name="some.task", lazy=False, bind=True)(add)
    task.__trace__ = build_tracer(task.name, task, app=app)
    setup_worker_optimizations(app, "host")
    try:
        failed, result, _ = _fast_trace_task("some.task", "id-1", {**REQUEST, "id": "id-1"}, [[41], {}, {}], None, None)
    finally:
        reset_worker_optimizations(app)
    assert (failed, result) == (0, "42")
