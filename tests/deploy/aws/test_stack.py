"""k8s/aws/stack.yaml: what it says, without running anything on it (test_stack_runs.py does that)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from contextlib import ExitStack
from typing import Any

import kubernetes_validate
import pytest
import yaml

from bridge.s3.outputs import output_prefixes
from bridge.settings.loading import load_worker_settings
from bridge.sqs.queue_policy import right_of_s3
from tests.deploy.aws.conftest import ISSUER, Stack, deploy, notification
from tests.deploy.aws.template import AWS_FOLDER, Resolved, policy_file, statements
from tests.support.servers.sqs import SqsServer

ROLES = ("worker", "keda", "exporter", "operator")
KUBERNETES = AWS_FOLDER.parent


@pytest.mark.slow
def test_cfn_lint_has_nothing_to_say() -> None:
    """cfn-lint, which knows CloudFormation's schemas and IAM's actions, is content with both templates."""
    command = [
        sys.executable,
        "-c",
        "from cfnlint.runner import main; main()",
        "--regions",
        "us-east-1",
        "--",
        str(AWS_FOLDER / "stack.yaml"),
        str(KUBERNETES / "components" / "logging" / "queries.yaml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("role", ROLES)
def test_the_deployed_role_is_the_policy_file(stack: Stack, role: str) -> None:
    """A role of the stack may do what policies/ROLE.json says, statement for statement; claims are one or the other."""
    written = statements([policy_file(role, stack.values)])
    written.pop("Claims", None)  # this stack has the table
    assert stack.policies(role) == written


def test_two_installations_live_side_by_side(stack: Stack, moto_server: SqsServer) -> None:
    """A second stack, with another prefix and the other choices, shares no name with the first."""
    with ExitStack() as opened:
        other = deploy(opened, moto_server, f"b2-{uuid.uuid4().hex[:6]}", {"ClaimsTable": "no"})
        assert not set(other.outputs.values()) & set(stack.outputs.values())
        assert other.settings["BRIDGE_IDEMPOTENCY_URL"] == f"s3://{other.bucket}/claims"
        written = statements([policy_file("worker", other.values)])
        assert other.policies("worker") == {sid: one for sid, one in written.items() if sid not in ("Table", "Key")}
        assert "Key" not in other.policies("operator")
        attributes = other.server.sqs.get_queue_attributes(QueueUrl=other.dlq_url, AttributeNames=["All"])["Attributes"]
        assert attributes["SqsManagedSseEnabled"] == "true"


def test_the_settings_it_prints_are_settings(stack: Stack) -> None:
    """SettingsEnv is accepted by a worker, and has every setting that depends on the stack."""
    settings = load_worker_settings({**stack.settings, "BRIDGE_TASK_MODULES": "my_files"})
    assert settings.sqs_queue_urls == (stack.queue_url,)
    assert settings.allowed_buckets == (stack.bucket,)
    written = (KUBERNETES / "overlays" / "production" / "settings.env").read_text()
    named = set(re.findall(r"^([A-Z_]+)=.*REPLACE_", written, re.MULTILINE)) - {"BRIDGE_TASK_MODULES"}
    assert named <= set(stack.settings)


def test_the_notification_covers_no_output_of_ours(stack: Stack) -> None:
    """Results, archive and claims lie outside what is announced, and each has a rule that ends it."""
    bucket = stack.resolved.properties("Bucket")
    [announced] = notification(bucket)["QueueConfigurations"]
    [prefix] = [rule["Value"] for rule in announced["Filter"]["Key"]["FilterRules"] if rule["Name"] == "prefix"]
    outputs = output_prefixes(
        results_url=stack.settings["BRIDGE_RESULTS_URL"],
        archive_url=stack.settings["BRIDGE_ARCHIVE_URL"],
        idempotency_url=f"s3://{stack.bucket}/claims",
    )
    assert [o.prefix for o in outputs if o.prefix.startswith(prefix) or prefix.startswith(o.prefix)] == []
    rules = {rule.get("Prefix", ""): rule for rule in bucket["LifecycleConfiguration"]["Rules"]}
    assert all(int(rules[o.prefix]["ExpirationInDays"]) > 0 for o in outputs)
    assert int(rules["claims/"]["ExpirationInDays"]) > 30  # BRIDGE_IDEMPOTENCY_TTL_SECONDS
    assert any("AbortIncompleteMultipartUpload" in rule for rule in bucket["LifecycleConfiguration"]["Rules"])
    pattern = stack.resolved.template["Parameters"]["EventPrefix"]["AllowedPattern"]
    assert re.fullmatch(pattern, "incoming/") and re.fullmatch(pattern, "a/b/")
    assert [
        bad for bad in ("results/", "archive/x/", "claims/", "", "/", "incoming") if re.fullmatch(pattern, bad)
    ] == []


def test_only_our_bucket_may_send(stack: Stack) -> None:
    """The queue's policy lets S3 send for this bucket of this account, and for no other."""
    policy = json.dumps(stack.resolved.properties("QueuePolicy")["PolicyDocument"])
    arn = stack.values["QUEUE_ARN"]
    assert right_of_s3(policy, arn, f"arn:aws:s3:::{stack.bucket}") == "limited"
    assert right_of_s3(policy, arn, "arn:aws:s3:::another") == "none"


def test_queues_outlast_what_happens() -> None:
    """The DLQ keeps longer than the queue, takes letters of this queue alone, and maxReceiveCount is 20."""
    resolved = Resolved({"OidcIssuer": ISSUER})
    queue, dlq = resolved.properties("Queue"), resolved.properties("DeadLetterQueue")
    assert int(dlq["MessageRetentionPeriod"]) > int(queue["MessageRetentionPeriod"])
    assert int(resolved.template["Parameters"]["RetentionSeconds"]["MaxValue"]) < dlq["MessageRetentionPeriod"]
    assert queue["RedrivePolicy"]["maxReceiveCount"] == "20"
    assert dlq["RedriveAllowPolicy"]["sourceQueueArns"] == ["arn:aws:sqs:us-east-1:123456789012:bucket-brigade"]
    assert (queue["SqsManagedSseEnabled"], dlq["SqsManagedSseEnabled"]) == (True, True)
    with_key = Resolved({"OidcIssuer": ISSUER, "Encryption": "kms"}).properties("Queue")
    assert "SqsManagedSseEnabled" not in with_key and with_key["KmsMasterKeyId"]


def test_alarms_look_at_the_right_queues() -> None:
    """One alarm for a DLQ that is not empty, one for a queue whose oldest message is old; a topic is optional."""
    topic = "arn:aws:sns:us-east-1:123456789012:oncall"
    attributes = {"Queue.QueueName": "bucket-brigade", "DeadLetterQueue.QueueName": "bucket-brigade-dlq"}
    resources = Resolved({"OidcIssuer": ISSUER, "AlarmTopicArn": topic}, attributes=attributes).resources()
    alarms = [one["Properties"] for one in resources.values() if one["Type"] == "AWS::CloudWatch::Alarm"]
    told = {(a["MetricName"], a["Dimensions"][0]["Value"]): (a["Threshold"], a["AlarmActions"]) for a in alarms}
    assert told == {
        ("ApproximateNumberOfMessagesVisible", "bucket-brigade-dlq"): (0, [topic]),
        ("ApproximateAgeOfOldestMessage", "bucket-brigade"): ("3600", [topic]),
    }
    silent = Resolved({"OidcIssuer": ISSUER}).properties("DeadLettersAlarm")
    assert "AlarmActions" not in silent


def test_store_and_repository() -> None:
    """The table has the key and the TTL attribute that the store writes; images are scanned and never overwritten."""
    resources = Resolved({"OidcIssuer": ISSUER}).resources()
    table, repository = resources["Table"]["Properties"], resources["Repository"]["Properties"]
    assert table["KeySchema"] == [{"AttributeName": "id", "KeyType": "HASH"}]
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    assert repository["ImageScanningConfiguration"] == {"ScanOnPush": True}
    assert repository["ImageTagMutability"] == "IMMUTABLE"


def _trust(resources: dict[str, Any], role: str) -> dict[str, Any]:
    document = resources[role]["Properties"]["AssumeRolePolicyDocument"]
    [statement] = (json.loads(document) if isinstance(document, str) else document)["Statement"]
    return dict(statement)


def _service_accounts() -> set[str]:
    files = [*KUBERNETES.glob("base/*.yaml"), *KUBERNETES.glob("components/monitoring/*.yaml")]
    documents = [one for file in files for one in yaml.safe_load_all(file.read_text()) if one]
    return {one["metadata"]["name"] for one in documents if one.get("kind") == "ServiceAccount"}


@pytest.mark.parametrize("identity", ["irsa", "pod-identity"])
def test_roles_are_for_our_service_accounts_alone(identity: str) -> None:
    """By IRSA or Pod Identity, a role can be taken by the service accounts of the manifests, in our namespace."""
    given = {"OidcIssuer": ISSUER} if identity == "irsa" else {"ClusterName": "blue"}
    resources = Resolved({**given, "Namespace": "bb"}).resources()
    taken = {}
    for role in ("WorkerRole", "ExporterRole", "KedaRole"):
        conditions = _trust(resources, role)["Condition"]["StringEquals"]
        if identity == "irsa":
            assert conditions[f"{ISSUER}:aud"] == "sts.amazonaws.com"
            subjects = conditions[f"{ISSUER}:sub"]
            names = [one.split(":")[2:] for one in ([subjects] if isinstance(subjects, str) else subjects)]
        else:
            assert conditions["aws:RequestTag/eks-cluster-name"] == "blue"
            accounts = conditions["aws:RequestTag/kubernetes-service-account"]
            namespace = conditions["aws:RequestTag/kubernetes-namespace"]
            names = [[namespace, one] for one in ([accounts] if isinstance(accounts, str) else accounts)]
        taken[role] = {tuple(name) for name in names}
    assert taken.pop("KedaRole") == {("keda", "keda-operator")}
    assert taken == {
        "WorkerRole": {("bb", "bucket-brigade-worker")},
        "ExporterRole": {("bb", "bucket-brigade-exporter"), ("bb", "bucket-brigade-flower")},
    }
    assert {name for names in taken.values() for _, name in names} <= _service_accounts()
    given_out = {
        (one["Properties"]["Namespace"], one["Properties"]["ServiceAccount"])
        for one in resources.values()
        if one["Type"] == "AWS::EKS::PodIdentityAssociation"
    }
    everyone = {name for names in taken.values() for name in names} | {("keda", "keda-operator")}
    assert given_out == (everyone if identity == "pod-identity" else set())


def test_kedas_own_role_may_assume_ours() -> None:
    """Where KEDA's operator has a role of its own, that role alone may take this stack's."""
    arn = "arn:aws:iam::123456789012:role/keda"
    resources = Resolved({"ClusterName": "blue", "KedaOperatorRoleArn": arn}).resources()
    assert _trust(resources, "KedaRole")["Principal"] == {"AWS": arn}
    assert "KedaIdentity" not in resources and "WorkerIdentity" in resources


def test_the_longest_names_fit() -> None:
    """The longest prefix in the region with the longest name stays within what AWS allows for roles and buckets."""
    pattern = Resolved({}).template["Parameters"]["Prefix"]["AllowedPattern"]
    prefix = max((p for n in range(1, 40) if re.fullmatch(pattern, p := "a" * n)), key=len)
    resources = Resolved({"Prefix": prefix, "OidcIssuer": ISSUER}, region="ap-southeast-2").resources()
    roles = [one["Properties"]["RoleName"] for one in resources.values() if one["Type"] == "AWS::IAM::Role"]
    assert max(map(len, roles)) <= 64
    assert len(resources["Bucket"]["Properties"]["BucketName"]) <= 63


def test_the_cluster_has_a_group_a_zone() -> None:
    """cluster.yaml: a managed group of t3.medium in each of three zones, 0 to 3 nodes, tagged for the autoscaler."""
    cluster = yaml.safe_load((AWS_FOLDER / "cluster.yaml").read_text())
    groups = cluster["managedNodeGroups"]
    zones = [zone for group in groups for zone in group["availabilityZones"]]
    assert len(groups) == len(set(zones)) == 3
    assert all(zone.startswith(cluster["metadata"]["region"]) for zone in zones)
    sizes = {(g["instanceType"], g["minSize"], g["maxSize"], g["propagateASGTags"]) for g in groups}
    assert sizes == {("t3.medium", 0, 3, True)}
    assert sum(group["desiredCapacity"] for group in groups) == 1
    name = cluster["metadata"]["name"]
    for group in groups:
        assert group["tags"] == {
            f"k8s.io/cluster-autoscaler/{name}": "owned",
            "k8s.io/cluster-autoscaler/enabled": "true",
        }


def test_the_check_is_a_job_of_the_workers() -> None:
    """check-job.yaml is valid strictly, and has the workers' service account, settings and restrictions."""
    job = yaml.safe_load((AWS_FOLDER / "check-job.yaml").read_text())
    kubernetes_validate.validate(job, "1.35", strict=True)
    pod = job["spec"]["template"]["spec"]
    workers = yaml.safe_load_all((KUBERNETES / "base" / "worker.yaml").read_text())
    worker = next(one for one in workers if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == worker["serviceAccountName"]
    assert pod["securityContext"] == worker["securityContext"]
    [container], [theirs] = pod["containers"], worker["containers"]
    assert [container[key] for key in ("image", "envFrom", "securityContext")] == [
        theirs[key] for key in ("image", "envFrom", "securityContext")
    ]


def test_the_walk_through_names_what_there_is() -> None:
    """Every file of this repository that the README names exists, and every parameter of the stack is explained."""
    text = (AWS_FOLDER / "README.md").read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (AWS_FOLDER / target).exists(), target
    parameters = yaml.safe_load(re.sub(r"!\w+", "", (AWS_FOLDER / "stack.yaml").read_text()))["Parameters"]
    assert {name for name in parameters if f"`{name}`" not in text} == set()
