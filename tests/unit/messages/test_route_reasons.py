"""The explanation agrees with the routing that it explains."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from bridge.messages.explain import explain
from bridge.messages.routing import Route, Rules, ToTask, route
from tests.unit.cli.conftest import event

WORDS = st.sampled_from(["in/a.csv", "in/b.txt", "uploads-eu", "x"])
GLOBS = WORDS | st.sampled_from(["*", "in/*", "*.csv", "uploads-*"])
FILE_ROUTES = st.builds(
    Route,
    task=st.just(""),
    kind=st.just("file"),
    key=GLOBS,
    bucket=GLOBS,
    events=st.sampled_from([("ObjectCreated:*",), ("ObjectRemoved:*",)]),
)
MESSAGE_ROUTES = st.builds(
    Route,
    task=st.just(""),
    kind=st.just("message"),
    where=st.lists(st.tuples(st.sampled_from(["kind", "other"]), GLOBS), max_size=2).map(tuple),
    everything=st.booleans(),
)
CELERY = json.dumps({"body": "e30=", "headers": {"task": "t"}, "properties": {}, "content-type": "application/json"})
TEST_EVENT = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"})


@given(
    routes=st.lists(FILE_ROUTES | MESSAGE_ROUTES, max_size=4),
    body=st.builds(event, WORDS, WORDS) | st.sampled_from([CELERY, TEST_EVENT, "garbage", "{}"]),
    attributes=st.dictionaries(st.just("kind"), WORDS.map(lambda w: {"DataType": "String", "StringValue": w})),
)
def test_the_first_task_without_a_reason_is_the_one(routes, body, attributes):
    """Whatever the rules and the message: the first task that nothing keeps from it is where it goes."""
    named = tuple(
        Route(
            task=f"t{n}",
            kind=r.kind,
            key=r.key,
            bucket=r.bucket,
            events=r.events,
            where=r.where,
            everything=r.everything,
        )
        for n, r in enumerate(routes)
    )
    rules = Rules(routes=named)
    [subject] = explain(body, attributes, rules)
    assert [task for task, _ in subject.tasks] == [r.task for r in named]
    first = next((task for task, why in subject.tasks if not why), None)
    verdict = route(body, attributes, rules)
    assert (verdict.task if isinstance(verdict, ToTask) else None) == first


def test_every_rule_that_fails_is_named():
    """A task that fails on key, bucket and event says all three, with its own globs."""
    rules = Rules(routes=(Route(task="t", kind="file", key="in/*", bucket="up-*", events=("ObjectRemoved:*",)),))
    [subject] = explain(event("x", "other"), {}, rules)
    assert subject.tasks == (
        ("t", ("key does not match in/*", "bucket does not match up-*", "event does not match ObjectRemoved:*")),
    )


def test_what_no_task_decides_is_noted():
    """Allowed buckets and output prefixes come before any task."""
    rules = Rules(routes=(), allowed_buckets=("a-*",), own_outputs=(("uploads", "out/"),))
    [forbidden], [own] = explain(event("x"), {}, rules), explain(event("out/x"), {}, rules)
    assert "BRIDGE_ALLOWED_BUCKETS=a-*" in forbidden.note
    assert "output prefix" in own.note
