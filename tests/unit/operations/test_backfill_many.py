"""A backfill of many objects: its calls, its memory. ``BACKFILL_OBJECTS=20000`` in the environment makes it many more.

S3 is moto, filled from within; SQS is ElasticMQ behind a proxy that counts, for moto looks at every message of a queue
whenever it takes another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from tests.support.fault_proxy import FaultProxy
from tests.support.servers.process import running_server
from tests.support.servers.sqs import counts, environment_for

pytestmark = [pytest.mark.slow, pytest.mark.elasticmq]

OBJECTS = int(os.environ.get("BACKFILL_OBJECTS", "2000"))
BUCKET = "many"


@pytest.fixture
def full_bucket(tmp_path):
    """The URL of an S3 with a bucket of OBJECTS objects."""
    command = [sys.executable, "-m", "tests.unit.operations.many_objects", BUCKET, str(OBJECTS)]
    with running_server(command, r"serving at (http://\S+)", tmp_path / "moto.log") as url:
        yield url


def run(env, *args: str) -> tuple[dict, int]:
    """Run a backfill; returns its summary and the most memory it had resident, in bytes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge", "backfill", *args, "--json"], env=env, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as out:
        summary = json.loads(out.read())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return summary, usage.ru_maxrss * 1024


def test_few_calls_and_constant_memory(full_bucket, elasticmq_server, queues, record_property):
    """Thousands of objects cost at most 0.11 calls each, and no more memory than a hundred."""
    pair = queues(elasticmq_server)
    with FaultProxy(elasticmq_server.endpoint_url) as proxy:
        env = environment_for(elasticmq_server) | {
            "SQS_QUEUE_URL": pair.url,
            "AWS_ENDPOINT_URL_SQS": proxy.url,
            "AWS_ENDPOINT_URL_S3": full_bucket,
        }
        few, few_bytes = run(env, f"s3://{BUCKET}/data/00000")
        before = len(proxy.calls)
        started = time.monotonic()
        many, many_bytes = run(env, f"s3://{BUCKET}/", "--start-after", few["last_key"])
        seconds = time.monotonic() - started
        calls = len(proxy.calls) - before
    assert few["objects"] == 100
    assert many["objects"] == OBJECTS - 100
    assert counts(elasticmq_server, pair.url).visible == OBJECTS
    ratio = calls / many["objects"]
    figures = f"{many['objects']} objects, {ratio:.4f} calls each, {seconds:.1f} s, {few_bytes} → {many_bytes} bytes"
    record_property("figures", figures)
    assert ratio <= 0.11, figures
    assert many_bytes - few_bytes < 12_000_000, figures
    if OBJECTS > 10_000:
        sys.stderr.write(f"\n{figures}\n")
