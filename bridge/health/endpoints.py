"""What the health server says of the running worker, asked anew with each request.

Nothing here waits: no call is made, and no lock is held for longer than a look at the lease table takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from bridge import metrics
from bridge.delivery.lease import LeaseState
from bridge.delivery.lease_table import LeaseTable
from bridge.health.liveness import Liveness
from bridge.health.readiness import QueueFacts, report, why_not_ready
from bridge.health.server import Response, as_json
from bridge.sqs.calls import last_call
from bridge.sqs.queues import Queue


class Endpoints:
    """The four paths of one worker."""

    def __init__(
        self,
        queues: Sequence[Queue],
        leases: LeaseTable,
        liveness: Liveness,
        *,
        consumed: Collection[str],
        receiving: Collection[str],
    ) -> None:
        """``consumed`` and ``receiving`` grow: queues that Celery consumes, and those whose receivers have started."""
        self._queues = queues
        self._leases = leases
        self._liveness = liveness
        self._consumed = consumed
        self._receiving = receiving
        self._version = _version()

    def by_path(self) -> Mapping[str, Callable[[], Response]]:
        """Return the function for each path."""
        return {"/live": self.live, "/ready": self.ready, "/health": self.health, "/metrics": self.metrics}

    def live(self) -> Response:
        """``{"live": bool, "reasons": [str]}``; 503 when something is stuck that only a restart ends."""
        return _probe("live", self._liveness.look())

    def ready(self) -> Response:
        """``{"ready": bool, "reasons": [str]}``; 503 when the worker takes no messages."""
        return _probe("ready", self._why_not_ready(self._facts()))

    def health(self) -> Response:
        """The report of ``bridge.health.readiness``; 503 unless its status is ``healthy``."""
        facts = self._facts()
        reasons = self._why_not_ready(facts)
        said = report(
            facts,
            reasons=reasons,
            draining=self._leases.closed,
            settled=_settled_by_outcome(),
            version=self._version,
        )
        return as_json(HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK, said)

    def metrics(self) -> Response:
        """Every metric of this process in Prometheus' text format; those of the user's own tasks in it are included."""
        return Response(HTTPStatus.OK, generate_latest(), CONTENT_TYPE_LATEST)

    def _why_not_ready(self, facts: Sequence[QueueFacts]) -> list[str]:
        return why_not_ready(facts, draining=self._leases.closed, stuck=self._liveness.look())

    def _facts(self) -> list[QueueFacts]:
        held = self._leases.in_state(LeaseState.WAITING, LeaseState.RUNNING, LeaseState.ENDING, LeaseState.RELEASING)
        in_flight = Counter(lease.queue.name for lease in held)
        polls = {sample.labels["queue"]: sample.value for sample in _samples(metrics.last_poll)}
        facts = []
        for queue in self._queues:
            if queue.name in self._consumed:
                last = last_call(queue.url)
                facts.append(
                    QueueFacts(
                        name=queue.name,
                        kind=queue.kind,
                        receiving=queue.name in self._receiving,
                        in_flight=in_flight[queue.name],
                        last_poll_seconds=polls.get(queue.name),
                        last_action=last.action if last else None,
                        last_result=last.result if last else None,
                        last_call_seconds=last.ended_at_seconds if last else None,
                    )
                )
        return facts


def _probe(word: str, reasons: Sequence[str]) -> Response:
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return as_json(status, {word: not reasons, "reasons": list(reasons)})


def _settled_by_outcome() -> dict[str, int]:
    counts: Counter[str] = Counter()
    for sample in _samples(metrics.settled):
        if sample.name.endswith("_total"):
            counts[sample.labels["outcome"]] += int(sample.value)
    return dict(counts)


def _samples(metric: Any) -> list[Any]:
    return [sample for family in metric.collect() for sample in family.samples]


def _version() -> str:
    try:
        return version("bucket-brigade")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
