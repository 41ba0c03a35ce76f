"""Exit codes: settings at fault and errors of AWS end a command with one line.

2: a person has to correct something (settings, arguments, no such queue, access denied, no credentials). 1: it may pass
(AWS unreachable, throttling), or work is left. 130 and 143: ended by a signal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from bridge.aws_errors import PERMANENT, error_code
from bridge.text import one_line


@contextmanager
def errors_reported() -> Iterator[None]:
    """Turn settings at fault and errors of AWS into one line and an exit code; other errors go through."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        PartialCredentialsError,
        ProfileNotFound,
    )

    from bridge.errors import SettingsError

    try:
        yield
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
        raise click.ClickException(f"AWS credentials: {error}") from error
    except ClientError as error:
        text = one_line(error)
        if error_code(error) in PERMANENT:
            raise click.ClickException(text) from error
        raise exit_incomplete(text) from error
    except BotoCoreError as error:
        raise exit_incomplete(f"AWS cannot be reached: {' '.join(str(error).split())}") from error


def exit_incomplete(text: str) -> click.exceptions.Exit:
    """Print one line and return what ends the command with exit code 1."""
    click.echo(f"brigade: {text}", err=True)
    return click.exceptions.Exit(1)
