"""What the paths answer, from the parts of a worker as they are: lease table, liveness, calls and counters."""

from __future__ import annotations

import itertools
import json
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge import metrics
from bridge.delivery.lease import Lease
from bridge.delivery.lease_table import LeaseTable
from bridge.health.endpoints import Endpoints
from bridge.health.liveness import Liveness
from bridge.sqs import calls
from bridge.sqs.calls import LastCall
from bridge.sqs.queues import Queue

_numbers = itertools.count(1)


@pytest.fixture
def worker():
    """A worker's parts, and the answers made of them; its queue is one that no other test has."""

    class Parts:
        def __init__(self):
            self.queue = Queue(f"answers-{next(_numbers)}", f"http://sqs/1/answers-{next(_numbers)}", "event")
            self.leases = LeaseTable()
            self.stuck = []
            self.consumed, self.receiving = {self.queue.name}, {self.queue.name}
            other = Queue("not-consumed", "http://sqs/1/not-consumed", "event")
            self.answers = Endpoints(
                (self.queue, other),
                self.leases,
                Liveness(lambda: list(self.stuck)),
                consumed=self.consumed,
                receiving=self.receiving,
            )

        def ask(self, path):
            answer = self.answers.by_path()[path]()
            return answer.status, json.loads(answer.body)

        def called(self, result):
            calls._last[self.queue.url] = LastCall("ReceiveMessage", result, time.time())

        def hold(self):
            raw = {"ReceiptHandle": f"h{next(_numbers)}", "MessageId": f"m{next(_numbers)}"}
            lease = Lease(self.queue, raw, time.time(), time.monotonic(), 30)
            self.leases.take_in(lease, time.monotonic())
            return lease

    parts = Parts()
    yield parts
    calls._last.pop(parts.queue.url, None)


def test_a_new_worker_is_alive_and_not_ready(worker):
    """Nothing is consumed, then nothing received, then SQS has not answered, then it is ready."""
    worker.consumed.clear()
    worker.receiving.clear()
    assert worker.ask("/live") == (200, {"live": True, "reasons": []})
    assert worker.ask("/ready") == (503, {"ready": False, "reasons": ["no queue is consumed yet"]})
    worker.consumed.add(worker.queue.name)
    assert worker.ask("/ready")[1]["reasons"] == [f"{worker.queue.name}: nothing is received yet"]
    worker.receiving.add(worker.queue.name)
    assert worker.ask("/ready")[1]["reasons"] == [f"{worker.queue.name}: SQS has not answered yet"]
    worker.called("ok")
    assert worker.ask("/ready") == (200, {"ready": True, "reasons": []})


def test_what_is_stuck_is_neither_alive_nor_ready(worker):
    """Each probe looks for itself: nobody waits for the next sweep."""
    worker.called("ok")
    worker.stuck.append("receiver a has died")
    assert worker.ask("/live") == (503, {"live": False, "reasons": ["receiver a has died"]})
    assert worker.ask("/ready") == (503, {"ready": False, "reasons": ["receiver a has died"]})
    assert metrics.live._value.get() == 0
    worker.stuck.clear()
    assert worker.ask("/live")[0] == 200
    assert metrics.live._value.get() == 1


def test_a_failed_call_ends_the_readiness_alone(worker):
    """AWS errors make ``/ready`` fail, never ``/live``."""
    worker.called("ExpiredToken")
    assert worker.ask("/live")[0] == 200
    assert worker.ask("/ready")[1]["reasons"] == [f"{worker.queue.name}: ReceiveMessage failed (ExpiredToken)"]
    assert worker.ask("/health")[1]["status"] == "unhealthy"


def test_a_drain_is_alive_and_not_ready(worker):
    """From the closing of the lease table on."""
    worker.called("ok")
    worker.leases.close()
    assert worker.ask("/live")[0] == 200
    assert worker.ask("/ready") == (503, {"ready": False, "reasons": ["draining"]})
    status, said = worker.ask("/health")
    assert (status, said["status"], said["draining"]) == (503, "draining", True)


def test_the_report_counts_what_is_held_and_what_was_settled(worker):
    """In flight until its end is confirmed; processed when it does not come back."""
    worker.called("ok")
    _, before = worker.ask("/health")
    leases = [worker.hold() for _ in range(3)]
    worker.leases.start(leases[0], time.monotonic())
    worker.leases.end(leases[1])
    worker.leases.drop(leases[2])
    metrics.last_poll.labels(worker.queue.name).set(1_763_717_400)
    for outcome in ("deleted", "dead_lettered", "ignored", "retried", "handed_back", "settle_failed"):
        metrics.settled.labels(worker.queue.name, outcome, "").inc()
    _, said = worker.ask("/health")
    [queue] = said["queues"]
    assert (said["in_flight"], queue["in_flight"], queue["name"]) == (2, 2, worker.queue.name)
    assert said["messages_processed"] - before["messages_processed"] == 3
    assert said["settled"]["retried"] - before["settled"].get("retried", 0) == 1
    assert said["last_poll"] == queue["last_poll"] == "2025-11-21T09:30:00Z"


def test_metrics_are_in_prometheus_text(worker):
    """What Prometheus' own parser reads back, ours and those of the process."""
    answer = worker.answers.metrics()
    assert answer.status == 200
    assert answer.content_type.startswith("text/plain; version=")
    families = {family.name for family in text_string_to_metric_families(answer.body.decode())}
    assert {"bridge_live", "bridge_sqs_requests", "process_resident_memory_bytes"} <= families
