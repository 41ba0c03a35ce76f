"""``brigade exporter``: the depths of the queues as metrics, from one place."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import click

from bridge.errors import SettingsError

if TYPE_CHECKING:
    from bridge.health.server import Response
    from bridge.settings.loading import OperatorSettings


_EXAMPLES = """
\b
Examples:
  brigade exporter
  brigade exporter --port 9100 --interval 60
  brigade exporter --no-oldest-age       # asks SQS alone
"""


@click.command("exporter", epilog=_EXAMPLES)
@click.option("--port", type=click.IntRange(0, 65_535), default=8081, show_default=True, help="0: any free port.")
@click.option(
    *("--interval", "interval_seconds"),
    type=click.IntRange(5, 3600),
    default=30,
    show_default=True,
    help="Seconds between two looks at the queues.",
)
@click.option(
    "--oldest-age/--no-oldest-age", default=True, help="Ask CloudWatch how old the oldest message is (once a minute)."
)
def command(port: int, interval_seconds: int, oldest_age: bool) -> int:
    """Serve the depths of the queues at /metrics, until stopped.

    Run one for all workers. It measures the queues of SQS_QUEUE_URL and SQS_TASK_QUEUE_URL and their dead-letter
    queues, listens on BRIDGE_HEALTH_HOST, and needs sqs:GetQueueAttributes on each, sqs:GetQueueUrl on the dead-letter
    queues (or SQS_DLQ_URL), and cloudwatch:GetMetricData for the ages; without the last there are none.
    """
    from bridge.settings.loading import load_operator_settings

    try:
        settings = load_operator_settings(os.environ)
        if not settings.sqs_queue_urls:
            raise SettingsError("SQS_QUEUE_URL is not set: the queues to be measured")
        return _serve(settings, port, interval_seconds, oldest_age)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error


def _serve(settings: OperatorSettings, port: int, interval_seconds: int, oldest_age: bool) -> int:
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

    from bridge import log as logs
    from bridge import metrics
    from bridge.health.server import HealthServer, Response, as_json
    from bridge.monitoring.queue_depths import Depths, watched
    from bridge.operations.stopping import StopEvent
    from bridge.sqs.clients import sqs_client

    bridge_logger = logging.getLogger("bridge")
    bridge_logger.addHandler(logging.StreamHandler())
    bridge_logger.setLevel(settings.log_level)
    logs.use_format(
        bridge_logger, settings.log_format or logs.default_format(), pod_name=settings.pod_name, job_id=settings.job_id
    )
    log = logs.get_logger(__name__)

    stopped = StopEvent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set_by_handler())
    try:
        server = HealthServer(settings.health_host, port)
    except SettingsError as error:
        # The server is a worker's too, and names the worker's setting.
        raise SettingsError(str(error).replace(f"BRIDGE_HEALTH_PORT={port}", f"--port {port}")) from error
    sqs = sqs_client("settle", settings.region)
    registry = CollectorRegistry()
    registry.register(metrics.requests)
    rounds = [time.monotonic()]
    longest_seconds = 3 * interval_seconds + 60

    def live() -> Response:
        ok = time.monotonic() - rounds[0] < longest_seconds
        return as_json(200 if ok else 503, {"live": ok, "reasons": [] if ok else ["no round of reading has ended"]})

    def metrics_page() -> Response:
        return Response(200, generate_latest(registry), CONTENT_TYPE_LATEST)

    faults: list[SettingsError] = []

    def read() -> None:
        try:
            queues = _found_queues(sqs, settings, stopped, interval_seconds, rounds)
        except SettingsError as error:
            faults.append(error)
            stopped.set()
            return
        cloudwatch = _cloudwatch(sqs, settings.region) if oldest_age else None
        depths = Depths(sqs, watched(queues), cloudwatch=cloudwatch)
        registry.register(depths)
        while not stopped.is_set():
            depths.read()
            rounds[0] = time.monotonic()
            stopped.wait(interval_seconds)

    server.start({"/live": live, "/metrics": metrics_page})
    log.info("exporter_started", url=f"http://{settings.health_host}:{server.port}/metrics", oldest_age=oldest_age)
    # Not in the main thread: a call that hangs would keep a signal waiting.
    threading.Thread(target=read, name="bridge-exporter", daemon=True).start()
    stopped.wait()
    if faults:
        raise faults[0]
    log.info("exporter_stopped")
    return 0


def _found_queues(
    sqs: Any, settings: OperatorSettings, stopped: threading.Event, pause_seconds: float, rounds: list[float]
) -> list[Any]:
    """Return the queues with their dead-letter queues, however long SQS is away; raises SettingsError for a mistake."""
    from bridge.aws_errors import error_code
    from bridge.log import get_logger
    from bridge.sqs.queue_lookup import look_up
    from bridge.sqs.queues import named_queues

    while True:
        try:
            named = named_queues(settings.sqs_queue_urls, settings.sqs_task_queue_url)
            return [look_up(sqs, queue, settings.sqs_dlq_url) for queue in named]
        except SettingsError:
            raise
        except Exception as error:  # noqa: BLE001 - network errors, throttling, 5xx: what may pass
            get_logger(__name__).warning(
                "sqs_unreachable", queue=named[0].name, error_type=error_code(error), error=str(error)
            )
            rounds[0] = time.monotonic()
            if stopped.wait(min(pause_seconds, 5.0)):
                return []


def _cloudwatch(sqs: Any, region: str | None) -> Any:
    """Return a client, or None where the queues are an emulator's: AWS's CloudWatch knows nothing of them."""
    import boto3
    from botocore.config import Config

    from bridge.log import get_logger
    from bridge.settings.region import is_aws_host

    config = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})
    client = boto3.session.Session(region_name=region).client("cloudwatch", config=config)
    if is_aws_host(client.meta.endpoint_url) and not is_aws_host(sqs.meta.endpoint_url):
        get_logger(__name__).info(
            "oldest_age_off", error="SQS is not AWS's, and no AWS_ENDPOINT_URL_CLOUDWATCH names its CloudWatch"
        )
        return None
    return client
