"""Wrong arguments and settings: one line, exit code 2, and never a traceback; help with examples for every command."""

from __future__ import annotations

import pytest

QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"
OTHER = "https://sqs.eu-west-1.amazonaws.com/123456789012/other"

#: What does not depend on the server runs on one of them.
ON_MOTO = pytest.mark.parametrize("sqs_server", ["moto"], indirect=True)

COMMANDS = ["dlq list", "dlq show", "dlq redrive", "dlq export", "dlq purge", "send", "put", "routes"]
COMMANDS += ["queue show", "queue purge"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples(brigade, name):
    """--help ends with lines that can be typed."""
    shown = brigade(*name.split(), "--help")
    assert shown.code == 0
    assert f"Examples:\n\n    brigade {name}" in shown.out


@pytest.mark.parametrize(
    ("line", "settings", "said"),
    [
        ("dlq list", {}, "SQS_QUEUE_URL is not set"),
        ("dlq list", {"AWS_REGION": "eu-west-1"}, "no dead-letter queue is named"),
        ("dlq list --dlq x:y", {}, "must be the URL of a queue"),
        ("dlq list --dlq https://sqs.eu-west-1.amazonaws.com/1/q.fifo", {}, "is a FIFO queue"),
        ("dlq list --older-than 5", {}, "such as 90s"),
        ("dlq list --older-than 2h --newer-than 1h", {}, "no message can match both"),
        ("dlq list --limit 0", {}, "0 is not in the range x>=1"),
        ("dlq list", {"SQS_DQL_URL": QUEUE}, "did you mean SQS_DLQ_URL?"),
        ("dlq list", {"SQS_QUEUE_URL": QUEUE, "SQS_DLQ_URL": QUEUE}, "SQS_DLQ_URL="),
        ("dlq show", {}, "Missing argument 'ID'"),
        ("dlq redrive --rate nan", {}, "a number of messages per second"),
        ("dlq redrive --rate 0", {}, "a number of messages per second"),
        ("dlq redrive --to uploads", {}, "must be the URL of a queue"),
        (f"dlq redrive --dlq {OTHER} --to {OTHER}", {}, "--to names the dead-letter queue itself"),
        ("dlq", {}, "Missing command"),
        ("send x", {}, "SQS_QUEUE_URL is not set"),
        ("send x", {"SQS_QUEUE_URL": f"{QUEUE},{OTHER}"}, "give --queue with one of uploads, other"),
        ("send x --queue nope", {"SQS_QUEUE_URL": QUEUE}, "no such queue, only uploads"),
        ("send x --count 0", {}, "not in the range"),
        ("send x --attribute novalue", {}, "must be NAME=VALUE"),
        ("send x --attribute AWS.x=1", {}, "must be NAME=VALUE"),
        ("send x --attribute a=1 --attribute a=2", {}, "twice"),
        ("send x --lines", {}, "--lines goes with -"),
        ("send \x01", {"SQS_QUEUE_URL": QUEUE}, "the character '\\x01'"),
        ("put /nowhere s3://b/k", {}, "does not exist"),
        ("put {file}", {}, "where to?"),
        ("put {file} http://b/k", {}, "must be s3://bucket/key"),
        ("put {file} s3://b/k", {}, "SQS_QUEUE_URL is not set"),
        ("routes", {"BRIDGE_TASK_MODULES": "x"}, "give either KEY or --body"),
        ("routes s3://b/k", {}, "BRIDGE_TASK_MODULES is not set"),
        ("routes s3://b/k", {"BRIDGE_TASK_MODULES": "no_such_module"}, "there is no module no_such_module"),
        ("routes s3://b", {"BRIDGE_TASK_MODULES": "tests.unit.cli.routes_tasks"}, "KEY is s3://bucket/key"),
        ("routes k", {"BRIDGE_TASK_MODULES": "tests.unit.cli.routes_tasks"}, "the rules ask for the bucket"),
        ("queue show", {}, "SQS_QUEUE_URL is not set"),
        ("queue purge --queue nope", {"SQS_QUEUE_URL": QUEUE}, "no such queue"),
    ],
)
def test_one_line_and_exit_code_2(brigade, tmp_path, line, settings, said):
    """What is wrong is said in one line on standard error, and nothing on standard output."""
    file = tmp_path / "file.csv"
    file.write_text("x")
    args = [str(file) if part == "{file}" else part for part in line.split(" ")]
    refused = brigade(*args, **settings)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
    assert refused.err.startswith("brigade: ")
    assert refused.err.count("\n") == 1


@ON_MOTO
def test_a_queue_that_is_not_there(sqs_server, queues, brigade):
    """The line names the queue and where it was asked for."""
    url = queues.single(sqs_server) + "-not"
    for args in (["dlq", "list", "--dlq", url], ["queue", "show", "--queue", url], ["dlq", "purge", "--dlq", url]):
        refused = brigade(*args)
        assert (refused.code, refused.err) == (2, f"brigade: there is no queue {url} at {sqs_server.endpoint_url}\n")
    assert brigade("send", "x", "--queue", url).code == 2


@ON_MOTO
def test_a_queue_without_a_dlq(sqs_server, queues, brigade):
    """Without a redrive policy and without SQS_DLQ_URL there is no dead-letter queue to look into."""
    refused = brigade("dlq", "list", SQS_QUEUE_URL=queues.single(sqs_server))
    assert refused.code == 2
    assert "has no dead-letter queue" in refused.err


@ON_MOTO
def test_several_dlqs_ask_for_a_choice(sqs_server, queues, brigade):
    """Two queues with a DLQ each: the line names both, and a name chooses."""
    one, two = queues(sqs_server), queues(sqs_server)
    settings = {"SQS_QUEUE_URL": f"{one.url},{two.url}"}
    refused = brigade("dlq", "list", **settings)
    assert refused.code == 2
    assert f"{one.name}-dlq" in refused.err
    assert f"{two.name}-dlq" in refused.err
    assert brigade("dlq", "list", "--dlq", f"{two.name}-dlq", **settings).code == 0


def test_aws_out_of_reach_is_exit_code_1(brigade, monkeypatch):
    """What may pass is told in one line too, with the exit code of things left undone."""
    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:1")
    failed = brigade("dlq", "list", "--dlq", "http://127.0.0.1:1/1/q")
    assert (failed.code, failed.out) == (1, "")
    assert failed.err.startswith("brigade: AWS cannot be reached")
    assert failed.err.count("\n") == 1
