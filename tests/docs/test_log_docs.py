"""docs/reference/logs.md lists every event that the code logs, with its level and fields."""

from __future__ import annotations

import re

import pytest

from bridge.delivery import settler as settle
from bridge.delivery.lease import Lease
from bridge.delivery.settle_calls import Settlement
from bridge.messages.verdicts import DeadLetter, Delete, HandBack, RetryIn
from bridge.sqs.queues import Queue
from tests.support.log_events import MESSAGE, REPOSITORY, SETTLEMENT, Found, Unread, events, read

DOCS = (REPOSITORY / "docs" / "reference" / "logs.md").read_text(encoding="utf-8")
CODE = events()
_GROUPS = {"message": MESSAGE, "settlement": SETTLEMENT, "–": frozenset()}


def documented() -> dict[str, tuple[set[str], set[str]]]:
    """Event → its levels and fields, by the tables of the docs."""
    rows = re.findall(r"(?m)^\| `(\w+)` \| ([a-z, ]+) \| (.+?) \| .+ \|$", DOCS)
    assert len(rows) == len({row[0] for row in rows})
    found = {}
    for event, levels, cell in rows:
        fields: set[str] = set()
        for word in cell.split(", "):
            fields |= {word.strip("`")} if word.startswith("`") else _GROUPS[word]
        found[event] = (set(levels.split(", ")), fields)
    return found


def test_the_docs_list_every_event():
    """The tables hold exactly the events of the code: a new one is entered in docs/reference/logs.md."""
    assert sorted(documented()) == sorted(CODE)


@pytest.mark.parametrize("event", sorted(CODE))
def test_the_docs_list_every_field(event):
    """Each event has exactly the levels and the fields in the docs that its calls have."""
    assert documented().get(event) == (CODE[event].levels, CODE[event].fields)


def lease(**changed):
    """A held message with everything that its lines may say."""
    raw = {"MessageId": "m", "ReceiptHandle": "r", "Body": "b"}
    queue = Queue("q", "https://sqs.eu-west-1.amazonaws.com/1/q", "event")
    return Lease(
        queue=queue, raw=raw, received_at_epoch=0.0, received_at=0.0, visibility_timeout_seconds=30, task="t", **changed
    )


def test_the_message_fields():
    """The docs' message fields are those that a held message has."""
    held = lease(about={"bucket": "b", "key": "k", "objects": 2})
    assert set(held.log_fields) == MESSAGE
    table = DOCS[DOCS.index("**message fields**") : DOCS.index("While a task runs")]
    rows = re.findall(r"(?m)^\| (`.+?) \|", table)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == MESSAGE


def test_the_settlement_fields():
    """The docs' settlement fields are those of all verdicts together."""
    held = lease(about={"bucket": "b", "key": "k", "objects": 2})
    verdicts = (
        Delete("ignored", "test-event"),
        RetryIn(1, 1.0, "r", "E", "text"),
        DeadLetter("malformed", "E", "text"),
        HandBack("draining"),
    )
    assert set().union(*(settle._fields(Settlement(held, verdict)) for verdict in verdicts)) == SETTLEMENT


SOURCE = """
def f(self, lease, flag, **more):
    known = {"a": 1}
    known["b"] = 2
    (log.info if flag else log.debug)("one" if flag else "two", **known, c=3)
    logs.get_logger(__name__).warning("three", **lease.log_fields, **({} if flag else {"d": 4}), **{"e": 5})
    self.log.error("not ours: a user's attribute")
    math.log(2)
"""


def test_the_reader_reads():
    """Both branches of a conditional, dicts written in place or in the function, and only calls of our loggers."""
    found = {name: Found() for name in ("one", "two", "three")}
    read(SOURCE, "bridge/x.py", found)
    assert {name: (event.levels, event.fields) for name, event in found.items()} == {
        "one": ({"info", "debug"}, {"a", "b", "c"}),
        "two": ({"info", "debug"}, {"a", "b", "c"}),
        "three": ({"warning"}, MESSAGE | {"d", "e"}),
    }


@pytest.mark.parametrize(
    "call",
    [
        "log.info(name)",
        'log.info("a", **anything())',
        'log.info("a %s", 1)',
        'log.info("a", **unknown)',
        "logger = get_logger(__name__)",
    ],
)
def test_the_reader_does_not_guess(call):
    """A name or fields that the source does not tell are a fault of this test, never passed over."""
    with pytest.raises(Unread):
        read(f"def f(unknown):\n    {call}\n", "bridge/x.py", {"a": Found(), "a %s": Found()})
