"""What a one-shot worker leaves behind of its counters: one log line, and a push where there is a Pushgateway.

A pod that lives for seconds is gone before Prometheus has scraped it
(https://prometheus.io/docs/practices/pushing/: the Pushgateway is for jobs like this one).
"""

from __future__ import annotations

from prometheus_client import REGISTRY
from prometheus_client.exposition import pushadd_to_gateway

from bridge import metrics
from bridge.log import get_logger
from bridge.one_shot import counted
from bridge.settings.loading import WorkerSettings
from bridge.settings.rules import shown

log = get_logger(__name__)

#: A gateway that hangs must not keep a job from ending.
PUSH_SECONDS = 3.0


def tell(settings: WorkerSettings, *, duration_seconds: float, exit_code: int) -> None:
    """Write the line ``run_summary``, and push all counters to ``BRIDGE_PUSHGATEWAY_URL`` if it is set."""
    log.info(
        "run_summary",
        received=sum(counted(metrics.received, "queue").values()),
        settled=counted(metrics.settled, "outcome"),
        task_runs=counted(metrics.task_runs, "outcome"),
        duration_seconds=round(duration_seconds, 3),
        exit_code=exit_code,
        pod_name=settings.pod_name,
        **({} if settings.job_id is None else {"job_id": settings.job_id}),
    )
    if settings.pushgateway_url is None:
        return
    try:
        pushadd_to_gateway(
            settings.pushgateway_url,
            job="bucket-brigade",
            registry=REGISTRY,
            grouping_key={"instance": settings.pod_name},
            timeout=PUSH_SECONDS,
        )
    except Exception as error:  # noqa: BLE001 - whatever a gateway does, the messages are settled
        log.warning(
            "push_failed", url=shown(settings.pushgateway_url), error_type=type(error).__name__, error=str(error)
        )
