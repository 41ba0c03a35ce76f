"""file_task and message_task: Celery's options with Celery's meaning, what is refused, how the function is called."""

from __future__ import annotations

import importlib
import warnings
from datetime import UTC, datetime

import pytest
from celery.exceptions import Ignore, SoftTimeLimitExceeded

from bridge.celery import app
from bridge.errors import ObjectChanged, ObjectGone, TaskExited
from bridge.messages.message import Message
from bridge.messages.routing import Route
from bridge.s3.object import S3Object
from bridge.task import registry
from bridge.task.base import BridgeTask
from bridge.task.decorators import file_task, message_task
from bridge.task.registry import declared_routes
from bridge.testing import (
    run_event,
    s3_event,
    s3_object,
)

ONE = {"bucket": "b", "key": "one"}
MESSAGE = Message(id="m", body="{}", queue_url="u", receipt_handle="h", received_at=datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture(autouse=True)
def _forget_tasks():
    """Only the tasks of a test are declared in it, and none after it."""
    declared, known = dict(registry._declared), set(app.tasks)
    registry._declared.clear()
    yield
    registry._declared.clear()
    registry._declared.update(declared)
    for name in set(app.tasks) - known:
        del app.tasks[name]


def declare(function=None, **options):
    """A file task of this function, with a name of its own."""

    def nothing(obj):
        return None

    return file_task("decorators/*", name="test_decorators.task", **options)(function or nothing)


class Busy(Exception):  # noqa: N818 - a state, not a mistake
    """An error to retry on."""


def test_a_task_is_celerys():
    """It is registered in the app, under its module's name, and takes Celery's options as attributes."""

    @file_task("x", time_limit=900, soft_time_limit=800, rate_limit="10/m", ignore_result=True, visibility_timeout=60)
    def import_it(obj):
        """What it does."""

    assert import_it.name == f"{__name__}.import_it"
    assert app.tasks[import_it.name] is import_it
    assert isinstance(import_it, BridgeTask)
    assert (import_it.time_limit, import_it.soft_time_limit, import_it.rate_limit) == (900, 800, "10/m")
    assert (import_it.ignore_result, import_it.visibility_timeout, import_it.acks_late) == (True, 60, True)
    assert import_it.__doc__ == "What it does."


def test_late_acknowledgement_cannot_be_switched_off():
    """acks_late=False is refused where the task is declared, whichever kind it is; saying True is allowed."""
    for declare_one in (file_task("x", acks_late=False), message_task(acks_late=False)):
        with pytest.raises(ValueError, match="acks_late=False would delete a message before its task has run"):
            declare_one(lambda obj: None)
    assert declared_routes() == ()
    assert declare(acks_late=True).acks_late


@pytest.mark.parametrize("seconds", [0, 5, 43_201])
def test_a_visibility_timeout_out_of_range_is_refused(seconds):
    """The text says what is allowed."""
    with pytest.raises(ValueError, match=f"visibility_timeout={seconds}: must be between 6 and 43200 seconds"):
        declare(visibility_timeout=seconds)


def test_a_task_left_alone_retries_on_anything():
    """Five times, with full jitter; its numbers are still the worker's to fill in."""
    task = declare()
    assert task.max_retries == 5
    assert Exception in task.autoretry_for
    assert SoftTimeLimitExceeded in task.autoretry_for
    assert task.retry_jitter is True
    assert task.unset_options == {"max_retries", "retry_backoff", "retry_backoff_max"}


def test_what_is_said_is_not_left_alone():
    """Each number that the decorator was given stays, and None means no limit, as in Celery."""
    task = declare(max_retries=None, retry_backoff=3, retry_backoff_max=50)
    assert (task.max_retries, task.unset_options) == (None, frozenset())


def test_a_fixed_delay_takes_the_place_of_the_backoff():
    """default_retry_delay=7 is Celery's fixed delay, so no backoff is put over it."""

    @file_task("delay/*", default_retry_delay=7, name="test_decorators.delayed")
    def delayed(obj):
        raise Busy

    assert delayed.unset_options == {"max_retries"}


@pytest.mark.parametrize(
    ("options", "delays"),
    [
        ({"retry_jitter": False}, [2, 4, 8, 16, 32]),
        ({"retry_jitter": False, "retry_backoff_max": 5}, [2, 4, 5, 5, 5]),
        ({"retry_jitter": False, "retry_backoff": True}, [1, 2, 4, 8, 16]),
        ({"retry_jitter": False, "retry_backoff": 10, "retry_backoff_max": 35}, [10, 20, 35, 35, 35]),
        ({"retry_jitter": False, "retry_backoff": False}, [180] * 5),
        ({"retry_kwargs": {"countdown": 9}}, [9] * 5),
        ({"retry_backoff": False, "default_retry_delay": 7}, [7] * 5),
    ],
)
def test_delays_are_those_the_options_ask_for(options, delays):
    """The default is 2 × 2^n up to 600 s; every other option means what Celery says of it."""

    def busy(obj):
        raise Busy

    declare(busy, **options)
    event = s3_event("decorators/k")
    assert [run_event(event, receives=n + 1).delay_seconds for n in range(5)] == delays


def test_jitter_is_full_by_default():
    """Delays lie anywhere from 0 to the backoff, so that a thousand failures do not come back at once."""

    def busy(obj):
        raise Busy

    declare(busy)
    delays = {run_event(s3_event("decorators/k"), receives=5).delay_seconds for _ in range(60)}
    assert max(delays) <= 32
    assert len(delays) > 5


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"autoretry_for": (Busy,)}, Busy("x"), None),
        ({"autoretry_for": (Busy,)}, ValueError("x"), "permanent"),
        ({"dont_autoretry_for": (ValueError,)}, ValueError("x"), "permanent"),
        ({"dont_autoretry_for": (ValueError,)}, Busy("x"), None),
        ({"max_retries": 0}, Busy("x"), "exhausted"),
        ({"autoretry_for": (Busy,), "max_retries": 0}, SoftTimeLimitExceeded(), "time-limit"),
        ({"autoretry_for": (Busy,)}, SoftTimeLimitExceeded(), None),
        ({"dont_autoretry_for": (SoftTimeLimitExceeded,)}, SoftTimeLimitExceeded(), "permanent"),
    ],
)
def test_which_errors_are_retried(options, error, reason):
    """An error outside autoretry_for or inside dont_autoretry_for is dead-lettered at once."""

    def fail(obj):
        raise error

    declare(fail, **options)
    result = run_event(s3_event("decorators/k"))
    assert (result.outcome, result.reason) == (("dead_lettered", reason) if reason else ("retried", None))


@pytest.mark.parametrize("receives", [8, 9])
def test_a_limit_in_retry_kwargs_is_the_limit(receives):
    """Celery's ``retry_kwargs={"max_retries": 8}``: eight retries and no more, although the default is five."""

    def busy(obj):
        raise Busy("again")

    declare(busy, retry_kwargs={"max_retries": 8})
    result = run_event(s3_event("decorators/k"), receives=receives)
    assert (result.outcome, result.reason) == (("retried", None) if receives == 8 else ("dead_lettered", "exhausted"))


def test_options_of_a_base_class_count():
    """A base class with retry options of its own, as Celery's guide shows, is not overruled by our defaults."""

    class Patient(BridgeTask):
        abstract = True
        autoretry_for = (Busy,)
        max_retries = 1

    def fail(obj):
        raise Busy if obj.key.endswith("busy") else ValueError

    declare(fail, base=Patient)
    assert run_event(s3_event("decorators/other")).reason == "permanent"
    assert run_event(s3_event("decorators/busy"), receives=2).reason == "exhausted"


def test_two_functions_under_one_name_do_not_swap_their_objects():
    """Celery keeps the first function of a name: a second must be refused, or its objects would run the wrong one."""

    def first(obj):
        return "first"

    def second(obj):
        return "second"

    file_task("one/*", name="test_decorators.twice")(first)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Celery's own, which says that the second function is not registered
            file_task("two/*", name="test_decorators.twice")(second)
    except ValueError:
        assert run_event(s3_event("one/x")).result == "first"
    else:
        assert run_event(s3_event("two/x")).result == "second"


def test_two_functions_of_one_module_and_name_do_not_swap_their_objects():
    """The usual slip is a copied function whose name was not changed: it is refused too, or takes its own objects."""

    def module():
        @file_task("three/*")
        def process(obj):
            return "three"

        @file_task("four/*")
        def process(obj):  # noqa: F811 - the slip
            return "four"

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Celery's own, which says that the second function is not registered
            module()
    except ValueError:
        assert run_event(s3_event("three/x")).result == "three"
    else:
        assert run_event(s3_event("four/x")).result == "four"


def test_bind_gives_the_task_first():
    """With bind=True the function takes self, whose request is this run's."""

    @file_task("bound/*", bind=True, name="test_decorators.bound")
    def bound(self, obj):
        return (self.name, self.request.retries, obj.key)

    assert run_event(s3_event("bound/k"), receives=3).result == ("test_decorators.bound", 2, "bound/k")


def test_a_plain_call_is_a_call_of_the_function():
    """With an S3Object, a dict of one, several, or further arguments that the function takes."""

    def call(obj, factor=1, *, shift=0):
        return (obj.key, factor, shift)

    task = declare(call)
    assert task(S3Object(**ONE)) == ("one", 1, 0)
    assert task(S3Object(**ONE), 2, shift=3) == ("one", 2, 3)
    assert task(ONE) == ("one", 1, 0)
    assert task([ONE, {"bucket": "b", "key": "two"}]) == [("one", 1, 0), ("two", 1, 0)]
    assert task.apply(args=[S3Object(**ONE)]).get() == ("one", 1, 0)


def test_the_object_may_be_given_by_name():
    """A keyword call works as with any Celery task: Celery's own check of the arguments lets it pass."""

    def call(obj):
        return obj.key

    task = declare(call)
    assert task(obj=S3Object(**ONE)) == "one"
    assert task.apply(kwargs={"obj": ONE}).get() == "one"


def test_several_records_run_in_order_in_one_run():
    """The function is called for each; the result is the list of its results."""
    seen = []

    def note(obj):
        seen.append(obj.key)
        return len(seen)

    declare(note)
    result = run_event(s3_event("decorators/b", "decorators/a", "decorators/c"))
    assert (result.outcome, result.result) == ("deleted", [1, 2, 3])
    assert seen == ["decorators/b", "decorators/a", "decorators/c"]


def read(obj):
    """Read the object, as tasks do."""
    with obj.open() as stream:
        return stream.read()


@pytest.mark.parametrize(
    ("missing_ok", "outcome", "reason"),
    [(False, "dead_lettered", "object-gone"), (True, "ignored", "object-gone")],
)
def test_an_object_that_is_gone(missing_ok, outcome, reason):
    """It is never retried: dead-lettered, or ignored where the task says that it may be missing."""
    declare(read, missing_ok=missing_ok)
    result = run_event(s3_event("decorators/gone"))
    assert (result.outcome, result.reason) == (outcome, reason)


def test_an_object_overwritten_since_its_event():
    """It is superseded, for its own event follows; allow_changed reads it as it is."""
    old = s3_object(b"old", "decorators/k")
    s3_object(b"new", "decorators/k")
    declare(read)
    result = run_event(s3_event(old))
    assert (result.outcome, result.reason) == ("ignored", "superseded")

    @file_task("decorators/*", allow_changed=True, name="test_decorators.allowing")
    def allowing(obj):
        return read(obj)

    del registry._declared["test_decorators.task"]
    assert run_event(s3_event(old)).result == b"new"


@pytest.mark.parametrize("missing_ok", [True, False])
def test_one_missing_object_does_not_keep_the_others_from_running(missing_ok):
    """All objects of the message that are there are worked on; then the missing one decides the message's end."""
    seen = []

    def note(obj):
        seen.append(read(obj))

    declare(note, missing_ok=missing_ok)
    there = [s3_object(b"1", "decorators/1"), s3_object(b"3", "decorators/3")]
    result = run_event(s3_event(there[0], "decorators/gone", there[1]))
    assert seen == [b"1", b"3"]
    assert result.outcome == ("deleted" if missing_ok else "dead_lettered")


def test_a_superseded_object_does_not_keep_the_others_from_running():
    """The rest of the message counts; with nothing left the message is ignored."""
    old = s3_object(b"old", "decorators/changed")
    s3_object(b"new", "decorators/changed")
    other = s3_object(b"other", "decorators/other")
    declare(read)
    assert run_event(s3_event(old, other)).result == [b"other"]
    assert run_event(s3_event(old, old)).reason == "superseded"


def test_sys_exit_is_an_error_of_the_task():
    """Left alone it would end a solo worker; here it is an ordinary error that is retried."""

    def leave(obj):
        raise SystemExit(3)

    task = declare(leave)
    with pytest.raises(TaskExited, match=r"sys.exit\(3\)"):
        task(S3Object(**ONE))
    result = run_event(s3_event("decorators/k"))
    assert (result.outcome, result.error) == ("retried", "the task called sys.exit(3)")


def test_gone_and_changed_are_raised_to_who_calls_the_function():
    """A plain call in a user's test raises the errors themselves, and through Celery an object that is gone raises."""
    s3_object(b"x", "other")
    task = declare(read)
    with pytest.raises(ObjectGone):
        task(S3Object(bucket="test-bucket", key="decorators/gone"))
    with pytest.raises(ObjectChanged):
        task(S3Object(bucket="test-bucket", key="other", etag="another"))
    with pytest.raises(Ignore):
        task({"bucket": "test-bucket", "key": "other", "etag": "another"})


def test_a_message_task_takes_a_message():
    """As a Message, or as the dict that travels through Celery."""

    @message_task(name="test_decorators.message", bind=True)
    def note(self, msg):
        return (self.name, msg)

    assert note(MESSAGE) == ("test_decorators.message", MESSAGE)
    assert note(MESSAGE.to_dict()) == ("test_decorators.message", MESSAGE)


def test_routes_are_what_was_declared():
    """Globs and event names as given, the ``s3:`` of an event name left out."""

    @file_task("in/*", bucket="up-*", events=["s3:ObjectCreated:Put", "ObjectRemoved:*"], name="test_decorators.f")
    def some(obj):
        return None

    @message_task(where={"type": "x*"}, everything=True, name="test_decorators.m")
    def every(msg):
        return None

    file_route = Route(
        task="test_decorators.f",
        kind="file",
        key="in/*",
        bucket="up-*",
        events=("ObjectCreated:Put", "ObjectRemoved:*"),
    )
    message_route = Route(task="test_decorators.m", kind="message", where=(("type", "x*"),), everything=True)
    assert declared_routes() == (file_route, message_route)
    assert some.route == file_route


def test_routes_come_in_the_order_of_the_modules():
    """Then in the order of definition; a module's submodules belong to it, and modules not named come last."""
    for module, name in (("other", "0"), ("second", "1"), ("first.sub", "2"), ("first", "3"), ("firstling", "4")):

        def function(obj):
            return None

        function.__module__ = module
        file_task("x", name=f"test_decorators.{name}")(function)
    routes = declared_routes(("first", "second"))
    assert [r.task[-1] for r in routes] == ["2", "3", "1", "0", "4"]
    assert [r.task[-1] for r in declared_routes()] == ["0", "1", "2", "3", "4"]


def test_the_former_path_of_the_base_class_goes_on():
    """A project with ``base=bridge.task.BridgeTask`` keeps working for one release."""
    former = importlib.import_module("bridge.task")

    assert former.BridgeTask is BridgeTask
    with pytest.raises(AttributeError, match="has no attribute 'Other'"):
        _ = former.Other
