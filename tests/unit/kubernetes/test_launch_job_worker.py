"""tasks.launch_job in a real worker, on a queue, with the Kubernetes API behind it."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.fault_proxy import Call, FaultProxy
from tests.support.kube_stand_in import KubeStandIn, check
from tests.support.servers.port import free_port
from tests.support.servers.sqs import QueueFactory, QueuePair, SqsServer, environment_for, receive, send
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess
from tests.unit.kubernetes.conftest import Cluster, any_cluster

pytestmark = pytest.mark.slow

END_SECONDS = 45.0


class Launcher:
    """The worker, its queue, the proxy between it and SQS, a bucket and the cluster."""

    def __init__(self, server: SqsServer, queue: QueuePair, bucket: str, sqs: FaultProxy, cluster: Cluster) -> None:
        self.server, self.queue, self.bucket, self.sqs, self.cluster = server, queue, bucket, sqs, cluster
        self.health_port = free_port()
        self.worker: WorkerProcess

    @property
    def api(self) -> KubeStandIn:
        """The stand-in, where something is to go wrong."""
        if self.cluster.stand_in is None:
            pytest.skip("the API of KUBECONFIG cannot be told to fail")
        return self.cluster.stand_in

    def send(self, body: Any, **options: Any) -> str:
        """Send a message past the proxy and return its id."""
        return send(self.server, self.queue.url, body, **options)

    def end(self, message_id: str) -> dict[str, Any]:
        """The settlement that ended a message, waited for."""
        return self.worker.wait_for(
            lambda e: (
                e.get("event") == "message_settled"
                and e.get("message_id") == message_id
                and e["outcome"] in ("deleted", "dead_lettered")
            ),
            END_SECONDS,
            f"end of {message_id}",
        )

    def job(self, message_id: str) -> dict[str, Any]:
        """The Job of a message that was deleted."""
        assert self.end(message_id)["outcome"] == "deleted"
        return self.cluster.jobs()[f"task-{message_id}"]

    def wait_retries(self, message_id: str, times: int) -> None:
        """Wait until a message was retried so often, and see that it was not deleted."""
        wait_until(
            lambda: len(self.worker.found("task_retried", message_id=message_id)) >= times, END_SECONDS, "retries"
        )
        assert self.deletions(message_id) == []

    def deletions(self, message_id: str) -> list[Call]:
        """The worker's deletes of a message."""
        return [call for call in self.sqs.for_message(message_id) if call.action.startswith("DeleteMessage")]


@pytest.fixture(scope="module")
def launcher(moto_server: SqsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """A worker with the packaged template."""
    queues, bucket = QueueFactory(), f"results-{uuid.uuid4().hex[:8]}"
    queue = queues(moto_server, prefix="tasks", max_receive_count=100)
    moto_server.s3.create_bucket(Bucket=bucket)
    with any_cluster(tmp_path_factory.mktemp("cluster")) as cluster, FaultProxy(moto_server.endpoint_url) as sqs:
        site = Launcher(moto_server, queue, bucket, sqs, cluster)
        settings = {
            "AWS_ENDPOINT_URL_SQS": sqs.url,
            "SQS_QUEUE_URL": queue.url,
            "KUBECONFIG": str(cluster.kubeconfig),
            "BRIDGE_TASK_MODULES": "tasks.launch_job",
            "BRIDGE_RESULTS_URL": f"s3://{bucket}/out/",
            "BRIDGE_WAIT_TIME_SECONDS": "1",
            "BRIDGE_RETRY_BACKOFF_SECONDS": "1",
            "BRIDGE_RETRY_BACKOFF_MAX_SECONDS": "1",
            "BRIDGE_HEALTH_PORT": str(site.health_port),
        }
        try:
            with WorkerProcess(environment_for(moto_server) | settings, "-c", "2") as site.worker:
                yield site
        finally:
            queues.delete_all()


def test_the_seeds_messages_become_jobs(launcher: Launcher) -> None:
    """Each example message of the queue-watcher becomes one Job with the body as its annotation, and is deleted."""
    bodies = ['{"target": "", "duration": "10"}', '{"target": "this.is.invalid", "duration": "20"}']
    ids = [launcher.send(body) for body in bodies]

    jobs = [launcher.job(message_id) for message_id in ids]

    commands = [job["spec"]["template"]["spec"]["containers"][0]["command"] for job in jobs]
    assert commands == [["ping", "-c", "10", "--", "127.0.0.1"], ["ping", "-c", "20", "--", "this.is.invalid"]]
    for job, body, message_id in zip(jobs, bodies, ids, strict=True):
        assert job["metadata"]["annotations"]["task"] == body
        [line] = launcher.worker.found("job_launched", message_id=message_id)
        assert (line["job"], line["namespace"]) == (job["metadata"]["name"], launcher.cluster.namespace)
    with urllib.request.urlopen(f"http://127.0.0.1:{launcher.health_port}/metrics", timeout=30) as answer:
        assert 'bridge_jobs_launched_total{result="launched"} 2.0' in answer.read().decode()


def test_a_message_is_deleted_after_the_api_took_its_job(launcher: Launcher) -> None:
    """On one clock: no delete begins before the API has answered 201."""
    site = launcher.api
    site.fail(500)
    ids = [launcher.send({"target": "", "duration": str(n)}) for n in range(5)]
    for message_id in ids:
        launcher.end(message_id)
        [created] = [
            call
            for call in site.calls
            if call.method == "POST" and call.status == 201 and call.body["metadata"]["name"] == f"task-{message_id}"
        ]
        check(created.body)
        assert created.finished_at < min(call.started_at for call in launcher.deletions(message_id))


def test_a_repeat_makes_no_second_job(launcher: Launcher) -> None:
    """When the API's answer is lost, the message comes again, finds its Job there, and is deleted."""
    site = launcher.api
    before = len(site.jobs)
    site.lost_answers = 1
    message_id = launcher.send({"target": "", "duration": "1"})
    launcher.job(message_id)
    posts = [call for call in site.calls if call.body.get("metadata", {}).get("name") == f"task-{message_id}"]
    assert [call.status for call in posts] == [201, 409]
    assert len(site.jobs) == before + 1
    [line] = launcher.worker.found("job_launched", message_id=message_id)
    assert line["existed"] is True


def test_a_quota_and_an_api_that_is_away_are_waited_for(launcher: Launcher) -> None:
    """A used up quota, then an API that does not answer: the message waits in its queue until the Job is taken."""
    site = launcher.api
    site.job_quota = len(site.jobs)
    message_id = launcher.send({"target": "", "duration": "1"})
    try:
        launcher.wait_retries(message_id, 1)
        site.silent, site.job_quota = True, None
        launcher.wait_retries(message_id, 2)
    finally:
        site.silent, site.job_quota = False, None
    launcher.job(message_id)
    errors = [line["error"] for line in launcher.worker.found("task_retried", message_id=message_id)]
    assert any(error.startswith("the Kubernetes API cannot be reached: ") for error in errors)
    assert any(error.startswith("the Kubernetes API answered 403: ") for error in errors)


@pytest.mark.parametrize("body", ["garbage", '{"target": "h"}'])
def test_a_message_that_fits_no_template_is_dead_lettered(launcher: Launcher, body: str) -> None:
    """What can never become a Job goes to the DLQ at once, with the reason."""
    message_id = launcher.send(body)
    end = launcher.end(message_id)
    assert (end["outcome"], end["reason"]) == ("dead_lettered", "permanent")
    assert launcher.worker.found("task_retried", message_id=message_id) == []
    letters = receive(launcher.server, launcher.queue.dlq_url, visibility_timeout_seconds=3600)
    [cause] = [json.loads(m["MessageAttributes"]["BridgeCause"]["StringValue"]) for m in letters if m["Body"] == body]
    assert cause["error_type"] == "JobRefused"
    assert "asks for {{duration}}" in cause["error"]


def test_a_manifest_that_the_api_calls_invalid_is_dead_lettered(launcher: Launcher) -> None:
    """A 422 is not tried again."""
    launcher.api.fail(422, "Job is invalid: spec.x: Forbidden")
    end = launcher.end(launcher.send({"target": "", "duration": "1"}))
    assert (end["outcome"], end["reason"]) == ("dead_lettered", "permanent")
    assert end["error"] == "the Kubernetes API answered 422: Job is invalid: spec.x: Forbidden"


def test_a_body_too_long_for_an_annotation_is_stored(launcher: Launcher) -> None:
    """The Job says where body and attributes lie, and they lie there as they were sent."""
    body = json.dumps({"target": "", "duration": "1", "more": "x" * 210_000})
    attributes = {"kind": {"DataType": "String", "StringValue": "long"}}
    message_id = launcher.send(body, attributes=attributes)

    annotations = launcher.job(message_id)["metadata"]["annotations"]

    assert annotations["bucket-brigade/task-url"] == f"s3://{launcher.bucket}/out/launch-job/{message_id}.json"
    assert "task" not in annotations
    stored = launcher.server.s3.get_object(Bucket=launcher.bucket, Key=f"out/launch-job/{message_id}.json")
    assert json.loads(stored["Body"].read()) == {"body": body, "message_attributes": attributes}


def test_what_a_message_says_stays_one_argument(launcher: Launcher) -> None:
    """Quotes, line ends, braces, substitutions and options reach the command as one argument, unread by any shell."""
    target = '-f"; rm -rf / #\n$(KUBERNETES_PORT) `id` {{message.body}} ] }'
    job = launcher.job(launcher.send({"target": target, "duration": "1"}))
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["ping", "-c", "1", "--", target.replace("$", "$$")]
