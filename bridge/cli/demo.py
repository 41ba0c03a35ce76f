"""``brigade demo``."""

from __future__ import annotations

import click


@click.command("demo")
@click.option("--keep", is_flag=True, help="Leave everything running afterwards, and say what to try next.")
def command(keep: bool) -> int:
    """Process sample files with a real worker, on this machine alone.

    S3 and SQS are moto, in this process; the worker is an ordinary one. Exit code 0 only if every file ended where it
    should.
    """
    try:
        from bridge.local.demo import run_demo
    except ModuleNotFoundError as error:
        raise click.ClickException(f"needs {error.name}: pip install 'bucket-brigade[local]'") from error
    try:
        return run_demo(keep=keep)
    except KeyboardInterrupt:
        raise click.Abort from None
