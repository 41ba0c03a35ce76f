"""A busy worker marks its pod, an idle one takes the mark off, and an API that is away disturbs nobody."""

from __future__ import annotations

import json
import ssl
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from bridge.kubernetes.deletion_cost import (
    ANNOTATION,
    BUSY_COST,
    IDLE_SECONDS,
    LONGEST_RETRY_SECONDS,
    RETRY_SECONDS,
    DeletionCost,
    Pod,
    counts_as_busy,
    pause_seconds,
    this_pod,
)
from tests.support.servers.sqs import QueueFactory, SqsServer, environment_for, send
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

POD_PATH = "/api/v1/namespaces/bucket-brigade/pods/worker-1"


@dataclass
class Api:
    """What the stand-in was asked, how it answers, and the annotations it keeps."""

    account: Path
    port: int = 0
    status: int = 200
    asked: list[dict[str, Any]] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}

    def pod(self) -> Pod:
        pod = this_pod("worker-1", self.environ, self.account)
        assert pod is not None
        return pod


def make_certificate(folder: Path) -> Path:
    """Write a certificate for 127.0.0.1, which is its own authority, as ca.crt; return the file with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "ca.crt").write_bytes(public)
    both = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both.write_bytes(public + private)
    return both


@pytest.fixture
def api(tmp_path: Path):
    """An HTTPS server with the API's PATCH of one pod: token, merge patch, certificate and all."""
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("first-token\n")
    (account / "namespace").write_text("bucket-brigade")
    stand_in = Api(account)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PATCH(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            kind, token = self.headers["Content-Type"], self.headers["Authorization"]
            stand_in.asked.append({"path": self.path, "body": body, "type": kind, "token": token})
            if stand_in.status == 200:
                for name, value in body["metadata"]["annotations"].items():
                    stand_in.annotations.pop(name, None)
                    stand_in.annotations.update({name: value} if value is not None else {})
            self.send_response(stand_in.status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificate(account))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    stand_in.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield stand_in
    server.shutdown()
    server.server_close()
    thread.join(10)


@dataclass
class Clock:
    """A clock that the test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_busy_is_said_at_once_and_idle_after_a_while(api: Api) -> None:
    """A pod is marked while it works, and the mark is removed once it has been idle for IDLE_SECONDS."""
    clock, busy = Clock(), [True]
    cost = DeletionCost(api.pod(), lambda: busy[0], clock)
    cost.look()
    assert api.annotations == {ANNOTATION: BUSY_COST}
    busy[0] = False
    clock.now += IDLE_SECONDS - 1
    cost.look()
    assert api.annotations == {ANNOTATION: BUSY_COST}
    clock.now += 1
    cost.look()
    assert api.annotations == {}
    assert [call["path"] for call in api.asked] == [POD_PATH, POD_PATH]
    assert {call["type"] for call in api.asked} == {"application/merge-patch+json"}


def test_a_mark_of_an_earlier_process_is_removed(api: Api) -> None:
    """A worker that starts idle takes off what a process that died in this pod had left."""
    api.annotations[ANNOTATION] = BUSY_COST
    DeletionCost(api.pod(), lambda: False, Clock()).look()
    assert api.annotations == {}


def test_steady_work_sends_nothing(api: Api) -> None:
    """A worker that is never idle for long patches its pod once, however long it works."""
    clock, turn = Clock(), [0]

    def is_busy() -> bool:
        turn[0] += 1
        return turn[0] % 20 == 1

    cost = DeletionCost(api.pod(), is_busy, clock)
    for _ in range(2000):
        cost.look()
        clock.now += 1
    assert len(api.asked) == 1


def test_patches_are_few(api: Api) -> None:
    """Whatever the worker does, there are at most two patches in any IDLE_SECONDS."""
    clock, busy, at = Clock(), [False], []
    cost = DeletionCost(api.pod(), lambda: busy[0], clock)
    for second in range(600):
        busy[0] = second % 32 == 1  # idle just long enough, then busy again
        before = len(api.asked)
        cost.look()
        at += [clock.now] * (len(api.asked) - before)
        clock.now += 1
    assert len(at) > 10
    assert min(later - earlier for earlier, later in zip(at, at[2:], strict=False)) >= IDLE_SECONDS


def test_a_renewed_token_is_used(api: Api) -> None:
    """The kubelet replaces the token; the next patch carries the new one."""
    pod = api.pod()
    pod.mark(busy=True)
    (api.account / "token").write_text("second-token")
    pod.mark(busy=False)
    assert [call["token"] for call in api.asked] == ["Bearer first-token", "Bearer second-token"]


@pytest.mark.parametrize("status", [401, 403, 404, 409, 429, 500, 503])
def test_a_refusal_is_logged_and_tried_again_later(api: Api, status: int, caplog: pytest.LogCaptureFixture) -> None:
    """An error of the API is one line without the token, then silence until the pause is over."""
    api.status = status
    clock = Clock()
    cost = DeletionCost(api.pod(), lambda: True, clock)
    for _ in range(10):
        cost.look()
        clock.now += 1
    assert len(api.asked) == 1
    api.status = 200
    clock.now += 30
    cost.look()
    assert api.annotations == {ANNOTATION: BUSY_COST}
    said = "".join(str(vars(record)) for record in caplog.records)
    assert [record.getMessage() for record in caplog.records] == ["deletion_cost_failed"]
    assert str(status) in said
    assert "first-token" not in said


def test_a_server_that_is_not_there(api: Api) -> None:
    """A refused connection and a token that is gone raise nothing."""
    dead = this_pod("worker-1", {**api.environ, "KUBERNETES_SERVICE_PORT": "9"}, api.account)
    assert dead is not None
    DeletionCost(dead, lambda: True, Clock()).look()
    pod = api.pod()
    (api.account / "token").unlink()
    DeletionCost(pod, lambda: True, Clock()).look()
    assert api.asked == []


def test_a_server_with_another_certificate_gets_no_token(api: Api, tmp_path: Path) -> None:
    """The API's certificate is checked against ca.crt before anything is sent."""
    other = tmp_path / "other"
    other.mkdir()
    make_certificate(other)
    (other / "token").write_text("secret")
    (other / "namespace").write_text("bucket-brigade")
    pod = this_pod("worker-1", api.environ, other)
    assert pod is not None
    DeletionCost(pod, lambda: True, Clock()).look()
    assert api.asked == []


def test_off_outside_kubernetes(api: Api, tmp_path: Path) -> None:
    """Without the cluster's address, or without a mounted token, there is no pod to mark."""
    assert this_pod("worker-1", {}, api.account) is None
    assert this_pod("worker-1", {"KUBERNETES_SERVICE_HOST": ""}, api.account) is None
    assert this_pod("worker-1", api.environ, tmp_path / "nothing") is None


def test_a_strange_pod_name_stays_one_part_of_the_path(api: Api) -> None:
    """A name with slashes cannot make the request one for something else."""
    pod = this_pod("../secrets/x?y", api.environ, api.account)
    assert pod is not None
    pod.mark(busy=True)
    assert api.asked[0]["path"] == "/api/v1/namespaces/bucket-brigade/pods/..%2Fsecrets%2Fx%3Fy"


@pytest.mark.slow
def test_a_real_worker_marks_its_pod(api: Api, moto_server: SqsServer, queues: QueueFactory, tmp_path: Path) -> None:
    """A worker in Kubernetes marks its pod as busy when it has work."""
    queue = queues(moto_server)
    env = {
        **environment_for(moto_server),
        **api.environ,
        "SQS_QUEUE_URL": queue.url,
        "BRIDGE_TASK_MODULES": "tests.unit.kubernetes.deletion_cost_tasks",
        "BRIDGE_POD_NAME": "worker-1",
        "BRIDGE_WAIT_TIME_SECONDS": "1",  # a drain waits for the poll under way
        "TEST_ACCOUNT": str(api.account),
        "TEST_GO_ON": str(tmp_path / "go-on"),
    }
    with WorkerProcess(env, "-c", "1") as worker:
        wait_until(lambda: api.asked, 60, "the first patch")
        assert api.asked[0]["body"] == {"metadata": {"annotations": {ANNOTATION: None}}}
        held = send(moto_server, queue.url, "{}")
        worker.wait_event("task_started", message_id=held)
        wait_until(lambda: api.annotations == {ANNOTATION: BUSY_COST}, 60, "the mark")
        (tmp_path / "go-on").touch()
        worker.wait_event("message_settled", message_id=held, outcome="deleted")
    assert {call["path"] for call in api.asked} == {POD_PATH}


@given(st.integers(1, 10_000))
def test_pauses_grow_and_are_bounded(failures: int) -> None:
    """A pause after a failure grows with the failures, and is never longer than the longest."""
    assert RETRY_SECONDS <= pause_seconds(failures) <= pause_seconds(failures + 1) <= LONGEST_RETRY_SECONDS


@given(st.floats(0, 1e9))
def test_idle_is_a_matter_of_time(idle_seconds: float) -> None:
    """A pod counts as busy until it has been idle for IDLE_SECONDS."""
    assert counts_as_busy(idle_seconds) == (idle_seconds < IDLE_SECONDS)
