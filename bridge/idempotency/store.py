"""What a store must be able to do: read a text, create it where none is, replace it where it is still the same.

Nothing here knows what the texts mean; one test suite (tests/unit/idempotency/test_stores.py) holds for every store.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from bridge.errors import StoreUnavailable


class Stored(NamedTuple):
    """A text as it was read; ``tag`` changes with every write."""

    text: str
    tag: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Not written, for the record is not what the writer believed; ``found`` is what is there, where it was told."""

    found: Stored | None = None


class Store(Protocol):
    """A place for records. Every method raises StoreUnavailable when it cannot know what the store holds or did."""

    #: As in BRIDGE_IDEMPOTENCY_URL, for messages to people.
    url: str
    #: Whether a refusal tells what is there: then a create is also the quickest way to read.
    refusal_tells: bool

    def read(self, record_id: str) -> Stored | None:
        """Return the text, or None where there is none; never an older one than the last that was written."""
        ...

    def create(self, record_id: str, text: str, expires_at: int) -> str | Refused:
        """Write the text where there is none and return its tag; ``expires_at`` (since 1970) is when it may go."""
        ...

    def replace(self, record_id: str, text: str, tag: str, expires_at: int) -> str | Refused:
        """Write the text in place of the one with this tag, and return the new tag."""
        ...

    def records(self, folder: str) -> Iterator[tuple[str, str | None]]:
        """Yield the id of every record whose id begins with ``folder``, once, with its text where the listing tells it.

        For an operator's command, which may need a permission more than a worker. A record that is written meanwhile
        may be missing, all others are there; memory is that of one page.
        """
        ...


def unavailable(url: str, error: BaseException) -> StoreUnavailable:
    """Return the error for an answer that leaves open what the store holds."""
    response: Any = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return StoreUnavailable(f"{url}: {code or type(error).__name__}: {' '.join(str(error).split())[:300]}")
