"""What `docker compose up` starts, as plain processes: the main job through all of it, and the end of each."""

from __future__ import annotations

import base64
import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import pytest

from bridge.settings.rules import in_force
from tests.deploy.compose.compose_file import image_entrypoint
from tests.deploy.compose.plain_processes import Machine, Service
from tests.support.servers import elasticmq
from tests.support.servers.redis import missing_server
from tests.support.servers.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.elasticmq]
END_SECONDS = 60.0
#: In the order in which Compose starts them, by depends_on.
STARTED = ("elasticmq", "s3", "valkey", "flower", "worker")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, dict[str, Service]]]:
    """All services of `up`, each healthy before those that depend on it are started."""
    missing = elasticmq.missing_tool() or missing_server()
    if not missing and not shutil.which(image_entrypoint()[0], path=_search_path()):
        missing = "needs `dumb-init` in the virtual environment (there is none but for Linux)"
    if missing:
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    machine = Machine(tmp_path_factory.mktemp("compose"))
    with ExitStack() as stack:
        yield machine, {name: stack.enter_context(Service(machine, name)) for name in STARTED}


def _search_path() -> str:
    return Machine(Path("/")).environment("worker")["PATH"]


def s3(machine: Machine) -> Any:
    """An S3 client for the local S3."""
    given = machine.environment("worker")
    session = boto3.session.Session(given["AWS_ACCESS_KEY_ID"], given["AWS_SECRET_ACCESS_KEY"], None, "eu-central-1")
    return session.client("s3", endpoint_url=given["AWS_ENDPOINT_URL_S3"])


def manifests(machine: Machine) -> dict[str, dict[str, Any]]:
    """Key of the object → its manifest, as far as there are any."""
    client = s3(machine)
    try:
        found = client.list_objects_v2(Bucket="results", Prefix="manifests/").get("Contents", [])
        read = [json.load(client.get_object(Bucket="results", Key=entry["Key"])["Body"]) for entry in found]
    finally:
        client.close()
    return {manifest["object"]["key"]: manifest for manifest in read}


def flower_tasks(machine: Machine, credentials: str = "local:local") -> list[dict[str, Any]]:
    """What Flower's API tells."""
    request = urllib.request.Request(f"http://127.0.0.1:{machine.ports['flower']}/api/tasks")
    request.add_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - http, ours
        return list(json.load(answer).values())


def test_a_file_goes_all_the_way(up: tuple[Machine, dict[str, Service]]) -> None:
    """`run brigade put FILE` uploads, S3 announces, the worker describes, and Flower shows the task with its object."""
    machine, _ = up
    name = "a b & ü.csv"
    (machine.folder / name).write_bytes(b"n\n1\n2\n")

    done = machine.run("brigade", "put", name)

    assert (done.returncode, done.stderr) == (0, "")
    assert "uploaded s3://uploads/" in done.stdout
    assert "sent no event" in done.stdout  # the bucket's own is forwarded; a second one would be a second task
    wait_until(lambda: name in manifests(machine), END_SECONDS, f"the manifest of {name}")
    assert (manifests(machine)[name]["size"], manifests(machine)[name]["lines"]) == (6, 3)
    shown = wait_until(
        lambda: [t for t in flower_tasks(machine) if name in str(t["args"]) and t["state"] == "SUCCESS"],
        END_SECONDS,
        "the task in Flower",
    )
    assert shown[0]["name"] == "tasks.describe.describe"


def test_a_dead_letter_is_listed(up: tuple[Machine, dict[str, Service]]) -> None:
    """Garbage ends in the DLQ of the config file, and `run brigade dlq list` shows it with its cause."""
    machine, _ = up
    assert machine.run("brigade", "send", "garbage").returncode == 0
    wait_until(
        lambda: "malformed" in machine.run("brigade", "dlq", "list").stdout, END_SECONDS, "the dead letter in the list"
    )


def test_flower_asks_who_is_there(up: tuple[Machine, dict[str, Service]]) -> None:
    """Flower listens for the network of the containers, so a wrong password is refused."""
    machine, _ = up
    with pytest.raises(urllib.error.HTTPError) as refused:
        flower_tasks(machine, "local:wrong")
    refused.value.close()
    assert refused.value.code == 401


def test_the_doctor_is_content(up: tuple[Machine, dict[str, Service]]) -> None:
    """`run brigade doctor` finds no error but the one that ElasticMQ cannot help."""
    machine, _ = up
    done = machine.run("brigade", "doctor", "--json")
    findings = json.loads(done.stdout)["findings"]
    assert len(findings) > 5
    # ElasticMQ keeps no queue policy; it lets everybody send.
    assert {f["check"] for f in findings if f["level"] == "error"} <= {"queue policy"}


def test_everything_stops_when_told(up: tuple[Machine, dict[str, Service]]) -> None:
    """SIGTERM to process 1 of each of ours is exit code 0 without a traceback, and Flower has kept what it knew."""
    machine, services = up
    for name in ("worker", "flower", "s3"):
        assert services[name].stop() == 0, services[name].output()[-2000:]
        assert "Traceback" not in services[name].output()
    assert list(machine.folder.glob("flower*"))
    assert in_force(machine.environment("flower"))["FLOWER_DB"].startswith(str(machine.folder))
