"""Contract tests: what the bridge leans on in celery, kombu and billiard, so that an upgrade of theirs fails loudly.

Nothing of the bridge's own behaviour is tested here. ``PushTransport`` has the shape of the bridge's transport without
SQS: a subclass named by its class path, whose channel is handed its messages instead of fetching them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from celery import Celery
from kombu import Connection
from kombu.transport import memory

from tests import REPOSITORY as ROOT

QUEUE = "uploads"


class PushTransport(memory.Transport):
    """Kombu's in-memory transport, which says of itself that it works with an event loop, as SQS's does."""

    implements = memory.Transport.implements.extend(asynchronous=True)
    driver_type = "sqs"


def new_app(**conf: Any) -> Celery:
    """Return an app with the bridge's settings, and with a result store that can be read."""
    app = Celery("contract", broker="sqs://", backend="cache+memory://", set_as_current=False)
    app.conf.update(
        broker_transport="tests.contract:PushTransport",
        broker_connection_retry_on_startup=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure_or_timeout=False,
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        **conf,
    )
    return app


def payload(task: str, args: Any = (), *, tag: str = "tag", **headers: Any) -> dict[str, Any]:
    """Return a message in the form in which bridge.messages.envelope hands it to Kombu; the task id is the tag."""
    return {
        "body": json.dumps([list(args), {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {
            "lang": "py",
            "task": task,
            "id": tag,
            "root_id": tag,
            "parent_id": None,
            "group": None,
            "retries": 0,
            "timelimit": [None, None],
            "argsrepr": "s3://bucket/key",
            "kwargsrepr": "{}",
            "bridge": {"kind": "event"},
            **headers,
        },
        "properties": {
            "correlation_id": tag,
            "delivery_tag": tag,
            "delivery_info": {"exchange": "", "routing_key": QUEUE, "redelivered": False},
        },
    }


def memory_channel() -> Any:
    """Return a channel of Kombu's in-memory transport."""
    return Connection(transport="tests.contract:PushTransport").channel()


def message_for(task: str, **options: Any) -> Any:
    """Return the kombu message for ``payload``, as a consumer is given it."""
    channel = memory_channel()
    message = channel.Message(payload(task, **options), channel=channel)
    message.accept = {"application/json"}
    return message


def run_python(*args: str, cwd: Path, timeout_seconds: float = 25.0, **env: str) -> SimpleNamespace:
    """Run a Python process in ``cwd``; return its exit code, output, and its notes (lines ``NOTE {json}``)."""
    done = subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(cwd))),
            "PYTHONWARNINGS": "ignore",
            **env,
        },
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )
    notes = [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("NOTE ")]
    return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr, notes=notes)
