"""The stack of k8s/aws, made by moto's CloudFormation, and what runs on it."""

from __future__ import annotations

import ast
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from tests.deploy.aws.seen import WatchingProxy
from tests.deploy.aws.template import AWS_FOLDER, Resolved, statements
from tests.support.foreign_tasks import hide_foreign_tasks
from tests.support.servers.sqs import REGION, SqsServer, environment_for

ISSUER = "oidc.eks.us-east-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE"


@dataclass
class Stack:
    """A deployed stack: its outputs, and the template as it was deployed."""

    server: SqsServer
    prefix: str
    outputs: dict[str, str]
    resolved: Resolved
    iam: Any

    @property
    def bucket(self) -> str:
        return self.outputs["BucketName"]

    @property
    def queue_url(self) -> str:
        return self.outputs["QueueUrl"]

    @property
    def dlq_url(self) -> str:
        return self.outputs["DeadLetterQueueUrl"]

    @property
    def values(self) -> dict[str, str]:
        """What the names in policies/*.json stand for here."""
        account = "123456789012"
        return {
            "QUEUE_ARN": f"arn:aws:sqs:{REGION}:{account}:{self.prefix}",
            "DLQ_ARN": f"arn:aws:sqs:{REGION}:{account}:{self.prefix}-dlq",
            "BUCKET_ARN": f"arn:aws:s3:::{self.bucket}",
            "EVENT_PREFIX": "incoming/",
            "TABLE_ARN": f"arn:aws:dynamodb:{REGION}:{account}:table/{self.prefix}-claims",
            "KEY_ARN": self.outputs.get("KeyArn", ""),
            "REGION": REGION,
        }

    @property
    def settings(self) -> dict[str, str]:
        """What the stack says for settings.env."""
        return dict(line.split("=", 1) for line in self.outputs["SettingsEnv"].splitlines())

    def environment(self, role: str, endpoint_url: str) -> dict[str, str]:
        """The environment of a process with this role, whose AWS is at ``endpoint_url``."""
        services = ("SQS", "S3", "DYNAMODB", "CLOUDWATCH", "STS")
        return {
            **environment_for(self.server),
            "AWS_ACCESS_KEY_ID": role,
            **{f"AWS_ENDPOINT_URL_{service}": endpoint_url for service in services},
            **self.settings,
        }

    def policies(self, role: str) -> dict[str, dict[str, Any]]:
        """The statements of a role's policies by Sid, as IAM has them."""
        name = f"{self.prefix}-{REGION}-{role}"
        documents = []
        for policy in self.iam.list_role_policies(RoleName=name)["PolicyNames"]:
            document = self.iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
            # moto gives back what a template had as Python writes it.
            documents.append(ast.literal_eval(document) if isinstance(document, str) else document)
        return statements(documents)


def deploy(stack: ExitStack, server: SqsServer, prefix: str, parameters: Mapping[str, str]) -> Stack:
    """Create the stack in moto, and what moto's CloudFormation leaves out of it, as the template has it."""
    session = boto3.session.Session("test", "test", region_name=REGION)
    cloudformation, iam = (
        stack.enter_context(closing(session.client(service, endpoint_url=server.s3_endpoint_url)))
        for service in ("cloudformation", "iam")
    )
    given = {"Prefix": prefix, "OidcIssuer": ISSUER, **parameters}
    cloudformation.create_stack(
        StackName=prefix,
        TemplateBody=(AWS_FOLDER / "stack.yaml").read_text(),
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
    )
    # Its resources are deleted with it, but a bucket that is kept may hold objects.
    stack.callback(cloudformation.delete_stack, StackName=prefix)
    [made] = cloudformation.describe_stacks(StackName=prefix)["Stacks"]
    assert made["StackStatus"] == "CREATE_COMPLETE"
    outputs = {output["OutputKey"]: output["OutputValue"] for output in made["Outputs"]}
    ids = {
        one["LogicalResourceId"]: one["PhysicalResourceId"]
        for one in cloudformation.list_stack_resources(StackName=prefix)["StackResourceSummaries"]
    }
    attributes = {
        "Queue.Arn": f"arn:aws:sqs:{REGION}:123456789012:{prefix}",
        "DeadLetterQueue.Arn": f"arn:aws:sqs:{REGION}:123456789012:{prefix}-dlq",
        "Bucket.Arn": f"arn:aws:s3:::{outputs['BucketName']}",
        "Table.Arn": f"arn:aws:dynamodb:{REGION}:123456789012:table/{prefix}-claims",
        "Key.Arn": outputs.get("KeyArn", ""),
    }
    resolved = Resolved(given, {**ids, "AWS::StackId": made["StackId"]}, attributes)
    _complete(server, resolved, outputs)
    return Stack(server, prefix, outputs, resolved, iam)


def _complete(server: SqsServer, resolved: Resolved, outputs: Mapping[str, str]) -> None:
    policy = resolved.properties("QueuePolicy")["PolicyDocument"]
    server.sqs.set_queue_attributes(QueueUrl=outputs["QueueUrl"], Attributes={"Policy": json.dumps(policy)})
    # moto keeps a queue's RedriveAllowPolicy for itself.
    bucket, name = resolved.properties("Bucket"), outputs["BucketName"]
    server.s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=bucket["VersioningConfiguration"])
    server.s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration=notification(bucket))


def notification(bucket: Mapping[str, Any]) -> Any:
    """The notification of a bucket's properties in the form of S3's own call."""
    return {
        "QueueConfigurations": [
            {
                "QueueArn": one["Queue"],
                "Events": [one["Event"]],
                "Filter": {"Key": {"FilterRules": one["Filter"]["S3Key"]["Rules"]}},
            }
            for one in bucket["NotificationConfiguration"]["QueueConfigurations"]
        ]
    }


@pytest.fixture(scope="module")
def stack(moto_server: SqsServer) -> Iterator[Stack]:
    """The stack with everything that can be switched on, under a prefix of its own."""
    with ExitStack() as opened:
        yield deploy(opened, moto_server, f"bb-{uuid.uuid4().hex[:6]}", {"Encryption": "kms"})


@pytest.fixture(scope="module")
def watching(moto_server: SqsServer) -> Iterator[WatchingProxy]:
    """The proxy before moto that writes down every permission that is needed."""
    with WatchingProxy(moto_server.s3_endpoint_url) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _only_these_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the tasks that other tests have declared in this process."""
    hide_foreign_tasks(monkeypatch, "tests.deploy.aws.stack_tasks", "tasks.describe")
