"""What the results say of the machine."""

from __future__ import annotations

import pytest

from benchmarks.runner import machine


def test_the_versions_of_the_servers_are_told(monkeypatch: pytest.MonkeyPatch):
    """With Java here, ElasticMQ is named with the version that the tests and the bench start."""
    monkeypatch.setattr(machine.shutil, "which", lambda program: program if program == "java" else None)
    found = machine.servers()
    assert found["ElasticMQ"][0].isdigit()
    assert set(found) == {"memory_sqs.py", "delay_proxy.py", "ElasticMQ"}
