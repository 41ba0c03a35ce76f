"""What the parent process releases for a run that is gone: by the arguments it was called with, off the main loop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError

from bridge.celery import app
from bridge.idempotency.claiming import Claimer, ClaimingRun, use_claimer
from bridge.idempotency.identity import ClaimRequest, of_record
from bridge.idempotency.record import from_json
from bridge.idempotency.transitions import claim_seconds
from bridge.messages.retry_policy import Failure
from bridge.s3.object import S3Object
from bridge.task import registry
from bridge.task.base import Republished
from bridge.task.decorators import file_task, message_task
from bridge.task.idempotent_run import LONGEST_RUN_SECONDS
from bridge.worker.claim_release import Release, owed, release_now, release_stopped
from tests.unit.idempotency.memory_store import MemoryStore

NAME = "test_run_claims.task"
OBJECT = S3Object(bucket="b", key="in/a", etag="e", sequencer="0A")
LOST = Failure("worker-lost", retryable=True)


@pytest.fixture(autouse=True)
def _forget_tasks():
    """Only the tasks of a test are declared in it, and none after it."""
    declared, known = dict(registry._declared), set(app.tasks)
    yield
    registry._declared.clear()
    registry._declared.update(declared)
    for name in set(app.tasks) - known:
        del app.tasks[name]


@pytest.fixture
def store() -> MemoryStore:
    """The store in use."""
    memory = MemoryStore()
    use_claimer(Claimer(memory, ttl_seconds=86_400))
    return memory


class RequestStandIn:
    """What the parent knows of a run: Celery's request without a worker around it; a lease refers to it weakly."""

    def __init__(
        self, *args: Any, time_limits: tuple[float | None, float | None] = (None, None), **kwargs: Any
    ) -> None:
        self.task = app.tasks[NAME]
        self.args, self.kwargs, self.time_limits = args, kwargs, time_limits
        self.request_dict = {"bridge": {"owner": "m1/1/w/1", "message_id": "m1", "receives": 1}}
        self.lease = SimpleNamespace(log_fields={})

    def release(self) -> Release | None:
        """What is owed when its child is lost."""
        return owed(self, WorkerLostError("signal 9"), LOST)


def claimed(store: MemoryStore) -> ClaimRequest:
    """The claim of the run on the object."""
    claim_request = of_record(NAME, OBJECT)
    Claimer(store, ttl_seconds=86_400).acquire(claim_request, ClaimingRun("m1/1/w/1", "m1", 1, 3_600.0))
    return claim_request


def test_a_lost_run_is_released_however_it_was_called(store: MemoryStore) -> None:
    """``.delay(obj)`` and ``.delay(obj=obj)`` alike: the retry of neither waits for the claim's expiry."""

    @file_task("in/*", name=NAME, bind=True)
    def work(self: Any, obj: S3Object) -> None:
        return None

    for number, request in enumerate((RequestStandIn(OBJECT.to_dict()), RequestStandIn(obj=OBJECT.to_dict())), start=1):
        claim_request = claimed(store)
        release = request.release()
        assert release is not None
        assert release_now(release) == number
        assert from_json(store.kept[claim_request.id].text).status == "released"


def test_the_users_key_is_not_computed_where_the_release_is_made(store: MemoryStore) -> None:
    """It may read the object: the main loop, which asks what is owed, must not wait for S3."""
    asked = []

    @file_task("in/*", name=NAME, idempotency_key=lambda obj: asked.append(obj.key) or "k")
    def work(obj: S3Object) -> None:
        return None

    release = RequestStandIn(OBJECT.to_dict()).release()
    assert release is not None
    assert asked == []
    assert release_now(release) is None
    assert asked == ["in/a"]


def test_a_key_that_fails_leaves_nothing_to_release(store: MemoryStore) -> None:
    """The run itself has told of the error; the parent's thread lives on."""

    @file_task("in/*", name=NAME, idempotency_key=lambda obj: 1 / 0)
    def work(obj: S3Object) -> None:
        return None

    request = RequestStandIn(OBJECT.to_dict())
    release = request.release()
    assert release is not None
    assert release_now(release) is None
    release_stopped([SimpleNamespace(request=lambda: request)])  # type: ignore[list-item]  # all it reads of a lease
    assert store.calls == []


def test_what_claims_nothing_owes_nothing(store: MemoryStore) -> None:
    """A task that leaves the store alone, and a message task that was not asked to: their ends wait for no store."""

    @file_task("in/*", name=NAME, idempotent=False)
    def work(obj: S3Object) -> None:
        return None

    assert RequestStandIn(OBJECT.to_dict()).release() is None
    registry._declared.clear()
    del app.tasks[NAME]

    @message_task(everything=True, name=NAME)
    def take(msg: Any) -> None:
        return None

    assert RequestStandIn({"id": "m1"}).release() is None
    del app.tasks[NAME]

    @app.task(name=NAME)
    def plain(number: int) -> None:
        return None

    assert RequestStandIn(1).release() is None


def test_a_run_that_sent_its_retry_owes_its_claim_too(store: MemoryStore) -> None:
    """Celery's new message would meet a live claim, where the run could not release it."""

    @file_task("in/*", name=NAME)
    def work(obj: S3Object) -> None:
        return None

    request = RequestStandIn(OBJECT.to_dict())
    assert owed(request, Republished(), None) is not None
    released = Republished()
    released.bridge_released = True  # type: ignore[attr-defined]  # a note of the run's (bridge/task/idempotent_run.py)
    assert owed(request, released, None) is None


def test_a_release_is_tried_as_long_as_the_claim_can_last(store: MemoryStore) -> None:
    """The longer of the task's limit and the message's own, or what SQS allows where nothing limits it."""

    @file_task("in/*", name=NAME, time_limit=900)
    def work(obj: S3Object) -> None:
        return None

    def seconds(**options: Any) -> float:
        release = RequestStandIn(OBJECT.to_dict(), **options).release()
        assert release is not None
        return release.run.claim_seconds

    assert seconds() == claim_seconds(900)
    assert seconds(time_limits=(1_800, None)) == claim_seconds(1_800)
    work.time_limit = None
    assert seconds() == claim_seconds(LONGEST_RUN_SECONDS)
