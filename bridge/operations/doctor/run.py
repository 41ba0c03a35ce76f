"""The doctor's round: read, judge, and gather the findings. The verdicts themselves are in bridge/doctor_*.py."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from bridge.errors import SettingsError
from bridge.globs import matches
from bridge.messages.explain import describe
from bridge.messages.routing import Route
from bridge.operations.doctor import queue as judge
from bridge.operations.doctor.access import check_clock, check_credentials, check_permission
from bridge.operations.doctor.bucket import check_notification, check_outputs, check_policy
from bridge.operations.doctor.finding import Finding
from bridge.operations.doctor.reads import (
    QueueRead,
    dead_letter_queue_url,
    probe_bucket,
    probe_sending,
    probe_source,
    read_notification,
    read_queue,
)
from bridge.operations.doctor.services import check_bus, check_output_prefixes, check_store
from bridge.s3.clients import s3_client
from bridge.s3.outputs import Output, output_prefixes
from bridge.settings.loading import OperatorSettings
from bridge.settings.region import is_aws_host
from bridge.sqs.clients import sqs_client
from bridge.sqs.queue_lookup import check_endpoint
from bridge.sqs.queue_policy import redrive_policy
from bridge.text import shown

_GLOB = frozenset("*?[")


@dataclass(frozen=True)
class _Tasks:
    """What the task modules say: their routes, and the most retries of any (None: one retries without end)."""

    routes: tuple[Route, ...]
    max_retries: int | None
    known: bool


def examine(settings: OperatorSettings, buckets: tuple[str, ...], *, write_test: bool) -> list[Finding]:
    """Look at everything that the settings name, and return what was found, in the order of a message's way."""
    tasks, findings = _tasks(settings)
    if settings.region is None:
        return [*findings, Finding("error", "region", "AWS_REGION", "nothing names a region", "set it")]
    with closing(sqs_client("settle", settings.region)) as sqs:
        credentials, usable = _credentials(sqs)
        findings += [credentials, *_endpoints(sqs, settings)]
        return [*findings, *_services(sqs, settings, buckets, tasks, write_test=write_test)] if usable else findings


def _services(
    sqs: Any, settings: OperatorSettings, buckets: tuple[str, ...], tasks: _Tasks, *, write_test: bool
) -> list[Finding]:
    findings = []
    outputs = output_prefixes(
        results_url=settings.results_url, archive_url=settings.archive_url, idempotency_url=settings.idempotency_url
    )
    queues = [read_queue(sqs, url) for url in settings.sqs_queue_urls]
    if not queues:
        findings.append(Finding("error", "queue", "SQS_QUEUE_URL", "is not set", "the URL of the queue S3 notifies"))
    task_queue = [read_queue(sqs, settings.sqs_task_queue_url)] if settings.sqs_task_queue_url else []
    findings.append(check_clock(next((q.skew_seconds for q in queues if q.skew_seconds is not None), None)))
    for queue in (*queues, *task_queue):
        findings += _queue(sqs, settings, queue, tasks, from_s3=queue in queues)
    findings += [check_permission(probe_sending(sqs, queue)) for queue in task_queue if queue.attributes is not None]
    findings += _buckets(settings, buckets, [q for q in queues if q.attributes is not None], tasks, outputs)
    findings += check_output_prefixes(outputs, settings.region, write_test=write_test)
    findings.append(check_store(settings.idempotency_url, settings.region))
    findings.append(check_bus(settings.monitor_url.get_secret_value() if settings.monitor_url else None))
    return findings


def _tasks(settings: OperatorSettings) -> tuple[_Tasks, list[Finding]]:
    if not settings.task_modules:
        text = "is not set here: tasks and routes were not looked at"
        finding = Finding("warning", "tasks", "BRIDGE_TASK_MODULES", text, "set it as the worker has it")
        return _Tasks((), settings.max_retries, known=False), [finding]
    from bridge.task.app import app
    from bridge.task.defaults import apply_defaults
    from bridge.task.registry import declared_routes, import_tasks

    try:
        import_tasks(settings.task_modules)
        limits = apply_defaults(app.tasks, settings, None, None)
    except SettingsError as error:
        finding = Finding("error", "tasks", ",".join(settings.task_modules), str(error), "the worker refuses to start")
        return _Tasks((), settings.max_retries, known=False), [finding]
    routes = declared_routes(settings.task_modules)
    retries = [limit.max_retries for name, limit in limits.items() if not name.startswith("celery.")]
    most = None if None in retries else max((r for r in retries if r is not None), default=settings.max_retries)
    findings = [Finding("ok", "tasks", route.task, describe(route).partition("←")[2].strip()) for route in routes]
    if not routes and settings.sqs_queue_urls:
        text = "no module has a file_task or message_task: every event would be dead-lettered"
        findings = [Finding("error", "tasks", ",".join(settings.task_modules), text, "name the modules of your tasks")]
    return _Tasks(routes, most, known=True), findings


def _credentials(client: Any) -> tuple[Finding, bool]:
    import boto3
    from botocore.exceptions import BotoCoreError

    identity = fault = None
    session = boto3.session.Session(region_name=client.meta.region_name)
    try:
        found = session.get_credentials()
    except BotoCoreError as error:
        return check_credentials(None, None, str(error)), False
    # The keys of an emulator mean nothing to the real STS, and must not be sent there.
    named = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS"))
    if found is not None and (named or is_aws_host(client.meta.endpoint_url)):
        try:
            with closing(session.client("sts")) as sts:
                identity = str(sts.get_caller_identity()["Arn"])
        except Exception as error:  # noqa: BLE001 - whatever keeps us from being known is the finding
            fault = f"from {found.method}, but AWS does not take them: {' '.join(str(error).split())[:200]}"
    return check_credentials(found.method if found else None, identity, fault), found is not None and fault is None


def _endpoints(client: Any, settings: OperatorSettings) -> list[Finding]:
    findings = []
    for url in (*settings.sqs_queue_urls, *filter(None, [settings.sqs_task_queue_url])):
        try:
            check_endpoint(client, url)
        except SettingsError as error:
            findings.append(Finding("error", "endpoint", "SQS", str(error)))
    endpoint = client.meta.endpoint_url
    kind = "" if is_aws_host(endpoint) else ", not AWS (AWS_ENDPOINT_URL or AWS_ENDPOINT_URL_SQS)"
    return findings or [Finding("ok", "endpoint", "SQS", f"{shown(endpoint)}, region {settings.region}{kind}")]


def _queue(sqs: Any, settings: OperatorSettings, queue: QueueRead, tasks: _Tasks, *, from_s3: bool) -> list[Finding]:
    name, attributes = queue.name, queue.attributes
    if attributes is None:
        return [Finding("error", "queue", name, f"cannot be read: {queue.fault}", "the URL, sqs:GetQueueAttributes")]
    if attributes.get("FifoQueue") == "true":
        return [Finding("error", "queue", name, "is a FIFO queue, which S3 cannot notify", "a standard queue")]
    waiting = attributes.get("ApproximateNumberOfMessages", "?")
    hidden = attributes.get("ApproximateNumberOfMessagesNotVisible", "?")
    findings = [Finding("ok", "queue", name, f"{waiting} messages wait, {hidden} are in flight")]
    dlq_url, fault = settings.sqs_dlq_url, None
    target = str(redrive_policy(attributes).get("deadLetterTargetArn") or "")
    if dlq_url is None and target:
        dlq_url, fault = dead_letter_queue_url(sqs, target)
    dlq = read_queue(sqs, dlq_url) if dlq_url else None
    if fault or (dlq and dlq.fault):
        text = f"{dlq_url or target} cannot be read: {fault or (dlq and dlq.fault)}"
        findings.append(Finding("error", "dead letters", name, text, "sqs:GetQueueUrl, sqs:GetQueueAttributes on it"))
    else:
        findings.append(
            judge.check_dead_letter_queue(name, attributes, settings.sqs_dlq_url, dlq.attributes if dlq else None)
        )
    findings += [
        judge.check_receive_count(name, attributes, tasks.max_retries, settings.spare_receives),
        judge.check_visibility(name, attributes, settings.visibility_timeout_seconds, renewed=settings.heartbeat),
        judge.check_retention(name, attributes),
        judge.check_encryption(name, attributes, from_s3=from_s3),
    ]
    if from_s3:
        findings.append(judge.check_message_size(name, attributes))
    findings += [check_permission(probe) for probe in probe_source(sqs, queue)]
    if dlq is not None and dlq.attributes is not None:
        findings += [
            judge.check_dlq_retention(name, attributes, dlq.attributes),
            judge.check_dlq_allows(name, queue.arn, dlq.attributes),
            judge.check_dlq_depth(name, dlq.attributes),
            judge.check_encryption(dlq.name, dlq.attributes, from_s3=False),
            check_permission(probe_sending(sqs, dlq)),
        ]
    return findings


def _buckets(
    settings: OperatorSettings,
    named: tuple[str, ...],
    queues: list[QueueRead],
    tasks: _Tasks,
    outputs: tuple[Output, ...],
) -> list[Finding]:
    buckets = named or tuple(b for b in settings.allowed_buckets if not _GLOB & set(b))
    if not buckets:
        text = "no bucket is named, so no notification, policy or permission of one was looked at"
        return [Finding("warning", "bucket", "none", text, "brigade doctor --bucket NAME")]
    findings = []
    client = s3_client(settings.region)
    for bucket in buckets:
        taking = [r for r in tasks.routes if r.kind == "file" and matches(r.bucket, bucket)]
        takes = _taker(taking, [output.prefix for output in outputs if output.bucket == bucket])
        probes = probe_bucket(client, bucket, takes, _literal_head(taking))
        findings += [check_permission(probe) for probe in probes]
        if tasks.known and not taking and not any(r.everything for r in tasks.routes):
            text = "no task takes objects of this bucket"
            findings.append(Finding("warning", "tasks", bucket, text, "file_task(bucket=…)"))
        if not any(matches(glob, bucket) for glob in settings.allowed_buckets):
            text = "is not in BRIDGE_ALLOWED_BUCKETS: its events are dead-lettered"
            findings.append(Finding("error", "bucket", bucket, text, "add it there"))
        configuration, fault = read_notification(client, bucket)
        if configuration is None:
            text = f"its notifications cannot be read: {fault}"
            findings.append(Finding("warning", "notification", bucket, text, "run it with credentials that may"))
        else:
            arns = [queue.arn for queue in queues]
            findings.append(check_notification(bucket, configuration, arns))
            findings += check_outputs(bucket, configuration, arns, outputs)
        findings += [check_policy(q.name, (q.attributes or {}).get("Policy"), q.arn, bucket) for q in queues]
    return findings


def _taker(routes: Iterable[Route], own_prefixes: Sequence[str]) -> Callable[[str], bool]:
    """Return which keys a worker reads: its routes take them, and they are none of our own outputs."""
    globs = [route.key for route in routes]
    return lambda key: not key.startswith(tuple(own_prefixes)) and any(matches(glob, key) for glob in globs)


def _literal_head(routes: Sequence[Route]) -> str:
    """Return what the keys of the first route begin with: a role may be allowed to read those and no others."""
    return re.split(r"[*?\[]", routes[0].key, maxsplit=1)[0] if routes else ""
