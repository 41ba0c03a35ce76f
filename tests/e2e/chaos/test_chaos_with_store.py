"""The chaos run with an idempotency store: what is delivered and run twice completes once.

``CHAOS_STORE_OBJECTS``, ``CHAOS_STORE_SECONDS`` (of killing) and ``CHAOS_SEED`` make it longer, or another run.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest

from bridge.idempotency.record import from_json
from bridge.testing import s3_event
from tests.e2e.chaos.test_chaos import REPOSITORY, SEED, Fleet
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import QueueFactory, SqsServer, counts, environment_for
from tests.support.servers.waiting import wait_until

OBJECTS = int(os.environ.get("CHAOS_STORE_OBJECTS", "500"))
KILLING_SECONDS = float(os.environ.get("CHAOS_STORE_SECONDS", "20"))
WORKERS = 3


@pytest.mark.elasticmq  # as in the run without a store
@pytest.mark.slow
@pytest.mark.timeout(KILLING_SECONDS + 300)
def test_each_completion_happens_once(elasticmq_server: SqsServer, queues: QueueFactory, tmp_path: Path) -> None:
    """Whatever is killed, rolled, refused or sent twice: one completion and one ``put_once`` effect for each event."""
    queue = queues(elasticmq_server, visibility_timeout_seconds=30, max_receive_count=100)
    choose = random.Random(SEED)  # noqa: S311 - repeatable, and no secret
    keys = [f"o/{n % 10 if n % 10 < 3 else 0}/{n:05d}" for n in range(OBJECTS)]
    # Every fifth event comes twice, as two messages.
    bodies = [json.dumps(s3_event(key, bucket="chaos")) for key in [*keys, *keys[::5]]]
    choose.shuffle(bodies)
    for n in range(0, len(bodies), 10):
        entries = [{"Id": str(i), "MessageBody": body} for i, body in enumerate(bodies[n : n + 10])]
        elasticmq_server.sqs.send_message_batch(QueueUrl=queue.url, Entries=entries)
    bucket = f"chaos-{uuid.uuid4().hex[:8]}"
    s3 = elasticmq_server.s3
    s3.create_bucket(Bucket=bucket)
    marks = tmp_path / "marks"
    marks.mkdir()
    with FaultProxy(elasticmq_server.endpoint_url) as proxy, contextlib.ExitStack() as stack:
        proxy.random_failures(0.1, seed=SEED)
        environment = {
            **environment_for(elasticmq_server),
            "AWS_ENDPOINT_URL_SQS": proxy.url,
            "SQS_QUEUE_URL": queue.url,
            "BRIDGE_TASK_MODULES": "tests.e2e.chaos.once_tasks",
            "BRIDGE_IDEMPOTENCY_URL": f"s3://{bucket}/claims",
            "BRIDGE_VISIBILITY_TIMEOUT_SECONDS": "20",
            "CHAOS_MARKS": str(marks),
            "CHAOS_BUCKET": bucket,
            "PYTHONPATH": str(REPOSITORY),
        }
        fleet = Fleet(environment, stack)
        for _ in range(WORKERS):
            fleet.add()
        wait_until(lambda: any(marks.iterdir()), 60, "the first run")
        until = time.monotonic() + KILLING_SECONDS
        while time.monotonic() < until:
            time.sleep(choose.uniform(0.5, 2.0))  # the pause between two blows is the chaos itself
            # A SIGTERM that comes before Python has its handlers ends a process like any other.
            at_work = [worker for worker in fleet.running if worker.found("task_started")]
            if not at_work:
                continue
            worker = choose.choice(at_work)
            blow = choose.choices([fleet.kill_child, fleet.kill, fleet.roll], [6, 2, 2])[0]
            blow(worker, choose) if blow == fleet.kill_child else blow(worker)  # type: ignore[call-arg, operator]
            while len(fleet.running) < WORKERS:
                fleet.add()
        wait_until(lambda: counts(elasticmq_server, queue.url).total == 0, 240, "an empty queue")
        proxy.clear()
        for worker in list(fleet.running):
            worker.wait_for(lambda line: "ready" in str(line.get("event")), 60, "the worker ready")
            fleet.roll(worker)
        for worker in fleet.drained:
            assert worker.wait_exit(60) == 0, worker.output[-3000:]

    assert counts(elasticmq_server, queue.dlq_url).total == 0
    pages = s3.get_paginator("list_objects_v2")
    claims = [found["Key"] for page in pages.paginate(Bucket=bucket, Prefix="claims/") for found in page["Contents"]]
    records = [from_json(s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()) for key in claims]
    assert Counter(record.status for record in records) == {"completed": OBJECTS}
    once = [found["Key"] for page in pages.paginate(Bucket=bucket, Prefix="once/") for found in page["Contents"]]
    assert sorted(once) == sorted(f"once/{key}" for key in keys)

    succeeded = Counter(line["key"] for worker in fleet.all for line in worker.found("task_succeeded"))
    assert set(succeeded.values()) == {1}, "a completion was told of twice"
    runs = extra = unmarked = 0
    for key in keys:
        lines = (marks / key.replace("/", "_")).read_text().split("\n")[:-1]
        began = [int(line.split()[1]) for line in lines if line.startswith("start")]
        runs += len(began)
        extra += len(began) - 1 - lines.count("fail")
        assert lines.count("wrote") <= 1
        if len(began) == lines.count("fail") + lines.count("wrote"):
            # No run of it was killed or stopped: its failures were counted one by one, across all deliveries.
            # A child that was killed between its claim and its first mark has failed too: such a key begins later.
            unmarked += began[0]
            assert began == list(range(began[0], began[0] + len(began))), f"{key}: {began}"
            assert began[-1] == max(int(key.split("/")[1]), began[0])
    assert unmarked <= fleet.child_kills
    print(f"chaos with a store: {runs} runs for {OBJECTS} events, {extra} of them cut off")  # noqa: T201
