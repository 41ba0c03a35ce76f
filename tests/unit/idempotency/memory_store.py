"""A Store in memory: what the contract suite measures the real ones against, and what tests of the flow run on."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Literal

from bridge.errors import StoreUnavailable
from bridge.idempotency.store import Refused, Stored

Fault = Literal["before", "after"]


class MemoryStore:
    """Keeps texts in a dict and notes each call.

    ``refusal_tells`` as DynamoDB does it; ``content_tags``: a tag is a hash of the text, as S3's eTags are, so that a
    text which is written again gets its old tag back. ``faults`` are used up one by one: a fault of ``before`` raises
    StoreUnavailable and writes nothing, one of ``after`` writes first.
    """

    def __init__(self, *, refusal_tells: bool = True, content_tags: bool = False) -> None:
        self.url = "memory:"
        self.refusal_tells = refusal_tells
        self.content_tags = content_tags
        self.kept: dict[str, Stored] = {}
        self.calls: list[tuple[str, str]] = []
        self.faults: deque[tuple[str, Fault]] = deque()
        self.is_down = False
        self._writes = 0
        self._lock = threading.Lock()

    def read(self, record_id: str) -> Stored | None:
        """As the protocol says."""
        with self._lock:
            self._begin("read", record_id)
            return self.kept.get(record_id)

    def create(self, record_id: str, text: str, expires_at: int) -> str | Refused:
        """As the protocol says."""
        return self._write("create", record_id, text, None)

    def replace(self, record_id: str, text: str, tag: str, expires_at: int) -> str | Refused:
        """As the protocol says."""
        return self._write("replace", record_id, text, tag)

    def records(self, folder: str) -> Iterator[tuple[str, str | None]]:
        """As the protocol says."""
        with self._lock:
            self._begin("records", folder)
            found = sorted(record_id for record_id in self.kept if record_id.startswith(folder))
        for record_id in found:
            yield record_id, self.kept[record_id].text if self.refusal_tells else None

    def tag_of(self, text: str) -> str:
        """The tag of a text that is written now."""
        self._writes += 1
        return hashlib.sha256(text.encode()).hexdigest()[:8] if self.content_tags else f"w{self._writes}"

    def fail_next(self, method: str, fault: Fault = "before", times: int = 1) -> None:
        """Let the next calls of a method fail; the calls of other methods in between do not."""
        self.faults.extend([(method, fault)] * times)

    def put(self, record_id: str, text: str) -> None:
        """Write without a condition, as somebody else would."""
        self.kept[record_id] = Stored(text, self.tag_of(text))

    def _write(self, method: str, record_id: str, text: str, tag: str | None) -> str | Refused:
        with self._lock:
            fault = self._begin(method, record_id)
            found = self.kept.get(record_id)
            if (found.tag if found else None) != tag:
                answer: str | Refused = Refused(found if self.refusal_tells else None)
            else:
                answer = self.tag_of(text)
                self.kept[record_id] = Stored(text, answer)
            if fault == "after":
                raise StoreUnavailable("memory: the answer was lost")
            return answer

    def _begin(self, method: str, record_id: str) -> Fault | None:
        self.calls.append((method, record_id))
        if self.is_down:
            raise StoreUnavailable("memory: it is down")
        if not self.faults or self.faults[0][0] != method:
            return None
        fault = self.faults.popleft()[1]
        if fault == "before":
            raise StoreUnavailable("memory: the call failed")
        return fault
