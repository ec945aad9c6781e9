"""Sessions of workers as keyed records."""

import pytest

from flowkit._records.worker_sessions import (
    OwnSession,
    WorkerSession,
    end_session,
    session_of,
    sessions_of,
)
from flowkit.errors import StoreUnavailable
from flowkit.protocols import KeyedRecord, RecordChange
from flowkit_testing import InMemoryStore
from tests.hooked_store import HookedStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def store() -> InMemoryStore:
    return InMemoryStore()


def session(beat: int, *, started_at: float = 1.0, incarnation: str = "a") -> WorkerSession:
    info = {"incarnation": incarnation, "odd.$": "ü"}
    return WorkerSession("w", ("role", "b"), beat, started_at, info)


async def test_a_session_is_read_as_it_was_renewed(store: InMemoryStore) -> None:
    own = OwnSession(store, "w")
    for beat in (1, 2, 3):
        assert await own.renew(session(beat)) is None
        assert await sessions_of(store) == [session(beat)]
        assert await session_of(store, "w") == session(beat)
    await end_session(store, "w")
    await end_session(store, "w")
    assert await sessions_of(store) == []
    assert await session_of(store, "w") is None
    assert await own.renew(session(4)) is None
    assert await sessions_of(store) == [session(4)]


async def test_all_sessions_are_read_however_many_they_are(store: InMemoryStore) -> None:
    workers = [f"{number:04}" for number in range(2_001)]
    for name in workers:
        await OwnSession(store, name).renew(WorkerSession(name, (), 1, 1.0))
    assert [found.worker_id for found in await sessions_of(store)] == workers


async def test_a_renewal_is_one_write_and_no_read() -> None:
    class Counting(HookedStore):
        reads = 0
        changes: list[RecordChange]

        async def before_read(self, kind: str) -> None:
            self.reads += 1

        async def before_change(self, change: RecordChange) -> None:
            self.changes.append(change)

    store = Counting()
    store.changes = []
    own = OwnSession(store, "w")
    for beat in range(1, 6):
        await own.renew(session(beat))
    assert (store.reads, len(store.changes)) == (0, 5)
    assert not any(change.durable for change in store.changes)


async def test_the_worker_that_started_later_has_the_session(store: InMemoryStore) -> None:
    first, later = OwnSession(store, "w"), OwnSession(store, "w")
    await first.renew(session(7, started_at=1.0))
    assert await later.renew(session(1, started_at=2.0, incarnation="b")) is None
    found = await first.renew(session(8, started_at=1.0))
    assert found == session(1, started_at=2.0, incarnation="b")
    assert await later.renew(session(2, started_at=2.0, incarnation="b")) is None
    assert await sessions_of(store) == [session(2, started_at=2.0, incarnation="b")]


async def test_a_renewal_whose_answer_was_lost_is_followed_by_the_next(
    store: InMemoryStore,
) -> None:
    class Lost(HookedStore):
        loses = False

        async def before_change(self, change: RecordChange) -> None:
            if self.loses:
                await self._records.change([change])
                raise StoreUnavailable("no answer")

    lost = Lost()
    own = OwnSession(lost, "w")
    await own.renew(session(1))
    lost.loses = True
    with pytest.raises(StoreUnavailable):
        await own.renew(session(2))
    lost.loses = False
    assert await own.renew(session(3)) is None
    assert await sessions_of(lost) == [session(3)]


@pytest.mark.parametrize("data", [b"\xff", b"{}", b'{"v":2}', b'{"v":1,"roles":[7]}'])
async def test_a_damaged_session_is_left_out_until_its_worker_renews_it(
    store: InMemoryStore, data: bytes
) -> None:
    own = OwnSession(store, "w")
    await own.renew(session(1))
    await OwnSession(store, "x").renew(WorkerSession("x", (), 1, 1.0))
    damaged = KeyedRecord(
        "worker", "w", data, (await store.records.get("worker", "w"))["w"].revision
    )
    await store.records.change([RecordChange("damage", [damaged])])
    assert [found.worker_id for found in await sessions_of(store)] == ["x"]
    assert await session_of(store, "w") is None
    assert await own.renew(session(2)) is None
    assert await session_of(store, "w") == session(2)


async def test_a_session_whose_revision_is_damaged_is_replaced() -> None:
    class Damaged(HookedStore):
        def seen(self, record: KeyedRecord) -> KeyedRecord:
            return KeyedRecord(record.kind, record.key, b"", fault="its revision is not text")

    store = Damaged()
    await OwnSession(store, "w").renew(session(1))
    assert await OwnSession(store, "w").renew(session(2)) is None
    (stored,) = await store._records.scan("worker")
    assert b'"beat":2' in stored.data


async def test_a_session_that_always_changes_is_reported_as_unavailable() -> None:
    class Changing(HookedStore):
        count = 0

        async def before_change(self, change: RecordChange) -> None:
            self.count += 1
            stored = await self._records.get("worker", ["w"])
            await self._records.change([RecordChange(f"other {self.count}", list(stored.values()))])

    store = Changing()
    await OwnSession(store, "w").renew(session(1))
    with pytest.raises(StoreUnavailable, match="changes too often"):
        await OwnSession(store, "w").renew(session(2))
