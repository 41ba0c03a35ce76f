"""A site: a queue of its own, the fault proxy before its server, the workers on it, and what the record says.

Most of these tests wait for something that takes seconds whatever the machine does. So each file starts its slow
scenarios at the same time, on queues, proxies and workers of their own (``Scenarios``), and each test asks for one.
Those that only wait (``patient``) begin before the first test of all.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from bridge.testing import s3_event
from tests.support.fault_proxy import Call, FaultProxy
from tests.support.servers.sqs import QueueFactory, SqsServer, counts, environment_for
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

#: The lease of most tests. Twice the shortest there is: a renewal is due after 4 s, so a worker that gets next to no
#: time from a busy machine has 8 s more before its messages are another's, for which a test would blame the worker.
LEASE_SECONDS = 12
#: For tests that wait for the lapse itself, and in which no renewal has to come in time.
SHORT_LEASE_SECONDS = 6
#: What a busy machine may add to any wait. Less than the 20 s of a long poll: what waits for one is still found out.
SLACK_SECONDS = 10
POOLS = ("prefork", "threads", "solo")
#: More workers starting at once would keep each other from being ready, and those at work from renewing their leases.
_starting = threading.Semaphore(2)


class Proxy(FaultProxy):
    """The fault proxy, and one kind of outage more."""

    def end_outage_silently(self) -> None:
        """Take calls again, but leave those that hang without an answer: no network closes its dead connections."""
        with self._changed:
            self._faults.clear()

    def _stop_listening(self) -> None:
        """Refuse connections, and keep the port, also while other scenarios start workers.

        Until such a process is its own program it holds a copy of our listener, so that the port is in use.
        """
        self._accepting = False
        address = self._listener.getsockname()
        socket.create_connection(address, timeout=10).close()  # wakes accept()
        self._acceptor.join()
        self._listener.close()
        if not self._closing.is_set():
            bound = wait_until(lambda: _bound_to(address), 5, "the port free for the proxy again")
            assert bound is not None
            self._listener = bound


def _bound_to(address: tuple[str, int]) -> socket.socket | None:
    """A socket bound to this address, or None while it is in use."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError:
        bound.close()
        return None
    return bound


@dataclass(frozen=True)
class Step:
    """What one call did with one message: ``seconds`` is the visibility timeout it asked for, if any."""

    call: Call
    handle: str
    seconds: int | None
    confirmed: bool

    @property
    def action(self) -> str:
        return self.call.action

    @property
    def began(self) -> float:
        return self.call.started_at

    @property
    def ended(self) -> float:
        assert self.call.finished_at is not None
        return self.call.finished_at


class Site:
    """Queues that nobody else uses, a proxy, and any number of workers; everything is gone when the block ends."""

    def __init__(self, server: SqsServer, folder: Path, *names: str, **queue_options: Any) -> None:
        """``names`` are the queues; ``main`` if none is given."""
        self.server = server
        self.folder = folder / f"site-{uuid.uuid4().hex[:8]}"
        self._names = names or ("main",)
        self._queue_options = queue_options
        self._stack = ExitStack()
        self.workers: list[WorkerProcess] = []

    def __enter__(self) -> Self:
        self.folder.mkdir()
        factory = QueueFactory()
        self._stack.callback(factory.delete_all)
        self.queues = {name: factory(self.server, prefix=name, **self._queue_options) for name in self._names}
        self.queue = self.queues[self._names[0]]
        self.proxy = self._stack.enter_context(Proxy(self.server.endpoint_url))
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.kill_group()  # no test counts on how a worker leaves once it has seen what it wanted
        self._stack.close()

    def start(self, *args: str, endpoint_url: str | None = None, **settings: str) -> WorkerProcess:
        """Start a worker and wait until it is ready; ``settings`` come on top of the environment."""
        environment = {
            **environment_for(self.server),
            "AWS_ENDPOINT_URL_SQS": endpoint_url or self.proxy.url,
            "SQS_QUEUE_URL": ",".join(queue.url for queue in self.queues.values()),
            "BRIDGE_TASK_MODULES": "tests.e2e.delivery.delivery_tasks",
            "BRIDGE_VISIBILITY_TIMEOUT_SECONDS": str(LEASE_SECONDS),
            "TMPDIR": str(self.folder),
            **settings,
        }
        with _starting:
            worker = self._stack.enter_context(WorkerProcess(environment, *args, cwd=self.folder))
        self.workers.append(worker)
        return worker

    # ---- messages

    def send(self, *keys: str, queue: str | None = None) -> list[str]:
        """Send an event for each key, past the proxy; returns the MessageIds."""
        url = self.queues[queue].url if queue else self.queue.url
        sent: list[str] = []
        for first in range(0, len(keys), 10):
            bodies = [json.dumps(s3_event(key)) for key in keys[first : first + 10]]
            entries: Any = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies)]
            answer = self.server.sqs.send_message_batch(QueueUrl=url, Entries=entries)
            sent += [entry["MessageId"] for entry in sorted(answer["Successful"], key=lambda entry: int(entry["Id"]))]
        return sent

    def await_empty(self, seconds: float = 45) -> None:
        """Wait until all queues hold nothing; then no message is left, and none was dead-lettered."""
        urls = [url for queue in self.queues.values() for url in (queue.url, queue.dlq_url)]
        wait_until(lambda: not sum(counts(self.server, url).total for url in urls), seconds, "empty queues")

    def begun(self, message_id: str) -> list[dict[str, Any]]:
        """The runs of a message in all workers, in the order of their beginning."""
        return sorted(self._notes("began", message_id), key=lambda note: note["at"])

    def await_begun(self, *message_ids: str, seconds: float = 45) -> None:
        """Wait until each of these has begun to run."""
        wait_until(lambda: all(self.begun(id_) for id_ in message_ids), seconds, f"the start of {message_ids}")

    def last_tick(self, message_id: str, pid: int) -> float:
        """When this process last worked for the message."""
        return max(float(note["at"]) for note in self._notes("tick", message_id) if note["pid"] == pid)

    def received(self) -> set[str]:
        """The ids of all messages that a receive through the proxy brought so far."""
        answers = [call.response or {} for call in self.proxy.calls if call.action == "ReceiveMessage"]
        return {message["MessageId"] for answer in answers for message in answer.get("Messages") or ()}

    def await_received(self, message_ids: list[str], seconds: float = 45) -> None:
        """Wait until the worker has been given all of these."""
        wait_until(lambda: self.received().issuperset(message_ids), seconds, "all messages received")

    def await_visible(self, number: int, seconds: float = SLACK_SECONDS) -> None:
        """Wait until the first queue holds this many messages, all of them to be had."""
        wait_until(
            lambda: (found := counts(self.server, self.queue.url)).visible == found.total == number,
            seconds,
            f"{number} messages to be had",
        )

    def await_quiet(self) -> None:
        """Wait until no call is under way: one that its worker gave up still ends, and is in the record then."""
        wait_until(lambda: all(call.finished_at for call in self.proxy.calls), 30, "no call under way")

    def steps(self, message_id: str) -> list[Step]:
        """What was done with a message, in the order of the calls' beginning."""
        return history(self.proxy).get(message_id, [])

    def _notes(self, event: str, message_id: str) -> list[dict[str, Any]]:
        return [note for worker in self.workers for note in worker.found(event, message_id=message_id)]


def history(proxy: FaultProxy) -> dict[str, list[Step]]:
    """The ended calls that received, renewed, hid or deleted a message, by its id."""
    steps: dict[str, list[Step]] = {}
    owners: dict[str, str] = {}
    for call in proxy.calls:
        for message in (call.response or {}).get("Messages") or ():
            owners[message["ReceiptHandle"]] = message["MessageId"]
            seconds = call.request.get("VisibilityTimeout")
            step = Step(call, message["ReceiptHandle"], seconds, call.outcome == "forwarded")
            steps.setdefault(message["MessageId"], []).append(step)
    for call in proxy.calls:
        if call.finished_at is None or call.action == "ReceiveMessage":
            continue
        confirmed = {entry["Id"] for entry in (call.response or {}).get("Successful") or ()}
        for entry in call.request.get("Entries") or ():
            told = call.outcome == "forwarded" and entry["Id"] in confirmed
            step = Step(call, entry["ReceiptHandle"], entry.get("VisibilityTimeout"), told)
            steps.setdefault(owners[entry["ReceiptHandle"]], []).append(step)
    return {message_id: sorted(found, key=lambda step: step.began) for message_id, found in steps.items()}


def is_gone(pid: int) -> bool:
    """Say whether no process with this id runs; one that has ended and that nobody has reaped yet is gone."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def kill(worker: WorkerProcess, number: signal.Signals, *, whole_group: bool = False) -> float:
    """Send a signal to a worker's parent process, or as a terminal does to all of it; returns the monotonic time."""
    at = time.monotonic()
    (os.killpg if whole_group else os.kill)(worker.pid, number)
    return at


class Scenarios:
    """Scenarios under way, each in a thread of its own; ``result`` waits for one and raises what it raised."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._futures: dict[str, Future[Any]] = {}

    def start(self, name: str, scenario: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Begin ``scenario(*args, **options)`` under this name."""
        self._futures[name] = self._pool.submit(scenario, *args, **options)

    def result(self, name: str) -> Any:
        """What the scenario returned."""
        return self._futures[name].result()


@contextmanager
def running_scenarios() -> Iterator[Scenarios]:
    """Scenarios for the time of the block; all have ended after it."""
    with ThreadPoolExecutor(64, thread_name_prefix="scenario") as pool:
        yield Scenarios(pool)


def all_of(scenarios: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Run these at the same time; return what each returned, or raise what the failed ones raised."""
    with running_scenarios() as running:
        for name, scenario in scenarios.items():
            running.start(name, scenario)
        results: dict[str, Any] = {}
        errors: list[Exception] = []
        for name in scenarios:
            try:
                results[name] = running.result(name)
            except Exception as error:  # noqa: BLE001 - raised again below, with those of the other scenarios
                error.add_note(f"in the scenario {name!r}")
                errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup(f"{len(errors)} scenarios of {len(scenarios)} failed", errors)
    return results


@pytest.fixture(scope="module", params=["moto", pytest.param("elasticmq", marks=pytest.mark.elasticmq)])
def sqs_server(request: pytest.FixtureRequest) -> SqsServer:
    """Each SQS server in turn, for fixtures of a module."""
    server: SqsServer = request.getfixturevalue(f"{request.param}_server")
    return server


@pytest.fixture(scope="session")
def all_servers(moto_server: SqsServer, elasticmq_server: SqsServer) -> dict[str, SqsServer]:
    """Both servers, for scenarios that run on them at the same time. Skips where there is no ElasticMQ."""
    return {"moto": moto_server, "elasticmq": elasticmq_server}


Patient = Callable[[Mapping[str, SqsServer], Path], None]
_patient: dict[str, Patient] = {}


def patient(scenario: Patient) -> Patient:
    """Start this one before all tests: it waits for a minute and does next to nothing. Known by its function's name."""
    _patient[scenario.__name__] = scenario
    return scenario


@pytest.fixture(scope="session")
def patient_scenarios(
    all_servers: dict[str, SqsServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scenarios]:
    """The patient scenarios, under way."""
    with running_scenarios() as scenarios:
        for name, scenario in _patient.items():
            scenarios.start(name, scenario, all_servers, tmp_path_factory.mktemp(name))
        yield scenarios


@pytest.fixture(scope="session", autouse=True)
def _begin_early(request: pytest.FixtureRequest) -> None:
    if any("patient_scenarios" in getattr(item, "fixturenames", ()) for item in request.session.items):
        with suppress(pytest.skip.Exception):  # no ElasticMQ: the tests that ask for them will be skipped, not others
            request.getfixturevalue("patient_scenarios")
