"""What every test has: an environment without the developer's settings, and test servers started when first asked for.

Fixtures of the session: ``moto_url`` and ``elasticmq_url``, ``moto_server`` and ``elasticmq_server``. A test that takes
``sqs_server`` runs once on each. ``SQS_TEST_ENDPOINT`` names an ElasticMQ (or another SQS) that already runs.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.servers import elasticmq
from tests.support.servers.process import running_server
from tests.support.servers.sqs import QueueFactory, SqsServer, connected, environment_for, no_account

# An example that takes long says something of the machine, and is no fault of what is tested.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")

# Read once, here: the bridge refuses an SQS_* name it does not know, so tests must not see this one.
SQS_TEST_ENDPOINT = os.environ.get("SQS_TEST_ENDPOINT", "").rstrip("/")

_SETTINGS = ("AWS_", "BRIDGE_", "CELERY_", "SQS_")
_SERVER_FIXTURES = {"moto_url", "elasticmq_url", "sqs_server"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use a server, and run those that start nothing before all others.

    With pytest-xdist the tests of a file stay in one process, for they share its fixtures; those of a folder whose
    fixtures have the scope ``package`` do too.
    """
    for item in items:
        if _SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.servers)
        folder = item.path.parent
        item.add_marker(pytest.mark.xdist_group(str(folder if _shares_fixtures(folder) else item.path)))
    items.sort(key=lambda item: any(item.get_closest_marker(name) for name in ("servers", "slow")))


@cache
def _shares_fixtures(folder: Path) -> bool:
    return any('scope="package"' in file.read_text(encoding="utf-8") for file in folder.glob("*.py"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch ElasticMQ before the first test if one needs it: a fetch inside a test could exceed its time limit."""
    needed = not SQS_TEST_ENDPOINT and any(item.get_closest_marker("elasticmq") for item in session.items)
    if not needed or session.config.option.collectonly or elasticmq.is_fetched() or elasticmq.missing_tool():
        return
    session.config.get_terminal_writer().line("fetching ElasticMQ with Maven (once) ...")
    # Without success the fixture tries again, and its error then belongs to the tests that miss the server.
    with contextlib.suppress(RuntimeError):
        elasticmq.fetch()


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """Hide the settings of the developer's shell, and any real AWS account, from all tests.

    Once for the session, so that a fixture of any scope may set what its tests need.
    """
    with pytest.MonkeyPatch.context() as environment:
        for name in list(os.environ):
            if name.startswith(_SETTINGS):
                environment.delenv(name)
        for name, value in no_account().items():
            environment.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def moto_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of moto: S3 and SQS."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
    command = [sys.executable, "-m", "tests.support.servers.moto_process"]
    log = tmp_path_factory.mktemp("moto") / "output.log"
    with running_server(command, r"serving at (http://\S+)", log, environment) as url:
        yield url


@pytest.fixture(scope="session")
def elasticmq_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of ElasticMQ: SQS alone. Skips without Java and Maven, but fails in CI, which has to have them."""
    if SQS_TEST_ENDPOINT:
        yield SQS_TEST_ENDPOINT
        return
    if missing := elasticmq.missing_tool():
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    log = tmp_path_factory.mktemp("elasticmq") / "output.log"
    with running_server(elasticmq.command(), elasticmq.ANNOUNCEMENT, log) as url:
        yield url


@pytest.fixture(scope="session")
def moto_server(moto_url: str) -> Iterator[SqsServer]:
    """SQS and S3, both moto's."""
    with connected("moto", moto_url, moto_url) as server:
        yield server


@pytest.fixture(scope="session")
def elasticmq_server(elasticmq_url: str, moto_url: str) -> Iterator[SqsServer]:
    """ElasticMQ's SQS with moto's S3."""
    with connected("elasticmq", elasticmq_url, moto_url) as server:
        yield server


@pytest.fixture(params=["moto", pytest.param("elasticmq", marks=pytest.mark.elasticmq)])
def sqs_server(request: pytest.FixtureRequest) -> SqsServer:
    """Each SQS server in turn: a test that takes this runs twice."""
    server: SqsServer = request.getfixturevalue(f"{request.param}_server")
    return server


@pytest.fixture
def aws_env(sqs_server: SqsServer) -> dict[str, str]:
    """The whole environment of a process that talks to ``sqs_server``; a copy that the test may add to."""
    return environment_for(sqs_server)


@pytest.fixture
def queues() -> Iterator[QueueFactory]:
    """Makes queues, and deletes them after the test: ``queues(server, visibility_timeout_seconds=2)``."""
    factory = QueueFactory()
    yield factory
    factory.delete_all()
