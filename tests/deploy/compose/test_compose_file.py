from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from bridge.errors import SettingsError
from bridge.settings import loading as loaders
from bridge.settings.rules import unknown_names
from tests.deploy.compose import compose_file as compose
from tests.docs.test_settings_docs import documented

SERVICES = compose.services()
OURS = sorted(name for name, service in SERVICES.items() if compose.ours(service))
SERVERS = sorted(name for name in SERVICES if not name.startswith("brigade"))
PROJECT = tomllib.loads((compose.REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
AWS = {
    "SQS_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/uploads",
    "AWS_REGION": "eu-west-1",
    "BRIDGE_RESULTS_URL": "s3://my-results/manifests/",
}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_image_is_pinned(name: str) -> None:
    """Each image has an exact version; one that is built here has the project's."""
    image = SERVICES[name]["image"]
    assert re.fullmatch(r"[a-z0-9./-]+:\d+\.\d+\.\d+(-[a-z0-9.]+)?", image)
    if compose.ours(SERVICES[name]):
        assert image.rpartition(":")[2] == PROJECT["version"]


def test_images_are_those_of_the_cluster_and_of_the_tests() -> None:
    """Where the manifests for Kubernetes and the tests use the same server, it is the same version."""
    images = {
        image: tag for image, _, tag in (s["image"].rpartition(":") for s in SERVICES.values() if "build" not in s)
    }
    manifests = "\n".join(file.read_text(encoding="utf-8") for file in (compose.REPOSITORY / "k8s").rglob("*.yaml"))
    for image, tag in images.items():
        assert set(re.findall(rf"image: {re.escape(image)}:(\S+)", manifests)) <= {tag}
    pom = (compose.REPOSITORY / "tests" / "support" / "elasticmq" / "pom.xml").read_text(encoding="utf-8")
    assert f"<version>{images['softwaremill/elasticmq-native']}</version>" in pom


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_this_machine_s_alone(name: str) -> None:
    """Nothing is published but on 127.0.0.1, and no two services take the same port of the machine."""
    ports = SERVICES[name].get("ports", [])
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)
    others = [port.split(":")[1] for other, s in SERVICES.items() if other != name for port in s.get("ports", [])]
    assert not {port.split(":")[1] for port in ports} & set(others)


@pytest.mark.parametrize("name", SERVERS)
def test_servers_have_a_health_check(name: str) -> None:
    """What keeps running says how it is, with a time limit and a command that needs no shell."""
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "retries"} <= set(check)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_services_wait_for_what_they_need(name: str) -> None:
    """A service that names another in its environment or options depends on it, until its health check is content."""
    needed = {
        other
        for other in SERVICES
        for value in compose.environment(SERVICES[name]).values()
        if re.search(rf"//{other}:\d", value)
    } - {name}
    depends = SERVICES[name].get("depends_on", {})
    # Flower shows tasks, and not files: it knows of S3 only because all have one set of addresses.
    assert needed - ({"s3"} if name == "flower" else set()) == set(depends)
    assert all(wanted == {"condition": "service_healthy"} for wanted in depends.values())
    assert not [other for other in depends if "profiles" in SERVICES[other]]


@pytest.mark.parametrize("name", OURS)
def test_settings_are_known(name: str) -> None:
    """Every variable of ours is one that settings know."""
    names = compose.environment(SERVICES[name], dict.fromkeys(SERVICES[name]["environment"], "x"))
    assert unknown_names(names, documented()) == []
    foreign = {n for n in names if not n.startswith(("AWS_", "BRIDGE_", "SQS_", "FLOWER_"))}
    assert not foreign


@pytest.mark.parametrize("name", ["flower", "flower-aws"])
def test_flower_s_options_are_flower_s(name: str) -> None:
    """Every FLOWER_ variable is an option of Flower's, which would pass over any other without a word."""
    from flower.options import options

    given = {n for n in compose.environment(SERVICES[name]) if n.startswith("FLOWER_")}
    assert given
    assert {n.removeprefix("FLOWER_").lower() for n in given} <= set(options.as_dict())


@pytest.mark.parametrize("name", OURS)
def test_settings_are_sound(name: str) -> None:
    """Each service's settings are complete and in range: what it loads at its start is accepted."""
    given = compose.environment(SERVICES[name], AWS)
    if name.startswith("worker"):
        loaders.load_worker_settings(given)
    elif name.startswith("brigade"):
        assert loaders.load_operator_settings(given).task_modules
    else:
        assert loaders.load_queue_settings(given).sqs_queue_urls
    if name.startswith(("worker", "flower")):
        assert loaders.load_monitor_settings(given).monitor_url is not None


def test_aws_needs_its_queue() -> None:
    """Without SQS_QUEUE_URL in the shell the worker for AWS refuses, and says so; the file itself stays usable."""
    with pytest.raises(SettingsError, match="SQS_QUEUE_URL is not set"):
        loaders.load_worker_settings(compose.environment(SERVICES["worker-aws"]))


def test_aws_is_not_started_unasked() -> None:
    """`up` starts the local system alone; nothing for AWS has an endpoint or a credential of its own."""
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == {
        *("elasticmq", "s3", "valkey", "worker", "flower"),
    }
    for name in ("worker-aws", "flower-aws", "brigade-aws"):
        assert not [n for n in compose.environment(SERVICES[name]) if n.startswith(("AWS_", "SQS_"))]


@pytest.mark.parametrize("name", OURS)
def test_our_containers_are_closed(name: str) -> None:
    """Root file system read-only, no capabilities, no way to new privileges; /tmp is there to write to."""
    service = SERVICES[name]
    assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"])  # noqa: S108 - read
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", ["worker", "worker-aws"])
def test_a_worker_may_drain(name: str) -> None:
    """Compose kills a worker as late as Kubernetes does; tests/deploy/k8s holds that grace period to the drain's."""
    settings = loaders.load_worker_settings(compose.environment(SERVICES[name], AWS))
    assert settings.drain_seconds == type(settings).model_fields["drain_seconds"].default
    manifest = (compose.REPOSITORY / "k8s" / "base" / "worker.yaml").read_text(encoding="utf-8")
    [grace] = re.findall(r"terminationGracePeriodSeconds: (\d+)", manifest)
    assert SERVICES[name]["stop_grace_period"] == f"{grace}s"


def test_volumes_are_there() -> None:
    """Each named volume is declared and used; each folder of the machine that is mounted exists, and is read only."""
    content = compose.load()
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
    named = set()
    for mount in mounts:
        if isinstance(mount, dict):
            assert mount["read_only"]
            assert (compose.REPOSITORY / mount["source"]).is_dir()
        elif mount.startswith("."):
            source, _, mode = mount.split(":")
            assert (compose.REPOSITORY / source).exists()
            assert mode == "ro"
        else:
            named.add(mount.split(":")[0])
    assert named == set(content["volumes"])


def test_the_queues_are_those_of_the_config_file() -> None:
    """SQS_QUEUE_URL names a queue of compose/elasticmq.conf with its DLQ, by the account and region of that file."""
    text = (compose.REPOSITORY / "compose" / "elasticmq.conf").read_text(encoding="utf-8")
    given = compose.environment(SERVICES["worker"])
    account, queue = given["SQS_QUEUE_URL"].split("/")[-2:]
    assert re.search(rf"accountId = {account}\b", text)
    assert re.search(rf"region = {given['AWS_REGION']}\b", text)
    assert re.search(rf"(?m)^  {queue} {{", text)
    assert re.search(rf"(?m)^  {queue}-dlq {{}}", text)
    assert "./compose/elasticmq.conf:/opt/elasticmq.conf:ro" in SERVICES["elasticmq"]["volumes"]


def test_own_tasks_are_where_the_image_looks() -> None:
    """compose/tasks is mounted where PYTHONPATH of the image points to."""
    [path] = set(re.findall(r"PYTHONPATH=([^: ]+) \\", compose.DOCKERFILE))
    for name in ("worker", "brigade", "worker-aws", "brigade-aws"):
        assert path in [m["target"] for m in SERVICES[name]["volumes"] if isinstance(m, dict)]


def test_the_docs_name_every_service() -> None:
    """docs/deploy/compose.md has every service and every published port."""
    docs = (compose.REPOSITORY / "docs" / "deploy" / "compose.md").read_text(encoding="utf-8")
    for name, service in SERVICES.items():
        assert f"`{name}`" in docs
        assert all(port.rpartition(":")[0] in docs for port in service.get("ports", []))


def test_the_reader_reads_what_compose_reads() -> None:
    """Defaults, the shell's values, merged anchors and variables without a value."""
    shell = {"BRIDGE_TASK_MODULES": "my_tasks", "SQS_QUEUE_URL": "u"}
    service = compose.services(shell)["worker-aws"]
    given = compose.environment(service, shell)
    assert (given["BRIDGE_TASK_MODULES"], given["SQS_QUEUE_URL"], "AWS_REGION" in given) == ("my_tasks", "u", False)
    assert compose.environment(SERVICES["worker"])["BRIDGE_TASK_MODULES"] == "tasks.describe"
    assert Path(compose.command_line(service)[0]).name == "dumb-init"
    assert yaml.safe_load("a: &a {b: 1}\nc: {<<: *a}")["c"] == {"b": 1}
