"""The metrics of a run with failures are what the proxy before SQS has counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace

import pytest

from tests.e2e.delivery.conftest import Scenarios, Site
from tests.e2e.health.asking import samples, told
from tests.e2e.health.conftest import scenario
from tests.support.fault_proxy import Call
from tests.support.servers.port import free_port
from tests.support.servers.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.elasticmq]

MESSAGES, FOR_GOOD, ONCE = 500, 20, 20
#: So long that no delay of a retry is the length of a renewal.
LEASE_SECONDS = 60
#: A retry is settled as retried, and again in the end.
ENDS = MESSAGES + ONCE
TASKS = "tests.e2e.delivery.delivery_tasks."


def entries(calls: list[Call], action: str) -> Iterator[dict]:
    """The entries of these calls that SQS confirmed."""
    for call in calls:
        if call.action == action and call.outcome == "forwarded":
            confirmed = {entry["Id"] for entry in (call.response or {}).get("Successful", ())}
            yield from (entry for entry in call.request["Entries"] if entry["Id"] in confirmed)


def counted_by_proxy(calls: list[Call], dlq: str) -> dict[str, object]:
    """Received, settled by outcome, and calls by action and result, as the network saw them."""
    ended = [call for call in calls if call.finished_at is not None]
    visibilities = [e["VisibilityTimeout"] for e in entries(ended, "ChangeMessageVisibilityBatch")]
    letters = [c for c in ended if c.action == "SendMessage" and c.queue == dlq and c.outcome == "forwarded"]
    deletes = list(entries(ended, "DeleteMessageBatch"))
    by_call: Counter[tuple[str, str]] = Counter()
    for call in ended:
        assert call.outcome in ("forwarded", "failed"), call
        by_call[call.action, "ok" if call.outcome == "forwarded" else "ServiceUnavailable"] += 1
    return {
        "received": sum(len((c.response or {}).get("Messages") or ()) for c in ended if c.outcome == "forwarded"),
        "deleted": len(deletes) - len(letters),
        "dead_lettered": len(letters),
        "retried": sum(seconds != LEASE_SECONDS for seconds in visibilities),
        "calls": dict(by_call),
    }


def counted_by_worker(port: int, queue: str) -> dict[str, object]:
    """The same, as the worker's metrics say it."""
    found = samples(port)
    settled: Counter[str] = Counter()
    by_call: Counter[tuple[str, str]] = Counter()
    for (name, labels), value in found.items():
        if name == "bridge_messages_settled_total":
            assert labels[1] == queue
            settled[labels[0]] += int(value)
        if name == "bridge_sqs_requests_total":
            by_call[labels[0], labels[1]] += int(value)
    return {
        "received": found["bridge_messages_received_total", (queue,)],
        **{outcome: settled.pop(outcome, 0) for outcome in ("deleted", "dead_lettered", "retried")},
        **settled,  # none of another outcome
        "calls": dict(by_call),
    }


@scenario("elasticmq")
def counting(site: Site) -> SimpleNamespace:
    """500 messages, 20 of them failing for good and 20 once, while SQS fails one call in ten."""
    port = free_port()
    site.proxy.random_failures(0.1, seed=7)
    good = [f"small/{n}" for n in range(MESSAGES - FOR_GOOD - ONCE)]
    bad = [f"bad/{n}" for n in range(FOR_GOOD)]
    once = [f"short-delay/0/{n}" for n in range(ONCE)]
    site.send(*sorted(good + bad + once, key=lambda key: key[::-1]))  # mixed, so that batches hold all of them
    settings = {"BRIDGE_VISIBILITY_TIMEOUT_SECONDS": str(LEASE_SECONDS), "BRIDGE_WAIT_TIME_SECONDS": "1"}
    site.start("-c", "2", BRIDGE_HEALTH_PORT=str(port), **settings)

    def all_settled() -> bool:
        return sum(v for (name, _), v in samples(port).items() if name == "bridge_messages_settled_total") == ENDS

    wait_until(all_settled, 90, "all messages settled")
    site.proxy.random_failures(0.0, seed=7)
    queue = site.queue.name

    def equal() -> bool:
        # The long polls go on, and a call that has ended may not be counted yet: both are looked at until they agree.
        return counted_by_worker(port, queue) == counted_by_proxy(site.proxy.calls, f"{queue}-dlq")

    with suppress(AssertionError):  # the test shows the difference
        wait_until(equal, 15, "equal counts")
    return SimpleNamespace(
        queue=queue,
        worker=counted_by_worker(port, queue),
        proxy=counted_by_proxy(site.proxy.calls, f"{queue}-dlq"),
        samples=samples(port),
        health=told(port, "/health"),
    )


def test_the_counts_are_what_the_network_saw(scenarios: Scenarios) -> None:
    """Received, settled by outcome, and all calls by action and result, those of the start included, are equal."""
    done = scenarios.result("counting")
    assert done.worker == done.proxy
    assert done.worker["received"] == ENDS
    assert {outcome: done.worker[outcome] for outcome in ("deleted", "dead_lettered", "retried")} == {
        "deleted": MESSAGES - FOR_GOOD,
        "dead_lettered": FOR_GOOD,
        "retried": ONCE,
    }
    assert {action for action, _ in done.worker["calls"]} == {
        "GetQueueAttributes",
        "GetQueueUrl",
        "ReceiveMessage",
        "DeleteMessageBatch",
        "ChangeMessageVisibilityBatch",
        "SendMessage",
    }
    assert sum(n for (_, result), n in done.worker["calls"].items() if result != "ok") > 10


def test_nothing_is_left_and_nothing_lapsed(scenarios: Scenarios) -> None:
    """Received = settled + held + lapsed, and here nothing is held or has lapsed."""
    done = scenarios.result("counting")
    assert done.samples["bridge_leases", ()] == 0
    assert done.samples["bridge_messages_expired_total", (done.queue,)] == 0
    assert (done.health[0], done.health[1]["messages_processed"], done.health[1]["in_flight"]) == (200, MESSAGES, 0)


def test_runs_are_counted_by_task_and_end(scenarios: Scenarios) -> None:
    """Each run once, in the parent process alone: how it ended, how long it took, how old its message was."""
    done = scenarios.result("counting")
    runs = {labels: value for (name, labels), value in done.samples.items() if name == "bridge_task_runs_total"}
    small = MESSAGES - FOR_GOOD - ONCE
    assert runs == {
        ("succeeded", f"{TASKS}small"): small,
        ("failed", f"{TASKS}bad"): FOR_GOOD,
        ("retried", f"{TASKS}short_delay"): ONCE,
        ("succeeded", f"{TASKS}short_delay"): ONCE,
    }
    assert done.samples["bridge_task_seconds_count", (f"{TASKS}small",)] == small
    assert done.samples["bridge_message_age_seconds_count", (done.queue,)] == MESSAGES  # first receives only
