"""brigade dlq against real queues: what is shown, what is sent back, and that nothing is held or lost afterwards."""

from __future__ import annotations

import json

import pytest

from tests.support.servers.sqs import Counts, counts, receive, send
from tests.support.servers.waiting import wait_until
from tests.unit.cli.conftest import bury, drain, event, letter_arguments

#: What does not depend on the server runs on one of them.
ON_MOTO = pytest.mark.parametrize("sqs_server", ["moto"], indirect=True)
TEXT = {"DataType": "String", "StringValue": "v"}


@pytest.fixture
def pair(sqs_server, queues):
    """A queue whose messages SQS moves after one receive, and its DLQ."""
    return queues(sqs_server, max_receive_count=1)


@pytest.fixture
def dlq(brigade, pair):
    """Run ``brigade dlq ARGS`` for that queue."""
    return lambda *args, **settings: brigade("dlq", *args, **{"SQS_QUEUE_URL": pair.url, **settings})


def letter(pair, number, **changed):
    """One dead letter, for the object in/<number>.csv."""
    given = {"task_id": f"task-{number}", "source_queue": pair.name, "attributes": {"kind": TEXT}, **changed}
    return letter_arguments(event(f"in/{number}.csv"), dlq_url=pair.dlq_url, **given)


def moved_by_sqs(server, pair, body):
    """A message that SQS itself moves to the DLQ."""
    message_id = send(server, pair.url, body)
    receive(server, pair.url, visibility_timeout_seconds=0)
    wait_until(
        lambda: not receive(server, pair.url) and counts(server, pair.dlq_url).visible, 10, "SQS to move the message"
    )
    return message_id


def test_list_shows_all_and_holds_none(sqs_server, pair, dlq):
    """Every letter once, the oldest first, more of them than one receive brings; all are visible again at the end."""
    bury(sqs_server, [letter(pair, n, age_seconds=n * 60) for n in range(23)])
    listed = dlq("list", "--json")
    assert listed.code == 0
    assert [found["id"] for found in listed.json] and {found["id"] for found in listed.json} == {
        f"task-{n}" for n in range(23)
    }
    assert counts(sqs_server, pair.dlq_url) == Counts(visible=23, in_flight=0, delayed=0)

    table = dlq("list", "--older-than", "10m", "--reason", "exh*", "--key", "in/2?.csv").out.splitlines()
    assert table[0].split() == ["WHEN", "(UTC)", "ID", "REASON", "TASK", "ATTEMPTS", "ERROR", "OBJECT"]
    assert [line.split()[2] for line in table[1:]] == ["task-22", "task-21", "task-20"]
    assert table[1].split()[3:] == ["exhausted", "my.task", "6", "ValueError:", "bad", "row", "s3://uploads/in/22.csv"]
    assert "\x1b" not in "".join(table)


def test_show_by_either_id(sqs_server, pair, dlq):
    """The id of the logs and the MessageId lead to the letter; all of it is shown, and it stays."""
    bury(sqs_server, [letter(pair, n) for n in range(3)])
    whole = dlq("show", "task-1", "--json").json
    assert (whole["body"], whole["message_attributes"]["kind"]) == (event("in/1.csv"), TEXT)
    assert (whole["cause"]["traceback"], whole["worker"]) == ("Traceback\n  in row 7", "pod-1")
    text = dlq("show", whole["message_id"]).out
    for part in (
        "task-1",
        "exhausted",
        "ValueError: bad row",
        "  Traceback\n    in row 7",
        event("in/1.csv"),
        "kind=v",
    ):
        assert part in text
    missing = dlq("show", "task-9")
    assert (missing.code, missing.out) == (1, "")
    assert "no dead letter task-9 among 3 messages" in missing.err
    assert counts(sqs_server, pair.dlq_url).visible == 3


@ON_MOTO
def test_what_a_terminal_would_obey_is_escaped(sqs_server, pair, dlq):
    """A letter cannot colour, move or overwrite what an operator sees."""
    bury(sqs_server, [letter(pair, "%1B%5B2J", task_id="evil\x1b[31m\u202e")])
    for out in (dlq("list").out, dlq("show", "evil\x1b[31m\u202e").out):
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "\\x1b[2J" in out


def test_redrive_sends_the_original_back(sqs_server, pair, dlq):
    """Body, attributes and trace as they were, no cause, a count; the letters are gone."""
    bury(sqs_server, [letter(pair, n) for n in range(12)])
    dry = dlq("redrive", "--dry-run", "--json")
    assert (dry.code, dry.json["redriven"]) == (0, {pair.name: 12})
    assert counts(sqs_server, pair.dlq_url).visible == 12

    done = dlq("redrive")
    assert (done.code, done.out) == (0, f"redrove 12 messages to {pair.name}\n")
    assert counts(sqs_server, pair.dlq_url).total == 0
    back = drain(sqs_server, pair.url)
    assert sorted(m["Body"] for m in back) == sorted(event(f"in/{n}.csv") for n in range(12))
    for message in back:
        attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
        assert attributes == {"kind": "v", "BridgeRedrives": "1"}
        if sqs_server.name != "moto":  # which drops it from a batch
            assert message["Attributes"]["AWSTraceHeader"] == "Root=1-5759e988"


def test_redrive_stops_at_three(sqs_server, pair, dlq):
    """What was redriven three times stays, is told with exit code 1, and goes with --force."""
    count = {"BridgeRedrives": {"DataType": "Number", "StringValue": "3"}}
    bury(sqs_server, [letter(pair, 1, attributes=count), letter(pair, 2)])
    done = dlq("redrive")
    assert done.code == 1
    assert f"redrove 1 message to {pair.name}\nleft 1 message: redriven 3 times already" in done.out
    assert counts(sqs_server, pair.dlq_url).visible == 1
    assert dlq("redrive", "--force").code == 0
    found = {m["Body"]: m["MessageAttributes"]["BridgeRedrives"]["StringValue"] for m in drain(sqs_server, pair.url)}
    assert found == {event("in/1.csv"): "4", event("in/2.csv"): "1"}


def test_redrive_of_what_sqs_moved(sqs_server, pair, dlq):
    """A message without a cause goes back to the queue that SQS took it from, and is counted."""
    message_id = moved_by_sqs(sqs_server, pair, "garbage")
    [found] = dlq("list", "--reason", "no-cause", "--json").json
    assert (found["id"], found["objects"], found["task"]) == (message_id, [], None)
    assert dlq("redrive").code == 0
    [message] = drain(sqs_server, pair.url)
    assert (message["Body"], message["MessageAttributes"]["BridgeRedrives"]["StringValue"]) == ("garbage", "1")


def test_a_forged_source_is_not_followed(sqs_server, queues, pair, dlq):
    """A cause that names a queue which neither settings nor a redrive policy know leads nowhere; --to does."""
    other = queues.single(sqs_server)
    name = other.rsplit("/", 1)[-1]
    bury(sqs_server, [letter(pair, 1, source_queue=name)])
    refused = dlq("redrive", "--json")
    assert (refused.code, refused.json["left"], refused.json["redriven"]) == (1, {"no-source": 1}, {})
    assert counts(sqs_server, other).total == 0
    assert counts(sqs_server, pair.dlq_url).visible == 1
    assert dlq("redrive", "--to", other).code == 0
    assert [m["Body"] for m in drain(sqs_server, other)] == [event("in/1.csv")]


def test_redrive_of_some(sqs_server, pair, dlq):
    """Conditions and --limit choose; everything else is visible again at once."""
    bury(sqs_server, [letter(pair, n, reason="permanent" if n % 2 else "exhausted") for n in range(14)])
    assert dlq("redrive", "--reason", "permanent", "--json").json["redriven"] == {pair.name: 7}
    assert dlq("redrive", "--limit", "3", "--rate", "1000", "--json").json["redriven"] == {pair.name: 3}
    assert counts(sqs_server, pair.dlq_url) == Counts(visible=4, in_flight=0, delayed=0)
    assert counts(sqs_server, pair.url).visible == 10


@ON_MOTO
def test_two_queues_with_one_dlq(sqs_server, queues, brigade, pair):
    """Letters of a queue for events and of the task queue, in one DLQ, each go back where they came from."""
    tasks = queues.single(sqs_server)
    settings = {"SQS_QUEUE_URL": pair.url, "SQS_TASK_QUEUE_URL": tasks, "SQS_DLQ_URL": pair.dlq_url}
    bury(sqs_server, [letter(pair, 1), letter(pair, 2, source_queue=tasks.rsplit("/", 1)[-1])])
    assert brigade("dlq", "redrive", **settings).code == 0
    assert [m["Body"] for m in drain(sqs_server, pair.url)] == [event("in/1.csv")]
    assert [m["Body"] for m in drain(sqs_server, tasks)] == [event("in/2.csv")]


def test_export_writes_all_and_takes_none(sqs_server, pair, dlq):
    """One JSON object a line, with what is needed to send it again; the letters stay."""
    bury(sqs_server, [letter(pair, n) for n in range(11)])
    lines = [json.loads(line) for line in dlq("export").out.splitlines()]
    assert sorted(line["body"] for line in lines) == sorted(event(f"in/{n}.csv") for n in range(11))
    assert all(line["cause"]["reason"] == "exhausted" and line["attributes"]["SentTimestamp"] for line in lines)
    assert counts(sqs_server, pair.dlq_url).visible == 11


def test_purge_of_some_and_of_all(sqs_server, pair, dlq, monkeypatch):
    """It asks, and without anybody to answer it refuses; conditions choose; without any the queue is emptied."""
    bury(sqs_server, [letter(pair, n, reason="malformed" if n < 2 else "exhausted") for n in range(5)])
    refused = dlq("purge")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--yes" in refused.err
    assert dlq("purge", "--reason", "malformed", "--yes", "--json").json["purged"] == 2
    assert counts(sqs_server, pair.dlq_url) == Counts(visible=3, in_flight=0, delayed=0)

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    assert dlq("purge").code == 130
    assert counts(sqs_server, pair.dlq_url).visible == 3
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "y")
    assert dlq("purge").code == 0
    wait_until(lambda: counts(sqs_server, pair.dlq_url).total == 0, 10, "an empty queue")


@ON_MOTO
def test_an_empty_queue(pair, dlq):
    """Nothing there is no error, and a machine gets an empty list."""
    listed = dlq("list", "--json")
    assert (listed.code, listed.json, listed.err) == (0, [], "brigade: no dead letters\n")
    assert dlq("redrive").out == "redrove nothing\n"


@ON_MOTO
def test_what_others_read_is_told(sqs_server, pair, dlq):
    """A letter in somebody else's hands cannot be seen, and the command says so."""
    bury(sqs_server, [letter(pair, n) for n in range(2)])
    receive(sqs_server, pair.dlq_url, limit=1)
    assert "about 1 message could not be read" in dlq("list").err
