"""How Celery tells a Request that its task has ended, in each pool: what bridge.worker.request decides by."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_success_acknowledges_late(worker):
    """A task that returned is acknowledged, once, after it ran."""
    assert worker.course("fine") == ["acknowledge"]


def test_an_error_reaches_on_failure_and_then_reject(worker):
    """With acks_late and task_acks_on_failure_or_timeout=False a failure is rejected, never acknowledged."""
    assert worker.course("fails") == ["on_failure", "reject"]
    (failure,) = worker.notes("on_failure", id="fails")
    assert failure["type"] == "ValueError"
    assert "raise error" in failure["traceback"]
    assert failure["internal"] is False


def test_an_attribute_of_an_exception_reaches_the_parent(worker):
    """task.py marks an exception whose retries are used up; the mark travels in the pickled __dict__."""
    (failure,) = worker.notes("on_failure", id="fails")
    assert failure["marked"] is True


def test_an_exception_that_cannot_be_pickled_arrives_as_its_name(worker):
    """UnpickleableExceptionWrapper keeps the class's name (exc_cls_name), and no attribute."""
    (failure,) = worker.notes("on_failure", id="odd_error")
    assert (failure["type"], failure["original"], failure["marked"]) == (
        "UnpickleableExceptionWrapper",
        "OddError",
        None,
    )


def test_a_retry_arrives_with_its_class_and_its_delay_and_is_acknowledged(worker):
    """A subclass of Retry comes through the pool as itself, with ``when``; on_retry then acknowledges."""
    assert worker.course("asks_retry") == ["on_failure", "acknowledge"]
    (failure,) = worker.notes("on_failure", id="asks_retry")
    assert (failure["type"], failure["when"]) == ("RetryHere", 7)


def test_reject_and_ignore_reach_on_failure_as_internal(worker):
    """Both are told apart by their class first: they are marked internal, as Celery's own errors are."""
    assert worker.course("asks_reject") == ["on_failure", "reject"]
    assert worker.course("asks_ignore") == ["on_failure", "acknowledge"]
    for task, kind in (("asks_reject", "Reject"), ("asks_ignore", "Ignore")):
        (failure,) = worker.notes("on_failure", id=task)
        assert (failure["type"], failure["internal"]) == (kind, True)


def test_the_end_of_a_task_is_told_on_the_main_thread_but_for_threads(worker):
    """The threads pool calls back in its own threads, so what a Request touches has to be safe there."""
    assert {note["main"] for note in worker.notes("on_failure")} == {worker.pool != "threads"}


def test_on_accepted_names_the_process(worker):
    """worker_pid is set when a task starts; in prefork it is one of pool.info['processes']."""
    accepted = worker.notes("accepted")
    assert {note["in_pool"] for note in accepted} == {worker.pool == "prefork"}
    assert {note["here"] for note in accepted} == {worker.pool != "prefork"}


def test_prefork_children_die_with_their_parent(prefork):
    """Each asks the kernel for SIGKILL when its parent ends (PR_SET_PDEATHSIG)."""
    (ran,) = prefork.notes("ran")
    assert ran["death_signal"] == 9


def test_a_killed_child_is_a_worker_lost_error(prefork):
    """reject_on_worker_lost then rejects with requeue=True."""
    assert prefork.course("killed") == ["on_failure", "reject"]
    (failure,) = prefork.notes("on_failure", id="killed")
    assert (failure["type"], failure["wrapped"]) == ("WorkerLostError", True)
    assert prefork.notes("ended", id="killed")[0]["requeue"] is True


def test_sys_exit_in_a_prefork_task_arrives_as_system_exit(prefork):
    """Billiard reports it before the child ends; Celery counts it as a lost worker."""
    (failure,) = prefork.notes("on_failure", id="exits")
    assert (failure["type"], failure["wrapped"]) == ("SystemExit", False)
    assert prefork.course("exits") == ["on_failure", "reject"]


def test_a_hard_time_limit_is_told_twice_first_as_a_failure(prefork):
    """Billiard calls the error callback and then the timeout callback: on_timeout finds the request ended.

    The limit was set at worker_init, so this also holds that strategies read it later.
    """
    assert prefork.course("hangs") == ["on_failure", "reject", "on_timeout"]
    (failure,) = prefork.notes("on_failure", id="hangs")
    assert (failure["type"], failure["wrapped"]) == ("TimeLimitExceeded", True)
    assert prefork.notes("on_timeout") == [{"what": "on_timeout", "id": "hangs", "soft": False, "timeout": 0.4}]
