"""How a Celery worker starts, restarts and stops around a consumer bootstep such as bridge.worker.runtime's."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_the_start_has_the_order_that_startup_and_lifecycle_need(worker):
    """celeryd_init, worker_init, our step is made, celeryd_after_setup, our step starts, the hub is there."""
    seen = list(dict.fromkeys(note["what"] for note in worker.all))
    order = ["celeryd_init", "worker_init", "made", "celeryd_after_setup", "started", "registered"]
    assert seen[: len(order)] == order


def test_worker_init_comes_before_the_steps_and_knows_the_command_line(worker):
    """At worker_init there is no blueprint, and --time-limit and task_events can be read."""
    (note,) = worker.notes("worker_init")
    assert note == {
        "what": "worker_init",
        "time_limit": 77.0,
        "soft_time_limit": None,
        "task_events": False,
        "blueprint": False,
    }


def test_a_quiet_set_at_celeryd_after_setup_keeps_the_banner_away(worker):
    """The signal comes before the banner, which asks instance.quiet."""
    assert worker.notes("celeryd_after_setup") == [{"what": "celeryd_after_setup", "quiet": False}]
    assert ".> transport:" not in worker.out


def test_every_pool_has_an_event_loop(worker):
    """A transport that implements.asynchronous gives threads and solo a hub too, so that a reader can wake them."""
    assert all(note["hub"] for note in worker.notes("started"))


def test_our_step_is_made_before_any_strategy(worker):
    """Strategies keep on_task_request when they are made (Tasks.start): a stand-in set in our step's __init__ is it."""
    (made,) = worker.notes("made")
    assert made["strategies"] == 0
    assert all(note["strategies"] > 0 for note in worker.notes("started"))
    assert (
        made["pool"]
        == {
            "prefork": "celery.concurrency.prefork",
            "threads": "celery.concurrency.thread",
            "solo": "celery.concurrency.solo",
        }[worker.pool]
    )


def test_every_request_passes_our_stand_in_rate_limited_ones_too(worker):
    """on_task_request is the one way to the pool (strategy.default, Consumer._limit_move_to_pool)."""
    submitted = [note["id"] for note in worker.notes("submitted")]
    assert submitted[:3] == ["fine", "limited", "fails"]
    assert submitted == list(dict.fromkeys(note["id"] for note in worker.notes("accepted")))


def test_the_pool_and_the_consumer_say_how_many_messages_fit(worker):
    """pool.num_processes and consumer.prefetch_multiplier are there when our step starts."""
    expected = 1 if worker.pool == "solo" else 4
    assert {(n["processes"], n["multiplier"]) for n in worker.notes("started")} == {(expected, 3)}


def test_consuming_starts_after_our_step(worker):
    """When the hub is registered nothing consumes yet, so the channel has its bridge before basic_consume."""
    assert [note["consuming"] for note in worker.notes("registered")] == [[], []]


def test_a_restarted_consumer_stops_its_steps_in_state_run_and_starts_them_with_a_new_channel(worker):
    """A connection loss restarts the same steps; only a shutdown stops them in state CLOSE."""
    assert [note["running"] for note in worker.notes("stopped")] == [True, False]
    assert [note["channels"] for note in worker.notes("started")] == [1, 2]
    assert len(worker.notes("made")) == 1


def test_sigterm_sends_worker_shutting_down_inside_the_handler(worker):
    """The signal runs in the handler on the main thread, so a receiver may do no more than write a byte."""
    first = worker.notes("worker_shutting_down")[0]
    assert first == {"what": "worker_shutting_down", "in_handler": True, "should_stop": None, "main": True}


def test_a_second_sigterm_sends_the_signal_again_and_nothing_else(worker):
    """Celery ignores it, so only our receiver can make it mean something."""
    assert len(worker.notes("worker_shutting_down")) == 2
    assert worker.code == 0


def test_worker_shutdown_is_the_very_last_thing(worker):
    """It is sent when steps and pool have stopped: a receiver that waits there holds the process."""
    assert worker.all[-1]["what"] == "worker_shutdown"
    assert worker.notes("stopped", "worker_shutdown")[-2] == {"what": "stopped", "running": False}


def test_a_stopped_prefork_pool_cannot_name_its_processes(prefork):
    """pool.info raises AttributeError once the pool was joined: whoever asks late must expect it."""
    assert prefork.all[-1]["processes"] == "gone"
