"""A rollout as Kubernetes does it: under load, each worker is replaced by a new one, and then told to leave."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import REPOSITORY
from tests.e2e.delivery.conftest import Site, kill
from tests.support.servers.sqs import SqsServer, counts
from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.elasticmq, pytest.mark.timeout(300)]

BASE = REPOSITORY / "k8s" / "base"
WORKERS = 3
LEAST_MESSAGES = 150
#: So many wait at any time of the rollout: no worker is idle when it is told to leave.
BACKLOG = 30
TASK_SECONDS = 0.3
#: Two run and six wait in each worker, so that a drain has something to finish and something to hand back.
ARGUMENTS = ("-c", "2", "--prefetch-multiplier", "4")


def grace_seconds() -> float:
    """What the manifests give a worker from SIGTERM to SIGKILL; BRIDGE_DRAIN_SECONDS is left at its default."""
    documents = yaml.safe_load_all((BASE / "worker.yaml").read_text(encoding="utf-8"))
    [pod] = [document["spec"]["template"]["spec"] for document in documents if document["kind"] == "Deployment"]
    return float(pod["terminationGracePeriodSeconds"])


class Load(threading.Thread):
    """Keeps the queue filled until it is told that this is enough; ``sent`` are the ids of its messages."""

    def __init__(self, site: Site) -> None:
        super().__init__(name="load")
        self._site = site
        self._enough = threading.Event()
        self._error: BaseException | None = None
        self.sent: list[str] = []

    def run(self) -> None:
        try:
            while len(self.sent) < LEAST_MESSAGES or not self._enough.is_set():
                if counts(self._site.server, self._site.queue.url).visible < BACKLOG:
                    first = len(self.sent)
                    self.sent += self._site.send(*(f"long/{TASK_SECONDS}/{first + n}" for n in range(20)))
                else:
                    self._enough.wait(0.1)
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            self._error = error

    def end(self) -> None:
        """Send no more than there have to be; raises what went wrong."""
        self._enough.set()
        self.join(60)
        assert not self.is_alive()
        if self._error is not None:
            raise self._error


def replace(site: Site, old: WorkerProcess) -> dict[str, Any]:
    """One step of the rollout: a new worker is ready, then the old one leaves; returns what it left with."""
    site.start(*ARGUMENTS, BRIDGE_VISIBILITY_TIMEOUT_SECONDS="30")
    kill(old, signal.SIGTERM)
    assert old.wait_exit(grace_seconds()) == 0
    return old.found("drain_started")[0]


def test_a_rollout_under_load_loses_and_repeats_nothing(elasticmq_server: SqsServer, tmp_path: Path) -> None:
    """Three workers replaced one by one while messages keep coming: each leaves with 0 and each message runs once."""
    with Site(elasticmq_server, tmp_path, visibility_timeout_seconds=30) as site:
        old = [site.start(*ARGUMENTS, BRIDGE_VISIBILITY_TIMEOUT_SECONDS="30") for _ in range(WORKERS)]
        load = Load(site)
        load.start()
        try:
            drains = [replace(site, worker) for worker in old]
        finally:
            load.end()
        # Longer than the lease: what a leaving worker's last poll took along comes back only then, which is no loss.
        site.await_empty(90)

        assert all(drain["running"] for drain in drains), f"no load to speak of: {drains}"
        handed_back = [end for worker in old for end in worker.found("message_settled", outcome="handed_back")]
        assert handed_back, "all had started: nothing was shown of what had not"
        assert len(load.sent) == len(set(load.sent)) >= LEAST_MESSAGES
        began = Counter(note["message_id"] for worker in site.workers for note in worker.found("began"))
        ended = Counter(note["message_id"] for worker in site.workers for note in worker.found("ended"))
        assert began == ended == Counter(load.sent)
        assert all(any(worker.found("ended")) for worker in site.workers), "each old and new one has had its part"
