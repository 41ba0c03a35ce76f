"""What tasks.archive writes, and where: the object's key and its JSON."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge import Message
from bridge.errors import SettingsError
from tasks.archive import archive, archive_key, archived

ID = "6e8f5b7c-3c0e-4b57-9a36-0d7c7c0f3a11"
RECEIVED = datetime(2025, 11, 28, 14, 30, 0, 123456, tzinfo=UTC)


def message(body: str = "{}", sent: datetime | None = RECEIVED, **fields: Any) -> Message:
    """A message sent and received at half past two."""
    attributes = {"SentTimestamp": str(int(sent.timestamp() * 1000))} if sent else {}
    given: dict[str, Any] = {"attributes": attributes, "received_at": RECEIVED, **fields}
    return Message(id=ID, body=body, queue_url="http://localhost/0/q", receipt_handle="the handle", **given)


def test_the_objects_form() -> None:
    """The object has the fields of the seed, in its order and its form of time, and nothing else."""
    content = json.loads(
        archived(message('{"test": "message"}', message_attributes={"n": {"DataType": "String", "StringValue": "v"}}))
    )
    assert list(content.items()) == [
        ("message_id", ID),
        ("body", '{"test": "message"}'),
        ("parsed_body", {"test": "message"}),
        ("attributes", {"SentTimestamp": "1764340200123"}),
        ("message_attributes", {"n": {"DataType": "String", "StringValue": "v"}}),
        ("received_at", "2025-11-28T14:30:00.123456"),
        ("receipt_handle", "the handle"),
    ]


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        (datetime(2025, 11, 28, 14, 59, 59, 999000, tzinfo=UTC), f"a/b/2025/11/28/14/{ID}.json"),
        (datetime(2025, 11, 28, 15, 0, tzinfo=UTC), f"a/b/2025/11/28/15/{ID}.json"),
        (datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=2))), f"a/b/2025/12/31/23/{ID}.json"),
        (None, f"a/b/2025/11/28/14/{ID}.json"),
    ],
)
def test_the_key_is_of_the_hour_in_which_it_was_sent(sent: datetime | None, key: str) -> None:
    """The hour is that of SentTimestamp in UTC, whenever the message is received."""
    assert archive_key("a/b/", message(sent=sent)) == key


def test_a_redelivery_an_hour_later_has_the_same_key() -> None:
    """When a message is received again, in another hour and zone, it is written over itself."""
    later = (RECEIVED + timedelta(hours=1)).astimezone(timezone(timedelta(hours=9)))
    assert archive_key("p/", message()) == archive_key("p/", message(received_at=later))
    assert json.loads(archived(message(received_at=later)))["received_at"] == "2025-11-28T15:30:00.123456"


def test_a_time_without_a_fraction_keeps_its_six_digits() -> None:
    """The form of received_at does not depend on the moment."""
    content = json.loads(archived(message(received_at=RECEIVED.replace(microsecond=0))))
    assert content["received_at"] == "2025-11-28T14:30:00.000000"


@pytest.mark.parametrize(
    "body", ["garbage", "", "NaN", "[Infinity]", "[1e999]", "{'a': 1}", "[" * 100_000, "1" * 5_000, '{"a": 1} x']
)
def test_what_is_no_json_has_no_parsed_body(body: str) -> None:
    """A body that is no JSON, or none that can be written again, is kept as it is, without parsed_body."""
    content = json.loads(archived(message(body)))
    assert content["body"] == body
    assert "parsed_body" not in content


def test_null_is_json() -> None:
    """A body that is JSON's null has a parsed_body, which is null."""
    assert json.loads(archived(message("null")))["parsed_body"] is None


def test_binary_attributes_are_base64() -> None:
    """A binary value of a message attribute is in the object as base64."""
    raw = {"raw": {"DataType": "Binary", "BinaryValue": b"\0\xff"}}
    content = json.loads(archived(message(message_attributes=raw)))
    assert base64.b64decode(content["message_attributes"]["raw"]["BinaryValue"]) == b"\0\xff"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.text(st.characters(codec="utf-8")) | _json.map(json.dumps) | st.text('{}[]",:0eE+-.\\ud8NaN', max_size=12))
@example('"\\ud800"')  # half of a surrogate pair, escaped as JSON allows
@example('["\\\\", "\\ud83d\\ude00", "\\udfff\\ud800"]')
def test_every_body_is_kept_as_it_is(body: str) -> None:
    """Whatever the body is, the object is strict JSON in UTF-8 that holds it unchanged, and parsed if it is JSON."""
    content = json.loads(archived(message(body)).decode("utf-8"), parse_constant=pytest.fail)
    assert content["body"] == body
    try:
        expected = json.loads(body)
    except ValueError:
        assert "parsed_body" not in content
    else:
        if "parsed_body" in content:
            assert content["parsed_body"] == expected
        else:
            assert any(word in json.dumps(expected) for word in ("NaN", "Infinity"))


def test_without_a_target_it_says_what_to_set() -> None:
    """Called where BRIDGE_ARCHIVE_URL is not set, the task raises an error that names it."""
    with pytest.raises(SettingsError, match=r"^BRIDGE_ARCHIVE_URL is not set: .*s3://bucket/sqs-messages/$"):
        archive(message())
