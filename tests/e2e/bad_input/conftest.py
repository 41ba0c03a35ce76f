from __future__ import annotations

import pytest

from tests.support.servers.sqs import SqsServer


@pytest.fixture(scope="package", params=["moto", pytest.param("elasticmq", marks=pytest.mark.elasticmq)])
def sqs_server(request: pytest.FixtureRequest) -> SqsServer:
    """Each SQS server in turn, once for all tests of this folder: a worker takes a second to start."""
    server: SqsServer = request.getfixturevalue(f"{request.param}_server")
    return server
