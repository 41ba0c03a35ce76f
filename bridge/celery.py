"""What ``celery -A bridge worker`` finds: the app of ``bridge.task.app`` with its bootsteps and signals.

Importing it reads no environment: what a worker needs to know of its queues is put into the configuration when the
worker starts (``bridge.worker.startup``).
"""

from __future__ import annotations

import os
from typing import Any

import click
from celery import signals

from bridge.errors import refuse
from bridge.task.app import app

__all__ = ["app"]

app.steps["consumer"].add("bridge.worker.bootsteps:BridgeStep")
app.steps["consumer"].add("bridge.worker.bootsteps:BusStep")


def _only_on_the_bus(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    """Refuse the commands that read events from the app's broker, which here is SQS and has none.

    Flower would also listen on all addresses, without a login.
    """
    if given:  # it is there for its callback alone
        raise click.NoSuchOption(parameter.opts[0], ctx=context)
    name = context.info_name
    if name in ("flower", "events") and context.obj.app is app and not context.resilient_parsing:
        refuse(f"SQS carries no events, so this app has no `{name}`: use celery -A bridge.monitor {name}")


# Celery gives preload options to every command, a plugin's too, and Click calls them before any of its code runs
# (https://docs.celeryq.dev/en/stable/userguide/extending.html#preload-options). What Flower and `events` use first of
# the app, a connection, a worker uses too, and Flower listens by then.
app.user_options["preload"].add(
    click.Option(("--only-on-the-bus",), is_flag=True, hidden=True, expose_value=False, callback=_only_on_the_bus)
)


@signals.celeryd_init.connect(weak=False, dispatch_uid="bridge.startup")
def _start_up(sender: Any = None, instance: Any = None, conf: Any = None, options: Any = None, **_: Any) -> None:
    # Imported here: boto3 and the receivers are of no use to a process that only sends, or tests its tasks.
    from bridge.worker.startup import start_up

    start_up(instance, conf, options or {})


@signals.worker_process_init.connect(weak=False, dispatch_uid="bridge.child")
def _start_child(sender: str = "", **_: Any) -> None:
    # Celery's own mark of a child that was spawned: a forked one has all of this from its parent.
    if os.environ.get("FORKED_BY_MULTIPROCESSING"):
        from bridge.worker.startup import prepare_child

        prepare_child(app, sender)
