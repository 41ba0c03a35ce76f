"""How many messages wait in each queue and its dead-letter queue, and how old the oldest is: from one place.

Workers do not measure this: ten of them would ask ten times, and none while they are scaled to zero. It is done by
``brigade exporter``, in a process of its own.

SQS itself reports the numbers (GetQueueAttributes: approximate, see its API reference) and not the age. That is known
to CloudWatch alone (``ApproximateAgeOfOldestMessage``, a value a minute, some minutes late), which is asked once a
minute; where it may not be asked, or there is none, there is no such metric. Its limits, by AWS's page "Available
CloudWatch metrics for Amazon SQS": nothing for a queue that is empty or was idle for six hours; a message received
three times and not deleted is left out; a dead letter's age counts from its arrival in that queue.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from bridge.aws_errors import ACCESS_DENIED, INVALID_CREDENTIALS, error_code
from bridge.log import get_logger
from bridge.sqs.queues import Queue, named_queues, queue_name

log = get_logger(__name__)

#: State → the attribute of SQS. Delayed are those sent with a delay; a message that waits out its retry is in flight.
STATES = {
    "visible": "ApproximateNumberOfMessages",
    "in_flight": "ApproximateNumberOfMessagesNotVisible",
    "delayed": "ApproximateNumberOfMessagesDelayed",
}
#: A number older than this is no longer reported: an alert on it would be about the past.
STALE_SECONDS = 300.0
#: CloudWatch has one value a minute, and takes a cent for a thousand that are asked for.
AGE_INTERVAL_SECONDS = 60.0
#: How far back the newest value is looked for, because it comes late.
AGE_WINDOW_SECONDS = 600
#: GetMetricData takes so many metrics per call.
MAX_METRICS_PER_CALL = 500
_DENIED = ACCESS_DENIED | INVALID_CREDENTIALS


@dataclass(frozen=True, slots=True)
class Watched:
    """A queue to be measured; ``name`` is its label, ``kind`` is ``dlq`` for a dead-letter queue."""

    name: str
    url: str
    kind: Literal["event", "task", "dlq"]


def watched(queues: Sequence[Queue]) -> tuple[Watched, ...]:
    """Return these queues and their dead-letter queues, each once. Pure."""
    dead = named_queues(list(dict.fromkeys(queue.dlq_url for queue in queues if queue.dlq_url)), None)
    return (
        *(Watched(queue.name, queue.url, queue.kind) for queue in queues),
        *(Watched(queue.name, queue.url, "dlq") for queue in dead),
    )


class Depths:
    """The newest numbers of all queues, as a collector of Prometheus (``registry.register(depths)``)."""

    def __init__(self, sqs: Any, queues: Sequence[Watched], *, cloudwatch: Any = None) -> None:
        """``cloudwatch`` is a client, or None for no ages."""
        self._sqs = sqs
        self._cloudwatch = cloudwatch
        self._queues = tuple(queues)
        self._depths: dict[Watched, tuple[float, Mapping[str, int]]] = {}
        self._ages: dict[Watched, tuple[float, float]] = {}
        self._ages_asked_at = float("-inf")

    def read(self) -> None:
        """Ask once for everything that is due; an error costs the one number, and is logged."""
        for queue in self._queues:
            try:
                answer = self._sqs.get_queue_attributes(QueueUrl=queue.url, AttributeNames=[*STATES.values()])
                found = answer["Attributes"]
                self._depths[queue] = (time.time(), {state: int(found[name]) for state, name in STATES.items()})
            except Exception as error:  # noqa: BLE001 - whatever SQS or the network does, the next round asks again
                log.warning("depth_failed", queue=queue.name, error_type=error_code(error), error=str(error))
        if self._cloudwatch is not None and time.monotonic() - self._ages_asked_at >= AGE_INTERVAL_SECONDS:
            self._ages_asked_at = time.monotonic()
            try:
                self._read_ages()
            except Exception as error:  # noqa: BLE001 - as above
                if error_code(error) in _DENIED:
                    self._cloudwatch = None
                    log.warning("oldest_age_off", error_type=error_code(error), error=str(error))
                else:
                    log.warning("oldest_age_failed", error_type=error_code(error), error=str(error))

    def collect(self) -> Iterator[Metric]:
        """Return what is known and not too old; called by Prometheus' client, from any thread."""
        oldest_told = time.time() - STALE_SECONDS
        messages = GaugeMetricFamily(
            "bridge_queue_messages",
            "Messages in a queue, by SQS's approximate count; in_flight ones are held by a worker or wait for a retry.",
            labels=["queue", "kind", "state"],
        )
        read_at = GaugeMetricFamily(
            "bridge_queue_read_timestamp_seconds",
            "When SQS last reported a queue's numbers; 0: never.",
            labels=["queue", "kind"],
        )
        for queue in self._queues:
            # 0 for one that could never be read: an alert sees that its time is long past.
            at, depths = self._depths.get(queue, (0.0, {}))
            read_at.add_metric([queue.name, queue.kind], at)
            if at >= oldest_told:
                for state, count in depths.items():
                    messages.add_metric([queue.name, queue.kind, state], count)
        age = GaugeMetricFamily(
            "bridge_queue_oldest_message_age_seconds",
            "Age of the oldest message, as CloudWatch reported it; absent for an empty queue, and without permission.",
            labels=["queue", "kind"],
        )
        for queue, (at, seconds) in list(self._ages.items()):
            if at >= oldest_told - AGE_WINDOW_SECONDS:
                age.add_metric([queue.name, queue.kind], seconds)
        yield from (messages, read_at, age)

    def _read_ages(self) -> None:
        now = datetime.now(UTC)
        for first in range(0, len(self._queues), MAX_METRICS_PER_CALL):
            queues = self._queues[first : first + MAX_METRICS_PER_CALL]
            answer = self._cloudwatch.get_metric_data(
                MetricDataQueries=[
                    {
                        "Id": f"q{n}",
                        "MetricStat": {
                            "Metric": {
                                "Namespace": "AWS/SQS",
                                "MetricName": "ApproximateAgeOfOldestMessage",
                                "Dimensions": [{"Name": "QueueName", "Value": queue_name(queue.url)}],
                            },
                            "Period": 60,
                            "Stat": "Maximum",
                        },
                    }
                    for n, queue in enumerate(queues)
                ],
                StartTime=now - timedelta(seconds=AGE_WINDOW_SECONDS),
                EndTime=now + timedelta(seconds=60),
                ScanBy="TimestampDescending",
            )
            found = {result["Id"]: result for result in answer["MetricDataResults"]}
            for n, queue in enumerate(queues):
                values = found.get(f"q{n}", {}).get("Values") or []
                if values:
                    self._ages[queue] = (found[f"q{n}"]["Timestamps"][0].timestamp(), float(values[0]))
                else:
                    self._ages.pop(queue, None)
