"""All counters, gauges and histograms of the worker. Only the parent process updates them; pool children run tasks.

No label takes an object key, a message id or an error text, because the number of their values is unlimited.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

received = Counter("bridge_messages_received_total", "Messages received from SQS.", ["queue"])
settled = Counter(
    "bridge_messages_settled_total",
    "Messages settled: SQS confirmed the outcome, or the worker gave up (settle_failed).",
    ["queue", "outcome", "reason"],
)
expired = Counter(
    "bridge_messages_expired_total", "Messages whose lease expired before they could be settled.", ["queue"]
)
#: The former name of ``expired``; both are counted for one release.
lapsed = Counter("bridge_messages_lapsed_total", "Former name of bridge_messages_expired_total.", ["queue"])
task_runs = Counter("bridge_task_runs_total", "Task runs by outcome.", ["task", "outcome"])
task_seconds = Histogram("bridge_task_seconds", "Run time of a task in seconds.", ["task"])
message_age = Histogram(
    "bridge_message_age_seconds",
    "Seconds from SentTimestamp to the start of the task, first receives only (a retry would include its own delay).",
    ["queue"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400),
)
overruns = Counter(
    "bridge_time_limit_overruns_total",
    "Runs that exceeded their time limit in the threads and solo pools, which cannot stop them.",
    ["task"],
)
leases = Gauge("bridge_leases", "Messages held now: waiting, running, or not yet confirmed as settled.")
renewals = Counter("bridge_lease_renewals_total", "Lease renewals.", ["result"])
requests = Counter(
    "bridge_sqs_requests_total", "Calls to SQS; the result is ok or the error code.", ["action", "result"]
)
last_poll = Gauge("bridge_last_poll_timestamp_seconds", "Time of the last successful receive.", ["queue"])
live = Gauge("bridge_live", "1 while the liveness check passes, else 0.")
draining = Gauge("bridge_draining", "1 from SIGTERM until the worker exits, else 0.")
events_dropped = Counter(
    "bridge_monitor_events_dropped_total",
    "Celery events that were dropped because the monitor bus did not accept them in time.",
)
#: There is no series without a monitor bus; ``use`` is ``events`` or ``control``.
monitor_connected = Gauge(
    "bridge_monitor_connected", "1 while this worker is connected to the monitor bus for this use, else 0.", ["use"]
)


def begin_at_zero(queues: Iterable[str]) -> None:
    """Expose the counters whose only label is the queue with the value 0; ``queues`` are queue names.

    Prometheus's ``increase()`` ignores the first value of a series. Without a 0 before it, the first leases that a
    worker loses would trigger no alert. Counters with a reason or a task outcome as label cannot start at 0: the
    number of reasons is unlimited, and six outcomes per task are too many series. Their alerts treat a new series as
    an increase.
    """
    for queue in queues:
        received.labels(queue)
        expired.labels(queue)
        lapsed.labels(queue)


def count_expired(queue: str) -> None:
    """Count a message of this queue whose lease expired, under both names."""
    expired.labels(queue).inc()
    lapsed.labels(queue).inc()


# The metrics that are updated for every message. A cached lookup by labels costs one dict access; prometheus-client's
# own takes a lock and ten calls, five times per message.
received_from = cache(received.labels)
settled_as = cache(settled.labels)
runs_of = cache(task_runs.labels)
seconds_of = cache(task_seconds.labels)
age_in = cache(message_age.labels)
requests_of = cache(requests.labels)
