from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bad_input.celery_bodies import stock_celery
from tests.e2e.task_queue.site import TASKS, Site
from tests.support.servers.sqs import send

pytestmark = pytest.mark.slow


def test_a_stock_producer_can_send(site: Site) -> None:
    """A plain Celery app with Kombu's own SQS transport, which writes base64, is understood."""
    with stock_celery(site.server, site.tasks.url) as send_task:
        task_id = send_task(f"{TASKS}.add", (20, 22)).id
    site.worker.wait_event("message_settled", task_id=task_id, outcome="deleted")
    [run] = site.runs(id=task_id)
    assert (run["x"], run["y"], run["retries"]) == (20, 22, 0)


def test_an_eta_of_a_stock_producer_waits_in_place(site: Site) -> None:
    """A message that was not delayed waits for its ETA in the queue, not in a worker, and that is not an attempt."""
    with stock_celery(site.server, site.tasks.url) as send_task:
        sent_at = time.time()
        task_id = send_task(f"{TASKS}.add", (30, 3), countdown=6).id
    waits = site.worker.wait_event("message_settled", task_id=task_id, outcome="retried")
    assert waits["reason"] == "eta"
    assert 0 < waits["delay_seconds"] <= 6  # less what the message took to get here
    assert not site.worker.found("task_started", task_id=task_id)
    [run] = site.await_runs(1, id=task_id)
    assert 6.0 <= run["at"] - sent_at < 6.0 + 30  # and not after a lease of 120 s
    assert run["retries"] == 0
    site.worker.wait_event("message_settled", task_id=task_id, outcome="deleted")
    seen = site.proxy.for_message(waits["message_id"])
    assert [c.action for c in seen] == [
        "ReceiveMessage",
        "ChangeMessageVisibilityBatch",
        "ReceiveMessage",
        "DeleteMessageBatch",
    ]
    [started] = site.worker.found("task_started", task_id=task_id)
    assert started["attempt"] == 1


@pytest.mark.parametrize(
    "body",
    ["garbage", "{}", '{"properties": null}', '{"body": 5, "headers": {}, "properties": {}}'],
    ids=["text", "empty object", "properties: null", "no task"],
)
def test_garbage_is_a_dead_letter(site: Site, body: str) -> None:
    """What is no Celery message is dead-lettered as malformed, byte for byte."""
    message_id = send(site.server, site.tasks.url, body)
    cause, letter = site.letter(task_id=message_id)
    assert cause["reason"] == "malformed"
    assert letter["Body"] == body


class Opened:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickle_is_never_opened(site: Site) -> None:
    """A pickled message is dead-lettered as malformed, and nobody unpickles it."""
    trace = site.folder / "unpickled"
    pickle.loads(pickle.dumps(Opened(trace)))  # noqa: S301 - shows that the trap works
    assert trace.exists()
    trace.unlink()
    with stock_celery(site.server, site.tasks.url) as send_task:
        task_id = send_task(f"{TASKS}.add", (Opened(trace), 1), serializer="pickle").id
    settled = site.worker.wait_for(
        lambda e: e.get("event") == "message_settled" and "content type" in str(e.get("error")), 45, "the pickle's end"
    )
    cause, _ = site.letter(task_id=settled["message_id"])
    assert cause["reason"] == "malformed"
    assert "pickle" in cause["error"] or "python-serialize" in cause["error"]
    assert not trace.exists()
    assert not site.runs(id=task_id)
