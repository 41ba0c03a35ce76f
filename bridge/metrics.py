"""Every counter and gauge of the worker, named once. Only the parent process counts; children only run tasks.

No label ever takes a key, a message id or an error text: their number has no bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

received = Counter("bridge_messages_received_total", "Messages received from SQS.", ["queue"])
settled = Counter(
    "bridge_messages_settled_total",
    "Messages whose end SQS confirmed, and those given up as settle_failed.",
    ["queue", "outcome", "reason"],
)
expired = Counter(
    "bridge_messages_expired_total", "Messages whose lease expired before they could be settled.", ["queue"]
)
#: The former name of ``expired``, counted beside it for one release.
lapsed = Counter("bridge_messages_lapsed_total", "Former name of bridge_messages_expired_total.", ["queue"])
task_runs = Counter("bridge_task_runs_total", "Runs of tasks, by how they ended.", ["task", "outcome"])
task_seconds = Histogram("bridge_task_seconds", "Seconds a task ran.", ["task"])
message_age = Histogram(
    "bridge_message_age_seconds",
    "Seconds from sent to started, first receives only (a retry would measure its own delay).",
    ["queue"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400),
)
overruns = Counter(
    "bridge_time_limit_overruns_total",
    "Runs that went on beyond their time limit, in the threads and solo pools, which cannot stop them.",
    ["task"],
)
leases = Gauge("bridge_leases", "Messages held now: waiting, running, or with their end not confirmed yet.")
renewals = Counter("bridge_lease_renewals_total", "Renewals of leases.", ["result"])
requests = Counter(
    "bridge_sqs_requests_total", "Calls to SQS; the result is ok or an error's code.", ["action", "result"]
)
last_poll = Gauge("bridge_last_poll_timestamp_seconds", "When a receive last succeeded.", ["queue"])
live = Gauge("bridge_live", "1 while the worker is alive as its liveness probe means it, else 0.")
draining = Gauge("bridge_draining", "1 from SIGTERM on.")
events_dropped = Counter(
    "bridge_monitor_events_dropped_total",
    "Celery events that were not sent, because the monitor bus could not take them in time.",
)
#: Has no series without a bus; ``use`` is events or control.
monitor_connected = Gauge(
    "bridge_monitor_connected", "1 while this worker is connected to the monitor bus for this use, else 0.", ["use"]
)


def begin_at_zero(queues: Iterable[str]) -> None:
    """Have the counters whose only label is a queue told as 0 before anything is counted; takes names of queues.

    ``increase()`` of Prometheus does not see the value that a series begins with: without a 0 before it, the first
    leases that a worker loses would alarm nobody. Those with a reason or a task's outcome cannot begin like that, for
    there is no end of reasons, and six outcomes of each task are too many; their alerts count a new series as grown.
    """
    for queue in queues:
        received.labels(queue)
        expired.labels(queue)
        lapsed.labels(queue)


def count_expired(queue: str) -> None:
    """Count a message of this queue whose lease expired."""
    expired.labels(queue).inc()
    lapsed.labels(queue).inc()


# What is counted for every message, found by its labels at the price of a dict: prometheus-client looks a child up
# under a lock and in ten calls, five times a message.
received_from = cache(received.labels)
settled_as = cache(settled.labels)
runs_of = cache(task_runs.labels)
seconds_of = cache(task_seconds.labels)
age_in = cache(message_age.labels)
requests_of = cache(requests.labels)
