"""How far a backfill has come, in a file: what ``--state`` writes and what the next run goes on from."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.errors import SettingsError

_VERSION = 1
#: The file is written at most this often, and at the end: ten thousand batches need no ten thousand files.
_EVERY_SECONDS = 1.0


@dataclass
class BackfillState:
    """``what`` says which backfill it is: a state of another one is refused, it would skip objects."""

    path: Path
    what: Mapping[str, Any]
    last_key: str | None = None
    sent: int = 0
    complete: bool = False
    _written_at: float = float("-inf")

    def advance(self, last_key: str, count: int) -> None:
        """SQS has confirmed ``count`` more messages, the last one for ``last_key``."""
        self.last_key = last_key
        self.sent += count
        if time.monotonic() - self._written_at >= _EVERY_SECONDS:
            self.write()

    def write(self) -> None:
        """Put the file in place at once, never half: a run may be killed at any moment. Raises OSError."""
        content = {
            "version": _VERSION,
            "backfill": self.what,
            "last_key": self.last_key,
            "sent": self.sent,
            "complete": self.complete,
        }
        beside = self.path.with_name(f"{self.path.name}.new")
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, self.path)  # noqa: PTH105 - the rename that is atomic, by its own name
        self._written_at = time.monotonic()


def open_state(path: Path, what: Mapping[str, Any]) -> BackfillState:
    """Return the state in the file, or the first one where there is no file; the file is then writable.

    Raises SettingsError for a file that is none of ours, or that of another backfill.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        state = BackfillState(path, what)
    except (OSError, ValueError) as error:
        raise SettingsError(f"--state {path} cannot be read: {error}") from error
    else:
        state = _state(path, what, found)
    try:
        state.write()  # a file that cannot be written shall be known before the first message is sent
    except OSError as error:
        raise SettingsError(f"--state {path} cannot be written: {error}") from error
    return state


def _state(path: Path, what: Mapping[str, Any], found: Any) -> BackfillState:
    match found:
        case {
            "version": int(version),
            "backfill": dict(other),
            "last_key": str() | None as last_key,
            "sent": int(sent),
            "complete": bool(complete),
        } if version == _VERSION:
            pass
        case _:
            raise SettingsError(f"--state {path} is not the state file of a backfill")
    if other != what:
        differing = ", ".join(sorted(n for n in {*other, *what} if other.get(n) != what.get(n)))
        raise SettingsError(f"--state {path} belongs to another backfill ({differing} differ): name another file")
    return BackfillState(path, what, last_key, sent, complete)
