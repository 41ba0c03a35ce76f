"""The protocol of a store: read a text, create it if there is none, replace it if it is unchanged.

A store does not know what the texts mean. One test suite (tests/unit/idempotency/test_stores.py) runs on every store.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from bridge.errors import StoreUnavailable


class Stored(NamedTuple):
    """A text that was read; ``tag`` changes with every write."""

    text: str
    tag: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Not written, because the record is not what the writer expected; ``found`` is the existing text, if reported."""

    found: Stored | None = None


class Store(Protocol):
    """A place for records. Every method raises StoreUnavailable when the store's content or action is unknown."""

    #: As in BRIDGE_IDEMPOTENCY_URL, for error messages and logs.
    url: str
    #: Whether a refusal reports the existing text; if so, a create is also the fastest way to read.
    refusal_tells: bool

    def read(self, record_id: str) -> Stored | None:
        """Return the text, or None if there is none; never an older text than the last one written."""
        ...

    def create(self, record_id: str, text: str, expires_at: int) -> str | Refused:
        """Write the text if there is none and return its tag; the store may delete it after ``expires_at``.

        ``expires_at`` is in whole epoch seconds.
        """
        ...

    def replace(self, record_id: str, text: str, tag: str, expires_at: int) -> str | Refused:
        """Replace the text that has this tag, and return the new tag."""
        ...

    def records(self, folder: str) -> Iterator[tuple[str, str | None]]:
        """Yield each record whose id begins with ``folder`` once, as its id and its text (None if a listing lacks it).

        For operators' commands, which may need one more permission than a worker. A record written during the listing
        may be missing; all others are yielded. Memory holds one page at a time.
        """
        ...


def unavailable(url: str, error: BaseException) -> StoreUnavailable:
    """Return the StoreUnavailable for an error that leaves the store's content unknown."""
    response: Any = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return StoreUnavailable(f"{url}: {code or type(error).__name__}: {' '.join(str(error).split())[:300]}")
