"""k8s/check.py: what a user is told before the first apply."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.deploy.k8s.conftest import Rendered
from tests.deploy.k8s.kustomize import ANSWERS, K8S, build, copy, fill_in, render, use


def run(text: str) -> subprocess.CompletedProcess[str]:
    """Run the check as docs/deploy/kubernetes.md says."""
    command = [sys.executable, str(K8S / "check.py")]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)


def test_left_over_placeholders_are_told() -> None:
    """The production overlay as it comes does not pass: every placeholder is named with the object it is in."""
    done = run(build(K8S / "overlays/production").stdout)
    assert done.returncode == 1
    told = set(re.findall(r"REPLACE_\w+", done.stdout))
    assert told == set(ANSWERS) - {"REPLACE_INGRESS_CLASS", "REPLACE_FLOWER_HOST"}
    assert "ScaledObject/bucket-brigade-worker: REPLACE_REGION is not filled in" in done.stdout


def test_an_overlay_that_is_filled_in_passes(tmp_path: Path) -> None:
    """settings.env and the kustomization are all that has to be edited."""
    k8s = copy(tmp_path)
    overlay = k8s / "overlays/production"
    fill_in(overlay)
    assert {path.name for path in overlay.iterdir()} == {"kustomization.yaml", "settings.env"}
    done = run(build(overlay).stdout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_component_has_placeholders_of_its_own(tmp_path: Path) -> None:
    """A component that needs an answer is told as well."""
    k8s = copy(tmp_path)
    fill_in(k8s / "overlays/production")
    use(k8s / "overlays/production", "flower-ingress")
    assert (
        "Ingress/bucket-brigade-flower: REPLACE_FLOWER_HOST is not filled in"
        in run(build(k8s / "overlays/production").stdout).stdout
    )


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("BRIDGE_DRAIN_SECONDS=300", "terminationGracePeriodSeconds is 60, but the drain may take 324"),
        ("BRIDGE_WAIT_TIME_SECONDS=30", "BRIDGE_WAIT_TIME_SECONDS=30: must be between 0 and 20"),
        ("BRIDGE_TIME_LIMIT=60", "unknown setting BRIDGE_TIME_LIMIT"),
        ("BRIDGE_TASK_MODULES=", "BRIDGE_TASK_MODULES is not set"),
    ],
)
def test_settings_that_would_not_work_are_told(tmp_path: Path, line: str, told: str) -> None:
    """A setting that the worker would refuse, or that its pod has no time for, is told before anything is applied."""
    k8s = copy(tmp_path)
    fill_in(k8s / "overlays/production")
    path = k8s / "overlays/production/settings.env"
    name = line.partition("=")[0]
    path.write_text(re.sub(f"(?m)^{name}=.*\n", "", path.read_text()) + line + "\n")
    done = run(build(path.parent).stdout)
    assert done.returncode == 1
    assert f"Deployment/bucket-brigade-worker: {told}" in done.stdout


def test_a_job_that_would_end_before_its_task_is_told(tmp_path: Path) -> None:
    """A ScaledJob whose deadline is not above the time limit is told; with a limit one second below it is not."""
    k8s = copy(tmp_path)
    fill_in(k8s / "overlays/production")
    use(k8s / "overlays/production", "scaled-job")
    path = k8s / "overlays/production/settings.env"
    text = path.read_text()
    for limit, code in ((3840, 1), (3839, 0)):
        path.write_text(f"{text}BRIDGE_TASK_TIME_LIMIT_SECONDS={limit}\n")
        done = run(build(path.parent).stdout)
        assert done.returncode == code
        assert ("ScaledJob/bucket-brigade-run-once: activeDeadlineSeconds is 3900" in done.stdout) == bool(code)


def test_a_concurrency_without_its_queue_length_is_told(rendered: Rendered, check: ModuleType) -> None:
    """Whoever changes how much a pod takes on is reminded of KEDA, and of the two queues that must be one."""
    documents = yaml.safe_load(yaml.safe_dump(rendered("production")))
    for document in documents:
        if document["metadata"]["name"] == "bucket-brigade-worker" and document["kind"] == "Deployment":
            document["spec"]["template"]["spec"]["containers"][0]["args"][-1] = "--concurrency=8"
        if document["kind"] == "ScaledObject":
            document["spec"]["triggers"][0]["metadata"]["queueURL"] += "-other"
            document["spec"]["triggers"][0]["metadata"]["awsRegion"] = "us-east-1"
    told = check.faults(documents)
    assert [fault.partition(": ")[2].split(" ")[0] for fault in told] == ["queueLength", "queueURL", "awsRegion"]


@pytest.mark.parametrize(
    ("image", "sound"),
    [
        ("bucket-brigade", False),
        ("bucket-brigade:latest", False),
        ("registry:5000/bucket-brigade", False),
        ("registry:5000/bucket-brigade:1.0", True),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/bucket-brigade:0.1.0", True),
        ("bucket-brigade@sha256:" + "0" * 64, True),
        ("bucket-brigade:1.0@sha256:" + "0" * 64, True),
        ("bucket-brigade@sha256:123", False),
        ("Bucket Brigade:1", False),
    ],
)
def test_images(check: ModuleType, image: str, sound: bool) -> None:
    """A tag that is there and does not move, or a digest."""
    assert (check.image_fault(image) is None) == sound


@pytest.mark.parametrize("text", ["", "just words", "{", "- 1\n- 2\n", "kind: Deployment"])
def test_what_is_no_manifest_is_told_in_a_line(text: str) -> None:
    """An empty pipe or another file ends with one line and exit code 2."""
    done = run(text)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_python_without_the_package_is_told_what_to_install() -> None:
    """A Python that cannot import the package ends with one line that says how to install it, and exit code 2."""
    command = [sys.executable, "-I", "-S", str(K8S / "check.py")]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False, timeout=60, env={})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "pip install 'bucket-brigade[k8s]'" in done.stderr


@pytest.mark.parametrize("missing", ["yaml", "bridge"])
def test_a_package_without_its_extra_is_told_what_to_install(tmp_path: Path, missing: str) -> None:
    """The line names the module that is missing, whether it is the package itself or what its extra brings."""
    (tmp_path / "check.py").write_text(
        f"import runpy, sys; sys.modules[{missing!r}] = None\n"
        f"runpy.run_path({str(K8S / 'check.py')!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "check.py")], input="", capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert missing in done.stderr


def test_a_missing_region_stops_the_build(tmp_path: Path) -> None:
    """Without the settings that KEDA needs nothing is rendered, and the message names what is missing."""
    k8s = copy(tmp_path)
    fill_in(k8s)
    path = k8s / "overlays/production/settings.env"
    path.write_text(path.read_text().replace("AWS_REGION=eu-west-1\n", ""))
    done = build(path.parent)
    assert done.returncode != 0
    assert "AWS_REGION" in done.stderr
    assert render(k8s / "overlays/dev")
