"""moto's S3 and DynamoDB behind a proxy that counts calls and breaks them, for the stores of this process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from bridge.idempotency.claiming import use_claimer
from bridge.s3.clients import forget_clients
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import REGION, SqsServer, environment_for


@dataclass(frozen=True)
class Aws:
    """A bucket and a table; ``s3`` and ``dynamodb`` ask moto directly, all others go through the proxy."""

    proxy: FaultProxy
    s3: Any
    dynamodb: Any
    bucket: str
    table: str


@pytest.fixture(scope="module")
def aws(moto_server: SqsServer) -> Iterator[Aws]:
    """For the tests of one file: the clients that the bridge makes talk to moto through the proxy."""
    dynamodb = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test").client(
        "dynamodb", region_name=REGION, endpoint_url=moto_server.endpoint_url
    )
    name = f"claims-{uuid.uuid4().hex[:8]}"
    moto_server.s3.create_bucket(Bucket=name)
    dynamodb.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with FaultProxy(moto_server.endpoint_url) as proxy, pytest.MonkeyPatch.context() as patch:
        ours = environment_for(moto_server) | {
            "AWS_ENDPOINT_URL_S3": proxy.url,
            "AWS_ENDPOINT_URL_DYNAMODB": proxy.url,
        }
        for variable, value in ours.items():
            if variable.startswith("AWS_"):
                patch.setenv(variable, value)
        forget_clients()
        yield Aws(proxy, moto_server.s3, dynamodb, name, name)
    forget_clients()
    dynamodb.close()


@pytest.fixture(autouse=True)
def _no_claimer_left() -> Iterator[None]:
    """A claimer that one test sets must not reach another test."""
    yield
    use_claimer(None)


@pytest.fixture
def proxy(aws: Aws) -> Iterator[FaultProxy]:
    """The proxy, whole again after the test."""
    aws.proxy.clear()
    yield aws.proxy
    aws.proxy.clear()
