"""All records of a task, looked up by object: the store is listed once, into a temporary database on disk.

Ids begin with a digest of the object, so records come in another order than keys do, and a store cannot be asked
"all of these": one call an object would be slow and dear. SQLite keeps what does not fit its cache in a file that has
no name and is gone with the process (https://www.sqlite.org/inmemorydb.html, "Temporary Databases").
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from typing import Self

from bridge.errors import BridgeError
from bridge.idempotency.identity import object_folder, task_folder
from bridge.idempotency.store import Store
from bridge.operations.reconcile.completions import is_own_key, place, slim
from bridge.s3.event import ObjectRecord

#: Records that the listing told no text of are read so many at a time: fewer than a store's client has connections.
READERS = 16
#: Objects whose records are being read: what is held in memory.
_UNDER_WAY = 8 * READERS
_CACHE_KIB = 16_384


class NoRoom(BridgeError):  # noqa: N818 - says what is the matter
    """The temporary database cannot be written; the text has SQLite's words."""


@dataclass
class RecordIndex:
    """To be used in ``with`` and in one thread. ``records`` counts those of objects, ``own_keys`` all others."""

    store: Store
    task: str
    records: int = 0
    own_keys: int = 0

    def __enter__(self) -> Self:
        self._db = sqlite3.connect("")
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.execute("PRAGMA journal_mode = OFF")  # nobody will want to go back to an earlier state of it
        self._db.execute(
            "CREATE TABLE record (folder TEXT, name TEXT, text TEXT, PRIMARY KEY (folder, name)) WITHOUT ROWID"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def fill(self, running: Callable[[], bool]) -> None:
        """List the store while ``running()``. Raises StoreUnavailable and NoRoom."""
        listing = takewhile(lambda _: running(), self.store.records(task_folder(self.task)))
        try:
            self._db.executemany("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", self._rows(listing))
        except sqlite3.Error as error:
            raise NoRoom(f"the list of records cannot be kept in the temporary folder (TMPDIR): {error}") from error

    def _rows(self, listing: Iterable[tuple[str, str | None]]) -> Iterator[tuple[str, str, str | None]]:
        for record_id, text in listing:
            found = place(self.task, record_id)
            if found is None:
                continue
            if is_own_key(found[0]):
                self.own_keys += 1
                continue
            self.records += 1
            yield *found, None if text is None else slim(text)

    def records_of(self, objects: Iterable[ObjectRecord]) -> Iterator[tuple[ObjectRecord, list[tuple[str, str]]]]:
        """Yield each object, in order, with its records as (name, text); reads those whose texts are not known yet.

        Raises StoreUnavailable and NoRoom.
        """
        under_way: deque[tuple[ObjectRecord, Future[list[tuple[str, str]]] | None]] = deque()
        with ThreadPoolExecutor(READERS, thread_name_prefix="records") as pool:
            try:
                for obj, rows in self._looked_up(objects):
                    under_way.append((obj, pool.submit(self._read, obj, rows) if rows else None))
                    while under_way and (len(under_way) >= _UNDER_WAY or _is_known(under_way[0][1])):
                        yield _answer(*under_way.popleft())
                while under_way:
                    yield _answer(*under_way.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _looked_up(
        self, objects: Iterable[ObjectRecord]
    ) -> Iterator[tuple[ObjectRecord, list[tuple[str, str | None]]]]:
        for obj in objects:
            folder = self._folder(obj)
            try:
                rows = self._db.execute("SELECT name, text FROM record WHERE folder = ?", (folder,)).fetchall()
            except sqlite3.Error as error:
                raise NoRoom(f"the list of records cannot be read from the temporary folder: {error}") from error
            yield obj, rows

    def _read(self, obj: ObjectRecord, rows: list[tuple[str, str | None]]) -> list[tuple[str, str]]:
        texts = []
        for name, known in rows:
            if known is not None:
                texts.append((name, known))
            elif (stored := self.store.read(f"{task_folder(self.task)}{self._folder(obj)}/{name}")) is not None:
                texts.append((name, slim(stored.text)))
        return texts

    def _folder(self, obj: ObjectRecord) -> str:
        return object_folder(self.task, obj.bucket, obj.key).removeprefix(task_folder(self.task)).rstrip("/")


def _is_known(future: Future[list[tuple[str, str]]] | None) -> bool:
    return future is None or future.done()


def _answer(
    obj: ObjectRecord, future: Future[list[tuple[str, str]]] | None
) -> tuple[ObjectRecord, list[tuple[str, str]]]:
    return obj, future.result() if future else []
