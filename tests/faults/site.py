"""One worker that reaches its SQS through a proxy, and the faults that the tests put in its way."""

from __future__ import annotations

import time
from typing import Any

from bridge.testing import s3_event
from tests.fault_proxy import Call, FaultProxy
from tests.servers.sqs import QueuePair, SqsServer, send
from tests.servers.waiting import wait_until
from tests.worker_process import WorkerProcess

WAIT_SECONDS = 1
LEASE_SECONDS = 6
RESUMES_SECONDS = 5.0

#: Errors that SQS answers: code and HTTP status.
ANSWERS = {
    "service unavailable": ("ServiceUnavailable", 503),
    "access denied": ("AccessDenied", 403),
    "expired token": ("ExpiredToken", 403),
    "throttled": ("ThrottlingException", 400),
}


class Site:
    """One worker that reaches its SQS through a proxy, and must survive everything that the tests do to it."""

    def __init__(self, worker: WorkerProcess, proxy: FaultProxy, server: SqsServer, queue: QueuePair) -> None:
        self.worker, self.proxy, self.server, self.queue = worker, proxy, server, queue

    def send(self, key: str) -> str:
        return send(self.server, self.queue.url, s3_event(key))

    def await_settled(self, message_id: str, outcome: str = "deleted", seconds: float = 20) -> dict[str, Any]:
        return self.worker.wait_event("message_settled", seconds, message_id=message_id, outcome=outcome)

    def await_calls(self, action: str, outcome: str, number: int, since: int) -> list[Call]:
        """The calls that ended like this after the first ``since``, once there are ``number`` of them."""

        def ended() -> list[Call]:
            calls = [c for c in self.proxy.calls[since:] if c.action == action and c.finished_at is not None]
            found = [c for c in calls if c.outcome == outcome]
            return found if len(found) >= number else []

        return wait_until(ended, 30, f"{number} {action} {outcome}")

    def runs(self, message_id: str) -> int:
        return len(self.worker.found("task_started", message_id=message_id))

    def assert_resumes(self, fault_ended_at: float) -> None:
        """An event sent now is done within 5 s of the fault's end, by the same worker."""
        sent = self.send("good/next")
        self.await_settled(sent)
        took = time.monotonic() - fault_ended_at
        assert took < RESUMES_SECONDS
        assert self.runs(sent) == 1
