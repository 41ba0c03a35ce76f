"""What tasks.launch_job asks for when a worker starts, and the metric of its Jobs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from bridge import metrics
from tasks import launch_job as module
from tests.unit.test_package import modules_after


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The line with which the start is refused."""
    with pytest.raises(SystemExit) as caught:
        module._refuse_without_means()
    assert caught.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture(autouse=True)
def _somewhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cluster of the developer's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def test_without_a_cluster_a_worker_does_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    """A worker that has no way to a cluster says where it looked."""
    assert refusal(capsys) == (
        "bridge: tasks.launch_job finds no cluster: it runs in a pod, or with KUBECONFIG or ~/.kube/config"
    )


def test_without_the_client_a_worker_does_not_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker without the extra says how to install it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refusal(capsys) == "bridge: tasks.launch_job needs kubernetes: pip install 'bucket-brigade[k8s]'"


def test_with_an_unfit_template_a_worker_does_not_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A template that could never become a Job is refused before the first message."""
    path = tmp_path / "job.yaml"
    path.write_text("kind: Pod")
    monkeypatch.setenv("BRIDGE_JOB_TEMPLATE", str(path))
    assert refusal(capsys) == f"bridge: BRIDGE_JOB_TEMPLATE={path}: must be of apiVersion batch/v1 and kind Job"


@pytest.mark.parametrize("name", ["KUBECONFIG", "KUBERNETES_SERVICE_HOST"])
def test_with_a_cluster_a_worker_starts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packaged template, and a pod's or a person's way to a cluster, are enough."""
    monkeypatch.setenv(name, "x")
    module._refuse_without_means()


@pytest.mark.slow
def test_the_workers_parent_loads_no_client() -> None:
    """Importing the task, as the parent process does, brings neither the Kubernetes client nor the AWS SDK."""
    assert not {"kubernetes", "boto3", "pydantic"} & modules_after("import tasks.launch_job, tasks.archive")


def test_launched_jobs_are_counted() -> None:
    """The metric follows the runs that the parent process has counted: those of this task, and no other's."""
    name = module.launch_job.name
    for outcome, times in (("succeeded", 3), ("retried", 2), ("failed", 1)):
        metrics.task_runs.labels(name, outcome).inc(times)
    metrics.task_runs.labels("another.task", "succeeded").inc(7)

    exposed = generate_latest().decode()

    assert [line for line in exposed.splitlines() if line.startswith("bridge_jobs_launched_total{")] == [
        'bridge_jobs_launched_total{result="launched"} 3.0',
        'bridge_jobs_launched_total{result="retried"} 2.0',
        'bridge_jobs_launched_total{result="refused"} 1.0',
    ]
    for outcome in ("succeeded", "retried", "failed"):
        metrics.task_runs.remove(name, outcome)
    metrics.task_runs.remove("another.task", "succeeded")
