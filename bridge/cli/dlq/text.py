"""Dead letters for a person: a table, and one message in full. Plain text, the same with and without colours.

All of it was written by others, so nothing is printed that a terminal would obey: control characters are escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bridge.cli.printing import aligned
from bridge.messages.dead_letter import Letter
from bridge.text import printable

_ERROR_CHARACTERS = 60


def table(summaries: Iterable[dict[str, Any]]) -> str:
    """Return the messages, the oldest first, as lines with a heading; ``""`` when there are none."""
    rows = [_row(summary) for summary in sorted(summaries, key=lambda summary: summary["when"] or "")]
    if not rows:
        return ""
    return aligned([("WHEN (UTC)", "ID", "REASON", "TASK", "ATTEMPTS", "ERROR", "OBJECT"), *rows])


def in_full(letter: Letter) -> str:
    """Return everything about one message."""
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
