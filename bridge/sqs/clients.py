"""The boto3 clients for SQS, one per purpose, because each purpose needs its own timeouts and retries.

Credentials come from the SDK's credential chain, and endpoints from its variables (AWS_ENDPOINT_URL_SQS…). Nothing is
read from a broker URL. One client serves many threads: boto3 clients are thread-safe, sessions and resources are not.
boto3 is imported when the first client is made, so that importing a task module stays cheap.
"""

from __future__ import annotations

from typing import Any, Literal

#: ReceiveMessage answers after at most its wait time. A connection that stays silent for this much longer is dead, and
#: only a new connection can receive again.
RECEIVE_GRACE_SECONDS = 5
CONNECT_SECONDS = 3.0

#: After a failure a receiver probes with a short wait time, on separate connections and with a short timeout. Together
#: with the longest pause between two tries, it resumes within 5 s after AWS is back, even when connections hang.
PROBE_WAIT_SECONDS = 1
PROBE_READ_SECONDS = 2.5


def renewal_read_seconds(visibility_timeout_seconds: float) -> float:
    """Return how many seconds a renewal waits for its answer: half of the shortest lease, from 1 s to 5 s.

    A lease is renewed after a third of its time, so a lease of 6 s survives one call that hangs. A shorter timeout
    would be dangerous: an abandoned renewal may still reach SQS and undo a later visibility change.
    """
    return max(1.0, min(5.0, visibility_timeout_seconds / 2))


Purpose = Literal["settle", "send"]


def new_session(region: str | None) -> Any:
    """Return a new boto3 session, which holds the credentials and the SDK's configuration."""
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

    ``settle``: the SDK does not retry, because a lease runs out while it waits; the batchers retry instead.
    ``send`` (``.delay()`` in a user's process): the SDK's standard retries, because nothing else retries.
    ``connections`` is the number of threads that use the client at once. Without ``session`` it gets a new session.
    """
    from botocore.config import Config

    # The bridge builds every request of a worker itself, so validating each against the service model only costs time.
    validated = purpose == "send"
    attempts = 3 if purpose == "send" else 1
    config = Config(
        connect_timeout=min(CONNECT_SECONDS, read_seconds),
        read_timeout=read_seconds,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=connections,
        parameter_validation=validated,
        tcp_keepalive=True,
    )
    client = (session or new_session(region)).client("sqs", config=config)
    if purpose != "send":  # a user's process has its own metrics, and nobody reads those of a pool child
        from bridge.sqs.calls import watch

        watch(client)
    return client
