"""brigade dlq as processes: beside workers, beside another redrive, interrupted, terminated and killed."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import QueuePair, SqsServer, counts, environment_for
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess
from tests.unit.cli.conftest import bury, drain, event, letter_arguments

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 60.0
#: What does not depend on the server runs on one of them.
ON_MOTO = pytest.mark.parametrize("sqs_server", ["moto"], indirect=True)


@pytest.fixture
def proxy(sqs_server):
    """What stands between a command and SQS."""
    with FaultProxy(sqs_server.endpoint_url) as between:
        yield between


@contextlib.contextmanager
def started(server: SqsServer, pair: QueuePair, *args: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``python -m bridge ARGS`` in a process of its own, killed in the end if it still lives."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge", *args],
        env={**environment_for(server), "SQS_QUEUE_URL": pair.url, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finished(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for the end and return the standard output."""
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == code, out + err
    assert "Traceback" not in err
    return out


def bury_many(server: SqsServer, pair: QueuePair, number: int, prefix: str = "in") -> Counter[str]:
    """Put so many dead letters into the DLQ and return their bodies, each once."""
    bodies = [event(f"{prefix}/{n}.csv") for n in range(number)]
    bury(server, [letter_arguments(body, source_queue=pair.name, dlq_url=pair.dlq_url) for body in bodies])
    return Counter(bodies)


def everywhere(server: SqsServer, pair: QueuePair) -> Counter[str]:
    """How often each body is in the two queues together; empties them."""
    return Counter(m["Body"] for url in (pair.url, pair.dlq_url) for m in drain(server, url))


@pytest.mark.elasticmq  # moto needs a quarter of a second for a receive from a long queue
def test_500_letters_while_workers_run(elasticmq_server, queues):
    """Each is processed once by one of two workers, and neither queue holds anything afterwards."""
    pair = queues(elasticmq_server, visibility_timeout_seconds=60)
    bury_many(elasticmq_server, pair, 500)
    environment = {
        **environment_for(elasticmq_server),
        "SQS_QUEUE_URL": pair.url,
        "BRIDGE_TASK_MODULES": "tests.unit.cli.redrive_tasks",
        "BRIDGE_WAIT_TIME_SECONDS": "1",
    }
    one, two = (WorkerProcess(environment, "-P", "threads", "-c", "4", wait_ready=False) for _ in range(2))
    with one, two:
        for worker in (one, two):
            worker.wait_for(lambda e: str(e.get("event", "")).endswith("ready."), PATIENCE_SECONDS, "ready")
        with started(elasticmq_server, pair, "dlq", "redrive", "--json") as redrive:
            told = json.loads(finished(redrive))
        assert (told["redriven"], told["left"], told["failed"]) == ({pair.name: 500}, {}, [])

        def runs() -> list[Any]:
            return [found["key"] for worker in (one, two) for found in worker.found("run")]

        wait_until(lambda: len(runs()) >= 500, PATIENCE_SECONDS, "500 runs")
        wait_until(lambda: counts(elasticmq_server, pair.url).total == 0, PATIENCE_SECONDS, "an empty queue")
        assert counts(elasticmq_server, pair.dlq_url).total == 0
        assert Counter(runs()) == Counter(f"in/{n}.csv" for n in range(500))


@ON_MOTO
def test_a_letter_that_fails_again_is_sent_once(sqs_server, queues):
    """A task that still fails at once sends its letters back into the DLQ while redrive runs; it does not go round."""
    pair = queues(sqs_server)
    bury_many(sqs_server, pair, 12, "bad")
    environment = {
        **environment_for(sqs_server),
        "SQS_QUEUE_URL": pair.url,
        "BRIDGE_TASK_MODULES": "tests.unit.cli.redrive_tasks",
        "BRIDGE_WAIT_TIME_SECONDS": "1",
    }
    with WorkerProcess(environment, "-P", "threads", "-c", "2") as worker:
        # Slowly, so that the first ones are back before the last ones are sent.
        with started(sqs_server, pair, "dlq", "redrive", "--rate", "5", "--json") as redrive:
            told = json.loads(finished(redrive))
        assert told["redriven"] == {pair.name: 12}
        wait_until(lambda: counts(sqs_server, pair.dlq_url).visible == 12, PATIENCE_SECONDS, "12 letters again")
        assert len(worker.found("run")) == 12
    found = drain(sqs_server, pair.dlq_url)
    assert {m["MessageAttributes"]["BridgeRedrives"]["StringValue"] for m in found} == {"1"}
    assert all("BridgeCause" in m["MessageAttributes"] for m in found)


@ON_MOTO
def test_killed_between_send_and_delete(sqs_server, queues, proxy):
    """SIGKILL at the worst moment: nothing is lost, and at most the one batch under way is in both queues."""
    pair = queues(sqs_server)
    bodies = bury_many(sqs_server, pair, 40)
    proxy.latency_seconds = 0.1  # so that the second delete is hung before it comes
    with started(sqs_server, pair, "dlq", "redrive", AWS_ENDPOINT_URL_SQS=proxy.url) as redrive:
        proxy.wait_for(lambda c: c.action == "DeleteMessageBatch" and c.status == 200, PATIENCE_SECONDS, "a delete")
        proxy.hang("DeleteMessageBatch", times=None)
        hung = proxy.wait_for(
            lambda c: c.action == "DeleteMessageBatch" and c.outcome == "hung", PATIENCE_SECONDS, "2nd"
        )
        redrive.kill()
        redrive.wait()
    proxy.clear()
    proxy.latency_seconds = 0.0
    # What the killed process held would be visible again in two minutes; the test does not wait for that.
    for call in proxy.calls:
        for message in (call.response or {}).get("Messages", ()) if call.action == "ReceiveMessage" else ():
            with contextlib.suppress(sqs_server.sqs.exceptions.ClientError):
                sqs_server.sqs.change_message_visibility(
                    QueueUrl=pair.dlq_url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
                )
    with started(sqs_server, pair, "dlq", "redrive") as again:
        finished(again)
    assert counts(sqs_server, pair.dlq_url).total == 0
    found = Counter(m["Body"] for m in drain(sqs_server, pair.url))
    assert set(found) == set(bodies)
    twice = found - bodies
    assert 1 <= twice.total() <= len(hung.request["Entries"])


def test_two_at_once_share_the_letters(sqs_server, queues):
    """Both succeed, no letter is sent by both, none is left."""
    pair = queues(sqs_server)
    bodies = bury_many(sqs_server, pair, 60)
    with (
        started(sqs_server, pair, "dlq", "redrive", "--json") as one,
        started(sqs_server, pair, "dlq", "redrive", "--json") as two,
    ):
        told = [json.loads(finished(process)) for process in (one, two)]
    assert sum(each["redriven"].get(pair.name, 0) for each in told) == 60
    assert counts(sqs_server, pair.dlq_url).total == 0
    assert Counter(m["Body"] for m in drain(sqs_server, pair.url)) == bodies


@ON_MOTO
def test_redrive_interrupted(sqs_server, queues, proxy):
    """Ctrl-C: the batch that was begun is finished, the rest is visible again at once, and it says how far it came."""
    pair = queues(sqs_server)
    bodies = bury_many(sqs_server, pair, 30)
    options = ("--rate", "4", "--json")
    with started(sqs_server, pair, "dlq", "redrive", *options, AWS_ENDPOINT_URL_SQS=proxy.url) as redrive:
        proxy.wait_for(lambda c: c.action == "DeleteMessageBatch", PATIENCE_SECONDS, "a batch")
        redrive.send_signal(signal.SIGINT)
        told = json.loads(finished(redrive, 130))
    done = told["redriven"][pair.name]
    assert told["interrupted"]
    assert 0 < done < 30
    left = counts(sqs_server, pair.dlq_url)
    assert (left.visible, left.in_flight) == (30 - done, 0)
    assert counts(sqs_server, pair.url).visible == done
    assert everywhere(sqs_server, pair) == bodies


@ON_MOTO
def test_list_terminated(sqs_server, queues, proxy):
    """SIGTERM while it reads: what was read is shown, nothing stays hidden."""
    pair = queues(sqs_server)
    bury_many(sqs_server, pair, 40)
    proxy.latency_seconds = 0.15
    with started(sqs_server, pair, "dlq", "list", "--json", AWS_ENDPOINT_URL_SQS=proxy.url) as listing:
        proxy.wait_for(lambda c: c.action == "ReceiveMessage" and c.status == 200, PATIENCE_SECONDS, "a receive")
        listing.send_signal(signal.SIGTERM)
        shown = json.loads(finished(listing, 143))
    assert 0 < len(shown) < 40
    assert counts(sqs_server, pair.dlq_url).visible == 40


@ON_MOTO
def test_a_second_ctrl_c_ends_it_at_once(sqs_server, queues, proxy):
    """While SQS does not answer, the first Ctrl-C waits for it and the second does not; no traceback."""
    pair = queues(sqs_server)
    bury_many(sqs_server, pair, 5)
    proxy.hang("ReceiveMessage", times=None)
    with started(sqs_server, pair, "dlq", "list", AWS_ENDPOINT_URL_SQS=proxy.url) as listing:
        proxy.wait_for(lambda c: c.action == "ReceiveMessage", PATIENCE_SECONDS, "a receive")
        assert listing.stderr is not None
        listing.send_signal(signal.SIGINT)
        listing.stderr.readline()
        assert "once more to quit at once" in listing.stderr.readline()
        listing.send_signal(signal.SIGINT)
        finished(listing, 130)
    assert counts(sqs_server, pair.dlq_url).visible == 5
