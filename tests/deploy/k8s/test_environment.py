"""Every variable in the manifests is one that somebody reads, the required ones are there, none by accident."""

from __future__ import annotations

import re
from types import ModuleType

import pytest
from flower.options import options as flower_options

from bridge.settings.loading import load_worker_settings
from bridge.settings.model import WorkerSettings
from tests.deploy.k8s.conftest import EVERYTHING, Rendered
from tests.deploy.k8s.kustomize import K8S

OURS = {str(field.validation_alias) for field in WorkerSettings.model_fields.values() if field.validation_alias}
#: Of others: Python, the AWS SDK (docs/reference/settings.md), and variables that the manifests themselves use.
THEIRS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_ENDPOINT_URL_SQS",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "LOG_GROUP",
    "LOG_RETENTION_DAYS",
    "NODE_NAME",
    "PYTHONPATH",
    "VALKEY_PASSWORD",
    "WORKER_NAMESPACE",
}
#: What starts a setting of ours, of Flower or of Celery.
PREFIXES = ("BRIDGE_", "SQS_", "FLOWER_", "CELERY_", "AWS_")


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_variable_is_known(name: str, rendered: Rendered, check: ModuleType) -> None:
    """No variable of a container, and none of a ConfigMap that fills some, is a name that nobody reads."""
    documents = rendered(name)
    looked_at = 0
    for document in documents:
        pod = check.pod_spec(document)
        for container in pod["containers"] if pod else ():
            given = check.environment(container, documents)
            unknown = {
                variable
                for variable in given
                if variable not in OURS | THEIRS
                and not (variable.startswith("FLOWER_") and variable[7:].lower() in flower_options.as_dict())
            }
            assert unknown == set()
            looked_at += 1
    assert looked_at


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name != "logging"])
def test_a_worker_would_start_with_them(name: str, rendered: Rendered, check: ModuleType) -> None:
    """Whatever runs the worker has all required settings, in range; its logs are JSON lines with the pod's name."""
    documents = rendered(name)
    workers = [
        container
        for document in documents
        if (pod := check.pod_spec(document))
        for container in pod["containers"]
        if {"worker", "run-once"} & set(container.get("args", ()))
    ]
    assert len(workers) == 1
    settings = load_worker_settings(check.environment(workers[0], documents))
    assert settings.sqs_queue_urls
    assert settings.task_modules
    assert settings.log_format == "json"
    fields = {entry["name"]: entry.get("valueFrom", {}).get("fieldRef") for entry in workers[0]["env"]}
    assert fields["BRIDGE_POD_NAME"] == {"fieldPath": "metadata.name"}


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name not in ("logging", "dev")])
def test_production_has_an_idempotency_store(name: str, rendered: Rendered, check: ModuleType) -> None:
    """The production overlay makes repeats harmless."""
    documents = rendered(name)
    [settings] = [d["data"] for d in documents if d["metadata"]["name"].startswith("bridge-settings-")]
    assert settings["BRIDGE_IDEMPOTENCY_URL"] == "dynamodb://bucket-brigade"


@pytest.mark.parametrize("name", EVERYTHING)
def test_no_secret_is_in_a_config_map(name: str, rendered: Rendered) -> None:
    """What a secret could be in comes from a Secret."""
    for document in rendered(name):
        for variable, value in (document.get("data") or {}).items() if document["kind"] == "ConfigMap" else ():
            assert variable not in ("BRIDGE_MONITOR_URL", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")
            assert not re.search(r"://[^/\s]*:[^/\s]*@", value)


@pytest.mark.parametrize("name", EVERYTHING)
def test_no_service_makes_settings(name: str, rendered: Rendered, check: ModuleType) -> None:
    """No Service has a name whose variables look like settings, and no pod is given such variables at all."""
    for document in rendered(name):
        if document["kind"] == "Service":
            assert not f"{document['metadata']['name'].upper().replace('-', '_')}_".startswith(PREFIXES)
        pod = check.pod_spec(document)
        if pod is not None:
            assert pod["enableServiceLinks"] is False


def test_commented_settings_are_settings() -> None:
    """What settings.env offers in comments are names that the worker knows."""
    offered = re.findall(r"(?m)^#?([A-Z][A-Z_]+)=", (K8S / "overlays/production/settings.env").read_text())
    assert {"BRIDGE_DRAIN_SECONDS", "SQS_QUEUE_URL"} < set(offered)
    assert set(offered) <= OURS | THEIRS
