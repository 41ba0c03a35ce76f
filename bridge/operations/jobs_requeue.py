"""Requeueing: the message of a Job goes back to its queue, confirmed by SQS, and then the Job is deleted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import click
from botocore.exceptions import BotoCoreError, ClientError

from bridge.errors import BridgeError
from bridge.kubernetes.job_api import JobApi
from bridge.kubernetes.launched_jobs import LaunchedJob, launched_job, sendable_attributes
from bridge.operations.stopping import Stop
from bridge.s3.clients import s3_client
from bridge.settings.loading import load_queue_settings
from bridge.sqs.clients import sqs_client
from bridge.sqs.queue_lookup import check_endpoint


class Requeue:
    """One call of the command. ``done`` and ``failures`` say what became of each Job."""

    def __init__(
        self, api: JobApi, *, queue_url: str | None, dry_run: bool, stop: Stop, report: Callable[[str], None] | None
    ) -> None:
        """``queue_url`` None: each message's own queue; ``report`` is given a line for each Job that is done."""
        self.done: list[dict[str, Any]] = []
        self.failures = 0
        self._api = api
        self._queue_url = queue_url
        self._dry_run = dry_run
        self._stop = stop
        self._report = report or (lambda _: None)
        self._clients: dict[str, tuple[Any, str | None]] = {}

    def run(self, jobs: Iterable[tuple[str, LaunchedJob | str]], *, force: bool = False) -> None:
        """Requeue these Jobs, each by its name with its facts, or with why it cannot be.

        One that fails does not keep the others from their turn. ``force``: also Jobs that have not failed.
        """
        for name, job in jobs:
            if self._stop:
                return
            try:
                self._one(name, job, force)
            except (BridgeError, ClientError, BotoCoreError, ValueError) as error:
                self.failures += 1
                click.echo(f"brigade: {name}: {' '.join(str(error).split())}", err=True)

    def _one(self, name: str, job: LaunchedJob | str, force: bool) -> None:
        if isinstance(job, str):
            raise BridgeError(job)
        if job.status != "failed" and not force:
            raise BridgeError(f"is {job.status}, not failed; --force requeues it all the same")
        queue_url = self._queue_url or job.queue_url
        if queue_url is None:
            raise BridgeError("does not say which queue it came from: give --queue-url")
        client, region = self._client(queue_url)
        body, attributes = _message_of(job, region)
        entry: dict[str, Any] = {"job": name, "queue_url": queue_url}
        if self._dry_run:
            self.done.append({**entry, "message_id": None})
            self._report(f"would requeue {name} to {queue_url}")
            return
        # Asked again just before: what was listed may have been requeued by somebody else meanwhile.
        now = self._api.get(name)
        facts = launched_job(now) if now else None
        if facts is None or facts.uid != job.uid or facts.being_deleted:
            raise BridgeError("is gone or being deleted")
        sent = client.send_message(QueueUrl=queue_url, MessageBody=body, MessageAttributes=attributes)
        self.done.append({**entry, "message_id": sent["MessageId"]})
        try:
            self._api.delete(name, job.uid)
        except BridgeError as error:
            raise BridgeError(
                f"its message was sent as {sent['MessageId']}, but the Job is still there: {error}"
            ) from error
        self._report(f"requeued {name} as {sent['MessageId']}")

    def _client(self, queue_url: str) -> tuple[Any, str | None]:
        """The client for a queue, and its region; raises SettingsError for a URL or a region that cannot be."""
        if queue_url not in self._clients:
            region = load_queue_settings({**os.environ, "SQS_QUEUE_URL": queue_url}).region
            client = sqs_client("send", region, read_seconds=20)
            check_endpoint(client, queue_url)
            self._clients[queue_url] = (client, region)
        return self._clients[queue_url]


def _message_of(job: LaunchedJob, region: str | None) -> tuple[str, dict[str, dict[str, Any]]]:
    """Body and message attributes as they came; raises BridgeError or ValueError for what is not as we wrote it."""
    if job.task_url is None:
        return job.body or "", sendable_attributes(job.message_attributes)
    bucket, _, key = job.task_url.removeprefix("s3://").partition("/")
    stored = json.loads(s3_client(region).get_object(Bucket=bucket, Key=key)["Body"].read())
    if not isinstance(stored, dict) or not isinstance(stored.get("body"), str):
        raise BridgeError(f"{job.task_url} is not as tasks.launch_job writes it")
    return stored["body"], sendable_attributes(json.dumps(stored.get("message_attributes") or {}))
