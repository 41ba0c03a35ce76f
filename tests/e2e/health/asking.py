"""Asking a worker's health server, from the next process."""

from __future__ import annotations

import http.client
import json
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.servers.waiting import wait_until


def ask(port: int, path: str, *, method: str = "GET", timeout_seconds: float = 10) -> tuple[int, bytes]:
    """Return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def told(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """Return status and JSON answer."""
    status, body = ask(port, path)
    return status, json.loads(body)


def await_status(port: int, path: str, status: int, seconds: float = 20) -> dict[str, Any]:
    """Ask until the status is this one; return that answer."""

    def answer() -> dict[str, Any] | None:
        got, said = told(port, path)
        return said if got == status else None

    return wait_until(answer, seconds, f"{path} with {status}") or {}


def samples(port: int) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return the samples of ``/metrics``: (name, values of the labels in the order of their names) → value."""
    status, body = ask(port, "/metrics")
    assert status == 200
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
