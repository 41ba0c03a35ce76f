"""How a worker's log is set up: its own level and form, on Celery's handlers, from the first line of its start."""

from __future__ import annotations

import logging
from typing import Any, Literal

from billiard.util import get_logger as billiard_logger
from celery import signals

from bridge import log as logs
from bridge.settings.loading import WorkerSettings

Form = Literal["text", "json"]


def set_up_logs(settings: WorkerSettings) -> None:
    """Have every line of this worker and of the children it forks written in the wanted form."""
    # A level of our own: Celery's -l defaults to WARNING, and a worker that says nothing cannot be traced.
    logging.getLogger("bridge").setLevel(settings.log_level)

    # Until Celery has set up its handlers, ours says what the start finds out; it would come out as bare words.
    form = log_format(settings)  # asked once: Celery puts something else in the place of stderr
    early = logging.StreamHandler()
    bridge_logger = logging.getLogger("bridge")
    bridge_logger.addHandler(early)
    bridge_logger.propagate = False
    _use_format(bridge_logger, form, settings)

    def use_ours(logger: Any = None, **_: Any) -> None:
        bridge_logger.removeHandler(early)
        bridge_logger.propagate = True
        for each in (logger, billiard_logger()):  # the pool logs to one that does not propagate
            _use_format(each, form, settings)

    signals.after_setup_logger.connect(use_ours, weak=False, dispatch_uid="bridge.log")
    signals.after_setup_task_logger.connect(use_ours, weak=False, dispatch_uid="bridge.tasklog")


def set_up_logs_of_child(settings: WorkerSettings) -> None:
    """Do the same in a spawned pool child, in which Celery has set up its handlers and a forked one inherits ours."""
    for name in (None, "celery.task", billiard_logger().name):
        _use_format(logging.getLogger(name), log_format(settings), settings)
    logging.getLogger("bridge").setLevel(settings.log_level)


def log_format(settings: WorkerSettings) -> Form:
    """Return the form that was asked for, else the one that fits where the lines go."""
    return settings.log_format or logs.default_format()


def _use_format(logger: logging.Logger, form: Form, settings: WorkerSettings) -> None:
    logs.use_format(logger, form, pod_name=settings.pod_name, job_id=settings.job_id)
