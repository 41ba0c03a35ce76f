"""One worker that reaches its SQS through a proxy, and the faults that the tests put in its way."""

from __future__ import annotations

from typing import Any

from bridge.testing import s3_event
from tests.support.fault_proxy import Call, FaultProxy
from tests.support.servers.sqs import QueuePair, SqsServer, send
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

WAIT_SECONDS = 1
#: Long enough for no renewal to come between the tries of a call that fails, on a busy machine.
LEASE_SECONDS = 12
#: Until the worker asks again after a fault. Its own pause is 2 s at most; the rest is for a busy machine.
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

    def await_settled(self, message_id: str, outcome: str = "deleted", seconds: float = 45) -> dict[str, Any]:
        return self.worker.wait_event("message_settled", seconds, message_id=message_id, outcome=outcome)

    def await_calls(self, action: str, outcome: str, number: int, since: int) -> list[Call]:
        """The calls that ended like this after the first ``since``, once there are ``number`` of them."""

        def ended() -> list[Call]:
            calls = [c for c in self.proxy.calls[since:] if c.action == action and c.finished_at is not None]
            found = [c for c in calls if c.outcome == outcome]
            return found if len(found) >= number else []

        return wait_until(ended, 60, f"{number} {action} {outcome}")

    def runs(self, message_id: str) -> int:
        return len(self.worker.found("task_started", message_id=message_id))

    def assert_resumes(self, fault_ended_at: float) -> None:
        """Within 5 s of the fault's end the same worker asks for messages again, and it does an event sent now."""
        again = self.proxy.wait_for(
            lambda call: call.action == "ReceiveMessage" and call.started_at >= fault_ended_at, 30, "the next receive"
        )
        assert again.started_at - fault_ended_at < RESUMES_SECONDS
        sent = self.send("good/next")
        self.await_settled(sent)
        assert self.runs(sent) == 1
