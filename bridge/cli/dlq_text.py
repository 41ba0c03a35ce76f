"""Dead letters for a person: a table, one letter in full, and progress. Plain text, the same with and without colours.

All of it was written by others, so nothing is printed that a terminal would obey: control characters are escaped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from bridge.messages.dead_letter import Letter

_ERROR_CHARACTERS = 60


def table(summaries: Iterable[dict[str, Any]]) -> str:
    """Return the letters, the oldest first, as lines with a heading; ``""`` when there are none."""
    rows = [_row(summary) for summary in sorted(summaries, key=lambda summary: summary["when"] or "")]
    if not rows:
        return ""
    return aligned([("WHEN (UTC)", "ID", "REASON", "TASK", "ATTEMPTS", "ERROR", "OBJECT"), *rows])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines whose columns stand under one another; the last column is as long as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def in_full(letter: Letter) -> str:
    """Return everything about one letter."""
    summary = letter.whole()
    lines = [
        ("id", letter.id),
        ("message id", letter.message_id),
        ("when", summary["when"]),
        ("reason", letter.reason),
        ("task", letter.task),
        ("error", _error(summary)),
        ("attempts", letter.attempts),
        ("redrives", letter.redrives or None),
        ("source queue", letter.source_queue),
        ("worker", letter.worker),
        *(("object", f"s3://{bucket}/{key}") for bucket, key in letter.objects),
        *(
            ("attribute", f"{name}={value.get('StringValue', value.get('BinaryValue'))}")
            for name, value in summary["message_attributes"].items()
            if name != "BridgeCause"
        ),
    ]
    text = "\n".join(f"{name:<14}{printable(str(value))}" for name, value in lines if value is not None)
    for name, value in (("traceback", letter.traceback), ("body", letter.raw["Body"])):
        if value:
            text += f"\n\n{name}:\n" + "\n".join(f"  {printable(line)}" for line in value.split("\n")).rstrip()
    return text


def printable(text: str) -> str:
    """Return a text in which no character controls the terminal, splits the line or has half a meaning."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def progress(text: str) -> None:
    """Overwrite the last line on standard error, where that is a terminal; an empty text takes it away."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text}", nl=False, err=True)


def messages(number: int) -> str:
    """Return ``1 message`` or ``5 messages``."""
    return f"{number:,} message{'' if number == 1 else 's'}"


def _row(summary: dict[str, Any]) -> tuple[str, ...]:
    objects = [f"s3://{o['bucket']}/{o['key']}" for o in summary["objects"]]
    cells = (
        (summary["when"] or "-").replace("T", " ")[:19],
        summary["id"],
        summary["reason"],
        summary["task"] or "-",
        "-" if summary["attempts"] is None else str(summary["attempts"]),
        _cut(_error(summary) or "-"),
        "-" if not objects else objects[0] + (f" (+{len(objects) - 1})" if len(objects) > 1 else ""),
    )
    return tuple(printable(" ".join(cell.split())) for cell in cells)


def _error(summary: dict[str, Any]) -> str | None:
    return ": ".join(part for part in (summary["error_type"], summary["error"]) if part) or None


def _cut(text: str) -> str:
    return text if len(text) <= _ERROR_CHARACTERS else text[: _ERROR_CHARACTERS - 1] + "…"
