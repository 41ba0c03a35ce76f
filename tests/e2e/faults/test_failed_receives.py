from __future__ import annotations

import time

import pytest

from tests.e2e.faults.site import ANSWERS, LEASE_SECONDS, WAIT_SECONDS, Site
from tests.support.servers.sqs import counts
from tests.support.servers.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fault", ANSWERS)
def test_goes_on_after_an_error(site: Site, fault: str) -> None:
    """Receives that SQS answers with an error, whichever, are tried again within 5 s, and the worker goes on."""
    code, status = ANSWERS[fault]
    since = len(site.proxy.calls)
    site.proxy.fail("ReceiveMessage", status=status, code=code, times=2)
    failed = site.await_calls("ReceiveMessage", "failed", 2, since)
    assert failed[-1].finished_at is not None
    site.assert_resumes(failed[-1].finished_at)
    assert site.worker.found("receive_failed", error_type=code, queue=site.queue.name)


def test_goes_on_after_a_long_outage(site: Site) -> None:
    """However long receives have failed, tries are spaced out, and yet the worker tries again within 5 s."""
    since = len(site.proxy.calls)
    waiting = site.send("good/waiting")
    site.proxy.fail("ReceiveMessage", times=None)
    # The first ones may come from several receivers at once, and a receive under way may still succeed in between.
    failed = site.await_calls("ReceiveMessage", "failed", 9, since)
    assert failed[-1].started_at - failed[-2].started_at > 0.7
    # The outage began with a message in the queue; if a receive under way still brought it, its run is awaited here.
    site.proxy.clear()
    site.assert_resumes(time.monotonic())
    site.await_settled(waiting)


def test_goes_on_after_a_time_out(site: Site) -> None:
    """A receive that is never answered is given up after its wait time and 5 s, and the worker goes on."""
    since = len(site.proxy.calls)
    site.proxy.hang("ReceiveMessage", times=1)
    [hung] = site.await_calls("ReceiveMessage", "hung", 1, since)
    assert hung.finished_at is not None
    assert hung.finished_at - hung.started_at < WAIT_SECONDS + 5 + 10
    site.assert_resumes(hung.finished_at)


def test_goes_on_after_a_reset(site: Site) -> None:
    """Receives whose connection is reset are tried again within 5 s, and the worker goes on."""
    since = len(site.proxy.calls)
    site.proxy.reset("ReceiveMessage", times=2)
    refused = site.await_calls("ReceiveMessage", "refused", 2, since)
    assert refused[-1].finished_at is not None
    site.assert_resumes(refused[-1].finished_at)


def test_goes_on_after_refused_connections(site: Site) -> None:
    """While SQS takes no connection the worker keeps trying, and it tries again within 5 s of its return."""
    before = len(site.worker.found("receive_failed"))
    with site.proxy.refusing():
        wait_until(lambda: len(site.worker.found("receive_failed")) >= before + 4, 45, "four failed receives")
        # A long poll that was cut goes on in the server; it must not be the one that is given the next message.
        wait_until(lambda: all(c.finished_at for c in site.proxy.calls), 30, "the end of the long polls")
    site.assert_resumes(time.monotonic())
    assert site.worker.found("receive_failed", error_type="EndpointConnectionError")


def test_a_lost_answer_loses_no_message(site: Site) -> None:
    """A message whose receive was answered into nothing comes back when its lease lapses, and is run once."""
    since = len(site.proxy.calls)
    site.proxy.drop_response("ReceiveMessage", times=None)
    site.await_calls("ReceiveMessage", "dropped", 1, since)  # the long poll that was under way has ended
    sent = site.send("good/lost-answer")
    wait_until(lambda: counts(site.server, site.queue.url).in_flight == 1, 30, "the lost answer")
    site.proxy.clear()
    assert not site.runs(sent)
    site.await_settled(sent, seconds=LEASE_SECONDS + 45)
    assert site.runs(sent) == 1
    assert any(c.outcome == "dropped" and (c.response or {}).get("Messages") for c in site.proxy.calls[since:])
