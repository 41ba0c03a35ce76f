"""The bench's own servers, one of each for all its tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config

from benchmarks.servers import starting


def client(service: str, url: str, connections: int = 4) -> Any:
    """A boto3 client without retries, for a server of the bench."""
    config = Config(retries={"total_max_attempts": 1}, max_pool_connections=connections, read_timeout=30)
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="bench",
        aws_secret_access_key="bench",
        config=config,
    )


@pytest.fixture(scope="package")
def sqs_url() -> Iterator[str]:
    """The SQS server in memory."""
    with starting.memory_sqs() as url:
        yield url


@pytest.fixture(scope="package")
def s3_url() -> Iterator[str]:
    """The S3 server in memory."""
    with starting.memory_s3() as url:
        yield url


@pytest.fixture(scope="package")
def the_proxy(sqs_url: str) -> Iterator[starting.Proxy]:
    """A delay proxy before the SQS server."""
    with starting.delay_proxy(sqs_url) as proxy:
        yield proxy


@pytest.fixture
def proxy(the_proxy: starting.Proxy) -> starting.Proxy:
    """The same, without delay and with nothing counted."""
    the_proxy.set_delay(0)
    the_proxy.reset()
    return the_proxy


@pytest.fixture
def queue_name() -> str:
    """A name that no other test has."""
    return f"q-{uuid4().hex[:12]}"
