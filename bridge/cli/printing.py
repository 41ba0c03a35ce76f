"""What commands print: tables, numbers of messages, progress."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines whose columns stand under one another; the last column is as long as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def progress(text: str) -> None:
    """Overwrite the last line on standard error, where that is a terminal; an empty text takes it away."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text}", nl=False, err=True)


def messages(number: int) -> str:
    """Return ``1 message`` or ``5 messages``."""
    return f"{number:,} message{'' if number == 1 else 's'}"
