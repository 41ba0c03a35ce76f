"""``brigade run-once`` as a ScaledJob runs it: one process, a few messages, and an exit code."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.testing import s3_event
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import QueueFactory, QueuePair, SqsServer, counts, environment_for
from tests.support.servers.waiting import wait_until

pytestmark = pytest.mark.slow
END_SECONDS = 90


class Jobs:
    """A queue, and jobs that read it through a proxy."""

    def __init__(self, server: SqsServer, queue: QueuePair, proxy: FaultProxy, folder: Path) -> None:
        self.server, self.queue, self.proxy, self.folder = server, queue, proxy, folder

    def send(self, *keys: str) -> None:
        """Send an event for each key."""
        for key in keys:
            self.server.sqs.send_message(QueueUrl=self.queue.url, MessageBody=json.dumps(s3_event(key)))

    def start(self, *args: str, **settings: str) -> subprocess.Popen[str]:
        """Start a job."""
        environment = {
            **environment_for(self.server),
            "AWS_ENDPOINT_URL_SQS": self.proxy.url,
            "SQS_QUEUE_URL": self.queue.url,
            "BRIDGE_TASK_MODULES": "tests.e2e.run_once.job_tasks",
            "BRIDGE_VISIBILITY_TIMEOUT_SECONDS": "30",
            "BRIDGE_LOG_FORMAT": "json",
            "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges:RuntimeWarning",
            **settings,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "bridge", "run-once", *args],
            env=environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *args: str, **settings: str) -> tuple[int, dict[str, Any]]:
        """Run a job to its end; returns its exit code and its summary."""
        job = self.start(*args, **settings)
        return ended(job)

    @property
    def left(self) -> tuple[int, int]:
        """How many messages are in the queue (visible or not), and how many dead letters."""
        return counts(self.server, self.queue.url).total, counts(self.server, self.queue.dlq_url).total


def ended(job: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    """Wait for a job; returns its exit code and its one summary. No process of its group is left."""
    try:
        output, _ = job.communicate(timeout=END_SECONDS)
    finally:
        kill_group(job)
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    summaries = [line for line in lines if line["event"] == "run_summary"]
    assert len(summaries) == 1, output
    assert summaries[0]["exit_code"] == job.returncode
    return job.returncode, summaries[0]


def kill_group(job: subprocess.Popen[str]) -> None:
    """End whatever is left of a job; nothing should be, once what it killed itself has been reaped."""
    if job.poll() is not None:
        wait_until(lambda: not _group_exists(job.pid), 10, "no process of the job left behind")
        return
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate()


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def jobs(sqs_server: SqsServer, queues: QueueFactory, tmp_path: Path) -> Iterator[Jobs]:
    """A queue of its own."""
    with FaultProxy(sqs_server.endpoint_url) as proxy:
        yield Jobs(sqs_server, queues(sqs_server), proxy, tmp_path)


@contextmanager
def gateway() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A Pushgateway as far as a push sees it: an HTTP server that takes what is posted."""
    pushed: list[tuple[str, str]] = []

    class Gateway(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            pushed.append((self.path, body.decode()))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", pushed
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_one_message_by_default(jobs: Jobs) -> None:
    """Of three messages a job takes one, in one poll, and leaves with 0."""
    jobs.send("ok/1", "ok/2", "ok/3")
    code, summary = jobs.run()
    assert (code, summary["received"], summary["settled"]) == (0, 1, {"deleted": 1})
    assert jobs.left == (2, 0)
    receives = [call for call in jobs.proxy.calls if call.action == "ReceiveMessage"]
    assert [call.request["MaxNumberOfMessages"] for call in receives] == [1]


def test_as_many_as_it_may_take(jobs: Jobs) -> None:
    """With --max-messages a job goes on until that many are settled, one poll at a time."""
    jobs.send("ok/1", "ok/2", "ok/3", "ok/4")
    code, summary = jobs.run("--max-messages", "3", "--idle-timeout", "5")
    assert (code, summary["received"], summary["settled"]) == (0, 3, {"deleted": 3})
    assert jobs.left == (1, 0)


def test_an_empty_queue(jobs: Jobs) -> None:
    """Nothing comes, so the job leaves with 0 after its idle time-out."""
    code, summary = jobs.run("--idle-timeout", "1")
    assert (code, summary["received"], summary["settled"]) == (0, 0, {})


def test_one_poll_fills_the_idle_time(jobs: Jobs) -> None:
    """A job whose idle time-out is that of one poll leaves when this has brought nothing, and begins no second one."""
    code, _ = jobs.run("--idle-timeout", "3", BRIDGE_WAIT_TIME_SECONDS="3")
    assert code == 0
    assert [call.request["WaitTimeSeconds"] for call in jobs.proxy.calls if call.action == "ReceiveMessage"] == [3]


def test_what_the_last_poll_brings_is_run(jobs: Jobs) -> None:
    """A message that comes when the idle time is over already is worked on, not handed back."""
    jobs.send("ok/1")
    code, summary = jobs.run("--idle-timeout", "0")
    assert (code, summary["received"], summary["settled"]) == (0, 1, {"deleted": 1})


def test_a_failed_task_is_seen_by_kubernetes(jobs: Jobs) -> None:
    """A failing task leaves 1 and its message in retry; the last failure leaves 1 and a dead letter."""
    jobs.send("bad/1")
    first, summary = jobs.run()
    assert (first, summary["settled"]) == (1, {"retried": 1})
    assert jobs.left == (1, 0)
    last, summary = jobs.run()
    assert (last, summary["settled"]) == (1, {"dead_lettered": 1})
    assert jobs.left == (0, 1)


def test_sigterm_hands_the_message_back(jobs: Jobs) -> None:
    """SIGTERM in the middle of a task: it is stopped, its message handed back, and the job leaves with 143."""
    jobs.send("slow/1")
    job = jobs.start(BRIDGE_DRAIN_SECONDS="1")
    assert job.stdout is not None
    while "began" not in (line := job.stdout.readline()):
        assert line, "the job ended before its task began"
    job.terminate()
    code, summary = ended(job)
    assert (code, summary["settled"]) == (143, {"handed_back": 1})
    wait_until(lambda: counts(jobs.server, jobs.queue.url).visible == 1, 10, "the message back")


def test_counters_are_pushed(jobs: Jobs) -> None:
    """With BRIDGE_PUSHGATEWAY_URL the job's counters are there when it is gone; one that is away costs nothing."""
    jobs.send("ok/1", "ok/2")
    with gateway() as (url, pushed):
        code, _ = jobs.run(BRIDGE_PUSHGATEWAY_URL=url, BRIDGE_POD_NAME="job-1")
    assert code == 0
    [(path, body)] = pushed
    assert path == "/metrics/job/bucket-brigade/instance/job-1"
    assert 'bridge_messages_settled_total{outcome="deleted"' in body
    code, _ = jobs.run(BRIDGE_PUSHGATEWAY_URL=url)
    assert code == 0


def test_sqs_that_is_away_is_no_empty_queue(moto_server: SqsServer, queues: QueueFactory, tmp_path: Path) -> None:
    """A job that never reached SQS leaves with 1 after its idle time-out."""
    with FaultProxy(moto_server.endpoint_url) as proxy:
        jobs = Jobs(moto_server, queues(moto_server), proxy, tmp_path)
        proxy.fail(times=None)
        code, _ = jobs.run("--idle-timeout", "2")
    assert code == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--queue", "nope"), "--queue must be one of"),
        (("--max-messages", "0"), "0 is not in the range"),
        (("--wat",), "No such option"),
    ],
)
def test_wrong_arguments(args: tuple[str, ...], said: str, moto_server: SqsServer, tmp_path: Path) -> None:
    """A wrong argument is one line and exit code 2."""
    environment = environment_for(moto_server) | {
        "SQS_QUEUE_URL": "http://127.0.0.1:1/1/q",
        "BRIDGE_TASK_MODULES": "tests.e2e.run_once.job_tasks",
    }
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "run-once", *args],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert said in done.stderr
