"""Properties of the parser: every key survives every encoding, and nothing raises anything but MalformedEvent."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import fields
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.errors import MalformedEvent
from bridge.messages.celery_message import is_celery_message
from bridge.s3.event import ObjectRecord, TestEvent, parse
from tests import REPOSITORY

EVENTS = REPOSITORY / "tests" / "support" / "events"
SAMPLES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(EVENTS.glob("*.json"))}

# At most four bytes a character, so 256 characters never pass S3's 1,024 bytes.
KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=256) | st.text(
    "+%25 /ü🪣?&=#", min_size=1, max_size=256
)
ANY_TEXT = st.text(st.characters() | st.sampled_from("\0\ud800\udfff\ufeff%+"))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | ANY_TEXT
    | st.sampled_from(
        ["", "aws:s3", "aws.s3", "2.1", "3.0", "Notification", "s3:TestEvent", "Amazon S3", "{}", "%FF", 1e400]
    )
)
NAMES = ANY_TEXT | st.sampled_from(
    ["Records", "s3", "object", "bucket", "key", "name", "detail", "Type", "Message", "size"]
)
JSON_VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
CELERY = {"body": "W10=", "content-type": "application/json", "headers": {"task": "t", "id": "1"}, "properties": {}}


def check(body: str) -> None:
    """Parse, and hold whatever comes out to what the rest of the bridge relies on."""
    assert is_celery_message(body) in (True, False)
    try:
        parsed = parse(body)
    except MalformedEvent as error:
        text = str(error)
        text.encode()
        assert 0 < len(text) < 300
        assert text.isprintable()
        return
    if isinstance(parsed, TestEvent):
        assert parsed.bucket is None or parsed.bucket.encode()
        return
    assert parsed
    for record in parsed:
        assert record.bucket
        assert record.event_name
        assert 1 <= len(record.key.encode()) <= 1024
        assert record.size is None or (type(record.size) is int and record.size >= 0)
        for field in fields(record):
            value = getattr(record, field.name)
            if field.name != "size" and value is not None:
                assert value.encode()
                assert "\0" not in value
        assert ObjectRecord(**json.loads(json.dumps(record.to_dict()))) == record


def s3_event(encoded_key: str) -> str:
    """A bare S3 event for one key."""
    event = copy.deepcopy(SAMPLES["s3_2_1_put"])
    event["Records"][0]["s3"]["object"]["key"] = encoded_key
    return json.dumps(event)


def in_sns(message: str) -> str:
    """The message in an SNS envelope."""
    return json.dumps({**SAMPLES["sns_envelope"], "Message": message})


def only_key(body: str) -> str:
    """The key of a body with one record."""
    parsed = parse(body)
    assert isinstance(parsed, tuple)
    (record,) = parsed
    return record.key


@pytest.mark.parametrize(
    "encode",
    [
        pytest.param(lambda key: quote_plus(key, safe="/"), id="S3"),
        pytest.param(quote_plus, id="moto, slash as %2F"),
        pytest.param(lambda key: quote(key, safe=""), id="space as %20"),
    ],
)
@settings(deadline=2000)
@given(key=KEYS)
@example(key="k" * 1024)
@example(key="🪣" * 256)
@example(key="100%25 a+b%2Bc")
@example(key="a\u2028\x7f\x01\ufeff")
def test_any_key_survives_form_encoding(encode: Any, key: str) -> None:
    """Any key of S3 comes back from the encoding of S3's events, bare and through SNS."""
    assert only_key(s3_event(encode(key))) == key
    assert only_key(in_sns(s3_event(encode(key)))) == key


@settings(deadline=2000)
@given(key=KEYS)
@example(key="100%25 a+b%2Bc")
def test_any_key_survives_eventbridge(key: str) -> None:
    """Any key of S3 comes back from an EventBridge event, which does not encode it, bare and through SNS."""
    event = copy.deepcopy(SAMPLES["eventbridge_created"])
    event["detail"]["object"]["key"] = key
    for body in (json.dumps(event), json.dumps(event, ensure_ascii=False)):
        assert only_key(body) == key
        assert only_key(in_sns(body)) == key


@settings(deadline=2000)
@given(text=ANY_TEXT)
def test_no_text_raises_anything_else(text: str) -> None:
    """No text whatever, as it is or in base64, raises anything but MalformedEvent."""
    check(text)
    check(base64.b64encode(text.encode(errors="surrogatepass")).decode())
    check(in_sns(text))


@settings(deadline=2000)
@given(value=JSON_VALUES)
def test_no_json_value_raises_anything_else(value: object) -> None:
    """No JSON value whatever, bare or in SNS, raises anything but MalformedEvent."""
    body = json.dumps(value)
    check(body)
    check(in_sns(body))
    check(json.dumps(value, ensure_ascii=False))
    check(json.dumps({"Records": [value]}))
    check(json.dumps({"source": "aws.s3", "detail-type": value, "detail": value}))


def paths_of(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The way to every value inside, its own included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for step, child in inner for found in paths_of(child, (*path, step)))]


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """A sample, or a Celery message, with up to three subtrees replaced by any JSON value; SNS Messages also inside."""
    event: Any = copy.deepcopy(draw(st.sampled_from([*SAMPLES.values(), CELERY])))
    wrapped = isinstance(event.get("Message"), str) and draw(st.booleans())
    root: dict[str, Any] = {"event": json.loads(event["Message"]) if wrapped else event}
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths_of(root)[1:]))
        holder: Any = root
        for step in path[:-1]:
            holder = holder[step]
        if isinstance(holder, dict) and len(path) > 1 and draw(st.booleans()):
            del holder[path[-1]]
        else:
            holder[path[-1]] = draw(JSON_VALUES)
    body = json.dumps(root["event"])
    return json.dumps({**event, "Message": body}) if wrapped else body


@settings(deadline=2000, max_examples=300)
@given(body=mutants())
def test_no_changed_event_raises_anything_else(body: str) -> None:
    """No replacement or removal of parts of a valid event raises anything but MalformedEvent."""
    check(body)


@settings(deadline=2000, max_examples=200)
@given(data=st.data())
def test_no_damaged_text_raises_anything_else(data: st.DataObject) -> None:
    """No valid event with a piece of its text replaced by other text raises anything but MalformedEvent."""
    body = json.dumps(data.draw(st.sampled_from([*SAMPLES.values(), CELERY])))
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 40)))
    check(body[:start] + data.draw(ANY_TEXT) + body[end:])
