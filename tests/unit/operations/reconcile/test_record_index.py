"""All records of a task by object, from a store that is listed once."""

from __future__ import annotations

import pytest

from bridge.idempotency.identity import of_key, of_record
from bridge.idempotency.record import Record, to_json
from bridge.operations.reconcile.record_index import NoRoom, RecordIndex
from bridge.s3.event import ObjectRecord
from tests.unit.idempotency.memory_store import MemoryStore

OBJECTS = [ObjectRecord(bucket="b", key=f"k{number:05d}", etag="e") for number in range(2_000)]
TEXT = to_json(Record(status="completed", event="e", expires_at=1, result={"rows": 1}))


def store_of(objects, *, tells: bool) -> MemoryStore:
    """A store with a record for each, some for other tasks and for no object."""
    store = MemoryStore(refusal_tells=tells)
    for obj in objects:
        for task in ("t", "t2"):
            store.put(of_record(task, obj).id, TEXT)
    store.put(of_key("t", "own").id, TEXT)
    store.put("t/stray", "")
    return store


@pytest.mark.parametrize("tells", [True, False], ids=["listing-tells", "listing-does-not-tell"])
def test_each_object_with_its_records(tells):
    """In the order of the objects; where the listing has the texts nothing is read, elsewhere each record once."""
    seen = OBJECTS[::2]
    store = store_of(seen, tells=tells)
    with RecordIndex(store, "t") as index:
        index.fill(lambda: True)
        found = list(index.records_of(OBJECTS))
    assert [obj for obj, _ in found] == OBJECTS
    assert all(len(records) == (1 if number % 2 == 0 else 0) for number, (_, records) in enumerate(found))
    assert (index.records, index.own_keys) == (len(seen), 1)
    assert "rows" not in found[0][1][0][1]
    assert [call for call, _ in store.calls].count("read") == (0 if tells else len(seen))
    assert [argument for call, argument in store.calls if call == "records"] == ["t/"]


def test_a_listing_is_stopped():
    """When the command is told to end."""
    left = iter([True, True, False])
    with RecordIndex(store_of(OBJECTS[:10], tells=True), "t") as index:
        index.fill(lambda: next(left))
    assert index.records == 2


def test_a_full_disk():
    """Is told in SQLite's words, as an error of ours."""
    with RecordIndex(store_of(OBJECTS, tells=True), "t") as index:
        index._db.execute("PRAGMA max_page_count = 8")
        with pytest.raises(NoRoom, match="full"):
            index.fill(lambda: True)
