"""What the gate and the drain lean on in Celery's pools, and what threads and solo do with an odd end."""

from __future__ import annotations

import os
import threading

import pytest
from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.concurrency import prefork, solo, thread
from celery.concurrency.base import apply_target
from celery.exceptions import WorkerLostError
from kombu.asynchronous.semaphore import LaxBoundedSemaphore


def _exit():
    raise SystemExit(3)


def _fail():
    raise MemoryError


@pytest.fixture
def threads():
    """A started threads pool of two."""
    pool = thread.TaskPool(2)
    pool.start()
    yield pool
    pool.stop()


def test_a_base_exception_is_told_as_success_with_a_worker_lost_error():
    """Threads and solo call the success callback with an ExceptionInfo, which on_success cannot unpack."""
    told = []
    apply_target(_exit, callback=told.append)
    (info,) = told
    assert isinstance(info, ExceptionInfo)
    assert isinstance(info.exception, ExceptionWithTraceback)
    assert isinstance(info.exception.exc, WorkerLostError)


def test_threads_tell_nobody_of_an_exception_that_leaves_the_tracer(threads):
    """Neither callback is called, so such a request never ends by itself."""
    told = []
    result = threads.apply_async(_fail, callback=told.append, error_callback=told.append)
    with pytest.raises(MemoryError):
        result.get(5)
    assert told == []


def test_solo_lets_such_an_exception_through_to_the_main_loop():
    """It would end the worker."""
    pool = solo.TaskPool(1)
    with pytest.raises(MemoryError):
        pool.apply_async(_fail, callback=print)


def test_threads_take_everything_at_once(threads):
    """Without a semaphore a third task is taken although two threads are busy: why there is a gate."""
    go, accepted = threading.Event(), threading.Semaphore(0)
    results = [threads.apply_async(go.wait, callback=lambda _: accepted.release()) for _ in range(3)]
    assert len(results) == 3
    assert not thread.TaskPool.uses_semaphore
    go.set()
    assert all(accepted.acquire(timeout=5) for _ in range(3))


def test_solo_runs_a_task_inside_apply_async():
    """Handing over is running: why the gate hands solo one at a time."""
    order = []
    solo.TaskPool(1).apply_async(order.append, ("ran",), callback=lambda _: order.append("told"))
    assert order == ["ran", "told"]


def test_every_pool_says_how_many_it_runs(threads):
    """num_processes is the pool's size, of the solo pool 1 whatever was asked for."""
    assert threads.num_processes == 2
    assert solo.TaskPool(5).num_processes == 1
    assert solo.TaskPool(1).info["processes"] == [os.getpid()]


def test_the_pools_are_known_by_their_modules():
    """plan.pool_kind tells them apart by the module of their class."""
    assert [m.TaskPool.__module__ for m in (prefork, thread, solo)] == [
        "celery.concurrency.prefork",
        "celery.concurrency.thread",
        "celery.concurrency.solo",
    ]


def test_preforks_semaphore_calls_at_once_or_keeps_the_call():
    """What the gate hands over runs inline while a slot is free; a stray release gives no slot too many."""
    semaphore, called = LaxBoundedSemaphore(1), []
    semaphore.release()
    assert semaphore.acquire(called.append, "first") is True
    assert semaphore.acquire(called.append, "second") is False
    assert called == ["first"]
    semaphore.release()
    assert called == ["first", "second"]
