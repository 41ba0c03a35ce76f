"""k8s/components/job-launcher: it renders, is valid, and gives the rights that are used and no others."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from bridge.cli.jobs import command as jobs_command
from tasks.launch_job import DEFAULT_TEMPLATE, read_template
from tests import REPOSITORY
from tests.support.kube_stand_in import VERSION

COMPONENT = REPOSITORY / "k8s" / "components" / "job-launcher"
WORKER = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: whatever
  labels: {app.kubernetes.io/name: worker, app.kubernetes.io/part-of: bucket-brigade}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      automountServiceAccountToken: false
      containers: [{name: worker, image: bucket-brigade, env: [{name: BRIDGE_TASK_MODULES, value: my_files}]}]
"""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """What kustomize makes of the component and a worker, by kind and name."""
    if shutil.which("kubectl") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("kubectl is not installed")
    folder = tmp_path_factory.mktemp("overlay")
    (folder / "worker.yaml").write_text(WORKER)
    path = os.path.relpath(COMPONENT, folder.resolve())
    (folder / "kustomization.yaml").write_text(f"resources: [worker.yaml]\ncomponents: [{path}]\nnamespace: jobs\n")
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {(doc["kind"], doc["metadata"]["name"]): doc for doc in yaml.safe_load_all(done.stdout)}


def test_every_document_is_valid(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Kubernetes' published schemas take each document, without an unknown field."""
    for document in rendered.values():
        kubernetes_validate.validate(document, VERSION, strict=True)
    assert len({kind for kind, _ in rendered}) == 6


def test_rights_are_those_that_are_used(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    """The worker may create Jobs, the cleaner list and delete them, and nobody anything else."""
    roles = {name: document["rules"] for (kind, name), document in rendered.items() if kind == "Role"}
    verbs = {"launcher": ["create"], "cleaner": ["list", "delete"], "operator": ["get", "list", "delete"]}
    assert roles == {
        f"bucket-brigade-job-{who}": [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": may}]
        for who, may in verbs.items()
    }
    bound = {
        document["roleRef"]["name"]: [subject["name"] for subject in document["subjects"]]
        for (kind, _), document in rendered.items()
        if kind == "RoleBinding"
    }
    assert bound == {
        "bucket-brigade-job-launcher": ["bucket-brigade-worker"],
        "bucket-brigade-job-cleaner": ["bucket-brigade-job-cleaner"],
    }


def test_the_worker_gets_task_template_and_token(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    """The worker runs tasks.launch_job with the ConfigMap's template and its service account's token."""
    pod = rendered["Deployment", "whatever"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert env == {"BRIDGE_TASK_MODULES": "tasks.launch_job", "BRIDGE_JOB_TEMPLATE": "/etc/bucket-brigade/job.yaml"}
    assert pod["automountServiceAccountToken"] is True
    [config_map] = [document for (kind, _), document in rendered.items() if kind == "ConfigMap"]
    assert pod["volumes"] == [{"name": "job-template", "configMap": {"name": config_map["metadata"]["name"]}}]
    assert container["volumeMounts"][0]["mountPath"] == "/etc/bucket-brigade"
    assert list(config_map["data"]) == ["job.yaml"]


def test_the_example_is_the_packaged_template() -> None:
    """The template that people edit starts out as the one that comes along, so that both are tested as one."""
    assert read_template(str(COMPONENT / "job.yaml")) == yaml.safe_load(DEFAULT_TEMPLATE.read_text())


def test_the_cron_job_runs_a_command_that_there_is(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    """The CronJob's arguments are ones that brigade jobs clean takes."""
    pod = rendered["CronJob", "bucket-brigade-job-cleaner"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    args = pod["containers"][0]["args"]
    assert args[:3] == ["brigade", "jobs", "clean"]
    clean = jobs_command.commands["clean"]
    parsed = clean.make_context("clean", list(args[3:])).params
    assert (parsed["completed"], parsed["failed"], parsed["dry_run"]) == (True, False, False)


def test_jobs_and_the_cron_job_meet_the_restricted_standard(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Pods of the template and of the CronJob may run where the restricted Pod Security level is enforced."""
    cron = rendered["CronJob", "bucket-brigade-job-cleaner"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for pod in (cron, read_template(None)["spec"]["template"]["spec"]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
