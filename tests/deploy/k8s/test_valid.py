"""All that can be applied renders, and is valid to the last field."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from jsonschema import Draft202012Validator

from tests.deploy.k8s.conftest import EVERYTHING, PRODUCTION, Rendered
from tests.deploy.k8s.kustomize import K8S, Document, read

VERSION = "1.34"
CRDS = Path(os.environ.get("KEDA_CRDS") or K8S.parent.parent / "shared" / "schemas" / "keda")
#: Of CRDs that are not at hand: the monitoring component's own tests read these (tests/deploy/k8s/test_alerts.py).
ELSEWHERE = {"PodMonitor", "PrometheusRule"}


@lru_cache(None)
def validate(text: str) -> None:
    """Hold a document, as JSON, to Kubernetes' schemas; most documents are the same in all renderings."""
    kubernetes_validate.validate(json.loads(text), VERSION, strict=True)


def strict(schema: Any) -> Any:
    """The schema of a CRD, which no field passes that it does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if isinstance(made.get("properties"), dict) and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


@pytest.fixture(scope="module")
def keda() -> dict[str, Draft202012Validator]:
    """Validators of KEDA's kinds."""
    if not CRDS.is_dir():
        pytest.skip(f"KEDA's CRDs are not at {CRDS} (KEDA_CRDS)")
    found = {}
    for path in sorted(CRDS.glob("keda.sh_*.yaml")):
        [document] = read(path.read_text())
        definition = document["spec"]
        [version] = [version for version in definition["versions"] if version["name"] == "v1alpha1"]
        schema = version["schema"]["openAPIV3Schema"]
        # What stands there of metadata is Kubernetes' own, checked with every other document's.
        schema["properties"]["metadata"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        found[definition["names"]["kind"]] = Draft202012Validator(strict(schema))
    return found


def by_group(documents: list[Document], group: str) -> list[Document]:
    """The documents of an API group."""
    return [doc for doc in documents if doc["apiVersion"].startswith(group)]


@pytest.mark.parametrize("name", EVERYTHING)
def test_kubernetes_takes_every_document(name: str, rendered: Rendered) -> None:
    """Kubernetes' published schemas take each document, without an unknown field."""
    documents = [doc for doc in rendered(name) if doc["kind"] not in ELSEWHERE]
    ours = [doc for doc in documents if doc not in by_group(documents, "keda.sh/")]
    assert ours
    for document in ours:
        validate(json.dumps(document))


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name != "logging"])
def test_keda_takes_every_document(name: str, rendered: Rendered, keda: dict[str, Draft202012Validator]) -> None:
    """KEDA's CRDs take its documents, without an unknown field."""
    documents = by_group(rendered(name), "keda.sh/")
    assert {"TriggerAuthentication"} < {document["kind"] for document in documents}
    for document in documents:
        assert [error.message for error in keda[document["kind"]].iter_errors(document)] == []


def test_an_unknown_field_of_keda_is_noticed(rendered: Rendered, keda: dict[str, Draft202012Validator]) -> None:
    """A setting that stands where KEDA does not look, as in many an example, is refused."""
    [scaled_job] = [doc for doc in rendered("scaled-job") if doc["kind"] == "ScaledJob"]
    wrong = {**scaled_job, "spec": {**scaled_job["spec"], "cooldownPeriod": 300}}
    errors = list(keda["ScaledJob"].iter_errors(wrong))
    assert len(errors) == 1
    assert "cooldownPeriod" in errors[0].message


@pytest.mark.parametrize("name", EVERYTHING)
def test_names_are_told_apart(name: str, rendered: Rendered) -> None:
    """No two documents are the same object, and all that lives in a namespace lives in the one of the overlay."""
    # kustomize takes the admission policies for namespaced, which the API server corrects (registry/rest/meta.go).
    cluster = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    documents = rendered(name)
    assert len({(doc["kind"], doc["metadata"]["name"]) for doc in documents}) == len(documents)
    [namespace] = [doc["metadata"]["name"] for doc in documents if doc["kind"] == "Namespace"]
    for document in documents:
        if document["kind"] not in cluster:
            assert document["metadata"].get("namespace") == (None if document["kind"] == "Namespace" else namespace)


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_reference_leads_somewhere(name: str, rendered: Rendered) -> None:
    """ConfigMaps and service accounts that pods name are there, under the names that kustomize gave them."""
    documents = rendered(name)
    maps = {doc["metadata"]["name"] for doc in documents if doc["kind"] == "ConfigMap"}
    accounts = {doc["metadata"]["name"] for doc in documents if doc["kind"] == "ServiceAccount"}
    secrets = {doc["metadata"]["name"] for doc in documents if doc["kind"] == "Secret"}
    # Made by hand before the first apply (docs/deploy/kubernetes.md), or by cert-manager; in dev generated.
    secrets |= {"bucket-brigade-monitor", "bucket-brigade-flower-tls"} if name != "dev" else set()

    def look(part: Any) -> None:
        if isinstance(part, list):
            for item in part:
                look(item)
        elif isinstance(part, dict):
            for key, value in part.items():
                if key in ("configMapRef", "configMap", "configMapKeyRef"):
                    assert value["name"] in maps
                elif key in ("secretRef", "secretKeyRef"):
                    assert value["name"] in secrets
                elif key == "serviceAccountName":
                    assert value in accounts
                look(value)

    for document in documents:
        look(document.get("spec"))
        for reference in (document.get("spec") or {}).get("secretTargetRef", ()):
            assert reference["name"] in secrets


def test_every_component_is_tested() -> None:
    """A new folder under components or overlays is entered in EVERYTHING."""
    folders = {path.parent.name for path in K8S.glob("*/*/kustomization.yaml")}
    assert folders == set(EVERYTHING) - {"jobs-on-spot", "workers-on-spot"}
    offered = {name for names in PRODUCTION.values() for name in names}
    assert offered == {path.parent.name for path in K8S.glob("components/*/kustomization.yaml")} - {"logging"}


def test_an_edited_setting_rolls_the_pods(rendered: Rendered) -> None:
    """The ConfigMaps of settings and tasks carry a hash of their contents in their names."""
    for name in ("production", "tasks-from-configmap", "long-tasks", "archive", "logging", "dev"):
        names = {doc["metadata"]["name"] for doc in rendered(name) if doc["kind"] == "ConfigMap"}
        assert names
        assert all(part.rpartition("-")[2].isalnum() and len(part.rpartition("-")[2]) == 10 for part in names)
