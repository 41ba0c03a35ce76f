"""The table "What becomes of a message", row by row, and the arithmetic of delays and counts."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bridge.messages.retry_policy import (
    ETA_SLACK_SECONDS,
    Attempt,
    Failure,
    backoff,
    cut_delay,
    decide,
    eta_waits,
    is_poison_message,
    request_retries,
)
from bridge.messages.verdicts import DeadLetter, Delete, HandBack, RetryIn

FIRST = Attempt(retries=0, max_retries=2, age_seconds=0.0)
LAST = Attempt(retries=2, max_retries=2, age_seconds=0.0)
NO_LIMIT = Attempt(retries=1000, max_retries=None, age_seconds=0.0)
TWELVE_HOURS = 43_200

ages = st.floats(0, 50_000)
any_delay = st.floats(min_value=-1e9) | st.just(math.nan)


@pytest.mark.parametrize(
    ("failure", "attempt", "expected"),
    [
        (Failure("ignore"), FIRST, Delete()),
        (Failure("ignore", reason="superseded"), FIRST, Delete("ignored", "superseded")),
        (Failure("revoked"), FIRST, Delete("ignored", "revoked")),
        (Failure("requeue"), LAST, HandBack("requeued")),
        (Failure("reject"), FIRST, DeadLetter("rejected")),
        (Failure("object-gone"), FIRST, DeadLetter("object-gone")),
        (Failure("too-large"), FIRST, DeadLetter("too-large")),
        (Failure("error"), FIRST, DeadLetter("permanent")),
        (Failure("error", retryable=True), LAST, DeadLetter("exhausted")),
        (Failure("internal-error"), LAST, DeadLetter("exhausted")),
        (Failure("time-limit", retryable=True), LAST, DeadLetter("time-limit")),
        (Failure("worker-lost", retryable=True), LAST, DeadLetter("worker-lost")),
        (Failure("time-limit"), FIRST, DeadLetter("permanent")),
        (Failure("worker-lost"), FIRST, DeadLetter("permanent")),
    ],
)
def test_each_end_has_its_verdict(failure, attempt, expected):
    """Every kind of end that is no retry becomes what the table says, with its reason."""
    assert decide(failure, attempt, jitter=1.0) == expected


@pytest.mark.parametrize("attempt", [FIRST, NO_LIMIT])
@pytest.mark.parametrize("kind", ["internal-error", "time-limit", "worker-lost"])
def test_what_the_task_cannot_announce_itself_is_retried(kind, attempt):
    """A lost child, a time limit and an error of Celery's own are retried while retries are left, or for ever."""
    verdict = decide(Failure(kind, retryable=True, error_type="E", error="text"), attempt, jitter=1.0)
    assert isinstance(verdict, RetryIn)
    assert verdict.delay_seconds == min(600, 2 * 2 ** min(attempt.retries, 20))
    assert (verdict.error_type, verdict.error) == ("E", "text")


def test_a_requested_retry_keeps_its_delay():
    """The delay that a task asked for is taken over, rounded up to SQS's whole seconds."""
    verdict = decide(Failure("retry-requested", wanted_seconds=3.2), FIRST, jitter=0.0)
    assert verdict == RetryIn(delay_seconds=4, wanted_seconds=3.2)


def test_a_delay_that_was_cut_still_says_what_was_wanted():
    """A day's delay is cut to what SQS allows, and the wish stays visible for the log."""
    attempt = Attempt(retries=0, max_retries=5, age_seconds=200.0)
    verdict = decide(Failure("retry-requested", wanted_seconds=86_400.0), attempt, jitter=0.0)
    assert verdict == RetryIn(delay_seconds=TWELVE_HOURS - 200 - 5, wanted_seconds=86_400.0)


def test_a_dead_letter_carries_the_error_and_the_traceback():
    """What is known of the failure goes into the verdict."""
    failure = Failure("error", error_type="ValueError", error="bad", traceback="Traceback …")
    assert decide(failure, FIRST, jitter=1.0) == DeadLetter("permanent", "ValueError", "bad", "Traceback …")


def test_jitter_shortens_our_own_delays_only():
    """Full jitter multiplies the backoff that is decided here; a requested delay is not touched."""
    attempt = Attempt(retries=3, max_retries=5, age_seconds=0.0)
    assert decide(Failure("worker-lost", retryable=True), attempt, jitter=0.0).delay_seconds == 0
    assert decide(Failure("worker-lost", retryable=True), attempt, jitter=0.5).delay_seconds == 8
    assert decide(Failure("retry-requested", wanted_seconds=10), attempt, jitter=0.0).delay_seconds == 10


@given(retries=st.integers(0, 10**9), factor=st.integers(1, 43_200), maximum=st.integers(1, 43_200))
def test_backoff_doubles_up_to_its_maximum(retries, factor, maximum):
    """The backoff is factor × 2^retries and never above the maximum, whatever the count."""
    delay = backoff(retries, factor, maximum, 1.0)
    assert delay == (min(maximum, factor * 2**retries) if retries < 20 else maximum)


@given(wanted=any_delay, age=ages)
def test_a_delay_never_passes_the_twelve_hours(wanted, age):
    """Whatever is asked for, the answer is a whole number that SQS accepts at this age."""
    delay = cut_delay(wanted, age)
    assert isinstance(delay, int)
    assert 0 <= delay
    assert delay == 0 or delay <= TWELVE_HOURS - 5 - age
    if not math.isnan(wanted):
        assert delay >= min(wanted, math.floor(TWELVE_HOURS - 5 - age), TWELVE_HOURS) or delay == 0


@given(wanted=st.floats(0, 40_000), age=st.floats(0, 1_000))
def test_a_delay_with_room_is_not_cut(wanted, age):
    """With room left the delay is the wish, rounded up."""
    assert cut_delay(wanted, age) == math.ceil(wanted)


def test_not_a_number_is_no_delay():
    """NaN, which a task may compute, becomes a retry at once instead of an error."""
    assert cut_delay(float("nan"), 0.0) == 0


@given(receives=st.integers(1, 2000), limit=st.none() | st.integers(0, 1000), waits=st.integers(0, 50))
def test_retries_count_receives_and_never_pass_the_limit(receives, limit, waits):
    """request.retries is min(receives − 1 − waits, max_retries), so that a last run is always left."""
    retries = request_retries(receives, limit, waits=waits)
    assert retries == min(max(0, receives - 1 - waits), math.inf if limit is None else limit)


def test_retries_that_celery_counted_itself_are_added():
    """A message that Celery re-published brings its count along."""
    assert request_retries(2, 10, republished=3) == 4
    assert request_retries(2, 3, republished=3) == 3
    assert request_retries(2, None, republished=300) == 301


@given(receives=st.integers(1, 2000), limit=st.integers(0, 1000), spare=st.integers(0, 1000), waits=st.integers(0, 9))
def test_only_far_beyond_its_retries_a_message_counts_as_a_killer(receives, limit, spare, waits):
    """No message is given up unrun before it had all its runs and the spare receives."""
    assert is_poison_message(receives, limit, spare, waits=waits) == (receives - waits > limit + 1 + spare)


def test_without_a_limit_no_count_gives_a_message_up():
    """max_retries=None: never dead-lettered on a count alone."""
    assert not is_poison_message(10**9, None, 0)


@pytest.mark.parametrize(
    ("seconds", "waits"), [(-5, 0), (0, 0), (0.5, 0), (0.6, 1), (1100, 1), (43_195, 1), (43_196, 2), (100_000, 3)]
)
def test_waits_for_an_eta(seconds, waits):
    """Each piece of up to twelve hours between the first receive and the ETA costs one receive."""
    assert eta_waits(seconds) == waits


@given(eta=st.floats(0, 10_000_000))
def test_the_pieces_of_a_wait_reach_its_eta(eta):
    """As many receives as counted, each waiting as long as SQS allows, bring a message to its ETA and no further."""
    passed, receives = 0.0, 0
    while eta - passed > ETA_SLACK_SECONDS:
        passed += min(eta - passed, cut_delay(eta - passed, 0.0))
        receives += 1
    assume(eta % 43_195 > 1.0)
    assert receives == eta_waits(eta)
