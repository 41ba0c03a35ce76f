"""A worker that takes a few messages and leaves: what ``brigade run-once`` makes of an ordinary worker.

For KEDA's ScaledJob, where a pod is one job. Receiving, outcomes, time limits and the drain are the worker's own; here
is how many messages it may take, when it is done, its exit code, and the summary of its counters.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import REGISTRY, Counter
from prometheus_client.exposition import pushadd_to_gateway

from bridge import metrics
from bridge.delivery.receivers import Deliver
from bridge.log import get_logger
from bridge.settings.loading import WorkerSettings
from bridge.text import shown

log = get_logger(__name__)

_LOOK_SECONDS = 0.1
#: A gateway that hangs must not keep a job from ending.
PUSH_SECONDS = 3.0
#: Until the first poll begins the queue has to be found, which takes longer than a short idle time-out.
_START_SECONDS = 10.0
#: A poll that begins in the last part of the idle time would only make the worker stay for longer.
_LAST_POLL = 0.95


@dataclass(frozen=True, slots=True)
class Limits:
    """``max_messages`` are taken at most; ``idle_seconds`` without a message end the worker sooner."""

    max_messages: int
    idle_seconds: float


def room(limits: Limits, *, window: int, held: int, taken: int, idle_seconds: float) -> int:
    """Return the window of the receivers, messages held included: never beyond what may still be taken. Pure.

    None is left when the worker is about to leave: a poll is never cut off, so it would stay for another one.
    """
    if not held and idle_seconds >= limits.idle_seconds * _LAST_POLL:
        return 0
    return min(window, held + max(0, limits.max_messages - taken))


def is_done(limits: Limits, *, taken: int, unsettled: int, idle_seconds: float) -> bool:
    """Say whether nothing is left to do: all messages settled, and no more may come or came in time. Pure.

    ``unsettled`` counts those too that a receive under way may bring.
    """
    return unsettled == 0 and (taken >= limits.max_messages or idle_seconds >= limits.idle_seconds)


def exit_code(settled: Mapping[str, int], runs: Mapping[str, int], *, polled: bool, signal: int | None) -> int:
    """Return 128 and the signal that ended it, else 1 when something failed, else 0. Pure.

    ``settled`` and ``runs`` say by outcome how many; ``polled`` that SQS has answered at all. 143, of SIGTERM, is what
    Kubernetes shows for a pod it deleted.
    """
    if signal is not None:
        return 128 + signal
    failed = runs.get("failed", 0) + runs.get("retried", 0) + settled.get("dead_lettered", 0)
    return 1 if failed or settled.get("settle_failed", 0) or not polled else 0


class OneShot:
    """Watches a worker and ends it when it is done."""

    def __init__(self, limits: Limits) -> None:
        """The clock of idleness starts with the first poll, or ``_START_SECONDS`` after ``watch``."""
        self.limits = limits
        self.taken = 0
        self._last_message_at = 0.0
        self._has_polled = False
        #: The signal that ended the worker, if one did; the worker's drain knows.
        self.signal: Callable[[], int | None] = lambda: None
        self.before_leaving: Callable[[int], None] = lambda code: None

    def counting(self, deliver: Deliver) -> Deliver:
        """Return ``deliver``, with what it was given counted afterwards: when it is held, or settled already.

        Counted before, the watch could find all messages taken and none held.
        """

        def counted(queue: Any, messages: Sequence[Mapping[str, Any]], received_at: float) -> None:
            deliver(queue, messages, received_at)
            self._last_message_at = received_at
            self.taken += len(messages)

        return counted

    def window(self, window: int, held: int) -> int:
        """Return the window that the receivers may fill."""
        if not self._has_polled and window > 0:
            # Whatever the idle time-out is, there is a first poll.
            self._has_polled, self._last_message_at = True, time.monotonic()
            return room(self.limits, window=window, held=held, taken=self.taken, idle_seconds=-1.0)
        return room(self.limits, window=window, held=held, taken=self.taken, idle_seconds=self._idle_seconds())

    def watch(self, unsettled: Callable[[], int], end: Callable[[int], None]) -> None:
        """Call ``end`` with the exit code when nothing is left to do; from a thread of its own."""
        self._last_message_at = time.monotonic() + _START_SECONDS
        threading.Thread(target=self._run, args=(unsettled, end), name="bridge-one-shot", daemon=True).start()

    def _run(self, unsettled: Callable[[], int], end: Callable[[int], None]) -> None:
        while True:
            # Idleness first: once it is over no receive begins, so what is unsettled afterwards is all there is.
            idle_seconds, taken = self._idle_seconds(), self.taken
            if is_done(self.limits, taken=taken, unsettled=unsettled(), idle_seconds=idle_seconds):
                break
            time.sleep(_LOOK_SECONDS)
        end(self.exit_code())

    def _idle_seconds(self) -> float:
        return time.monotonic() - self._last_message_at

    def exit_code(self) -> int:
        """Return the exit code as things are now."""
        polled = any(sample.value for metric in metrics.last_poll.collect() for sample in metric.samples)
        settled, runs = counted(metrics.settled, "outcome"), counted(metrics.task_runs, "outcome")
        return exit_code(settled, runs, polled=polled, signal=self.signal())


def counted(counter: Counter, label: str) -> dict[str, int]:
    """Return a counter's values summed up by one of its labels."""
    sums: dict[str, int] = {}
    for metric in counter.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total"):
                value = sample.labels[label]
                sums[value] = sums.get(value, 0) + int(sample.value)
    return sums


_one_shot: OneShot | None = None


def use_one_shot(one_shot: OneShot) -> None:
    """Make the worker that this process starts a one-shot worker."""
    global _one_shot  # noqa: PLW0603 - a process has one worker
    _one_shot = one_shot


def present_one_shot() -> OneShot | None:
    """Return what was handed over; None for an ordinary worker."""
    return _one_shot


def report(settings: WorkerSettings, *, duration_seconds: float, exit_code: int) -> None:
    """Log ``run_summary``, and push all counters to ``BRIDGE_PUSHGATEWAY_URL`` if it is set.

    A pod that lives for seconds is gone before Prometheus has scraped it
    (https://prometheus.io/docs/practices/pushing/: the Pushgateway is for jobs like this one).
    """
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
