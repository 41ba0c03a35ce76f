"""Calls that stop before each step at the store, so that a test decides in which order those of several runs happen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bridge.errors import StoreUnavailable
from bridge.idempotency.store import Refused, Stored
from tests.unit.idempotency.memory_store import MemoryStore

_here = threading.local()

FAULTS = ("before", "after", "late", "asked again", "conflict")


class Crashed(BaseException):
    """The process of the call is gone."""


class PausedCall:
    """A call in a thread of its own, which runs only inside ``step``; so nothing here ever happens at once."""

    def __init__(self, call: Callable[[], Any], by: Any = None, kind: str = "") -> None:
        """It runs up to its first step at the store (or to its end, where it has none)."""
        self.by = by
        self.kind = kind
        self.ended = False
        self.answer: Any = None
        self.error: Exception | None = None
        self._fault: str | None = None
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(call,), name="paused-call", daemon=True)
        self._thread.start()
        self._stopped.acquire()

    def step(self, fault: str | None = None) -> None:
        """Let the store take one step, with this fault, and run up to the next one. ``crash`` comes after the step."""
        self._fault = fault
        self._go.release()
        self._stopped.acquire()

    def crash(self) -> None:
        """End the process before the step."""
        if not self.ended:
            self.step("gone")
        self._thread.join(10)

    def pause(self) -> str | None:
        """Wait for ``step``; to be called by the store."""
        self._stopped.release()
        self._go.acquire()
        if self._fault == "gone":
            raise Crashed
        return self._fault

    def _run(self, call: Callable[[], Any]) -> None:
        _here.call = self
        try:
            self.answer = call()
        except Crashed:
            pass
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        self.ended = True
        self._stopped.release()


@dataclass(frozen=True)
class Write:
    """A write that took effect: whose, of which kind of call, and the text before and after."""

    by: Any
    kind: str
    record_id: str
    before: str | None
    after: str


class PausingStore(MemoryStore):
    """The store in memory, with all that a network can do to a call.

    ``before``: no effect and an error; ``after``: the effect and an error; ``late``: an error, and the write arrives
    when ``land`` is called; ``asked again``: the effect, no answer, and the SDK makes the same call once more;
    ``conflict``: refused for no reason (S3's 409); ``crash``: the effect, and the process is gone.
    """

    def __init__(self, *, refusal_tells: bool, content_tags: bool) -> None:
        super().__init__(refusal_tells=refusal_tells, content_tags=content_tags)
        self.log: list[Write] = []
        self.late: list[tuple[PausedCall, str, str, str | None, str]] = []

    def read(self, record_id: str) -> Stored | None:
        """One step."""
        fault = self._pause()
        if fault in ("before", "after", "late"):
            raise StoreUnavailable("no answer")
        return self.kept.get(record_id)

    def _write(self, method: str, record_id: str, text: str, tag: str | None) -> str | Refused:
        fault, new = self._pause(), self.tag_of(text)
        call = getattr(_here, "call", None)
        match fault:
            case "before":
                raise StoreUnavailable("no answer")
            case "conflict":
                return Refused()
            case "late":
                self.late.append((call, record_id, text, tag, new))
                raise StoreUnavailable("no answer")
        answer = self._effect(call, record_id, text, tag, new)
        if fault == "after":
            raise StoreUnavailable("no answer")
        if fault == "crash":
            raise Crashed
        if fault == "asked again":
            self._pause()
            answer = self._effect(call, record_id, text, tag, new)
        return answer

    def land(self, position: int) -> None:
        """Let a write arrive of which its caller has long ceased to think."""
        self._effect(*self.late.pop(position))

    def _effect(self, call: PausedCall | None, record_id: str, text: str, tag: str | None, new: str) -> str | Refused:
        found = self.kept.get(record_id)
        if (found.tag if found else None) != tag:
            if found is not None and found.tag == new and not self.content_tags:
                return new  # as the store for DynamoDB does it: every call has a tag of its own
            return Refused(found if self.refusal_tells else None)
        self.kept[record_id] = Stored(text, new)
        self.log.append(
            Write(call.by if call else None, call.kind if call else "", record_id, found.text if found else None, text)
        )
        return new

    @staticmethod
    def _pause() -> str | None:
        call = getattr(_here, "call", None)
        return call.pause() if call is not None else None
