"""Fixtures of the monitor's tests: a real Redis, and a worker on a real SQS that uses it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.monitoring.site import Site
from tests.support.servers.redis import RedisServer, missing_server
from tests.support.servers.sqs import SqsServer


def _needs_redis() -> None:
    if missing := missing_server():
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of the module's own. Skips without the program, but fails in CI, which has to have it."""
    _needs_redis()
    with RedisServer(tmp_path_factory.mktemp("redis") / "output.log") as server:
        yield server


@pytest.fixture
def make_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RedisServer]]:
    """Makes a Redis that the test may kill and start; it is ended with the test."""
    _needs_redis()
    made: list[RedisServer] = []

    def make(*options: str, password: str | None = None) -> RedisServer:
        server = RedisServer(tmp_path_factory.mktemp("redis") / "output.log", *options, password=password)
        made.append(server)
        return server

    yield make
    for server in made:
        server.kill()


@pytest.fixture(scope="module")
def site(elasticmq_server: SqsServer, redis_server: RedisServer) -> Iterator[Site]:
    """Queues of the module's own on ElasticMQ, and the module's Redis as the bus."""
    with Site(elasticmq_server, redis_server.url) as site:
        yield site
