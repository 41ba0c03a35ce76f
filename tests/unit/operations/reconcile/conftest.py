"""The command line as the other commands on buckets are tested, and a store of each kind."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import boto3
import pytest

from tests.support.foreign_tasks import hide_foreign_tasks
from tests.support.servers.sqs import REGION, SqsServer
from tests.unit.operations.conftest import brigade, brigade_process, bucket

__all__ = ["brigade", "brigade_process", "bucket"]


@pytest.fixture
def dynamodb_url(moto_server: SqsServer) -> Iterator[str]:
    """A new table on moto, as BRIDGE_IDEMPOTENCY_URL."""
    client = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test").client(
        "dynamodb", region_name=REGION, endpoint_url=moto_server.s3_endpoint_url
    )
    name = f"claims-{uuid.uuid4().hex[:8]}"
    client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    yield f"dynamodb://{name}"
    client.delete_table(TableName=name)
    client.close()


@pytest.fixture(params=["s3", "dynamodb"])
def store_url(request: pytest.FixtureRequest) -> str:
    """BRIDGE_IDEMPOTENCY_URL, of each kind in turn."""
    if request.param == "s3":
        return f"s3://{request.getfixturevalue('bucket')()}/claims"
    return str(request.getfixturevalue("dynamodb_url"))


@pytest.fixture(autouse=True)
def _only_these_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the tasks that other tests have declared in this process."""
    hide_foreign_tasks(monkeypatch, "tests.unit.operations.reconcile.reconcile_tasks")
