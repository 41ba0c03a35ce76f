"""The depths of the queues as metrics: what SQS and CloudWatch say, through a real exporter and real test servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bridge.monitoring import queue_depths as depths_module
from bridge.monitoring.queue_depths import Depths, Watched, watched
from bridge.sqs.queues import Queue
from tests import REPOSITORY
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import environment_for, receive, send
from tests.support.servers.waiting import wait_until

SECONDS = 30.0


class Exporter:
    """A real ``brigade exporter``: its lines, and what it serves."""

    def __init__(self, process, log):
        self.process = process
        self.log = log

    @property
    def lines(self):
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def found(self, event):
        return [line for line in self.lines if line["event"] == event]

    @property
    def url(self):
        [started] = wait_until(lambda: self.found("exporter_started"), SECONDS, "the exporter's address")
        return started["url"]

    def metrics(self):
        """Name and labels → value, as a scrape sees them."""
        return samples(self.get("/metrics"))

    def get(self, path):
        """The body that this path answers."""
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        with closing(connection):
            connection.request("GET", path)
            return connection.getresponse().read().decode()


def samples(text):
    """Name and labels → value."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@contextmanager
def exporter(folder: Path, env, *args):
    """Run it until the block ends."""
    log = folder / "exporter.log"
    command = [sys.executable, "-m", "bridge", "exporter", "--port", "0", "--interval", "5", *args]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "BRIDGE_LOG_FORMAT": "json", **env}
    with log.open("w") as output, subprocess.Popen(command, env=env, stdout=output, stderr=output) as process:
        try:
            yield Exporter(process, log)
        finally:
            process.kill()


def ages(server, *queues):
    """Tell moto's CloudWatch what SQS would tell AWS's."""
    session = boto3.session.Session("test", "test", region_name="us-east-1")
    client = session.client("cloudwatch", endpoint_url=server.s3.meta.endpoint_url)
    for name, age in queues:
        dimensions = [{"Name": "QueueName", "Value": name}]
        metric = {"MetricName": "ApproximateAgeOfOldestMessage", "Dimensions": dimensions, "Value": age}
        client.put_metric_data(Namespace="AWS/SQS", MetricData=[metric])


def test_what_a_scrape_sees(sqs_server, queues, tmp_path):
    """Visible, held and delayed messages of queue and DLQ, and their ages; SIGTERM ends the exporter with 0."""
    pair = queues(sqs_server)
    dlq = pair.dlq_url.rsplit("/", 1)[-1]
    for _ in range(3):
        send(sqs_server, pair.url, "x")
    assert len(receive(sqs_server, pair.url, limit=1, visibility_timeout_seconds=600)) == 1
    send(sqs_server, pair.url, "later", delay_seconds=600)
    send(sqs_server, pair.dlq_url, "dead")
    ages(sqs_server, (pair.name, 42), (dlq, 7))
    env = {
        **environment_for(sqs_server),
        "AWS_ENDPOINT_URL_CLOUDWATCH": sqs_server.s3.meta.endpoint_url,
        "SQS_QUEUE_URL": pair.url,
    }
    with exporter(tmp_path, env) as running:
        age = "bridge_queue_oldest_message_age_seconds"
        found = wait_until(
            lambda: (age, *sorted(("dlq", dlq))) in (metrics := running.metrics()) and metrics, SECONDS, "all metrics"
        )
        counts = {key[1:]: value for key, value in found.items() if key[0] == "bridge_queue_messages"}
        assert counts == {
            tuple(sorted((kind, name, state))): value
            for kind, name, values in (("event", pair.name, (2.0, 1.0, 1.0)), ("dlq", dlq, (1.0, 0.0, 0.0)))
            for state, value in zip(("visible", "in_flight", "delayed"), values, strict=True)
        }
        assert found[(age, *sorted(("event", pair.name)))] == 42.0
        assert found[(age, *sorted(("dlq", dlq)))] == 7.0
        assert found["bridge_sqs_requests_total", "GetQueueAttributes", "ok"] >= 2
        assert not [key for key in found if key[0] in ("bridge_live", "bridge_leases", "bridge_draining")]
        assert json.loads(running.get("/live")) == {"live": True, "reasons": []}
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(SECONDS) == 0


def test_sqs_away_at_start(moto_server, queues, tmp_path):
    """With SQS unreachable the exporter waits and answers; once it is back the numbers are there."""
    pair = queues(moto_server)
    with FaultProxy(moto_server.endpoint_url) as proxy:
        proxy.fail("*", times=None)
        env = {**environment_for(moto_server), "AWS_ENDPOINT_URL_SQS": proxy.url, "SQS_QUEUE_URL": pair.url}
        with exporter(tmp_path, env, "--no-oldest-age") as running:
            wait_until(lambda: running.found("sqs_unreachable"), SECONDS, "a first failure")
            assert not [key for key in running.metrics() if key[0] == "bridge_queue_messages"]
            proxy.clear()
            wait_until(
                lambda: any(key[0] == "bridge_queue_messages" for key in running.metrics()), SECONDS, "the numbers"
            )


@pytest.mark.parametrize(
    ("env", "args", "text"),
    [
        ({"SQS_QUEUE_URL": ""}, [], "brigade: SQS_QUEUE_URL is not set: the queues to be measured"),
        ({"SQS_QUEUE_URL": "nowhere"}, [], "brigade: SQS_QUEUE_URL=nowhere: "),
        ({}, ["--interval", "1"], "brigade: Invalid value for '--interval'"),
        ({"SQS_QUEUE_URL": "{url}-not"}, [], "brigade: SQS_QUEUE_URL: there is no queue "),
    ],
)
def test_mistakes(moto_server, queues, tmp_path, env, args, text):
    """What a person has to mend is one line and exit code 2."""
    url = queues(moto_server).url
    env = {name: value.format(url=url) for name, value in env.items()}
    with exporter(tmp_path, {**environment_for(moto_server), "SQS_QUEUE_URL": url, **env}, *args) as running:
        assert running.process.wait(SECONDS) == 2
    said = [line for line in running.log.read_text().splitlines() if "exporter_started" not in line]
    assert len(said) == 1
    assert said[0].startswith(text)


def test_each_queue_once():
    """Queues keep the names that the workers use; a DLQ that several share is measured once."""
    shared = "https://sqs.eu-west-1.amazonaws.com/1/dead"
    queues = [
        Queue("uploads", "https://sqs.eu-west-1.amazonaws.com/1/uploads", "event", dlq_url=shared),
        Queue("tasks", "https://sqs.eu-west-1.amazonaws.com/1/tasks", "task", dlq_url=shared),
    ]
    assert watched(queues) == (
        Watched("uploads", queues[0].url, "event"),
        Watched("tasks", queues[1].url, "task"),
        Watched("dead", shared, "dlq"),
    )


QUEUE = Watched("q", "https://sqs.eu-west-1.amazonaws.com/1/q", "event")


class Answering:
    """SQS's numbers, or CloudWatch's ages; each answer is the next of those given, the last one for ever."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = 0

    def _answer(self, **_):
        self.calls += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    get_queue_attributes = get_metric_data = _answer


NUMBERS = {"Attributes": dict.fromkeys(depths_module.STATES.values(), "5")}


def refusal(code):
    """An error of AWS's."""
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "GetMetricData")


def told(depths):
    """What a scrape of these depths sees."""
    registry = CollectorRegistry()
    registry.register(depths)
    return samples(generate_latest(registry).decode())


def test_a_failure_keeps_the_last_numbers_for_a_while(monkeypatch):
    """A round that fails leaves the numbers of the one before, until they are too old to be told."""
    depths = Depths(Answering(NUMBERS, TimeoutError("slow")), [QUEUE])
    depths.read()
    depths.read()
    now = time.time()
    assert told(depths)["bridge_queue_messages", "event", "q", "visible"] == 5.0
    monkeypatch.setattr(depths_module.time, "time", lambda: now + depths_module.STALE_SECONDS + 1)
    assert [key[0] for key in told(depths)] == ["bridge_queue_read_timestamp_seconds"]


def test_a_queue_that_could_never_be_read_says_so():
    """It has a time of its last reading, 0: without one an alert on that time would never speak of it."""
    depths = Depths(Answering(TimeoutError("refused")), [QUEUE])
    depths.read()
    assert told(depths) == {("bridge_queue_read_timestamp_seconds", "event", "q"): 0.0}


def test_ages_that_may_not_be_asked_for():
    """Denied once, CloudWatch is asked no more, and the numbers go on; any other error is asked about again."""
    denied, failing = Answering(refusal("AccessDenied")), Answering(refusal("Throttling"))
    for cloudwatch, calls in ((denied, 1), (failing, 2)):
        depths = Depths(Answering(NUMBERS), [QUEUE], cloudwatch=cloudwatch)
        depths.read()
        depths._ages_asked_at -= depths_module.AGE_INTERVAL_SECONDS
        depths.read()
        assert cloudwatch.calls == calls
        assert {key[0] for key in told(depths)} == {"bridge_queue_messages", "bridge_queue_read_timestamp_seconds"}


def test_ages_are_asked_for_once_a_minute():
    """However short the interval, CloudWatch is asked once a minute: it knows no more, and each question costs."""
    cloudwatch = Answering({"MetricDataResults": []})
    depths = Depths(Answering(NUMBERS), [QUEUE], cloudwatch=cloudwatch)
    for _ in range(5):
        depths.read()
    assert cloudwatch.calls == 1
