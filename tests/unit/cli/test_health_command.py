"""``brigade health``: what it prints, with which exit code it ends, and what it does without."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from bridge import cli
from bridge.health.server import HealthServer, Response, as_json
from tests.support.servers.port import free_port

REPORT = {
    "status": "healthy",
    "reasons": [],
    "last_poll": "2026-11-21T09:30:00Z",
    "messages_processed": 12,
    "in_flight": 3,
}


@pytest.fixture(scope="module")
def worker() -> Iterator[SimpleNamespace]:
    """Stands for a worker: the real server, and the answers that a test puts there."""
    said: dict[str, Response] = {}
    with HealthServer("127.0.0.1", 0) as server:
        paths = ("/live", "/ready", "/health")
        server.start({path: lambda path=path: said[path] for path in paths})
        yield SimpleNamespace(port=server.port, said=said)
        server.shutdown()


@pytest.fixture
def brigade(
    worker: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs ``brigade health …`` where the settings name that worker: exit code, output, errors."""
    monkeypatch.setenv("BRIDGE_HEALTH_PORT", str(worker.port))

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["brigade", "health", *args])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("args", "path", "answer", "code", "line"),
    [
        (
            (),
            "/health",
            (200, REPORT),
            0,
            "healthy: 12 messages processed, 3 in flight, last poll 2026-11-21T09:30:00Z",
        ),
        (
            (),
            "/health",
            (503, REPORT | {"status": "draining", "reasons": ["draining"], "last_poll": None}),
            1,
            "draining: draining; 12 messages processed, 3 in flight, last poll never",
        ),
        (("--live",), "/live", (200, {"live": True, "reasons": []}), 0, "live"),
        (("--live",), "/live", (503, {"live": False, "reasons": ["a", "b"]}), 1, "not live: a; b"),
        (("--ready",), "/ready", (200, {"ready": True, "reasons": []}), 0, "ready"),
        (("--ready",), "/ready", (503, {"ready": False, "reasons": ["draining"]}), 1, "not ready: draining"),
        (("--ready", "--json"), "/ready", (503, {"ready": False}), 1, '{"ready": false}'),
        (("--json",), "/health", (200, REPORT), 0, json.dumps(REPORT)),
    ],
)
def test_the_answer_is_one_line_and_an_exit_code(worker, brigade, args, path, answer, code, line):
    """0 when the worker says yes, 1 when it says no; the line says why."""
    worker.said[path] = as_json(*answer)
    assert brigade(*args) == (code, line + "\n", "")


def test_a_line_stays_one_line(worker, brigade):
    """What a server says is not trusted: no line end, no control character of a terminal."""
    worker.said["/live"] = as_json(503, {"live": False, "reasons": ["a\nb\x1b[31m"]})
    assert brigade("--live") == (1, "not live: a\\nb\\x1b[31m\n", "")


def test_a_worker_elsewhere_is_asked_by_its_url(worker, brigade, monkeypatch):
    """``--url`` goes before the settings."""
    worker.said["/live"] = as_json(200, {"live": True})
    monkeypatch.setenv("BRIDGE_HEALTH_PORT", "1")
    for url in (f"http://127.0.0.1:{worker.port}", f"http://localhost:{worker.port}/"):
        assert brigade("--live", "--url", url) == (0, "live\n", "")


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "localhost"])  # noqa: S104 - asked for, not bound
def test_the_address_of_the_settings_is_asked(worker, brigade, monkeypatch, host):
    """A worker that listens on all addresses is asked on the loopback."""
    worker.said["/live"] = as_json(200, {"live": True})
    monkeypatch.setenv("BRIDGE_HEALTH_HOST", host)
    assert brigade("--live") == (0, "live\n", "")


def test_no_proxy_stands_between(worker, brigade, monkeypatch):
    """``HTTP_PROXY`` is for the world outside."""
    worker.said["/live"] = as_json(200, {"live": True})
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    assert brigade("--live")[0] == 0


def test_nobody_there_is_two(brigade, monkeypatch):
    """One line that names the address."""
    port = free_port()
    monkeypatch.setenv("BRIDGE_HEALTH_PORT", str(port))
    code, out, err = brigade()
    assert (code, out) == (2, "")
    assert err.startswith(f"brigade: no answer from http://127.0.0.1:{port}/health: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("answer", [Response(200, b"<html>hello</html>"), Response(200, b"[]"), as_json(404, {})])
def test_somebody_else_there_is_two(worker, brigade, answer):
    """A server that is no worker is not called healthy."""
    worker.said["/health"] = answer
    code, out, err = brigade()
    assert (code, out) == (2, "")
    assert err == (
        f"brigade: http://127.0.0.1:{worker.port}/health answered {answer.status}, "
        "which is not the health report of a worker\n"
    )


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"BRIDGE_HEALTH_PORT": "0"}, "BRIDGE_HEALTH_PORT=0: the health server is switched off"),
        ({"BRIDGE_HEALTH_PORT": "x"}, "BRIDGE_HEALTH_PORT=x: must be a whole number between 0 and 65535"),
        (
            {"BRIDGE_HEALTH_HOST": "my-pod"},
            (
                "BRIDGE_HEALTH_HOST=my-pod: must be an IP address of this machine, such as 127.0.0.1, "
                "or 0.0.0.0 for all addresses"
            ),
        ),
    ],
)
def test_wrong_settings_are_two(brigade, monkeypatch, environment, said):
    """As everywhere: the setting, the value, the rule."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert brigade() == (2, "", f"brigade: {said}\n")


@pytest.mark.parametrize(
    "url", ["x", "https://h:1", "http://", "http://h:x", "http://h:1/live", "http://[::1", "ftp://h"]
)
def test_a_wrong_url_is_two(brigade, url):
    """Before anything is asked."""
    assert brigade("--url", url) == (2, "", "brigade: --url must be http://HOST:PORT\n")


def test_it_starts_without_what_it_does_not_need():
    """No Celery, no boto3, no metrics: a probe every few seconds pays for every import."""
    code = (
        "import sys\n"
        "sys.argv = ['brigade', 'health', '--url', 'http://127.0.0.1:1']\n"
        "from bridge.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as ended:\n    assert ended.code == 2\n"
        "print(*sorted(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    heavy = {"celery", "kombu", "boto3", "botocore", "prometheus_client", "structlog", "pydantic"}
    assert not heavy.intersection(done.stdout.split())
