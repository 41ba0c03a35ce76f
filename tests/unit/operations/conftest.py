"""The command line as people use it: as a process of its own, or, where only words are judged, in this one."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from dataclasses import dataclass

import pytest

from bridge import cli
from bridge.s3 import clients as s3_clients
from bridge.s3.clients import forget_clients
from tests.support.servers.sqs import SqsServer


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def brigade_process(tmp_path):
    """Runs ``brigade …`` in a process with exactly this environment."""

    def run(env, *args: str) -> Done:
        command = [sys.executable, "-W", "error", "-m", "bridge", *args]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def brigade(monkeypatch, capsys, tmp_path):
    """Runs ``brigade …`` in this process, which takes a tenth of the time, with this environment."""
    monkeypatch.chdir(tmp_path)

    def run(env, *args: str) -> Done:
        with monkeypatch.context() as patched:
            for name in [name for name in os.environ if name.startswith(("AWS_", "BRIDGE_", "CELERY_", "SQS_"))]:
                patched.delenv(name)
            for name, value in env.items():
                if name != "PYTHONPATH":
                    patched.setenv(name, value)
            patched.setattr(sys, "argv", ["brigade", *args])
            forget_clients()
            try:
                with pytest.raises(SystemExit) as end:
                    cli.main()
                code = end.value.code
            finally:
                for client in s3_clients._clients._by_region.values():
                    client.close()
                forget_clients()
        captured = capsys.readouterr()
        return Done(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


@pytest.fixture
def bucket(moto_server):
    """A new bucket on moto, emptied and deleted afterwards."""
    names = []

    def make(*, versions: bool = False) -> str:
        name = f"setup-{uuid.uuid4().hex[:12]}"
        moto_server.s3.create_bucket(Bucket=name)
        if versions:
            moto_server.s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        names.append(name)
        return name

    yield make
    for name in names:
        moto_server.s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={})
        for page in moto_server.s3.get_paginator("list_object_versions").paginate(Bucket=name):
            for entry in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                moto_server.s3.delete_object(Bucket=name, Key=entry["Key"], VersionId=entry["VersionId"])
        moto_server.s3.delete_bucket(Bucket=name)


def drained(server: SqsServer, url: str) -> list[str]:
    """The bodies of all messages of a queue, which is empty afterwards."""
    bodies = []
    while messages := server.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=0).get(
        "Messages", []
    ):
        bodies += [message["Body"] for message in messages]
        entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
        server.sqs.delete_message_batch(QueueUrl=url, Entries=entries)  # type: ignore[arg-type]  # the stub's TypedDict
    return bodies
