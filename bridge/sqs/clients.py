"""The boto3 clients for SQS, one per purpose, because their time-outs and retries differ on purpose.

Credentials come from the SDK's own chain and endpoints from its own variables (AWS_ENDPOINT_URL_SQS…): nothing is ever
read from a broker URL. One client serves many threads (boto3 clients are thread-safe, sessions and resources are not).
boto3 is imported when the first client is made, so that a task module costs nothing to import.
"""

from __future__ import annotations

from typing import Any, Literal

#: ReceiveMessage answers after at most its wait time; a connection that is silent for longer than this beyond it is
#: dead, and only a new one brings messages again.
RECEIVE_GRACE_SECONDS = 5
CONNECT_SECONDS = 3.0

#: After a failure a receiver asks with a short wait on connections of its own, and gives up soon: with the longest
#: pause between two tries this keeps "resumes within 5 s of AWS coming back", also when connections hang.
PROBE_WAIT_SECONDS = 1
PROBE_READ_SECONDS = 2.5


def renewal_read_seconds(visibility_timeout_seconds: float) -> float:
    """Return how long a renewal waits for its answer: half of the shortest lease, at most 5 s.

    Renewed at a third, a lease of 6 s then survives one call that hangs. Shorter would be dangerous: a renewal that was
    given up may still be on its way to SQS, and undo the visibility change that comes after it.
    """
    return max(1.0, min(5.0, visibility_timeout_seconds / 2))


Purpose = Literal["settle", "send"]


def new_session(region: str | None) -> Any:
    """Return a new boto3 session: where credentials come from, and the SDK's settings."""
    import boto3

    return boto3.session.Session(region_name=region)


def sqs_client(
    purpose: Purpose,
    region: str | None,
    *,
    read_seconds: float = RECEIVE_GRACE_SECONDS,
    connections: int = 10,
    session: Any = None,
) -> Any:
    """Return a new SQS client whose calls wait ``read_seconds`` for an answer.

    ``settle``: no retries of the SDK's, because a lease is running out while it waits, and the lanes try again.
    ``send`` (``.delay()`` in a user's process): its standard retries, because nothing else would try again.
    ``connections`` is the number of threads that use it at once. Without a ``session`` it has one of its own.
    """
    from botocore.config import Config

    # Our own code builds every request of the worker, so checking each against the service model only costs time.
    checked = purpose == "send"
    attempts = 3 if purpose == "send" else 1
    config = Config(
        connect_timeout=min(CONNECT_SECONDS, read_seconds),
        read_timeout=read_seconds,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=connections,
        parameter_validation=checked,
        tcp_keepalive=True,
    )
    client = (session or new_session(region)).client("sqs", config=config)
    if purpose != "send":  # a user's process has its own metrics, and a pool child's are read by nobody
        from bridge.sqs.calls import watch

        watch(client)
    return client
