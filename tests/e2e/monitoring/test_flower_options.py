"""Flower is not opened to the network by mistake, and everything that keeps it from starting is one line."""

from __future__ import annotations

import pytest

from bridge.errors import SettingsError
from bridge.monitor import bus_settings
from bridge.monitoring.flower_app import queue_rows, why
from tests.e2e.monitoring.celery_commands import run_all

NOBODY = "redis://127.0.0.1:1/0"
#: Arguments after ``celery -A bridge.monitor``, additions to the environment, and what the one line must say.
REFUSED = [
    (["flower"], {"FLOWER_ADDRESS": "::"}, "open to everybody on ::"),
    (["flower", "--address="], {}, "open to everybody on all addresses"),
    (["flower", "--auth-provider=x", "--auth="], {}, "auth_provider"),
    (["flower"], {"FLOWER_BASIC_AUTH": "me:secret,", "FLOWER_ADDRESS": "::"}, "basic_auth"),
    (["flower"], {"FLOWER_BASIC_AUTH": ""}, "basic_auth"),
    (["flower", "--basic_auth="], {}, "basic_auth"),
    (["flower", "--port=many"], {}, "Flower's options"),
    (["flower"], {"BRIDGE_MONITOR_URL": ""}, "set BRIDGE_MONITOR_URL"),
    (["inspect", "--bus", "redis://:secret@h", "ping"], {}, "command line is seen"),
    (["worker"], {}, "celery -A bridge worker"),
]


@pytest.fixture(scope="module")
def refusals() -> list[tuple[int, str]]:
    """Exit code and output of each."""
    commands = [(arguments, {"BRIDGE_MONITOR_URL": NOBODY, **settings}) for arguments, settings, _ in REFUSED]
    return run_all("bridge.monitor", commands)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(REFUSED)), ids=[" ".join(r[0]) or "-" for r in REFUSED])
def test_refused(refusals: list[tuple[int, str]], number: int) -> None:
    """Exit code 2 and one line that says what to mend, without a traceback and without a password."""
    code, output = refusals[number]
    assert (code, len(output.strip().splitlines())) == (2, 1), output
    assert REFUSED[number][2] in output
    assert "secret" not in output


def test_broker_page_says_why_it_is_empty() -> None:
    """Without SQS_QUEUE_URL the page has one line for the reader, not an error."""
    with pytest.raises(Exception, match="SQS_QUEUE_URL is not set") as caught:
        queue_rows({})
    assert why(caught.value) == "SQS_QUEUE_URL is not set where Flower runs"  # type: ignore[arg-type]  # an Exception
    assert why(OSError("two\nlines")) == "OSError: two lines"


def test_another_broker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker of Celery's own variables (or -b) would silently take the bus's place."""
    monkeypatch.setenv("BRIDGE_MONITOR_URL", NOBODY)
    assert bus_settings({"CELERY_BROKER_URL": " "})["broker_url"] == NOBODY
    with pytest.raises(SettingsError, match=r"^CELERY_BROKER_URL is set"):
        bus_settings({"CELERY_BROKER_URL": "redis://elsewhere"})
