"""The checkpoint of a long task: the class of ``obj.progress``.

The checkpoint is stored in the record of the run's claim (bridge/idempotency), under the run's owner token. A run whose
claim was taken over therefore cannot overwrite the checkpoint of the run that took over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

MAX_BYTES = 65_536


class Keeper(Protocol):
    """The place that keeps a checkpoint from one run to the next."""

    @property
    def progress(self) -> dict[str, Any]:
        """The checkpoint that was saved last."""
        ...

    def save(self, progress: Mapping[str, Any]) -> None:
        """Keep a new checkpoint."""
        ...


class Progress:
    """Load and save the checkpoint of one object's work.

    Without an idempotency store (a plain call, a test, ``BRIDGE_IDEMPOTENCY_URL`` not set, ``idempotent=False``) the
    checkpoint exists only in memory, as long as the object. Each run then starts from the beginning; nothing else
    changes.
    """

    def __init__(self, keeper: Keeper | None = None) -> None:
        """``keeper`` None keeps the checkpoint in memory only."""
        self._keeper = keeper
        self._text = "{}"

    def load(self) -> dict[str, Any]:
        """Return the checkpoint of the last ``save``, of this run or an earlier one; ``{}`` when there is none."""
        if self._keeper is not None:
            return self._keeper.progress
        loaded: dict[str, Any] = json.loads(self._text)
        return loaded

    def save(self, progress: Mapping[str, Any]) -> None:
        """Replace the checkpoint: a dict of JSON values, at most 64 KB as JSON.

        Each call costs one write to the store, so call it only every few seconds. Raises TypeError or ValueError when
        ``progress`` cannot be stored. Raises ClaimLost when another run has taken over because this run's time limit
        has passed; the task should stop. Raises StoreUnavailable when the store is unreachable; the task may continue
        and save later.
        """
        if not isinstance(progress, Mapping):
            raise TypeError(f"progress must be a dict, not {type(progress).__name__}")
        text = json.dumps(dict(progress), allow_nan=False)
        if len(text.encode()) > MAX_BYTES:
            raise ValueError(f"progress has {len(text.encode())} bytes as JSON, but at most {MAX_BYTES} are allowed")
        if self._keeper is not None:
            self._keeper.save(json.loads(text))
        else:
            self._text = text
