"""``brigade demo``."""

from __future__ import annotations

import click

_EXAMPLES = """
\b
Examples:
  brigade demo
  brigade demo --keep
  brigade demo --flower
"""


@click.command("demo", epilog=_EXAMPLES)
@click.option("--keep", is_flag=True, help="Leave everything running afterwards, and say what to try next.")
@click.option("--flower", is_flag=True, help="Show it in Flower too, and leave everything running (needs a Redis).")
def command(keep: bool, flower: bool) -> int:
    """Process sample files with a real worker, on this machine alone.

    S3 and SQS are moto, in this process; the worker is an ordinary one. Exit code 0 only if every file ended where it
    should.
    """
    try:
        from bridge.local.demo import run_demo
        from bridge.local.monitor import MonitorNotStarted, missing_for_flower
    except ModuleNotFoundError as error:
        raise click.ClickException(f"needs {error.name}: pip install 'bucket-brigade[local]'") from error
    if flower and (missing := missing_for_flower()):
        raise click.ClickException(missing)
    try:
        return run_demo(keep=keep or flower, flower=flower)
    except MonitorNotStarted as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.Abort from None
