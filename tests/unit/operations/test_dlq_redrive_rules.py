"""What redrive does with one letter: what is sent, what is left, and in which batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.messages.dead_letter import read_letter, size_bytes
from bridge.operations.dlq.redrive import MAX_REDRIVES, entry_for, in_batches, left_because
from tests.unit.cli.conftest import letter_arguments

VALUES = st.one_of(
    st.text(min_size=1, max_size=30).map(lambda t: {"DataType": "String", "StringValue": t}),
    st.binary(min_size=1, max_size=30).map(lambda b: {"DataType": "Binary", "BinaryValue": b}),
)
NAMES = st.text("abcdefgh", min_size=1, max_size=6)
LETTER = read_letter({"MessageId": "m-1", "ReceiptHandle": "h", "Body": "x"})


def received(body, attributes, **system):
    """A letter with a real cause where there is room for one."""
    arguments = letter_arguments(body, attributes=attributes)
    return read_letter(
        {
            "MessageId": "m-1",
            "ReceiptHandle": "h",
            "Body": arguments["MessageBody"],
            "MessageAttributes": arguments.get("MessageAttributes", {}),
            "Attributes": system,
        }
    )


@given(
    body=st.text(min_size=1, max_size=200),
    attributes=st.dictionaries(NAMES, VALUES, max_size=10),
    before=st.none() | st.integers(0, 50),
    spare=st.integers(0, 40),
)
def test_what_goes_back_is_the_original_and_a_count(body, attributes, before, spare):
    """Body and attributes are untouched, the cause is gone, and the count is one higher wherever there is room."""
    counted = {"BridgeRedrives": {"DataType": "Number", "StringValue": str(before)}} if before is not None else {}
    if len(attributes) + len(counted) > 10:
        counted = {}
    letter = received(body, {**attributes, **counted})
    bare = len(body.encode("utf-8", "surrogatepass")) + sum(size_bytes(n, v) for n, v in attributes.items())

    entry = entry_for(letter, max_bytes=bare + spare)

    sent = dict(entry.fields.get("MessageAttributes", {}))
    count = sent.pop("BridgeRedrives", None)
    assert (entry.fields["MessageBody"], sent) == (body, attributes)
    assert entry.size <= bare + spare
    assert len(attributes) + (count is not None) <= 10
    expected = (before or 0) + 1 if counted else 1
    room = len(attributes) < 10 and spare >= len("BridgeRedrives") + len("Number") + len(str(expected))
    assert entry.redrives == (expected if room else None)
    assert count == ({"DataType": "Number", "StringValue": str(expected)} if room else None)


def test_the_trace_goes_back_too():
    """A trace leads through the dead-letter queue and on."""
    entry = entry_for(received("x", {}, AWSTraceHeader="Root=1"), max_bytes=1000)
    assert entry.fields["MessageSystemAttributes"] == {
        "AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1"}
    }


@given(redrives=st.integers(0, 10), force=st.booleans(), has_target=st.booleans())
def test_an_old_letter_is_left_for_two_reasons(redrives, force, has_target):
    """It was redriven too often and nobody insists, or nothing says where to."""
    letter = replace(LETTER, redrives=redrives, sent_at=10.0)
    why = left_because(letter, started_at=100.0, returned=False, has_target=has_target, force=force)
    too_often = redrives >= MAX_REDRIVES and not force
    assert why == ("redriven-too-often" if too_often else None if has_target else "no-source")


@pytest.mark.parametrize(
    ("sent_at", "returned", "left"),
    [
        (99.9, False, False),
        (99.9, True, False),  # the twin of one that was sent: it lay here before
        (100.5, False, False),  # dead-lettered meanwhile, and for the first time in this run
        (100.5, True, True),
        (None, True, True),
    ],
)
def test_what_this_run_has_sent_is_left(sent_at, returned, left):
    """A task that fails at once cannot make a run go round in circles."""
    letter = replace(LETTER, sent_at=sent_at)
    why = left_because(letter, started_at=100.0, returned=returned, has_target=True, force=True)
    assert why == ("came-back" if left else None)


@given(st.lists(st.integers(0, 120), max_size=60), st.integers(1, 10), st.integers(50, 200))
def test_batches_hold_all_in_order_and_fit(sizes, entries, max_bytes):
    """Nothing is left out or put twice; no batch is too long or too large, unless it is one message alone."""
    batches = in_batches(sizes, entries=entries, max_bytes=max_bytes)
    assert [position for batch in batches for position in batch] == list(range(len(sizes)))
    for batch in batches:
        assert 1 <= len(batch) <= entries
        assert len(batch) == 1 or sum(sizes[position] for position in batch) <= max_bytes
