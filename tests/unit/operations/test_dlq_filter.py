"""Which letters a command means: all conditions at once, any value of each, never one that does not say."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.messages.dead_letter import read_letter
from bridge.operations.dlq.filter import Filter, age_seconds

BASE = read_letter({"MessageId": "m-1", "ReceiptHandle": "h", "Body": "x"})
WORDS = st.sampled_from(["exhausted", "permanent", "a/b.csv", "a/c.txt", "uploads-eu", "uploads-us", "m-1", "t-1"])
GLOBS = st.lists(WORDS | st.sampled_from(["*", "a/*", "*.csv", "uploads-*", "?x*"]), max_size=3).map(tuple)
LETTERS = st.builds(
    lambda reason, task, when, objects, id_: replace(
        BASE, reason=reason, task=task, when=when, objects=tuple(objects), id=id_
    ),
    reason=WORDS,
    task=st.none() | WORDS,
    when=st.none() | st.floats(0, 1000),
    objects=st.lists(st.tuples(WORDS, WORDS), max_size=3),
    id_=WORDS,
)
FILTERS = st.builds(
    Filter,
    ids=st.lists(WORDS, max_size=2).map(tuple),
    reasons=GLOBS,
    tasks=GLOBS,
    buckets=GLOBS,
    keys=GLOBS,
    not_after=st.none() | st.floats(0, 1000),
    not_before=st.none() | st.floats(0, 1000),
)


@given(LETTERS)
def test_no_condition_takes_all(letter):
    """A command without conditions means every letter."""
    assert Filter().takes_all
    assert Filter().takes(letter)


@given(FILTERS, LETTERS)
def test_every_condition_narrows(chosen, letter):
    """A letter is meant exactly when each condition by itself means it (bucket and key are one condition)."""
    parts = [
        Filter(ids=chosen.ids),
        Filter(reasons=chosen.reasons),
        Filter(tasks=chosen.tasks),
        Filter(buckets=chosen.buckets, keys=chosen.keys),
        Filter(not_after=chosen.not_after),
        Filter(not_before=chosen.not_before),
    ]
    assert chosen.takes(letter) == all(part.takes(letter) for part in parts)


@given(GLOBS, GLOBS, LETTERS)
def test_bucket_and_key_are_of_one_object(buckets, keys, letter):
    """A message with two objects is not meant for the bucket of the one and the key of the other."""
    expected = (not buckets and not keys) or any(
        (not buckets or any(fnmatchcase(bucket, glob) for glob in buckets))
        and (not keys or any(fnmatchcase(key, glob) for glob in keys))
        for bucket, key in letter.objects
    )
    assert Filter(buckets=buckets, keys=keys).takes(letter) == expected


@given(LETTERS)
def test_what_is_not_said_does_not_match(letter):
    """A letter without a task is of no task, one without a moment is neither older nor newer."""
    assert Filter(tasks=("*",)).takes(letter) == (letter.task is not None)
    assert Filter(not_after=1e12).takes(letter) == (letter.when is not None)
    assert Filter(not_before=0.0).takes(letter) == (letter.when is not None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)]
)
def test_ages(text, seconds):
    """A number and a unit."""
    assert age_seconds(text) == seconds


@given(st.text(max_size=12))
def test_other_ages_are_refused_with_the_rule(text):
    """Whatever is typed is an age or a ValueError that says how one looks."""
    try:
        assert age_seconds(text) >= 0
    except ValueError as error:
        assert "7d" in str(error)
