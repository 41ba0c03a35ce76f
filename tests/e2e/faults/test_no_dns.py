"""A name that does not resolve for a while."""

from __future__ import annotations

import os
import time

import pytest

from tests import REPOSITORY
from tests.e2e.outcomes.rig import Rig
from tests.support.servers.waiting import wait_until

pytestmark = pytest.mark.slow


def test_the_worker_outlasts_a_dns_failure(sqs_server, tmp_path):
    """While no new connection can be made it backs off, and it goes on when the name resolves again."""
    flag = tmp_path / "no-dns"
    with Rig(sqs_server) as rig:
        worker = rig.start_worker(
            "-c",
            "1",
            BRIDGE_TASK_MODULES="tests.e2e.outcomes.odd_tasks",
            PYTHONPATH=f"{REPOSITORY / 'tests' / 'e2e' / 'faults' / 'no_dns'}{os.pathsep}{REPOSITORY}",
            NO_DNS_FLAG=str(flag),
        )
        assert rig.end(rig.announce(rig.record("good/1")))["outcome"] == "deleted"
        flag.touch()
        with rig.proxy.refusing():  # cuts what is connected: an open connection needs no name
            worker.wait_event("receive_failed", error_type="EndpointConnectionError")
        failures = len(worker.found("receive_failed"))
        # Its port answers again, its name does not: several more failures, and no run.
        wait_until(lambda: len(worker.found("receive_failed")) >= failures + 4, 60, "more failures")
        # Sent only now: the poll that was cut goes on in the server for its second, and would have taken it along.
        message_id = rig.announce(rig.record("good/2"))
        flag.unlink()
        back_at = time.monotonic()
        assert rig.end(message_id)["outcome"] == "deleted"
        # In 2 s at most, on a machine with nothing else to do: the longest pause between two tries.
        assert time.monotonic() - back_at < 15
        assert len(rig.notes(message_id, "run")) == 1
