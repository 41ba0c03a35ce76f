from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from bridge.testing import s3_event
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import QueueFactory, SqsServer, environment_for, send
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

pytestmark = pytest.mark.slow

MODULE = "tests.e2e.startup.sound"
#: Celery warns whoever runs it as root, as containers in CI often do, and a warning is no JSON.
NOT_AS_ROOT = "ignore:You're running the worker with superuser privileges"
SERVICE_LINKS = {
    "BRIDGE_WORKER_SERVICE_HOST": "10.0.0.1",
    "BRIDGE_WORKER_SERVICE_PORT": "8080",
    "BRIDGE_WORKER_SERVICE_PORT_HEALTH": "8080",
    "BRIDGE_WORKER_PORT": "tcp://10.0.0.1:8080",
    "BRIDGE_WORKER_PORT_8080_TCP": "tcp://10.0.0.1:8080",
    "BRIDGE_WORKER_PORT_8080_TCP_PROTO": "tcp",
    "BRIDGE_WORKER_PORT_8080_TCP_PORT": "8080",
    "BRIDGE_WORKER_PORT_8080_TCP_ADDR": "10.0.0.1",
    "SQS_PORT": "tcp://10.0.0.2:9324",
    "SQS_SERVICE_HOST": "10.0.0.2",
}


@pytest.fixture
def site(sqs_server: SqsServer, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A queue, a proxy in front of its server, and the environment of a worker that reaches it that way."""
    yield from _site(sqs_server, tmp_path)


@pytest.fixture
def moto_site(moto_server: SqsServer, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """The same on moto alone, for what does not depend on the server."""
    yield from _site(moto_server, tmp_path)


def _site(sqs_server: SqsServer, tmp_path: Path) -> Iterator[SimpleNamespace]:
    queues = QueueFactory()
    queue = queues(sqs_server, prefix="start")
    with FaultProxy(sqs_server.endpoint_url) as proxy:
        env = environment_for(sqs_server) | {
            "AWS_ENDPOINT_URL_SQS": proxy.url,
            "SQS_QUEUE_URL": queue.url,
            "BRIDGE_TASK_MODULES": MODULE,
            "BRIDGE_WAIT_TIME_SECONDS": "1",
            "PYTHONWARNINGS": NOT_AS_ROOT,
        }
        yield SimpleNamespace(server=sqs_server, queues=queues, queue=queue, proxy=proxy, env=env, folder=tmp_path)
    queues.delete_all()


def sent_to(site: SimpleNamespace) -> str:
    """Send an event that a task takes; return its MessageId."""
    return send(site.server, site.queue.url, s3_event("incoming/a.csv", bucket="uploads-1"))


def test_the_json_banner_is_one_event(site: SimpleNamespace) -> None:
    """In a container the start is one event with queues, DLQs, region, modules and routes; no line is no JSON."""
    task_queue = site.queues(site.server, prefix="tasks")
    env = site.env | SERVICE_LINKS | {"SQS_TASK_QUEUE_URL": task_queue.url}
    with WorkerProcess(env, "-c", "1", cwd=site.folder) as worker:
        [said] = worker.found("worker_starting")
        assert said["queues"] == [site.queue.url, task_queue.url]
        assert said["dead_letter_queues"] == [site.queue.dlq_url, task_queue.dlq_url]
        assert said["region"] == "us-east-1"
        assert said["task_modules"] == [MODULE]
        assert [route.split()[0] for route in said["routes"]] == [f"{MODULE}.import_csv", f"{MODULE}.report"]
        assert "s3://uploads-*/incoming/*.csv" in said["routes"][0]
        assert "kind=report-*" in said["routes"][1]
        worker.wait_event("message_settled", message_id=sent_to(site), outcome="deleted")
        assert [line for line in worker.lines if not line.startswith("{")] == []


def test_the_text_banner_has_what_a_person_looks_for(moto_site: SimpleNamespace) -> None:
    """On a terminal the start shows queue, DLQ, region, modules and routes, a line each; service links do no harm."""
    env = moto_site.env | SERVICE_LINKS | {"BRIDGE_LOG_FORMAT": "text"}
    with WorkerProcess(env, "-c", "1", cwd=moto_site.folder, wait_ready=False) as worker:
        wait_until(lambda: "ready." in worker.output, 60, "a worker that is ready")
        said = [line.split() for line in worker.lines]
        assert ["queue", moto_site.queue.url, "(S3", "events)"] in said
        assert ["DLQ", moto_site.queue.dlq_url] in said
        assert ["region", "us-east-1"] in said
        assert ["modules", MODULE] in said
        assert ["route", f"{MODULE}.import_csv", "←", "s3://uploads-*/incoming/*.csv", "ObjectCreated:*"] in said


def test_the_worker_waits_for_an_sqs_that_takes_no_connection(site: SimpleNamespace) -> None:
    """A worker that cannot reach SQS when it starts does not exit; it waits, and works once SQS is there."""
    sent = sent_to(site)
    with ExitStack() as stack:
        with site.proxy.refusing():
            worker = stack.enter_context(WorkerProcess(site.env, "-c", "1", cwd=site.folder))
            worker.wait_event("sqs_unreachable", queue=site.queue.name, error_type="EndpointConnectionError")
        worker.wait_event("message_settled", message_id=sent, outcome="deleted")
        assert [line for line in worker.lines if not line.startswith("{")] == []


def test_the_worker_waits_out_errors_that_pass(moto_site: SimpleNamespace) -> None:
    """Throttling, an overloaded SQS and a token about to be renewed do not end the start."""
    passing = {"ThrottlingException": 400, "RequestThrottled": 403, "ServiceUnavailable": 503, "ExpiredToken": 403}
    for code, status in passing.items():
        moto_site.proxy.fail("GetQueueAttributes", status=status, code=code, times=1)
    sent = sent_to(moto_site)
    with WorkerProcess(moto_site.env, "-c", "1", cwd=moto_site.folder) as worker:
        worker.wait_event("message_settled", message_id=sent, outcome="deleted")
    lookups = [c.outcome for c in moto_site.proxy.calls if c.action == "GetQueueAttributes"]
    assert lookups == ["failed"] * len(passing) + ["forwarded"] * 2


def test_what_the_start_could_not_see_is_refused_later(moto_site: SimpleNamespace) -> None:
    """A queue that turns out to have no DLQ, once SQS can be reached, ends the worker with exit code 2."""
    moto_site.proxy.fail("GetQueueAttributes", times=1)
    env = moto_site.env | {"SQS_QUEUE_URL": moto_site.queues.single(moto_site.server)}
    with WorkerProcess(env, "-c", "1", cwd=moto_site.folder, wait_ready=False) as worker:
        refused = worker.wait_event("worker_refused", 60)
        assert "SQS_DLQ_URL" in refused["error"]
        assert worker.wait_exit() == 2
    assert "Traceback" not in worker.output
