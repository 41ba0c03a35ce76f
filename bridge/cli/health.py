"""``brigade health``: what a container's HEALTHCHECK asks, where there is no curl. Starts without boto3 and Celery."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import click

#: A worker answers within milliseconds; a node that is short of CPU may take a while.
TIMEOUT_SECONDS = 5.0
#: Far more than any answer has.
MAX_ANSWER_BYTES = 1_048_576
_EXAMPLES = """
\b
Examples:
  brigade health
  brigade health --ready
  brigade health --url http://127.0.0.1:8080 --json
"""
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - replaced, never bound


@click.command("health", epilog=_EXAMPLES)
@click.option("--url", help="Ask this worker: http://HOST:PORT. Default: BRIDGE_HEALTH_HOST and BRIDGE_HEALTH_PORT.")
@click.option("--live", "probe", flag_value="live", help="Only whether it is alive; AWS may be away.")
@click.option("--ready", "probe", flag_value="ready", help="Only whether it takes messages.")
@click.option("--json", "as_json", is_flag=True, help="Print the worker's answer as it is.")
def command(url: str | None, probe: str | None, as_json: bool) -> int:
    """Ask a running worker how it is.

    Exit code 0: healthy (alive, ready); 1: not, with the reasons; 2: no answer.
    """
    from bridge.text import shown

    host, port = _address(url)
    path = f"/{probe or 'health'}"
    status, answer = _ask(host, port, path)
    click.echo(json.dumps(answer) if as_json else shown(in_words(path, answer)))
    return 0 if status == http.client.OK else 1


def in_words(path: str, answer: dict[str, Any]) -> str:
    """Return the answer of ``/live``, ``/ready`` or ``/health`` in one line."""
    reasons = "; ".join(str(reason) for reason in answer.get("reasons") or ())
    if path != "/health":
        word = path[1:]
        return word if answer.get(word) is True else f"not {word}: {reasons}"
    said = f"{answer.get('status')}: " + (f"{reasons}; " if reasons else "")
    return said + (
        f"{answer.get('messages_processed')} messages processed, {answer.get('in_flight')} in flight, "
        f"last poll {answer.get('last_poll') or 'never'}"
    )


def _address(url: str | None) -> tuple[str, int]:
    """Return host and port; raises UsageError for a wrong URL, ClickException for wrong settings."""
    if url is None:
        from bridge.errors import SettingsError
        from bridge.settings.loading import load_health_settings

        try:
            settings = load_health_settings()
        except SettingsError as error:
            raise click.ClickException(str(error)) from error
        if not settings.health_port:
            raise click.ClickException("BRIDGE_HEALTH_PORT=0: the health server is switched off")
        return _ANYWHERE.get(settings.health_host, settings.health_host), settings.health_port
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:  # a bracket without its partner, a port that is not a number
        host, port = None, 0
    if host is None or parts.scheme != "http" or parts.path not in ("", "/") or parts.query or parts.username:
        raise click.UsageError("--url must be http://HOST:PORT")
    return host, port


def _ask(host: str, port: int, path: str) -> tuple[int, dict[str, Any]]:
    """Return status and answer; raises ClickException when there is none, or none of a worker's.

    No proxy of the environment is asked: the worker is next to us.
    """
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(MAX_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise click.ClickException(f"no answer from {where}: {str(error) or type(error).__name__}") from error
    finally:
        connection.close()
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if response.status not in (http.client.OK, http.client.SERVICE_UNAVAILABLE) or not isinstance(answer, dict):
        raise click.ClickException(f"{where} answered {response.status}, which is not the health report of a worker")
    return response.status, answer
