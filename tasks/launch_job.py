"""Launch a Kubernetes Job for every message of a queue, made from a template (``BRIDGE_JOB_TEMPLATE``).

The message is deleted when the API has accepted the Job; from then on the Job is what remembers it: the annotation
``task`` holds the body, and ``brigade jobs`` lists, requeues and clears up. The Job's name follows from the message id,
so a message delivered twice makes one Job. While the cluster is away, busy or out of quota the message waits.

Needs the extra ``k8s``. Give the module a worker and a queue of its own: it takes every message.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import signals
from prometheus_client.core import REGISTRY, CounterMetricFamily
from prometheus_client.registry import Collector

from bridge import Message, message_task, metrics
from bridge.errors import JobRefused, SettingsError, refuse
from bridge.kubernetes.job_manifest import check_template, job_manifest, stored_task, too_long
from bridge.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric

    from bridge.settings.loading import JobSettings

log = get_logger(__name__)

DEFAULT_TEMPLATE = Path(__file__).with_name("job_template.yaml")


# No limit of retries: a quota that is used up for an hour must not fill the dead-letter queue. SQS itself moves a
# message there at last, by the queue's maxReceiveCount.
@message_task(everything=True, max_retries=None, dont_autoretry_for=(JobRefused,), time_limit=120)
def launch_job(message: Message) -> dict[str, Any]:
    """Create the Job of a message; return its ``job`` and ``namespace``, and whether it ``existed`` already.

    Raises JobRefused when no Job can come of the message (dead-lettered at once), JobNotAccepted when the API does not
    take it now, SettingsError when template or cluster cannot be used.
    """
    from bridge.kubernetes.job_api import (
        connected,  # here, not above: the client is not for the worker's parent process
    )

    settings = _settings()
    template = read_template(settings.job_template)
    task_url = _store(message, settings) if too_long(message) else None
    manifest = job_manifest(template, message, task_url=task_url)
    api = connected()
    created = api.create(manifest)
    name, namespace = manifest["metadata"]["name"], manifest["metadata"].get("namespace") or api.namespace
    log.info("job_launched", message_id=message.id, job=name, namespace=namespace, existed=not created)
    return {"job": name, "namespace": namespace, "existed": not created}


def read_template(path: str | None) -> dict[str, Any]:
    """Return the template at ``path`` (None: the one that comes along); raises SettingsError, one line."""
    import yaml  # here, not above: it comes with the extra

    file = DEFAULT_TEMPLATE if path is None else Path(path)
    try:
        return check_template(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, SettingsError) as error:
        text = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise SettingsError(f"BRIDGE_JOB_TEMPLATE={file}: {text}") from error


def _store(message: Message, settings: JobSettings) -> str:
    """Put a long body under ``BRIDGE_RESULTS_URL``; the same message goes to the same place each time."""
    from bridge.s3.clients import s3_client

    if settings.results_url is None:
        raise JobRefused(
            "body and attributes are more than an annotation holds: set BRIDGE_RESULTS_URL, where such are stored"
        )
    bucket, _, prefix = settings.results_url.removeprefix("s3://").partition("/")
    key = f"{prefix}launch-job/{message.id}.json"
    content = stored_task(message)
    s3_client(settings.region).put_object(Bucket=bucket, Key=key, Body=content, ContentType="application/json")
    return f"s3://{bucket}/{key}"


def _settings() -> JobSettings:
    from bridge.settings.loading import load_job_settings  # here, not above: importing tasks reads no settings

    return load_job_settings(os.environ)


@signals.worker_init.connect(weak=False, dispatch_uid="tasks.launch_job")
def _refuse_without_means(**_: Any) -> None:
    """Refuse to start where no message could ever become a Job."""
    if importlib.util.find_spec("kubernetes") is None:
        refuse("tasks.launch_job needs kubernetes: pip install 'bucket-brigade[k8s]'")
    try:
        read_template(_settings().job_template)
    except SettingsError as error:
        refuse(str(error))
    known = ("KUBECONFIG", "KUBERNETES_SERVICE_HOST")
    if not any(os.environ.get(name) for name in known) and not Path("~/.kube/config").expanduser().exists():
        refuse("tasks.launch_job finds no cluster: it runs in a pod, or with KUBECONFIG or ~/.kube/config")


class _LaunchedJobs(Collector):
    """``bridge_jobs_launched_total``, read off the runs that the worker's parent process has counted.

    Jobs are launched in pool children, whose own counters are not exported.
    """

    _RESULTS = (("succeeded", "launched"), ("retried", "retried"), ("failed", "refused"))

    def describe(self) -> Iterable[Metric]:
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        runs = {s.labels["outcome"]: s.value for s in _samples() if s.labels["task"] == launch_job.name}
        for outcome, result in self._RESULTS:
            if outcome in runs:
                family.add_metric([result], runs[outcome])
        return [family]

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily("bridge_jobs_launched", "Messages made into Jobs, by result.", labels=["result"])


def _samples() -> list[Any]:
    return [s for family in metrics.task_runs.collect() for s in family.samples if s.name.endswith("_total")]


REGISTRY.register(_LaunchedJobs())
