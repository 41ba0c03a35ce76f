"""The servers once more, but for a whole module: starting a worker for every test would take minutes."""

from __future__ import annotations

import pytest

from tests.support.servers.sqs import SqsServer


@pytest.fixture(scope="module", params=["moto", pytest.param("elasticmq", marks=pytest.mark.elasticmq)])
def sqs_server(request: pytest.FixtureRequest) -> SqsServer:
    """Each SQS server in turn, for fixtures of a module. S3 is moto's in both cases."""
    server: SqsServer = request.getfixturevalue(f"{request.param}_server")
    return server
