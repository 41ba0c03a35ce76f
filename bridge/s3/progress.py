"""The checkpoint of a long job: what ``obj.progress`` is.

It lives in the record of the run's claim (bridge/idempotency), under the run's owner token, so that a run whose claim
was taken over cannot overwrite the checkpoint of the one that goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

MAX_BYTES = 65_536


class Keeper(Protocol):
    """Where a checkpoint is kept from one run to the next."""

    @property
    def progress(self) -> dict[str, Any]:
        """The checkpoint that was saved last."""
        ...

    def save(self, progress: Mapping[str, Any]) -> None:
        """Keep a new one."""
        ...


class Progress:
    """Load and save the checkpoint of one object's work.

    Without an idempotency store (a plain call, a test, ``BRIDGE_IDEMPOTENCY_URL`` not set, ``idempotent=False``) the
    checkpoint lasts as long as the object in memory: each run then begins anew, and nothing else changes.
    """

    def __init__(self, keeper: Keeper | None = None) -> None:
        """``keeper`` None: in memory."""
        self._keeper = keeper
        self._text = "{}"

    def load(self) -> dict[str, Any]:
        """Return the checkpoint of the last ``save``, of this run or an earlier one; ``{}`` when there is none."""
        if self._keeper is not None:
            return self._keeper.progress
        loaded: dict[str, Any] = json.loads(self._text)
        return loaded

    def save(self, progress: Mapping[str, Any]) -> None:
        """Keep a checkpoint in place of the last one: a dict of JSON values, at most 64 KB as JSON.

        Costs one write to the store, so once every few seconds is often enough. Raises TypeError or ValueError for
        what cannot be kept, ClaimLost when this run has been overtaken (its time limit had passed: let it end),
        StoreUnavailable when the store cannot be reached (the task may go on and try later).
        """
        if not isinstance(progress, Mapping):
            raise TypeError(f"progress is a dict, not {type(progress).__name__}")
        text = json.dumps(dict(progress), allow_nan=False)
        if len(text.encode()) > MAX_BYTES:
            raise ValueError(f"progress has {len(text.encode())} bytes as JSON, at most {MAX_BYTES} are kept")
        if self._keeper is not None:
            self._keeper.save(json.loads(text))
        else:
            self._text = text
