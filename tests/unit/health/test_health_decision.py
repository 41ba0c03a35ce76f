"""Ready or not, and the report of it: pure functions, case by case and for whatever facts there may be."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.health.readiness import FINAL_OUTCOMES, QueueFacts, iso, report, status_of, why_not_ready

times = st.none() | st.floats(0, 4e9)
facts = st.lists(
    st.builds(
        QueueFacts,
        name=st.text(min_size=1, max_size=8),
        kind=st.sampled_from(["event", "task"]),
        receiving=st.booleans(),
        in_flight=st.integers(0, 500),
        last_poll_seconds=times,
        last_action=st.just("ReceiveMessage"),
        last_result=st.sampled_from([None, "ok", "AccessDenied"]),
        last_call_seconds=times,
    ),
    max_size=4,
)
stuck = st.lists(st.text(min_size=1), max_size=3)


def queue(name="q", *, receiving=True, result: str | None = "ok", action: str | None = "ReceiveMessage"):
    """A queue that is received from, and whose last call went well, unless said otherwise."""
    return QueueFacts(name=name, kind="event", receiving=receiving, last_action=action, last_result=result)


@pytest.mark.parametrize(
    ("queues", "draining", "stuck", "wanted"),
    [
        ([queue()], False, [], []),
        ([queue("a"), queue("b")], False, [], []),
        ([], False, [], ["no queue is consumed yet"]),
        ([queue()], True, [], ["draining"]),
        ([queue()], False, ["a hangs"], ["a hangs"]),
        ([queue(receiving=False)], False, [], ["q: nothing is received yet"]),
        ([queue(result=None, action=None)], False, [], ["q: SQS has not answered yet"]),
        ([queue(result="AccessDenied")], False, [], ["q: ReceiveMessage failed (AccessDenied)"]),
        (
            [queue(receiving=False, result="ConnectTimeoutError", action="GetQueueAttributes")],
            False,
            [],
            ["q: GetQueueAttributes failed (ConnectTimeoutError)"],
        ),
        (
            [queue("a"), queue("b", result="Throttling"), queue("c", receiving=False)],
            True,
            ["the main loop has stood still for 61 s"],
            [
                "draining",
                "the main loop has stood still for 61 s",
                "b: ReceiveMessage failed (Throttling)",
                "c: nothing is received yet",
            ],
        ),
    ],
)
def test_why_a_worker_is_not_ready(queues, draining, stuck, wanted):
    """A drain, what is stuck, and each queue that is not received from or that SQS last failed are told, in words."""
    assert why_not_ready(queues, draining=draining, stuck=stuck) == wanted


@given(facts, st.booleans(), stuck)
def test_ready_means_all_of_it(queues, draining, stuck):
    """No reason if and only if queues are received from, SQS answered for each, nothing is stuck and no drain began."""
    sound = bool(queues) and all(q.receiving and q.last_result == "ok" for q in queues)
    reasons = why_not_ready(queues, draining=draining, stuck=stuck)
    assert (not reasons) == (sound and not draining and not stuck)


@given(facts, st.booleans(), stuck)
def test_one_reason_for_each_fault(queues, draining, stuck):
    """No more reasons than faults: a queue has one at most."""
    faulty = sum(not (q.receiving and q.last_result == "ok") for q in queues)
    reasons = why_not_ready(queues, draining=draining, stuck=stuck)
    assert len(reasons) == draining + len(stuck) + faulty + (not queues)


@pytest.mark.parametrize(
    ("reasons", "draining", "wanted"),
    [([], False, "healthy"), (["x"], False, "unhealthy"), (["draining"], True, "draining"), ([], True, "draining")],
)
def test_one_word_for_it(reasons, draining, wanted):
    """A drain is called a drain, whatever else there is to say."""
    assert status_of(reasons, draining=draining) == wanted


@given(facts, st.dictionaries(st.sampled_from([*FINAL_OUTCOMES, "retried", "handed_back"]), st.integers(0, 10_000)))
def test_the_report_is_json_and_adds_up(queues, settled):
    """It can be sent as JSON; sums are those of its parts; the last poll is the latest of its queues'."""
    said = json.loads(json.dumps(report(queues, reasons=[], draining=False, settled=settled, version="1.2.3")))
    assert said["status"] == "healthy"
    assert said["in_flight"] == sum(q["in_flight"] for q in said["queues"])
    assert said["messages_processed"] == sum(n for outcome, n in settled.items() if outcome in FINAL_OUTCOMES)
    polls = [q["last_poll"] for q in said["queues"] if q["last_poll"]]
    assert said["last_poll"] == max(polls, default=None)


@given(st.floats(0, 4e9))
def test_times_are_iso_and_utc(seconds):
    """Any time of the epoch, cut to its second, can be read back."""
    text = iso(seconds)
    assert text is not None
    assert text.endswith("Z")
    assert datetime.fromisoformat(text).timestamp() == int(seconds)


def test_no_time_is_none():
    """What has not happened yet has no time."""
    assert iso(None) is None
