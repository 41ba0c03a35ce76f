"""The numbers that work depends on: scaling, drain budgets, probes, disruptions, and what belongs together."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from bridge.delivery.drain import longest_drain_seconds
from bridge.settings.loading import load_worker_settings
from tests.deploy.k8s.conftest import EVERYTHING, Rendered
from tests.deploy.k8s.kustomize import K8S, Document, one

WITH_WORKERS = [name for name in EVERYTHING if name not in ("logging", "scaled-job", "jobs-on-spot")]
WITH_JOBS = ["scaled-job", "jobs-on-spot"]


def scaled_object(documents: list[Document]) -> dict[str, Any]:
    """The spec of the workers' ScaledObject."""
    spec: dict[str, Any] = one(documents, "ScaledObject", "bucket-brigade-worker")["spec"]
    return spec


def worker(documents: list[Document]) -> dict[str, Any]:
    """The template of the worker's pods."""
    template: dict[str, Any] = one(documents, "Deployment", "bucket-brigade-worker")["spec"]["template"]
    return template


def job(documents: list[Document]) -> dict[str, Any]:
    """The spec of the ScaledJob."""
    spec: dict[str, Any] = one(documents, "ScaledJob", "bucket-brigade-run-once")["spec"]
    return spec


def test_scaling_defaults(rendered: Rendered) -> None:
    """The ScaledObject has the recommended defaults, counts what is in work, and shrinks slowly, a pod at a time."""
    documents = rendered("production")
    spec = scaled_object(documents)
    assert (spec["pollingInterval"], spec["cooldownPeriod"]) == (10, 300)
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 10)
    [trigger] = spec["triggers"]
    assert trigger["type"] == "aws-sqs-queue"
    assert trigger["metadata"] == {
        "queueURL": "https://sqs.eu-west-1.amazonaws.com/123456789012/uploads",
        "awsRegion": "eu-west-1",
        "queueLength": "4",
        "scaleOnInFlight": "true",
    }
    down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= 300
    assert [(policy["type"], policy["value"]) for policy in down["policies"]] == [("Pods", 1)]
    assert one(documents, "TriggerAuthentication", trigger["authenticationRef"]["name"])["spec"] == {
        "podIdentity": {"provider": "aws", "identityOwner": "keda"}
    }


@pytest.mark.parametrize("name", WITH_WORKERS)
def test_an_apply_does_not_scale(name: str, rendered: Rendered) -> None:
    """The worker Deployment names no replicas, which an apply would set back under KEDA's hands."""
    assert "replicas" not in one(rendered(name), "Deployment", "bucket-brigade-worker")["spec"]


def test_only_the_first_of_several_queues_is_scaled_on(tmp_path: Path, rendered: Rendered) -> None:
    """With queues separated by commas, KEDA is given the first one whole."""
    from tests.deploy.k8s.kustomize import copy, fill_in, render

    rendered("production")
    k8s = copy(tmp_path)
    fill_in(k8s)
    path = k8s / "overlays/production/settings.env"
    url = "https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"
    path.write_text(path.read_text().replace(url, f"{url},{url}-2"))
    assert scaled_object(render(path.parent))["triggers"][0]["metadata"]["queueURL"] == url


@pytest.mark.parametrize("name", EVERYTHING)
def test_what_belongs_together_agrees(name: str, rendered: Rendered, check: ModuleType) -> None:
    """QueueLength is the worker's window, KEDA reads the workers' queue, the grace period exceeds the drain."""
    assert check.faults(rendered(name)) == []


@pytest.mark.parametrize("name", [*WITH_WORKERS, *WITH_JOBS])
def test_the_grace_period_exceeds_the_drain(name: str, rendered: Rendered, check: ModuleType) -> None:
    """A pod has more time to end than the sum of all budgets of its drain."""
    documents = rendered(name)
    pod = job(documents)["jobTargetRef"]["template"]["spec"] if name in WITH_JOBS else worker(documents)["spec"]
    settings = load_worker_settings(check.environment(pod["containers"][0], documents))
    budget = longest_drain_seconds(settings.drain_seconds)
    assert budget < pod["terminationGracePeriodSeconds"] < budget + 60


@pytest.mark.parametrize("name", ["spot", "workers-on-spot", "jobs-on-spot"])
def test_spot_workers_end_within_the_notice(name: str, rendered: Rendered) -> None:
    """AWS gives two minutes; a pod there needs less, and may run on the tainted nodes and on no others by force."""
    documents = rendered(name)
    pod = job(documents)["jobTargetRef"]["template"]["spec"] if name in WITH_JOBS else worker(documents)["spec"]
    assert pod["terminationGracePeriodSeconds"] <= 100
    [toleration] = pod["tolerations"]
    assert list(pod["affinity"]["nodeAffinity"]) == ["preferredDuringSchedulingIgnoredDuringExecution"]
    pool = yaml.safe_load((K8S / "components/spot/nodepool.yaml").read_text())["spec"]
    [taint] = pool["template"]["spec"]["taints"]
    assert {key: toleration[key] for key in ("key", "value", "effect")} == taint
    assert pool["template"]["spec"]["terminationGracePeriod"] == "10m"


def test_long_tasks_are_left_alone(rendered: Rendered, check: ModuleType) -> None:
    """With long-tasks a pod runs one task, may finish for hours, and its node is not emptied under it."""
    documents = rendered("long-tasks")
    template = worker(documents)
    given = check.environment(template["spec"]["containers"][0], documents)
    settings = load_worker_settings(given)
    assert settings.drain_seconds == 7200
    assert settings.task_time_limit_seconds == 14400
    assert template["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
    assert scaled_object(documents)["triggers"][0]["metadata"]["queueLength"] == "1"
    down = scaled_object(documents)["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] > 300


@pytest.mark.parametrize("name", ["long-tasks", "archive"])
def test_settings_of_the_overlay_win_over_those_of_a_component(name: str, rendered: Rendered) -> None:
    """A component's settings are defaults: settings.env comes after them."""
    [container] = worker(rendered(name))["spec"]["containers"]
    sources = [source["configMapRef"]["name"] for source in container["envFrom"]]
    assert [source.rpartition("-")[0] for source in sources][1:] == ["bridge-settings"]
    assert len(sources) == 2


def test_the_archive_keeps_its_pace(rendered: Rendered, check: ModuleType) -> None:
    """The archive polls every 30 s for ten messages, in one pod, with tasks.archive alone."""
    documents = rendered("archive")
    [container] = worker(documents)["spec"]["containers"]
    settings = load_worker_settings(check.environment(container, documents))
    assert settings.task_modules == ("tasks.archive",)
    assert (settings.poll_mode, settings.poll_interval_seconds, settings.max_messages_per_poll) == ("paced", 30, 10)
    assert check.capacity(container["args"]) == 10
    assert scaled_object(documents)["maxReplicaCount"] == 1


@pytest.mark.parametrize("name", WITH_JOBS)
def test_a_scaled_job_runs_once(name: str, rendered: Rendered) -> None:
    """One pod a Job and no second try, bounded in time and history, and no Job for what is in work already."""
    documents = rendered(name)
    assert {"ScaledObject", "PodDisruptionBudget", "Role"}.isdisjoint(doc["kind"] for doc in documents)
    assert "bucket-brigade-worker" not in {d["metadata"]["name"] for d in documents if d["kind"] == "Deployment"}
    spec = job(documents)
    assert (spec["pollingInterval"], spec["maxReplicaCount"]) == (10, 10)
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (3, 5)
    assert spec["rollout"] == {"strategy": "gradual"}
    [trigger] = spec["triggers"]
    pairs = {("accurate", "false"), ("default", "true")}
    assert (spec["scalingStrategy"]["strategy"], trigger["metadata"]["scaleOnInFlight"]) in pairs
    assert trigger["metadata"]["queueLength"] == "1"
    target = spec["jobTargetRef"]
    assert (target["backoffLimit"], target["parallelism"], target["completions"]) == (0, 1, 1)
    pod = target["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["containers"][0]["args"][:2] == ["brigade", "run-once"]
    limit, idle_seconds = 3600, 20
    assert target["activeDeadlineSeconds"] > limit + idle_seconds + pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("name", WITH_WORKERS)
def test_probes_ask_the_health_port(name: str, rendered: Rendered, check: ModuleType) -> None:
    """The kubelet reaches the worker's health on all addresses, and gives a start two minutes."""
    documents = rendered(name)
    [container] = worker(documents)["spec"]["containers"]
    settings = load_worker_settings(check.environment(container, documents))
    assert settings.health_host == "0.0.0.0"  # noqa: S104 - the kubelet comes from outside the pod
    assert container["ports"] == [{"name": "health", "containerPort": settings.health_port}]
    asked = {kind: container[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert asked == {
        "startupProbe": {"path": "/live", "port": "health"},
        "livenessProbe": {"path": "/live", "port": "health"},
        "readinessProbe": {"path": "/ready", "port": "health"},
    }
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 120


@pytest.mark.parametrize("name", WITH_WORKERS)
def test_disruptions_take_one_pod_at_a_time(name: str, rendered: Rendered) -> None:
    """The budget covers the workers, lets nodes be drained, and a rollout never goes below what runs."""
    documents = rendered(name)
    budget = one(documents, "PodDisruptionBudget", "bucket-brigade-worker")["spec"]
    template = worker(documents)
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert budget["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    strategy = one(documents, "Deployment", "bucket-brigade-worker")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "cluster-autoscaler.kubernetes.io/safe-to-evict" in template["metadata"]["annotations"]
    assert {part["topologyKey"] for part in template["spec"]["topologySpreadConstraints"]} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }
