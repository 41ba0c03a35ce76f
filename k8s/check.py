"""Looks at rendered manifests before they are applied: what is left to fill in, and what does not fit together.

    kubectl kustomize k8s/overlays/production | python k8s/check.py

Prints one fault a line. Exit code 0: none; 1: some; 2: nothing to look at. Needs this package with its extra k8s, and
neither a cluster nor AWS.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

try:
    import yaml

    from bridge.delivery.drain import longest_drain_seconds
    from bridge.errors import SettingsError
    from bridge.settings.loading import WorkerSettings, load_monitor_settings, load_queue_settings, load_worker_settings
except ModuleNotFoundError as error:
    sys.stderr.write(
        f"k8s/check.py needs a module that this Python does not have: {error.name}. "
        "Install the package: pip install 'bucket-brigade[k8s]' (in a checkout: pip install '.[k8s]')\n"
    )
    sys.exit(2)

Document = Mapping[str, Any]

PLACEHOLDER = re.compile(r"REPLACE_[A-Z_]*[A-Z]")
#: Registry and path, then a tag, a digest or both.
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/:-]*?(:(?P<tag>[\w][\w.-]*))?(@sha256:[0-9a-f]{64})?")
_DEFAULT_TIME_LIMIT_SECONDS = WorkerSettings.model_fields["task_time_limit_seconds"].default
#: What stands for a value that only the cluster knows.
_FROM_CLUSTER = {"BRIDGE_MONITOR_URL": "redis://bus:6379/0"}


def pod_spec(document: Document) -> dict[str, Any] | None:
    """The pod that a document makes; None when it makes none."""
    spec: dict[str, Any] = document.get("spec") or {}
    if document["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if document["kind"] == "ScaledJob":
        spec = spec["jobTargetRef"]
    found = spec.get("template", {}).get("spec")
    return found if isinstance(found, dict) and "containers" in found else None


def environment(container: Document, documents: Sequence[Document]) -> dict[str, str]:
    """What a container's variables will be: later sources win, as in Kubernetes. Secrets' values are stood in for."""
    maps = {doc["metadata"]["name"]: doc.get("data") or {} for doc in documents if doc["kind"] == "ConfigMap"}
    given: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        given |= maps.get(source.get("configMapRef", {}).get("name"), {})
    for entry in container.get("env", ()):
        name = entry["name"]
        given[name] = entry["value"] if "value" in entry else _FROM_CLUSTER.get(name, "from-the-cluster")
    return given


def capacity(arguments: Sequence[str]) -> int:
    """How many messages a pod with this command holds at once: the worker's window, or the one of a Job."""
    options = dict(part.split("=", 1) for part in arguments if part.startswith("--") and "=" in part)
    if "run-once" in arguments:
        return int(options.get("--max-messages", "1"))
    return int(options["--concurrency"]) * int(options.get("--prefetch-multiplier", "1"))


def faults(documents: Sequence[Document]) -> list[str]:
    """All that is wrong, a line each. Placeholders come alone: with them nothing else can be judged."""
    left = [
        f"{where(document)}: {name} is left to fill in"
        for document in documents
        for name in sorted(set(PLACEHOLDER.findall(yaml.safe_dump(document))))
    ]
    return left or [fault for document in documents for fault in _faults(document, documents)]


def where(document: Document) -> str:
    """``Deployment/bucket-brigade-worker``."""
    return f"{document['kind']}/{document['metadata']['name']}"


def _faults(document: Document, documents: Sequence[Document]) -> Iterator[str]:
    pod = pod_spec(document)
    for container in pod["containers"] + pod.get("initContainers", []) if pod else ():
        if fault := image_fault(container["image"]):
            yield f"{where(document)}: image {container['image']}: {fault}"
        try:
            drain_seconds = _read_settings(container, environment(container, documents))
        except SettingsError as error:
            yield f"{where(document)}: {error}"
            continue
        grace = (pod or {}).get("terminationGracePeriodSeconds", 30)
        if drain_seconds is not None and grace <= longest_drain_seconds(drain_seconds):
            yield (
                f"{where(document)}: terminationGracePeriodSeconds is {grace}, and the drain may take "
                f"{longest_drain_seconds(drain_seconds):g} s (BRIDGE_DRAIN_SECONDS is {drain_seconds:g})"
            )
    if document["kind"] in ("ScaledObject", "ScaledJob"):
        yield from _scaling_faults(document, documents)


def image_fault(image: str) -> str | None:
    """Say why an image's reference may mean something else tomorrow; None when it may not."""
    found = _IMAGE.fullmatch(image)
    if found is None:
        return "is no reference of an image"
    if "@" in image:
        return None
    if found["tag"] in (None, "latest", "stable"):
        return "needs a tag of its own, or a digest"
    return None


def _read_settings(container: Document, given: Mapping[str, str]) -> float | None:
    """Hold a container's variables to its command's rules; return a worker's drain seconds. Raises SettingsError."""
    arguments = container.get("args", ())
    if "worker" in arguments or "run-once" in arguments:
        return load_worker_settings(given).drain_seconds
    if "flower" in arguments:
        load_monitor_settings(given)
    if "flower" in arguments or "exporter" in arguments:
        load_queue_settings(given)
    return None


def _scaling_faults(document: Document, documents: Sequence[Document]) -> Iterator[str]:
    target = document
    if document["kind"] == "ScaledObject":
        name = document["spec"]["scaleTargetRef"]["name"]
        found = [doc for doc in documents if doc["kind"] == "Deployment" and doc["metadata"]["name"] == name]
        if not found:
            yield f"{where(document)}: there is no Deployment {name}"
            return
        [target] = found
    pod = pod_spec(target)
    assert pod is not None  # noqa: S101 - a Deployment or ScaledJob without a pod is refused by their schemas
    container = pod["containers"][0]
    metadata = document["spec"]["triggers"][0]["metadata"]
    given = environment(container, documents)
    holds = capacity(container["args"])
    if metadata["queueLength"] != str(holds):
        yield f"{where(document)}: queueLength is {metadata['queueLength']}, and a pod works on {holds} at once"
    first = given.get("SQS_QUEUE_URL", "").split(",")[0].strip()
    if metadata["queueURL"] != first:
        yield f"{where(document)}: queueURL is {metadata['queueURL']}, and the workers read {first}"
    if document["kind"] == "ScaledJob":
        limit = float(given.get("BRIDGE_TASK_TIME_LIMIT_SECONDS") or _DEFAULT_TIME_LIMIT_SECONDS)
        least = limit + pod.get("terminationGracePeriodSeconds", 30)
        deadline = document["spec"]["jobTargetRef"].get("activeDeadlineSeconds", least + 1)
        if deadline <= least:
            yield (
                f"{where(document)}: activeDeadlineSeconds is {deadline}, and a task may take {limit:g} s, "
                f"its end {least - limit:g} s more (BRIDGE_TASK_TIME_LIMIT_SECONDS is {limit:g})"
            )
    if metadata["awsRegion"] != given.get("AWS_REGION"):
        yield f"{where(document)}: awsRegion is {metadata['awsRegion']}, and AWS_REGION {given.get('AWS_REGION')}"


def main() -> int:
    """Look at what comes on standard input."""
    try:
        documents = [document for document in yaml.safe_load_all(sys.stdin) if document is not None]
    except yaml.YAMLError as error:
        sys.stderr.write(f"this is no YAML: {' '.join(str(error).split())[:200]}\n")
        return 2
    if not documents or not all(isinstance(doc, dict) and {"kind", "metadata"} <= doc.keys() for doc in documents):
        sys.stderr.write("these are no manifests: pipe the output of kubectl kustomize into this\n")
        return 2
    found = faults(documents)
    sys.stdout.writelines(f"{fault}\n" for fault in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
