"""An S3 that notifies a queue elsewhere: moto's, with a forwarder of what it announces. For docker-compose.yml.

moto's S3 can notify moto's own SQS only, which is not a realistic queue; ElasticMQ is one, and has no S3. So the bucket
notifies a queue in here, and a thread moves every message on to ``SQS_QUEUE_URL``, body as it is: sent, confirmed, then
deleted. While the other side is away the events wait in here; like the objects, they are gone with this process.

    python -m bridge.local.forwarder --port 5000

``uploads`` is the bucket that notifies, ``results`` the one that does not.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from bridge import log as logs
from bridge.aws_errors import error_code
from bridge.errors import SettingsError
from bridge.operations.stopping import StopEvent
from bridge.settings.loading import load_queue_settings
from bridge.sqs.batches import PARALLEL, BatchSender, Outgoing, SendFailed
from bridge.sqs.clients import sqs_client
from bridge.sqs.quotas import MAX_BATCH_ENTRIES, MAX_VISIBILITY_SECONDS

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

log = logs.get_logger("bridge.local.forwarder")  # by name, for this module runs as __main__

#: Nobody else reads the queue in here, so what was received need never come back by itself: SQS's longest lease.
_HELD_SECONDS = MAX_VISIBILITY_SECONDS
#: How long a stop may have to wait for an empty poll.
_WAIT_SECONDS = 1
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
#: After a stop was asked for, what is here already may still go out within this time.
_FLUSH_SECONDS = 5.0


class Forwarder:
    """Moves messages from one queue to another: at least once, and never deleted before the other side confirmed.

    ``source`` is read by this one alone, with ``source_url``; ``target`` must be a client that retries
    (``sqs_client("send", …)``) with PARALLEL connections. ``run`` is for a thread; ``stop`` ends it.
    """

    def __init__(self, source: SQSClient, source_url: str, target: Any, target_url: str) -> None:
        self._source = source
        self._source_url = source_url
        self._target = target
        self._target_url = target_url
        self._stopping = threading.Event()
        self._giving_up = threading.Event()
        self.forwarded = 0

    def run(self) -> None:
        """Forward until stopped; no error of either side ends it."""
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            try:
                messages = self._receive()
            except Exception as error:  # noqa: BLE001 - whatever it is, the messages are still there
                log.warning("forward_failed", error_type=error_code(error), error=str(error))
                if self._stopping.wait(pause_seconds):
                    return
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
                continue
            pause_seconds = _FIRST_PAUSE_SECONDS
            if messages:
                self._move(messages)
            elif self._stopping.is_set():
                return
            if self._giving_up.is_set():
                return

    def stop(self) -> None:
        """Ask ``run`` to end when all that is here has gone out, or after ``_FLUSH_SECONDS``; returns at once."""
        self._stopping.set()
        timer = threading.Timer(_FLUSH_SECONDS, self._giving_up.set)
        timer.daemon = True
        timer.start()

    def _receive(self) -> Sequence[MessageTypeDef]:
        answer = self._source.receive_message(
            QueueUrl=self._source_url,
            MaxNumberOfMessages=MAX_BATCH_ENTRIES,
            WaitTimeSeconds=0 if self._stopping.is_set() else _WAIT_SECONDS,
            VisibilityTimeout=_HELD_SECONDS,
        )
        return answer.get("Messages", [])

    def _move(self, messages: Sequence[MessageTypeDef]) -> None:
        """Send until all are confirmed, however long that takes; one that was sent twice is one event twice."""
        left = list(messages)
        pause_seconds = _FIRST_PAUSE_SECONDS
        while left and not self._giving_up.is_set():
            sender = BatchSender[str](self._target, self._target_url, rate=None, stop=self._giving_up)
            outgoing = [Outgoing(message["ReceiptHandle"], message["Body"]) for message in left]
            try:
                for handles in sender.send(outgoing):
                    left = [message for message in left if message["ReceiptHandle"] not in handles]
                    self._delete(handles)
            except Exception as error:  # noqa: BLE001 - network, throttling, a queue that is not there yet: again
                reason = "SendFailed" if isinstance(error, SendFailed) else error_code(error)
                log.warning("forward_failed", error_type=reason, error=str(error), held=len(left))
                self._giving_up.wait(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    def _delete(self, handles: Sequence[str]) -> None:
        self.forwarded += len(handles)
        try:
            self._source.delete_message_batch(
                QueueUrl=self._source_url,
                Entries=[{"Id": str(place), "ReceiptHandle": handle} for place, handle in enumerate(handles)],
            )
        except Exception as error:  # noqa: BLE001 - it has been sent, and stays hidden: no one receives it again
            log.warning("forward_delete_failed", error_type=error_code(error), error=str(error))
        log.info("events_forwarded", count=len(handles))


@click.command("forwarder")
@click.option(
    "--host",
    type=click.Choice(["127.0.0.1", "0.0.0.0"]),  # noqa: S104 - only where it is asked for, as in a container
    default="127.0.0.1",
    show_default=True,
)
@click.option("--port", type=click.IntRange(0, 65_535), default=5000, show_default=True, help="0: any free port.")
def command(host: str, port: int) -> int:
    """Serve an S3 whose bucket `uploads` notifies SQS_QUEUE_URL, until stopped."""
    try:
        settings = load_queue_settings()
        if len(settings.sqs_queue_urls) != 1:
            raise SettingsError("SQS_QUEUE_URL must name the one queue that is to be notified")
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    _log_lines()
    target = sqs_client("send", settings.region, connections=PARALLEL)
    try:
        _serve(host, port, target, settings.sqs_queue_urls[0])
    finally:
        target.close()
    return 0


def _serve(host: str, port: int, target: Any, target_url: str) -> None:
    try:
        from bridge.local.stack import create_resources, moto_server
    except ModuleNotFoundError as error:
        raise click.ClickException(f"needs {error.name}: pip install 'bucket-brigade[local]'") from error
    stopped = StopEvent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set_by_handler())
    try:
        with moto_server(host, port) as endpoint_url:
            stack = create_resources(endpoint_url, "uploads", max_receive_count=1000, visibility_timeout_seconds=30)
            forwarder = Forwarder(stack.sqs(), stack.queue_url, target, target_url)
            thread = threading.Thread(target=forwarder.run, name="forwarder", daemon=True)
            thread.start()
            log.info("s3_ready", url=endpoint_url, bucket=stack.uploads_bucket, queue=target_url)
            stopped.wait()
            forwarder.stop()
            thread.join(_FLUSH_SECONDS + _LONGEST_PAUSE_SECONDS)
            log.info("s3_stopped", forwarded=forwarder.forwarded)
    except SystemExit as taken:  # werkzeug has said why
        raise click.ClickException(f"cannot serve S3 on {host}:{port}") from taken


def _log_lines() -> None:
    logger = logging.getLogger("bridge")
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    logs.use_format(logger, logs.default_format(), pod_name=os.environ.get("BRIDGE_POD_NAME"))


if __name__ == "__main__":
    try:
        raise SystemExit(command.main(prog_name="python -m bridge.local.forwarder", standalone_mode=False))
    except click.ClickException as wrong:
        click.echo(f"forwarder: {wrong.format_message()}", err=True)
        raise SystemExit(2) from None
