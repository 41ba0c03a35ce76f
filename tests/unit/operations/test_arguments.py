"""Wrong arguments and settings of backfill, doctor and provision: one line, exit code 2, nothing asked of AWS."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cli.quantities import Moment, Size

QUEUE = {"SQS_QUEUE_URL": "http://127.0.0.1:1/0/q", "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_REGION": "us-east-1"}
TWO = {**QUEUE, "SQS_QUEUE_URL": "http://127.0.0.1:1/0/q,http://127.0.0.1:1/0/p"}


@pytest.mark.parametrize(
    ("args", "env", "told"),
    [
        (["backfill"], QUEUE, "Missing argument"),
        (["backfill", "uploads"], QUEUE, "must be s3://bucket/prefix"),
        (["backfill", "s3://"], QUEUE, "must be s3://bucket/prefix"),
        (["backfill", "s3://uploads--use1-az4--x-s3/"], QUEUE, "directory bucket"),
        (["backfill", "s3://uploads", "--min-size", "ten"], QUEUE, "is not a size"),
        (["backfill", "s3://uploads", "--modified-since", "soon"], QUEUE, "is not a moment"),
        (["backfill", "s3://uploads", "--min-size", "2", "--max-size", "1"], QUEUE, "nothing can match"),
        (
            ["backfill", "s3://uploads", "--modified-since", "2026-02-02", "--modified-until", "2026-02-02"],
            QUEUE,
            "nothing can match",
        ),
        (["backfill", "s3://uploads", "--rate", "0"], QUEUE, "--rate"),
        (["backfill", "s3://uploads", "--state", "f", "--dry-run"], QUEUE, "not with --dry-run"),
        (["backfill", "s3://uploads", "--state", "f", "--start-after", "k"], QUEUE, "not with --start-after"),
        (
            ["backfill", "s3://uploads", "--task", "t", "--queue-url", "http://h/0/q"],
            QUEUE,
            "--queue-url is for events",
        ),
        (["backfill", "s3://uploads", "--task", "t"], QUEUE, "SQS_TASK_QUEUE_URL is not set"),
        (["backfill", "s3://uploads"], {}, "SQS_QUEUE_URL is not set"),
        (["backfill", "s3://uploads"], TWO, "several queues"),
        (["backfill", "s3://uploads", "--queue-url", "q"], QUEUE, "must be the URL of a queue"),
        (["backfill", "s3://uploads"], {**QUEUE, "BRIDGE_ALLOWED_BUCKETS": "other-*"}, "forbidden-bucket"),
        (["backfill", "s3://uploads"], {**QUEUE, "BRIDGE_RESULT_URL": "s3://b/p"}, "did you mean BRIDGE_RESULTS_URL"),
        (["doctor", "--buckets", "x"], QUEUE, "No such option"),
        (["provision"], QUEUE, "--queue"),
        (["provision", "--queue", "a b"], QUEUE, "at most 80 letters"),
        (["provision", "--queue", "a.fifo"], QUEUE, "FIFO"),
        (["provision", "--queue", "a", "--dlq", "a"], QUEUE, "another queue"),
        (["provision", "--queue", "a", "--prefix", "p"], QUEUE, "name the --bucket"),
        (["provision", "--queue", "a", "--bucket", "b"], QUEUE, "is not a bucket name"),
        (["provision", "--queue", "a", "--bucket", "bbb", "--event", "put"], QUEUE, "ObjectCreated:*"),
        (["provision", "--queue", "a", "--max-receive-count", "0"], QUEUE, "--max-receive-count"),
        (["provision", "--queue", "a"], {}, "AWS_REGION is not set"),
    ],
)
def test_one_line_and_exit_code_2(brigade, args, env, told):
    """Each mistake is told in one line that names it."""
    nowhere = {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    credentials = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_EC2_METADATA_DISABLED": "true"}
    done = brigade({**nowhere, **credentials, **env}, *args)
    assert (done.code, done.out) == (2, ""), done.err
    assert done.err.count("\n") == 1
    assert told in done.err


@pytest.mark.parametrize("command", ["backfill", "doctor", "provision"])
def test_help_has_examples(brigade, command):
    """--help explains every option and ends with examples, each of which begins with the command's name."""
    done = brigade({}, command, "--help")
    assert done.code == 0
    examples = done.out.partition("Examples:")[2].strip().splitlines()
    assert len(examples) >= 3
    assert all(line.strip().startswith(f"brigade {command}") for line in examples)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("500", 500), ("10MB", 10**7), ("10mb", 10**7), ("1GiB", 2**30), ("1.5k", 1500), ("2 KiB", 2048)],
)
def test_sizes(text, size):
    """Sizes are read with decimal and binary units."""
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "-1", "1X", "MB", "1e3", "0x10", "1.MB"])
def test_what_is_no_size(text):
    """Anything else is refused."""
    with pytest.raises(click.BadParameter):
        Size().convert(text, None, None)


@given(st.text(max_size=20))
def test_any_text_is_a_moment_or_refused(text):
    """Whatever is typed is a moment with a time zone, or one clear refusal."""
    try:
        assert Moment().convert(text, None, None).tzinfo is not None
    except click.BadParameter:
        pass


def test_moments():
    """A date is its midnight in UTC, an offset counts, and a span counts back from now."""
    convert = Moment().convert
    assert convert("2026-03-01", None, None) == datetime(2026, 3, 1, tzinfo=UTC)
    assert convert("2026-03-01T12:00+02:00", None, None) == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert abs(datetime.now(UTC) - convert("7d", None, None) - timedelta(days=7)) < timedelta(minutes=5)
