"""The signals around a run, on which bridge.task.run_context builds: who sends them, where, and with what."""

from __future__ import annotations

import threading
from uuid import uuid4

import pytest
from celery import signals
from celery.app.trace import build_tracer
from celery.concurrency import prefork
from celery.exceptions import Ignore, Reject, Retry

from tests.contract import new_app

DELIVERY = {"exchange": "", "routing_key": "q", "redelivered": False}


@pytest.fixture
def heard():
    """What task_prerun and task_postrun said, in order."""
    calls = []

    def on_prerun(task=None, **said):
        calls.append(("prerun", threading.get_ident(), task.request.get("bridge"), said))

    def on_postrun(task=None, **said):
        calls.append(("postrun", threading.get_ident(), task.request.get("bridge"), said))

    signals.task_prerun.connect(on_prerun)
    signals.task_postrun.connect(on_postrun)
    yield calls
    signals.task_prerun.disconnect(on_prerun)
    signals.task_postrun.disconnect(on_postrun)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, "SUCCESS"),
        (ValueError("x"), "FAILURE"),
        (Retry(exc=ValueError("x"), when=3), "RETRY"),
        (Reject("x"), "REJECTED"),
        (Ignore(), "IGNORED"),
    ],
)
def test_both_ends_of_a_run(heard, error, state):
    """Both come in the run's thread, around it, with ids and arguments; the second with how it ended and with what.

    At both, task.request is the run's own, with the header that the bridge puts into its messages.
    """

    def run(self, value):
        heard.append("run")
        if error is not None:
            raise error
        return value

    app = new_app()
    task = app.task(shared=False, name="some.task", lazy=False, bind=True)(run)
    task_id = uuid4().hex
    request = {"id": task_id, "retries": 0, "is_eager": False, "delivery_info": DELIVERY, "bridge": {"queue": "q"}}
    build_tracer(task.name, task, app=app)(task_id, [42], {}, request)

    (before, thread, first, began), ran, (after, same_thread, last, ended) = heard
    assert (before, ran, after) == ("prerun", "run", "postrun")
    assert first == last == {"queue": "q"}
    assert (began["task_id"], began["args"]) == (ended["task_id"], ended["args"]) == (task_id, [42])
    assert thread == same_thread == threading.get_ident()
    assert ended["state"] == state
    assert ended["retval"] == (42 if error is None else error)


def test_a_run_inside_a_run(heard):
    """``.apply()`` inside a task sends both signals for the inner run too, under an id and a request of its own."""
    app = new_app()

    @app.task(shared=False, name="inner", lazy=False)
    def inner():
        pass

    @app.task(shared=False, name="outer", lazy=False)
    def outer():
        inner.apply()

    request = {"id": "outer-id", "retries": 0, "is_eager": False, "delivery_info": DELIVERY, "bridge": {"queue": "q"}}
    build_tracer("outer", outer, app=app)("outer-id", [], {}, request)

    assert [call[0] for call in heard] == ["prerun", "prerun", "postrun", "postrun"]
    ids = [call[3]["task_id"] for call in heard]
    assert ids[0] == ids[3] == "outer-id"
    assert ids[1] == ids[2] != "outer-id"
    assert [call[2] for call in heard] == [{"queue": "q"}, None, None, {"queue": "q"}]


def test_a_child_says_goodbye():
    """A pool child that ends in order sends worker_process_shutdown: there the last spans are sent."""
    ends = []

    def on_end(pid=None, exitcode=None, **_):
        ends.append((pid, exitcode))

    signals.worker_process_shutdown.connect(on_end)
    try:
        prefork.process_destructor(5, 0)
    finally:
        signals.worker_process_shutdown.disconnect(on_end)
    assert ends == [(5, 0)]
