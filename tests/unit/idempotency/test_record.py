"""The record and its text: nothing is lost on the way, and nothing is read from a text that is none of ours."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.idempotency.record import SCHEMA, Record, UnreadableRecord, from_json, to_json

texts = st.text(st.characters(codec="utf-8"), max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(texts, values, max_size=3),
    max_leaves=6,
)
moments = st.integers(0, 2**40)
in_progress = st.builds(
    Record,
    status=st.just("in-progress"),
    event=texts.filter(bool),
    expires_at=moments,
    owner=texts.filter(bool),
    claimed_until=st.floats(1, 1e12),
    failures=st.dictionaries(texts, st.integers(0, 50), max_size=3),
    progress=st.none() | st.dictionaries(texts, json_values, min_size=1, max_size=3),
    result=json_values,
    done_event=st.none() | texts.filter(bool),
    sequencer=st.none() | st.text("0123456789ABCDEF", min_size=1, max_size=18),
    about=texts,
    version=st.dictionaries(texts, texts, max_size=3),
    done_version=st.dictionaries(texts, texts, max_size=3),
)
ended = st.builds(
    Record,
    status=st.sampled_from(["released", "completed"]),
    event=texts.filter(bool),
    expires_at=moments,
    owner=texts,
    failures=st.dictionaries(texts, st.integers(0, 50), max_size=3),
    result=json_values,
    about=texts,
)
records = in_progress | ended

WHOLE = Record(
    status="in-progress",
    event="e",
    expires_at=2_000_000_000,
    owner="m/1/w/1",
    claimed_until=1_900_000_000.5,
    failures={"m": 2},
    progress={"part": 3},
    result={"rows": 1},
    done_event="d",
    sequencer="0A",
    about="s3://b/k",
    version={"family": "ObjectCreated", "version_id": "v2", "etag": "e2"},
    done_version={"family": "ObjectCreated", "version_id": "v1", "etag": "e1"},
)


@given(record=records)
@example(record=Record(status="completed", event="e", expires_at=1, result={}))
@example(record=Record(status="completed", event="e", expires_at=1, result=""))
@example(record=Record(status="completed", event="e", expires_at=1, result=0))
@example(record=Record(status="completed", event="e", expires_at=1, result=False))
@example(record=WHOLE)
def test_a_record_comes_back_as_it_was(record):
    """Every field, results that are empty or false included."""
    read = from_json(to_json(record))
    assert read == record
    # 0 == False == 0.0 in Python, and not in what a task returned.
    assert json.dumps(read.result) == json.dumps(record.result)


@given(record=records)
def test_the_same_record_is_the_same_text(record):
    """Also when it was read: a lost answer is recognised by its text."""
    text = to_json(record)
    assert to_json(from_json(text)) == text
    assert json.loads(text)["schema"] == SCHEMA


def test_failures_keep_their_order():
    """The oldest are forgotten first."""
    record = from_json(to_json(Record(status="released", event="e", expires_at=1, failures={"z": 1, "a": 2, "m": 3})))
    assert list(record.failures) == ["z", "a", "m"]


def test_what_is_empty_is_left_out():
    """Most records are small, and a store charges by the kilobyte."""
    text = to_json(Record(status="completed", event="e", expires_at=1, owner="o"))
    assert not {"progress", "failures", "result", "done_event", "sequencer"} & json.loads(text).keys()
    assert len(text) < 150


def readable(text):
    """The record, or None when the text is refused as it should be."""
    try:
        return from_json(text)
    except UnreadableRecord as error:
        assert len(str(error)) < 300
        return None


def assert_sound(record):
    """What was read can be used and written: a number that JSON has not would end a run at its next write."""
    assert record.status in ("in-progress", "released", "completed")
    assert record.status != "in-progress" or (record.owner and record.claimed_until)
    assert isinstance(record.claimed_until <= 0.0, bool)
    assert from_json(to_json(record)) == record


@given(text=st.text(max_size=60) | json_values.map(json.dumps))
def test_foreign_texts_are_refused(text):
    """Whatever they are, with one kind of error."""
    assert readable(text) is None


@given(record=records, data=st.data())
def test_damaged_texts_are_refused(record, data):
    """Cut short, or with a piece missing or doubled in the middle: the error, or a record that is sound."""
    text = to_json(record)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    for damaged in (text[:start], text[:start] + text[end:], text[:end] + text[start:]):
        if (read := readable(damaged)) is not None:
            assert_sound(read)
    assert start == len(text) or readable(text[:start]) is None


@given(record=records, name=st.sampled_from(["schema", *asdict(WHOLE)]), value=json_values)
@example(record=WHOLE, name="claimed_until", value=10**400)
@example(record=WHOLE, name="claimed_until", value=float("inf"))
@example(record=WHOLE, name="claimed_until", value=float("nan"))
@example(record=WHOLE, name="claimed_until", value=True)
@example(record=WHOLE, name="result", value=float("nan"))
@example(record=WHOLE, name="progress", value={"part": float("inf")})
@example(record=WHOLE, name="failures", value={"m": float("nan")})
@example(record=WHOLE, name="version", value={"etag": 5})
@example(record=WHOLE, name="done_version", value=["e1"])
@example(record=WHOLE, name="expires_at", value=10**400)
@example(record=WHOLE, name="status", value=["in-progress"])
@example(record=WHOLE, name="done_event", value="")
@example(record=WHOLE, name="sequencer", value="")
def test_a_field_of_another_kind_is_refused(record, name, value):
    """Any value in place of any field: the error, or a record that is sound."""
    values = json.loads(to_json(record)) | {name: value}
    if (read := readable(json.dumps(values))) is not None:
        assert_sound(read)


@pytest.mark.parametrize("name", ["schema", "status", "event", "expires_at", "owner", "claimed_until"])
def test_a_claim_that_lacks_a_field_is_refused(name):
    """Above all one without an end: read as an orphan it would be run beside its owner."""
    values = json.loads(to_json(WHOLE))
    del values[name]
    assert readable(json.dumps(values)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"schema": ' + "9" * 5_000 + "}",
        '{"schema": 1e400}',
        '{"schema": true, "status": "completed", "event": "e", "expires_at": 1}',
        '{"schema": 1.0, "status": "completed", "event": "e", "expires_at": 1}',
        '{"schema": 1, "status": "in-progress", "event": "e", "expires_at": 1, "owner": "o", "claimed_until": 1e400}',
    ],
)
def test_texts_that_could_trip_a_reader(text):
    """Nesting, long numbers and numbers that are none end in the same error."""
    assert readable(text) is None


@pytest.mark.parametrize("schema", [0, 2, 99, -1])
def test_another_schema_is_refused(schema):
    """A newer worker's record is never guessed at, and the error says which schema it has."""
    values = json.loads(to_json(WHOLE)) | {"schema": schema}
    with pytest.raises(UnreadableRecord, match=f"schema {schema} is not supported"):
        from_json(json.dumps(values))
