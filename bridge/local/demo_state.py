"""What the demo knows of each file while it watches: read from the worker's log lines, which come in a thread."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field

GARBAGE_LABEL = "(a garbage message)"


@dataclass
class Row:
    """One line of the live table."""

    label: str
    state: str = "waiting"
    attempts: int = 0
    error: str = ""
    runs: list[tuple[str, int]] = field(default_factory=list)
    ended: bool = False


class DemoState:
    """The rows by label, and what changed since the last look."""

    def __init__(self, labels: list[str]) -> None:
        """``labels`` are the keys of the files, and one more for the garbage message."""
        self._lock = threading.Lock()
        self.rows = {label: Row(label) for label in labels}
        self.garbage_id = ""
        self._news: list[str] = []

    def on_line(self, line: str) -> None:
        """Read one line of the worker's; lines that are not events are ignored."""
        try:
            event = json.loads(line)
        except ValueError:
            return
        if not isinstance(event, dict):
            return
        with self._lock:
            label = GARBAGE_LABEL if event.get("message_id") == self.garbage_id else event.get("key")
            row = self.rows.get(str(label))
            if row is not None:
                self._apply(row, event)

    def news(self) -> list[str]:
        """Return what has happened since the last call, one line each, for output that is not a terminal."""
        with self._lock:
            news, self._news = self._news, []
            return news

    def all_ended(self) -> bool:
        """Say whether the worker has reported an end for every row."""
        with self._lock:
            return all(row.ended for row in self.rows.values())

    def _apply(self, row: Row, event: dict[str, object]) -> None:
        attempt = event.get("attempt")
        match event.get("event"):
            case "task_started":
                row.state, row.attempts = "running", attempt if isinstance(attempt, int) else 1
                row.runs.append((str(event.get("task_id")), row.attempts))
            case "task_succeeded":
                row.state = "succeeded"
            case "task_retried":
                row.error = str(event.get("error") or "")
                row.state = f"again in {event.get('delay_seconds')} s"
            case "dead_lettered":
                row.error = str(event.get("error") or "")
                row.state = "sent to the DLQ"
            case "message_settled" if event.get("outcome") != "retried":
                reason = event.get("reason")
                row.state = f"{event.get('outcome')}{f' ({reason})' if reason else ''}"
                row.ended = True
            case _:
                return
        self._news.append(f"{row.label}: {row.state}{f' - {row.error}' if row.error and not row.ended else ''}")
