"""Workers whose health is asked: all scenarios begin together, for each mostly waits, and a test asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.delivery.conftest import Scenarios, Site, running_scenarios
from tests.support.servers.sqs import SqsServer

Scenario = Callable[[Site], Any]
_known: dict[str, tuple[str, Scenario]] = {}


def scenario(server: str) -> Callable[[Scenario], Scenario]:
    """Make a function of a ``Site`` on this server a scenario, known by its name."""

    def enter(function: Scenario) -> Scenario:
        _known[function.__name__] = (server, function)
        return function

    return enter


def _on_site(function: Scenario, server: SqsServer, folder: Path) -> Any:
    with Site(server, folder) as site:
        return function(site)


@pytest.fixture(scope="package")
def scenarios(
    moto_server: SqsServer, elasticmq_server: SqsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scenarios]:
    """The scenarios, under way. Skips where there is no ElasticMQ."""
    servers = {"moto": moto_server, "elasticmq": elasticmq_server}
    with running_scenarios() as running:
        for name, (server, function) in _known.items():
            running.start(name, _on_site, function, servers[server], tmp_path_factory.mktemp(name))
        yield running
