"""``brigade demo``: files put into a bucket, the events off the queue, a real worker, and every end checked."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bridge.local.demo_state import GARBAGE_LABEL, DemoState
from bridge.local.monitor import local_flower, local_redis
from bridge.local.sample_files import GARBAGE, SampleFile, sample_files
from bridge.local.stack import LocalStack, forget_foreign_settings, local_stack
from bridge.local.verify import Finding, findings
from bridge.local.worker import WorkerProcess

#: After this long the demo says what is missing and gives up; it takes a quarter of it on a slow machine.
LIMIT_SECONDS = 90.0
_LOOK_SECONDS = 0.1
#: Exit code of a process that a signal ended, as shells count: 128 + its number.
_SIGTERM_EXIT = 143


def run_demo(*, keep: bool = False, flower: bool = False) -> int:
    """Run the demo; returns the exit code: 0 only if every file ended where it should. Raises KeyboardInterrupt.

    With ``flower`` a Redis and Flower run beside it (see bridge/local/monitor.py).
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    forget_foreign_settings(os.environ)  # a profile that does not exist would stop even a client for 127.0.0.1
    files = sample_files()
    state = DemoState([*(f.key for f in files), GARBAGE_LABEL])
    with _sigterm_raises(), local_stack() as stack, contextlib.ExitStack() as monitor:
        console.print(
            f"S3 and SQS are at {stack.endpoint_url}; bucket {stack.uploads_bucket} notifies {stack.queue_url}"
        )
        environment = _environment(stack)
        if flower:
            environment["BRIDGE_MONITOR_URL"] = monitor.enter_context(local_redis())
            # Flower first: it shows what it has heard itself.
            address = monitor.enter_context(local_flower(environment))
            console.print(f"Flower is at {address}, its bus at {environment['BRIDGE_MONITOR_URL']}")
        with WorkerProcess(environment, state.on_line) as worker:
            console.print(f"started: {' '.join(worker.command()[1:])}")
            _upload(stack, files, state)
            console.print(f"put {len(files)} files into the bucket, and one garbage message into the queue")
            finished = _watch(console, state, worker)
            found = findings(stack, files, state)
            console.print(_final_table(found))
            good = finished and all(f.good for f in found)
            if not good:
                _explain(console, worker, finished)
            elif keep:
                _keep(console, stack, worker, environment.get("BRIDGE_MONITOR_URL"))
    if good:
        console.print("every file ended where it should")
    return 0 if good else 1


def _environment(stack: LocalStack) -> dict[str, str]:
    return {
        **os.environ,
        **stack.settings(),
        # The demo's own tasks are asked first: the shipped one takes every file.
        "BRIDGE_TASK_MODULES": "bridge.local.demo_tasks,tasks.describe",
        "BRIDGE_RESULTS_URL": f"s3://{stack.results_bucket}/manifests/",
        "BRIDGE_VISIBILITY_TIMEOUT_SECONDS": "30",
        "BRIDGE_WAIT_TIME_SECONDS": "1",
        "BRIDGE_DRAIN_SECONDS": "5",
        "BRIDGE_HEALTH_PORT": "0",  # a worker of the user's may have the default port
        "BRIDGE_LOG_FORMAT": "json",
        "BRIDGE_LOG_LEVEL": "INFO",
    }


def _upload(stack: LocalStack, files: list[SampleFile], state: DemoState) -> None:
    s3 = stack.s3()
    for file in files:
        file.put(s3, stack.uploads_bucket)
    state.garbage_id = stack.sqs().send_message(QueueUrl=stack.queue_url, MessageBody=GARBAGE)["MessageId"]


def _watch(console: Console, state: DemoState, worker: WorkerProcess) -> bool:
    """Show what happens until everything has ended; False when the worker died or time ran out."""
    deadline = time.monotonic() + LIMIT_SECONDS
    live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
    with live or contextlib.nullcontext():
        while not state.all_ended():
            if worker.exit_code() is not None or time.monotonic() > deadline:
                return False
            if live:
                live.update(_live_table(state))
            else:
                _print_lines(console, state)
            time.sleep(_LOOK_SECONDS)
    if not console.is_terminal:
        _print_lines(console, state)
    return True


def _print_lines(console: Console, state: DemoState) -> None:
    for line in state.news():
        console.print(Text(f"  {line}"))


def _live_table(state: DemoState) -> Table:
    table = Table("file", "run", "state", "last error", title="worker")
    for row in state.rows.values():
        style = "green" if row.ended and "dead" not in row.state else "yellow" if not row.ended else "red"
        table.add_row(Text(row.label), str(row.attempts or ""), Text(row.state, style=style), Text(row.error))
    return table


def _final_table(found: list[Finding]) -> Table:
    table = Table("", "file", "expected", "seen", title="where everything ended")
    for finding in found:
        mark = Text("✓", style="green") if finding.good else Text("✗", style="bold red")
        table.add_row(mark, Text(finding.label), Text(finding.expected), Text(finding.seen))
    return table


def _explain(console: Console, worker: WorkerProcess, finished: bool) -> None:
    if worker.exit_code() is not None:
        console.print(f"the worker ended with exit code {worker.exit_code()}; its last lines:")
    elif not finished:
        console.print(f"not everything had ended after {LIMIT_SECONDS:.0f} s; the worker's last lines:")
    else:
        console.print("something ended in the wrong place; the worker's last lines:")
    for line in worker.last_lines(30):
        console.print(Text(f"  {line}"))


def _keep(console: Console, stack: LocalStack, worker: WorkerProcess, bus: str | None) -> None:
    settings = {**stack.settings(), **({"BRIDGE_MONITOR_URL": bus} if bus else {})}
    exports = " ".join(f"{name}={value}" for name, value in settings.items())
    python = f"{sys.executable} -c"
    put = "import boto3; boto3.client('s3').put_object(Bucket='uploads', Key='incoming/mine.txt', Body=b'hello')"
    dead = (
        "import boto3, json; [print(m['Body'][:60], m['MessageAttributes']['BridgeCause']['StringValue']) for m in "
        f"boto3.client('sqs').receive_message(QueueUrl='{stack.dlq_url}', MessageAttributeNames=['All'], "
        "MaxNumberOfMessages=10, VisibilityTimeout=1).get('Messages', [])]"
    )
    listed = (
        "import boto3; [print(o['Key']) for o in "
        "boto3.client('s3').list_objects_v2(Bucket='results').get('Contents', [])]"
    )
    lines = [
        "",
        "It keeps running; Ctrl-C ends it. What to try next, in another terminal:",
        f"  export {exports}",
        f'  {python} "{put}"       # one more file',
        f'  {python} "{listed}"       # the manifests',
        f'  {python} "{dead}"       # the dead letters and why',
        *([f"  {sys.executable} -m celery -A bridge inspect stats       # remote control"] if bus else []),
        f"  kill -TERM {worker.process_group}       # the worker drains and ends",
        "",
    ]
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    while worker.exit_code() is None:
        time.sleep(_LOOK_SECONDS)
    console.print(f"the worker ended with exit code {worker.exit_code()}")


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM unwind the ``with`` statements, which end the worker, as Ctrl-C does by itself."""

    def leave(_: int, __: FrameType | None) -> None:
        raise SystemExit(_SIGTERM_EXIT)

    before: Any = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
