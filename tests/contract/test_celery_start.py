"""With which exit code a worker ends that refuses to start, or that is told to stop, and who writes its logs."""

from __future__ import annotations

import pytest

from tests.contract import run_python

pytestmark = pytest.mark.slow

APP = """
import logging, os, sys
from billiard.util import get_logger
from celery import Celery, bootsteps, signals
from celery.worker import state

app = Celery("starts", broker="sqs://")
app.conf.update(broker_transport="tests.contract:PushTransport", broker_connection_retry_on_startup=True,
                worker_enable_remote_control=False, worker_redirect_stdouts=False)
where = os.environ["REFUSES_AT"]

def refuse(place):
    if where == place:
        sys.stderr.write("refused\\n")
        raise SystemExit(2)

@signals.celeryd_init.connect
def on_init(**_):
    refuse("celeryd_init")

@signals.worker_init.connect
def on_worker_init(**_):
    refuse("worker_init")

@signals.after_setup_logger.connect
def on_logger(logger, **_):
    pool_logger = get_logger()
    print("POOL LOGGER", bool(pool_logger.handlers), bool(pool_logger.propagate), bool(logger.handlers))

class Step(bootsteps.StartStopStep):
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer, **options):
        super().__init__(consumer, **options)
        refuse("bootstep")

    def start(self, consumer):
        if where == "cold":
            state.should_terminate = 1
        else:
            state.should_stop = 2

    def stop(self, consumer):
        print("STEP STOPPED", consumer.blueprint.state == bootsteps.RUN)

@signals.worker_shutdown.connect
def on_shutdown(**_):
    print("WORKER SHUTDOWN")

app.steps["consumer"].add(Step)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the app."""
    folder = tmp_path_factory.mktemp("starts")
    (folder / "starts.py").write_text(APP)
    return folder


def _worker(folder, place):
    arguments = ("-m", "celery", "-q", "-A", "starts", "worker", "-P", "solo")
    return run_python(*arguments, cwd=folder, REFUSES_AT=place)


@pytest.mark.parametrize("place", ["celeryd_init", "worker_init", "bootstep"])
def test_system_exit_at_the_start_is_the_exit_code(folder, place):
    """SystemExit(2) from a signal or a step ends the worker with code 2 and no traceback."""
    run = _worker(folder, place)
    assert (run.code, run.err.strip().splitlines()[-1]) == (2, "refused")
    assert "Traceback" not in run.err


def test_should_stop_is_the_exit_code_of_a_running_worker(folder):
    """A worker that finds out later that it cannot work (no such queue, once SQS answers) ends the same way.

    The pool's logger has handlers of its own by then, and does not propagate: its lines need our format too.
    """
    run = _worker(folder, "nowhere")
    assert run.code == 2
    assert "POOL LOGGER True False True" in run.out
    assert run.out.index("STEP STOPPED False") < run.out.index("WORKER SHUTDOWN")


def test_a_cold_shutdown_stops_the_steps_and_sends_no_worker_shutdown(folder):
    """After SIGQUIT or a second Ctrl-C nothing waits for a receiver of that signal: only the step's stop is called."""
    run = _worker(folder, "cold")
    assert "STEP STOPPED False" in run.out
    assert "WORKER SHUTDOWN" not in run.out
