"""The console script ``brigade``; ``python -m bridge`` is the same.

Each command is a module of this package, imported only when it is asked for: what one command needs (moto, rich) need
not be installed for the others.
"""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import click

#: Command → the extra that brings what it needs beyond the core.
_COMMANDS = {
    "backfill": "",
    "demo": "local",
    "dlq": "",
    "doctor": "",
    "exporter": "",
    "health": "",
    "jobs": "k8s",
    "provision": "",
    "put": "",
    "queue": "",
    "reconcile": "",
    "routes": "",
    "run-once": "",
    "send": "",
}


class _Commands(click.Group):
    """Loads a command's module when it is called, or listed in the help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"bridge.cli.{cmd_name.replace('-', '_')}").command
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bucket-brigade")
def _brigade() -> None:
    """S3 events off SQS, run as ordinary Celery tasks."""


def main() -> NoReturn:
    """Run the command line: exit code 2 and one line for what the user has to correct, 130 after Ctrl-C."""
    try:
        code = _brigade.main(prog_name="brigade", standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"brigade: {error.format_message()}", err=True)
        sys.exit(error.exit_code if isinstance(error, click.UsageError) else 2)
    except click.Abort:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
