"""What Celery's consumer does to its pool when it closes."""

from __future__ import annotations

from types import SimpleNamespace

from celery.concurrency.prefork import TaskPool
from celery.worker.consumer import Consumer


def closing(flush):
    """A consumer as far as on_close() looks at it."""
    return SimpleNamespace(controller=None, task_buckets={}, timer=None, pool=SimpleNamespace(flush=flush))


def test_a_closing_consumer_flushes_its_pool():
    """A prefork pool then forgets what its children have not accepted yet, and the children run it all the same."""
    flushed = []
    Consumer.on_close(closing(lambda: flushed.append(1)))
    assert flushed == [1]


def test_a_pool_without_a_flush_is_left_alone():
    """None in its place is looked at first, as for pools that have none; lifecycle.Bridge puts it there."""
    Consumer.on_close(closing(None))


def test_a_prefork_pool_gets_its_flush_as_an_attribute():
    """It is set on the instance when the pool starts, so that setting it on the instance again replaces it."""
    assert "flush" not in vars(TaskPool)
