"""``brigade run-once``: a worker that takes a few messages and leaves, for KEDA's ScaledJob and for a terminal."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import click

_EXAMPLES = """
\b
Examples:
  brigade run-once
  brigade run-once --max-messages 10 --idle-timeout 5
  brigade run-once --queue uploads       # of several in SQS_QUEUE_URL
"""


@click.command("run-once", epilog=_EXAMPLES)
@click.option("--queue", help="Name of the queue to read. Default: the only one of SQS_QUEUE_URL.")
@click.option(
    "--max-messages", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Take at most these."
)
@click.option(
    "--idle-timeout",
    type=click.FloatRange(0.0, 3600.0),
    default=20.0,
    show_default=True,
    help="Leave after this many seconds without a message.",
)
def command(queue: str | None, max_messages: int, idle_timeout: float) -> int:
    """Take a message, run its task, settle it, leave.

    Outcomes are those of a worker: a failed task leaves its message in retry or in the dead-letter queue. Exit code 0:
    all settled, or none came; 1: a task failed, or a message was dead-lettered; 2: a setting; 143: SIGTERM (what was
    held is handed back).
    """
    if math.isnan(idle_timeout):  # click takes it for a number in range, and no time is ever as long
        raise click.BadParameter("nan is no number of seconds", param_hint="--idle-timeout")
    began = time.monotonic()
    # Jobs are many on a node, and nobody probes them: the health server starts only where its port is named.
    os.environ.setdefault("BRIDGE_HEALTH_PORT", "0")
    settings = _settings()
    name = _queue_name(settings, queue)
    os.environ["BRIDGE_WAIT_TIME_SECONDS"] = str(poll_seconds(idle_timeout, settings.wait_time_seconds))

    from bridge.celery import app
    from bridge.worker.one_shot import Limits, OneShot, report, use_one_shot

    one_shot = OneShot(Limits(max_messages, idle_timeout))
    # A drain that has to stop a task leaves the process at once, from its own thread.
    one_shot.before_leaving = lambda code: report(settings, duration_seconds=time.monotonic() - began, exit_code=code)
    use_one_shot(one_shot)
    arguments = [
        "worker",
        "-P",
        "prefork",
        "-c",
        "1",
        "-Q",
        name,
        "--without-gossip",
        "--without-mingle",
        "-l",
        "WARNING",
    ]
    try:
        app.worker_main(arguments)
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    code = code or one_shot.exit_code()
    report(settings, duration_seconds=time.monotonic() - began, exit_code=code)
    return code


def poll_seconds(idle_seconds: float, wait_seconds: int) -> int:
    """Return how long a poll waits: polls of equal length fill the idle time, for none is ever cut off. Pure."""
    polls = math.ceil(idle_seconds / wait_seconds) if wait_seconds else 0
    return int(idle_seconds / polls) if polls else 0


def _settings() -> Any:
    from bridge.errors import SettingsError
    from bridge.settings.loading import load_worker_settings

    try:
        return load_worker_settings()
    except SettingsError as error:
        raise click.ClickException(str(error)) from error


def _queue_name(settings: Any, wanted: str | None) -> str:
    from bridge.sqs.queues import named_queues

    names = [queue.name for queue in named_queues(settings.sqs_queue_urls, settings.sqs_task_queue_url)]
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted in names:
        return str(wanted)
    text = f"--queue must be one of {', '.join(names)}"
    raise click.UsageError(text if wanted is None else f"{text}, not {wanted!r}")
