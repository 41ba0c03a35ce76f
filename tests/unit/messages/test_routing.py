"""Which task takes a message: order, globs, several records, our own outputs, and what no task takes."""

from __future__ import annotations

import base64
import json
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.globs import matches
from bridge.messages.routing import Route, Rules, ToTask, is_own_output, route
from bridge.messages.verdicts import DeadLetter, Delete
from bridge.s3.event import ObjectRecord

CSV = Route(task="csv", kind="file", key="*.csv")
LOGS = Route(task="logs", kind="file", key="logs/*")
REST = Route(task="rest", kind="file")
REMOVED = Route(task="removed", kind="file", events=("ObjectRemoved:*", "LifecycleExpiration:*"))
TEXTS = Route(task="texts", kind="message", where=(("type", "text*"),))
MESSAGES = Route(task="messages", kind="message")
ALL = Route(task="all", kind="message", everything=True)
ALL_OF_TYPE = Route(task="some", kind="message", where=(("type", "x"),), everything=True)

TEST_EVENT = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"})
CELERY = json.dumps({"body": "W10=", "headers": {"task": "t", "id": "1"}, "properties": {}})


def body(*keys, bucket="b", event_name="ObjectCreated:Put"):
    """An S3 event, a record for each key."""
    records = [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventName": event_name,
            "s3": {"bucket": {"name": bucket}, "object": {"key": key}},
        }
        for key in keys
    ]
    return json.dumps({"Records": records})


def text_attribute(value):
    """A message attribute in SQS's shape."""
    return {"type": {"DataType": "String", "StringValue": value}}


def test_the_first_route_that_matches_wins():
    """Two tasks want the key; the one earlier in the order gets it."""
    for routes, winner in (((CSV, LOGS), "csv"), ((LOGS, CSV), "logs")):
        target = route(body("logs/a.csv"), {}, Rules(routes))
        assert isinstance(target, ToTask)
        assert target.task == winner
        assert [o.key for o in target.objects] == ["logs/a.csv"]


@pytest.mark.parametrize(
    ("wanted", "key", "bucket", "event_name", "taken"),
    [
        (Route(task="t", kind="file", key="in/*.csv"), "in/deep/er/a.csv", "b", "ObjectCreated:Put", True),
        (Route(task="t", kind="file", key="in/*.csv"), "in/a.CSV", "b", "ObjectCreated:Put", False),
        (Route(task="t", kind="file", key="a?.txt"), "ab.txt", "b", "ObjectCreated:Put", True),
        (Route(task="t", kind="file", key="[ab].txt"), "c.txt", "b", "ObjectCreated:Put", False),
        (Route(task="t", kind="file", key="two*"), "two\nlines", "b", "ObjectCreated:Put", True),
        (Route(task="t", kind="file", bucket="uploads-*"), "k", "uploads-eu", "ObjectCreated:Put", True),
        (Route(task="t", kind="file", bucket="uploads-*"), "k", "other", "ObjectCreated:Put", False),
        (REMOVED, "k", "b", "ObjectRemoved:Delete", True),
        (REMOVED, "k", "b", "LifecycleExpiration:Delete", True),
        (REMOVED, "k", "b", "ObjectCreated:Copy", False),
        (REST, "k", "b", "ObjectRemoved:Delete", False),
    ],
)
def test_key_bucket_and_event_must_all_match(wanted, key, bucket, event_name, taken):
    """Globs are case-sensitive and match slashes; creation is what a task takes unless it says otherwise."""
    target = route(body(key.replace("\n", "%0A"), bucket=bucket, event_name=event_name), {}, Rules((wanted,)))
    assert isinstance(target, ToTask) == taken
    assert taken or target.reason == "unrouted"


def test_several_records_of_one_task_go_together():
    """All records that route to one task are given to it in their order."""
    target = route(body("b.csv", "a.csv", "c.csv"), {}, Rules((CSV, REST)))
    assert [o.key for o in target.objects] == ["b.csv", "a.csv", "c.csv"]


@pytest.mark.parametrize("routes", [(CSV, LOGS), (CSV,)])
def test_records_of_several_tasks_are_mixed(routes):
    """One receipt handle cannot end in two ways, so such a message is dead-lettered whole, the tasks named."""
    verdict = route(body("a.csv", "logs/x"), {}, Rules(routes, unrouted="ignore"))
    assert isinstance(verdict, DeadLetter)
    assert verdict.reason == "mixed"
    assert "csv" in verdict.error
    assert ("logs" if LOGS in routes else "no task") in verdict.error


def test_an_object_no_task_wants_is_unrouted():
    """It is dead-lettered and named, or ignored where the settings say so."""
    verdict = route(body("picture.png"), {}, Rules((CSV,)))
    assert (verdict.reason, "s3://b/picture.png" in verdict.error) == ("unrouted", True)
    assert route(body("picture.png"), {}, Rules((CSV,), unrouted="ignore")) == Delete("ignored", "unrouted")


def test_a_foreign_bucket_is_forbidden_before_any_task_sees_it():
    """A bucket outside the allowed globs is dead-lettered although a task would take it."""
    rules = Rules((REST,), allowed_buckets=("mine-*", "ours"))
    assert route(body("k", bucket="theirs"), {}, rules).reason == "forbidden-bucket"
    assert route(body("k", bucket="mine-1"), {}, rules).task == "rest"
    assert route(body("k", bucket="ours"), {}, rules).task == "rest"


def test_our_own_output_is_never_processed():
    """What lies under an output prefix is ignored; beside it, it is not, and other buckets are not meant."""
    rules = Rules((REST, ALL), own_outputs=(("b", "results/"),))
    assert route(body("results/a.json"), {}, rules) == Delete("ignored", "own-output")
    assert route(body("results-2/a.json"), {}, rules).task == "rest"
    assert route(body("results/a.json", bucket="c"), {}, rules).task == "rest"
    mixed = route(body("results/a.json", "in/a.json"), {}, rules)
    assert [o.key for o in mixed.objects] == ["in/a.json"]


def test_an_object_too_large_for_its_task_is_dead_lettered():
    """One byte more than the task takes ends the message before it runs; an event that says no size is let through."""
    rules = Rules((Route(task="small", kind="file", max_bytes=10), REST))
    for size, taken in ((10, True), (11, False), (None, True)):
        event = json.loads(body("k"))
        event["Records"][0]["s3"]["object"]["size"] = size
        target = route(json.dumps(event), {}, rules)
        assert isinstance(target, ToTask) == taken
        assert taken or (target.reason, target.error_type) == ("too-large", "ObjectTooLarge")


def test_a_test_event_is_ignored_unless_a_task_takes_everything():
    """S3's test event needs no task, and a task for everything gets it as it is."""
    assert route(TEST_EVENT, {}, Rules((REST, MESSAGES))) == Delete("ignored", "test-event")
    assert route(TEST_EVENT, {}, Rules((REST, ALL))) == ToTask("all", None)


@pytest.mark.parametrize("text", [" ", "{}", "[]", "7", "null", '{"Records": [', "hello"])
def test_what_is_no_event_goes_to_a_message_task_or_is_malformed(text):
    """Without a message task a body that is no event is dead-lettered with the parser's words."""
    assert route(text, {}, Rules((REST, MESSAGES))) == ToTask("messages", None)
    verdict = route(text, {}, Rules((REST,)))
    assert (verdict.reason, verdict.error_type) == ("malformed", "MalformedEvent")
    assert verdict.error


@pytest.mark.parametrize("text", [CELERY, base64.b64encode(CELERY.encode()).decode()])
def test_a_celery_body_on_an_event_queue_is_never_executed(text):
    """It is dead-lettered even where a message task takes other bodies; only a task for everything gets it, whole."""
    verdict = route(text, {}, Rules((REST, MESSAGES)))
    assert verdict.reason == "malformed"
    assert "never runs" in verdict.error
    assert route(text, {}, Rules((REST, MESSAGES, ALL))) == ToTask("all", None)


def test_where_matches_message_attributes():
    """Every named attribute must be there, be a text and match its glob."""
    rules = Rules((TEXTS,))
    assert route("x", text_attribute("text/plain"), rules) == ToTask("texts", None)
    assert route("x", text_attribute("image/png"), rules).reason == "malformed"
    assert route("x", {}, rules).reason == "malformed"
    assert route("x", {"type": {"DataType": "Binary", "BinaryValue": b"text"}}, rules).reason == "malformed"


def test_message_tasks_are_asked_in_order_too():
    """The first message task whose attributes match gets the body."""
    assert route("x", text_attribute("text"), Rules((TEXTS, MESSAGES))).task == "texts"
    assert route("x", text_attribute("text"), Rules((MESSAGES, TEXTS))).task == "messages"


def test_a_task_for_everything_stands_in_the_order_like_any_other():
    """An S3 event goes to the first that matches; the task for everything gets it whole, forbidden bucket or not."""
    rules = Rules((CSV, ALL), allowed_buckets=("none",))
    assert route(body("a.csv"), {}, Rules((CSV, ALL))).task == "csv"
    assert route(body("a.csv"), {}, Rules((ALL, CSV))) == ToTask("all", None)
    assert route(body("a.png"), {}, rules) == ToTask("all", None)
    assert route(body("a.csv"), {}, rules).reason == "forbidden-bucket"


def test_everything_is_narrowed_by_where():
    """A task for everything with attributes takes only messages that have them."""
    rules = Rules((ALL_OF_TYPE, CSV))
    assert route(body("a.csv"), text_attribute("x"), rules) == ToTask("some", None)
    assert route(body("a.csv"), text_attribute("y"), rules).task == "csv"


@given(pattern=st.text("ab*?[]!-./", max_size=8), text=st.text("ab/.-\n]", max_size=8))
def test_globs_are_those_of_the_shell(pattern, text):
    """A pattern matches just when Python's case-sensitive fnmatch says so."""
    assert matches(pattern, text) == fnmatchcase(text, pattern)


@given(st.text(max_size=200), st.lists(st.sampled_from([CSV, REST, MESSAGES, ALL, TEXTS]), max_size=4))
def test_routing_never_raises(text, routes):
    """Whatever a body is, there is a task or a verdict for it."""
    assert isinstance(route(text, {}, Rules(tuple(routes))), ToTask | DeadLetter | Delete)


def test_own_output_is_compared_by_bucket_and_prefix():
    """Both must match, and several prefixes are all looked at."""
    outputs = (("b", "one/"), ("b", "two/"))
    assert is_own_output(ObjectRecord(bucket="b", key="two/x"), outputs)
    assert not is_own_output(ObjectRecord(bucket="b", key="three/x"), outputs)
    assert not is_own_output(ObjectRecord(bucket="a", key="one/x"), outputs)
