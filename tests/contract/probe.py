"""A Celery app with a bootstep, a Request class and a transport such as the bridge's, which notes what happens to it.

Run as a worker (``celery -A tests.contract.probe worker``) by the fixtures in conftest.py, never imported by a test. It
goes through a restart of its consumer, runs each task of ``KINDS`` alone, and ends itself by SIGTERM, twice.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from typing import Any, ClassVar

from billiard.einfo import ExceptionWithTraceback
from celery import Celery, Task, bootsteps, signals
from celery.exceptions import Ignore, Reject, Retry
from celery.worker import state
from celery.worker.request import Request
from kombu import Exchange, Queue

from tests.contract import QUEUE, payload

PREFORK = "prefork" in sys.argv
KINDS = ["fine", "limited", "fails", "odd_error", "asks_retry", "asks_reject", "asks_ignore"]
KINDS += ["hangs", "killed", "exits"] if PREFORK else []
PR_GET_PDEATHSIG = 2

_read_fd, _write_fd = os.pipe()


def _note(what: str, **fields: Any) -> None:
    # One write a line: the pool's children and threads write to the same pipe.
    os.write(1, f"\nNOTE {json.dumps({'what': what, **fields})}\n".encode())


def _wake() -> None:
    os.write(_write_fd, b"w")


class ProbeRequest(Request):
    def acknowledge(self):
        self._end("acknowledge")

    def reject(self, requeue=False):
        self._end("reject", requeue=requeue)

    def _end(self, how, **fields):
        if not self.acknowledged:
            self.acknowledged = True
            _note("ended", id=self.id, how=how, **fields)
            _wake()

    def on_accepted(self, pid, time_accepted):
        super().on_accepted(pid, time_accepted)
        in_pool = PREFORK and pid in ProbeStep.current.consumer.pool.info["processes"]
        _note("accepted", id=self.id, pid=self.worker_pid, here=pid == os.getpid(), in_pool=in_pool)

    def on_timeout(self, soft, timeout):
        _note("on_timeout", id=self.id, soft=soft, timeout=timeout)
        super().on_timeout(soft, timeout)

    def on_failure(self, exc_info, send_failed_event=True, return_ok=False):
        wrapped = isinstance(exc_info.exception, ExceptionWithTraceback)
        exc = exc_info.exception.exc if wrapped else exc_info.exception
        _note(
            "on_failure",
            id=self.id,
            type=type(exc).__name__,
            wrapped=wrapped,
            internal=exc_info.internal,
            marked=getattr(exc, "marked", None),
            when=getattr(exc, "when", None),
            original=getattr(exc, "exc_cls_name", None),
            traceback=str(exc_info.traceback),
            main=threading.current_thread() is threading.main_thread(),
        )
        super().on_failure(exc_info, send_failed_event, return_ok)


class ProbeTask(Task):
    abstract = True
    Request = "tests.contract.probe:ProbeRequest"


class RetryHere(Retry):
    pass


class OddError(Exception):
    """Cannot be unpickled: it is made from two arguments and remembers one."""

    def __init__(self, one, two):
        super().__init__(one)


app = Celery("probe", broker="sqs://", task_cls="tests.contract.probe:ProbeTask")
app.conf.update(
    broker_transport="tests.contract:PushTransport",
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_acks_on_failure_or_timeout=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_enable_remote_control=False,
    worker_prefetch_multiplier=3,
    worker_redirect_stdouts=False,
)


@app.task(name="fine")
def _fine():
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0)
    _note("ran", death_signal=number.value)


@app.task(name="limited", rate_limit="100/s")
def _limited():
    pass


@app.task(name="fails")
def _fails():
    error = ValueError("no good")
    error.marked = True
    raise error


@app.task(name="odd_error")
def _odd_error():
    raise OddError(1, 2)


@app.task(name="asks_retry")
def _asks_retry():
    raise RetryHere(exc=ValueError("later"), when=7)


@app.task(name="asks_reject")
def _asks_reject():
    raise Reject("no", requeue=True)


@app.task(name="asks_ignore")
def _asks_ignore():
    raise Ignore


@app.task(name="killed")
def _killed():
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="exits")
def _exits():
    sys.exit(3)


@app.task(name="hangs", time_limit=60)
def _hangs():
    time.sleep(60)


class ProbeStep(bootsteps.StartStopStep):
    requires = ("celery.worker.consumer.tasks:Tasks",)
    current: ClassVar[ProbeStep]

    def __init__(self, consumer, **options):
        super().__init__(consumer, **options)
        type(self).current = self
        self.consumer, self.to_pool = consumer, consumer.on_task_request
        self.channels: list[Any] = []
        self.plan = list(KINDS)
        consumer.on_task_request = self.submit
        _note("made", strategies=len(consumer.strategies), pool=type(consumer.pool).__module__)

    def submit(self, request):
        _note("submitted", id=request.id)
        self.to_pool(request)

    def start(self, consumer):
        self.channels.append(consumer.task_consumer.channel)
        _note(
            "started",
            strategies=len(consumer.strategies),
            channels=len({id(channel) for channel in self.channels}),
            hub=consumer.hub is not None,
            processes=consumer.pool.num_processes,
            multiplier=consumer.prefetch_multiplier,
        )

    def register_with_event_loop(self, consumer, hub):
        hub.add_reader(_read_fd, self.on_readable)
        # Celery's own interval is 5 s, and a child whose end its sentinel told too early is noticed only then.
        hub.call_repeatedly(0.1, consumer.pool.maintain_pool)
        _note("registered", consuming=sorted(consumer.connection.transport._callbacks))
        _wake()

    def on_readable(self):
        os.read(_read_fd, 4096)
        if not self.consumer.restart_count:
            raise self.consumer.connection_errors[0]("a connection loss")
        if self.plan:
            name = self.plan.pop(0)
            self.consumer.task_consumer.channel.connection._callbacks[QUEUE](payload(name, tag=name))
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    def stop(self, consumer):
        is_running = consumer.blueprint.state == bootsteps.RUN
        _note("stopped", running=is_running)
        if not is_running:
            os.kill(os.getpid(), signal.SIGTERM)


app.steps["consumer"].add(ProbeStep)


@signals.celeryd_init.connect
def _on_celeryd_init(sender, instance, conf, options, **_):
    _note("celeryd_init")
    conf.task_queues = [Queue(QUEUE, Exchange(""), routing_key=QUEUE)]


@signals.worker_init.connect
def _on_worker_init(sender, **_):
    _note(
        "worker_init",
        time_limit=sender.time_limit,
        soft_time_limit=sender.soft_time_limit,
        task_events=sender.task_events,
        blueprint=sender.blueprint is not None,
    )
    sender.app.tasks["hangs"].time_limit = 0.4


@signals.celeryd_after_setup.connect
def _on_after_setup(sender, instance, conf, **_):
    _note("celeryd_after_setup", quiet=instance.quiet)
    instance.quiet = True


@signals.worker_shutting_down.connect
def _on_shutting_down(**_):
    frame, names = sys._getframe(), set()
    while frame:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    main = threading.current_thread() is threading.main_thread()
    _note("worker_shutting_down", in_handler="_handle_request" in names, should_stop=state.should_stop, main=main)


@signals.worker_shutdown.connect
def _on_shutdown(**_):
    try:
        processes = ProbeStep.current.consumer.pool.info.get("processes")
    except AttributeError:
        processes = "gone"
    _note("worker_shutdown", processes=processes)
