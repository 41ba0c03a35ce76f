"""The doctor's look at what stands beside the queues: where outputs go, the idempotency store, the event bus."""

from __future__ import annotations

from uuid import uuid4

from bridge.operations.doctor.finding import Finding
from bridge.operations.doctor.reads import write_and_delete
from bridge.s3.clients import s3_client
from bridge.s3.outputs import Output
from bridge.text import shown


def check_output_prefixes(outputs: tuple[Output, ...], region: str | None, *, write_test: bool) -> list[Finding]:
    """Name our output prefixes, and with ``write_test`` put and delete an object under each."""
    findings = []
    for output in outputs:
        if not write_test:
            findings.append(Finding("ok", "output", output.url, f"{output.setting}; not tried (--write-test)"))
        elif (fault := write_and_delete(s3_client(region), output)) is None:
            findings.append(Finding("ok", "output", output.url, f"{output.setting}; an object was put and deleted"))
        else:
            remedy = f"allow s3:PutObject and s3:DeleteObject on {output.url}*"
            findings.append(Finding("error", "output", output.url, f"{output.setting}; {fault}", remedy))
    return findings


def check_store(url: str | None, region: str | None) -> Finding:
    """Ask the idempotency store for a record that does not exist."""
    if url is None:
        text = "is not set: SQS delivers at least once, and a task may run again for its event"
        return Finding("warning", "store", "BRIDGE_IDEMPOTENCY_URL", text, "s3://bucket/prefix or dynamodb://table")
    from bridge.idempotency.factory import open_store

    try:
        open_store(url, region).read(f"brigade-doctor-{uuid4().hex}")
    except Exception as error:  # noqa: BLE001 - whatever keeps us from reading is the finding
        text = f"cannot be read: {' '.join(str(error).split())[:300]}"
        return Finding("error", "store", url, text, "create it, or allow the worker's role to read it")
    return Finding("ok", "store", url, "answers")


def check_bus(url: str | None) -> Finding:
    """Connect to the event bus that Flower reads; a bus that is down costs no task, only the sight of it."""
    if url is None:
        return Finding("ok", "bus", "BRIDGE_MONITOR_URL", "is not set: no events for Flower")
    from kombu import Connection

    connection = Connection(
        url, connect_timeout=3, transport_options={"socket_connect_timeout": 3, "socket_timeout": 3}
    )
    name = shown(connection.as_uri())
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
    except Exception as error:  # noqa: BLE001 - whatever keeps us from connecting is the finding
        text = f"does not answer: {shown(' '.join(str(error).split()))}"
        return Finding("warning", "bus", name, text, "Flower sees nothing meanwhile; tasks run all the same")
    finally:
        connection.release()
    return Finding("ok", "bus", name, "answers")
