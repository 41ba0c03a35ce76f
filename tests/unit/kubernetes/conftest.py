"""A cluster for the tests: that of ``KUBECONFIG`` where it is set, else the stand-in."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from bridge.kubernetes.job_api import connected
from tests.support.kube_stand_in import KubeStandIn

KUBECONFIG = os.environ.get("KUBECONFIG")


@dataclass
class Cluster:
    """A namespace of its own in a cluster, seen through the official client; ``stand_in`` is None in a real one."""

    kubeconfig: Path
    namespace: str
    batch: client.BatchV1Api
    stand_in: KubeStandIn | None

    def jobs(self) -> dict[str, dict[str, Any]]:
        """Return every Job by its name, as the API's JSON has it."""
        items = self.batch.list_namespaced_job(self.namespace).items
        return {job.metadata.name: self.batch.api_client.sanitize_for_serialization(job) for job in items}

    def create(self, job: dict[str, Any]) -> None:
        """Create a Job."""
        self.batch.create_namespaced_job(self.namespace, job)

    def end(self, name: str, how: str) -> None:
        """Let a Job end now: ``how`` is ``Complete`` or ``Failed``. A status as the Job controller writes it."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        first = "SuccessCriteriaMet" if how == "Complete" else "FailureTarget"
        stamp = {"status": "True", "lastProbeTime": now, "lastTransitionTime": now}
        reason = {} if how == "Complete" else {"reason": "BackoffLimitExceeded", "message": "by the test"}
        status: dict[str, Any] = {"startTime": now, "active": 0, "ready": 0, "terminating": 0}
        # A real API server takes the last condition only after the first.
        self.batch.patch_namespaced_job_status(
            name, self.namespace, {"status": {**status, "conditions": [{"type": first, **stamp, **reason}]}}
        )
        conditions = [{"type": kind, **stamp, **reason} for kind in (first, how)]
        if how == "Complete":
            status |= {"succeeded": 1, "completionTime": now}
        self.batch.patch_namespaced_job_status(name, self.namespace, {"status": {**status, "conditions": conditions}})


@contextmanager
def stand_in_cluster(folder: Path) -> Iterator[Cluster]:
    """The stand-in, for what only it can be told to do."""
    with KubeStandIn() as site, _seen(site.write_kubeconfig(folder / "kubeconfig", "brigade"), "brigade", site) as it:
        yield it


@contextmanager
def any_cluster(folder: Path) -> Iterator[Cluster]:
    """The cluster of KUBECONFIG, in a namespace of its own, else the stand-in."""
    if KUBECONFIG is None:
        with stand_in_cluster(folder) as it:
            yield it
        return
    namespace = f"brigade-{uuid.uuid4().hex[:8]}"
    content = yaml.safe_load(Path(KUBECONFIG).read_text())
    for context in content["contexts"]:
        context["context"]["namespace"] = namespace
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    core = client.CoreV1Api(config.new_client_from_config(str(path)))
    core.create_namespace({"metadata": {"name": namespace}})
    try:
        with _seen(path, namespace, None) as it:
            yield it
    finally:
        core.delete_namespace(namespace)
        core.api_client.close()


@contextmanager
def _seen(path: Path, namespace: str, site: KubeStandIn | None) -> Iterator[Cluster]:
    api = config.new_client_from_config(str(path))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KUBECONFIG", str(path))
        connected.cache_clear()
        try:
            yield Cluster(path, namespace, client.BatchV1Api(api), site)
        finally:
            connected.cache_clear()
            api.close()


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[Cluster]:
    """The stand-in."""
    with stand_in_cluster(tmp_path) as it:
        yield it


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """The cluster of KUBECONFIG, else the stand-in."""
    with any_cluster(tmp_path) as it:
        yield it
