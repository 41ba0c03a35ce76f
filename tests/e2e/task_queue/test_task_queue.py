from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests import REPOSITORY
from tests.e2e.task_queue.site import TASKS, Site
from tests.support.servers.sqs import counts

pytestmark = pytest.mark.slow


def test_delay_runs_the_task(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """A task called with .delay() runs once, under Celery's own task id, and its result can be got."""
    call = calls["delay"]
    assert call.value == 3
    [run] = site.runs(id=call.id)
    assert (run["x"], run["y"], run["retries"]) == (1, 2, 0)
    [sent] = site.sent(call.id)
    assert sent.request.get("DelaySeconds", 0) == 0
    [settled] = site.worker.found("message_settled", task_id=call.id)
    assert (settled["outcome"], settled["queue"]) == ("deleted", site.tasks.name)
    assert settled["message_id"] == (sent.response or {})["MessageId"]


def test_a_short_countdown_is_a_delay_of_the_message(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """With countdown=3 the message itself is delayed: it is received once, and runs after 3 s as no retry."""
    call = calls["countdown 3"]
    [run] = site.runs(id=call.id)
    assert 3.0 <= run["at"] - call.called_at < 3.0 + 30
    assert run["retries"] == 0
    [sent] = site.sent(call.id)
    assert sent.request["DelaySeconds"] == 3
    [started] = site.worker.found("task_started", task_id=call.id)
    assert started["attempt"] == 1


def test_a_long_countdown_is_delayed_as_far_as_sqs_can(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """With countdown=2000 the message is sent with SQS's longest delay, 900 s, and no worker holds it."""
    call = calls["countdown 2000"]
    [sent] = site.sent(call.id)
    assert sent.request["DelaySeconds"] == 900
    assert counts(site.server, site.tasks.url).delayed == 1
    assert not site.runs(id=call.id)


def test_a_chain_runs_in_its_order(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """Each task of a chain is given the result of the one before."""
    assert calls["chain"].value == 123
    assert [(run["x"], run["y"]) for run in site.runs(task="add") if run["y"] in (40, 80)] == [(3, 40), (43, 80)]


def test_a_group_runs_all_its_tasks(calls: dict[str, SimpleNamespace]) -> None:
    """The results of a group come in the order of its tasks."""
    assert calls["group"].value == [0, 2, 4, 6, 8]


def test_a_chord_runs_its_body_last(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """The body of a chord runs once, with the results of all its tasks."""
    assert calls["chord"].value == 20
    assert len(site.runs(task="total")) == 1
    unlocks = site.worker.found("message_settled", task="celery.chord_unlock")
    assert {unlock["outcome"] for unlock in unlocks} == {"deleted"}


def test_a_failing_task_is_retried_in_place(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """A task that fails twice runs three times as one message under one id, and is a FAILURE to nobody meanwhile."""
    call = calls["fails_twice"]
    assert call.value == "third time lucky"
    assert call.states[-1] == "SUCCESS"
    assert "RETRY" in call.states
    assert "FAILURE" not in call.states
    runs = site.runs(task="fails_twice")
    assert [run["retries"] for run in runs] == [0, 1, 2]
    assert {run["id"] for run in runs} == {call.id}
    assert runs[1]["at"] - runs[0]["at"] >= 0.9
    assert runs[2]["at"] - runs[1]["at"] >= 1.9
    assert len(site.sent(call.id)) == 1


def test_a_lost_child_is_no_failure_while_retries_are_left(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """A task whose process was killed runs again, and whoever waits for its result is told of no failure."""
    call = calls["loses_its_child"]
    assert call.value == "another child took over"
    assert "FAILURE" not in call.states
    assert [run["retries"] for run in site.runs(task="loses_its_child")] == [0, 1]
    assert len(site.sent(call.id)) == 1


def test_an_exhausted_task_is_a_dead_letter_and_a_failure(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """A task out of retries is dead-lettered as it was sent, and .get() raises its error."""
    call = calls["always_fails"]
    assert (call.error_type, call.error) == ("OSError", "never")
    assert call.states[-1] == "FAILURE"
    assert [run["retries"] for run in site.runs(id=call.id)] == [0, 1]
    cause, letter = site.letter(task_id=call.id)
    assert (cause["reason"], cause["error_type"], cause["error"]) == ("exhausted", "OSError", "never")
    assert (cause["task"], cause["attempts"]) == (f"{TASKS}.always_fails", 2)
    assert 'raise OSError("never")' in cause["traceback"]
    assert letter["Body"] == site.sent(call.id)[0].request["MessageBody"]


def test_an_unknown_task_is_a_dead_letter_and_a_failure(site: Site, calls: dict[str, SimpleNamespace]) -> None:
    """A message that names no registered task is dead-lettered as unrouted, and .get() raises."""
    call = calls["unknown task"]
    assert call.error_type == "NotRegistered"
    cause, letter = site.letter(task_id=call.id)
    assert (cause["reason"], cause["task"]) == ("unrouted", "nobody.knows")
    assert letter["Body"] == site.sent(call.id)[0].request["MessageBody"]


def test_without_a_task_queue_delay_says_so_at_once(site: Site) -> None:
    """.delay() in a process without SQS_TASK_QUEUE_URL raises at once, naming the setting."""
    code = f"from {TASKS} import add\nimport time\nt = time.monotonic()\ntry:\n add.delay(1, 2)\nexcept Exception as e:"
    code += "\n print(type(e).__name__, e, flush=True)\n print(time.monotonic() - t)"
    env = {name: value for name, value in site.env.items() if name != "SQS_TASK_QUEUE_URL"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=60, check=True
    )
    said, seconds = done.stdout.splitlines()
    assert said.startswith("NoTaskQueue ")
    assert "SQS_TASK_QUEUE_URL" in said
    assert float(seconds) < 10
