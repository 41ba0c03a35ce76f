from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.faults.site import LEASE_SECONDS, WAIT_SECONDS, Site
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import QueueFactory, SqsServer, counts, environment_for, receive
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess


@pytest.fixture(scope="package", params=["moto", pytest.param("elasticmq", marks=pytest.mark.elasticmq)])
def sqs_server(request: pytest.FixtureRequest) -> SqsServer:
    """Each SQS server in turn, once for all tests of this folder: a worker takes a second to start."""
    server: SqsServer = request.getfixturevalue(f"{request.param}_server")
    return server


@pytest.fixture(scope="package")
def site(sqs_server: SqsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One worker for all faults; in the end it must still be there, and nothing left in its queue."""
    queues = QueueFactory()
    queue = queues(sqs_server, prefix="faults", visibility_timeout_seconds=60)
    with FaultProxy(sqs_server.endpoint_url) as proxy:
        env = environment_for(sqs_server) | {
            "AWS_ENDPOINT_URL_SQS": proxy.url,
            "SQS_QUEUE_URL": queue.url,
            "BRIDGE_TASK_MODULES": "tests.e2e.faults.file_tasks",
            "BRIDGE_WAIT_TIME_SECONDS": str(WAIT_SECONDS),
            "BRIDGE_VISIBILITY_TIMEOUT_SECONDS": str(LEASE_SECONDS),
        }
        with WorkerProcess(env, "-c", "2", cwd=tmp_path_factory.mktemp("faults")) as worker:
            made = Site(worker, proxy, sqs_server, queue)
            made.await_settled(made.send("good/first"))
            yield made
            assert worker.process.poll() is None
    queues.delete_all()


@pytest.fixture(autouse=True)
def _nothing_is_left(site: Site) -> Iterator[None]:
    """After each test the queue is empty: whatever was sent has found its end."""
    yield
    site.proxy.clear()
    wait_until(lambda: counts(site.server, site.queue.url).total == 0, 60, "an empty queue")
    while letters := receive(site.server, site.queue.dlq_url):
        for letter in letters:
            site.server.sqs.delete_message(QueueUrl=site.queue.dlq_url, ReceiptHandle=letter["ReceiptHandle"])
