"""Properties of the in-memory store beyond the protocol: limits, speed and several event loops."""

import asyncio
import time

import anyio
import pytest

from flowkit.errors import RecordTooLarge, StoreError
from flowkit.protocols import (
    ArchivedPart,
    ArtifactRecord,
    Commit,
    Store,
    Stream,
    TaskHeader,
    TaskQuery,
    TaskRecord,
)
from flowkit_testing import InMemoryStore

STORED = 100_000


def task(
    task_id: str,
    *,
    at: float = 0.0,
    status: str = "queued",
    wake_at: float | None = None,
    **parts: bytes,
) -> TaskRecord:
    return TaskRecord(TaskHeader(task_id, status, at, wake_at=wake_at), b"", parts)


def commit(task_id: str, version: int = 1, *, wake_at: float | None = None, **put: bytes) -> Commit:
    return Commit(task_id, version, "op", "running", wake_at, None, put)


@pytest.fixture(scope="module")
def full_store() -> InMemoryStore:
    """Return a store with many finished tasks."""
    store = InMemoryStore()
    asyncio.run(_fill(store))
    return store


async def _fill(store: Store) -> None:
    await store.create(
        [task(f"old-{number}", at=float(number), status="finished") for number in range(STORED)]
    )


async def test_looking_for_due_tasks_does_not_look_at_all_tasks(full_store: InMemoryStore):
    await full_store.create([task("due", at=STORED + 1.0, wake_at=5.0)])
    began = time.process_time()
    for _ in range(100):
        assert await full_store.due(before=10.0, limit=100) == ["due"]
    assert time.process_time() - began < 1


async def test_a_page_of_the_newest_does_not_look_at_all_tasks(full_store: InMemoryStore):
    began = time.process_time()
    for _ in range(100):
        found, after = await full_store.list_tasks(TaskQuery(limit=5, statuses=["finished"]))
        assert (len(found), after) == (5, f"{STORED - 5}.0/old-{STORED - 5}")
    assert time.process_time() - began < 1


async def test_a_page_far_back_does_not_look_at_what_is_before_it(full_store: InMemoryStore):
    began = time.process_time()
    for _ in range(100):
        found, after = await full_store.list_tasks(TaskQuery(limit=5, after="5.0/old-5"))
        assert (len(found), after) == (5, None)
    assert time.process_time() - began < 1


async def test_what_no_page_gave_is_an_error():
    with pytest.raises(StoreError, match="invalid page cursor 'yesterday'"):
        await InMemoryStore().list_tasks(TaskQuery(after="yesterday"))


async def test_spec_and_parts_of_a_new_task_share_a_limit():
    store = InMemoryStore(max_record_bytes=100)
    await store.create([task("small", a=b"x" * 50, b=b"x" * 50)])
    with pytest.raises(RecordTooLarge, match=r"'large'.*101 bytes.*limit of 100"):
        await store.create([task("other"), task("large", a=b"x" * 50, b=b"x" * 51)])
    assert set(await store.load(["small", "other", "large"])) == {"small"}


@pytest.mark.parametrize(
    "large",
    [{"put": {"b": b"x" * 11}}, {"archive": [ArchivedPart("b", 1, b"x" * 11)]}],
    ids=["put", "archive"],
)
async def test_each_part_of_a_commit_has_a_limit_and_nothing_of_the_call_is_applied(large: dict):
    store = InMemoryStore(max_part_bytes=10)
    await store.create([task("one"), task("two")])
    with pytest.raises(RecordTooLarge, match="part 'b' of task 'two'"):
        await store.commit(
            [
                commit("one", a=b"x" * 10),
                Commit("two", 1, "op", "running", None, None, **{"put": {}, **large}),
            ]
        )
    assert {name: found.version for name, found in (await store.load(["one", "two"])).items()} == {
        "one": 1,
        "two": 1,
    }


def test_a_store_serves_one_event_loop_after_the_other():
    store = InMemoryStore()

    async def cycle(version: int) -> None:
        async with store, anyio.create_task_group() as tasks:
            await store.create([task("t")])
            tasks.start_soon(store.wait_for_change, "t", version)
            tasks.start_soon(store.wait_for_change, "missing", 1)
            await anyio.sleep(0.001)
            await store.commit([commit("t", version)])

    async def abandon() -> None:
        waiting = asyncio.create_task(store.wait_for_change("t", 99))
        await asyncio.sleep(0)
        assert not waiting.done()

    for version in (1, 2, 3):
        asyncio.run(cycle(version))
        asyncio.run(abandon())


async def test_a_wait_ends_when_its_task_is_purged():
    store = InMemoryStore()
    await store.create([TaskRecord(TaskHeader("t", "finished", 0.0, finished_at=1.0), b"", {})])
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.wait_for_change, "t", 1)
            await anyio.sleep(0.001)
            assert await store.purge(finished_before=2.0) == 1


async def test_buffers_are_copied():
    store, buffer = InMemoryStore(), bytearray(b"before")
    await store.create([TaskRecord(TaskHeader("t", "queued", 0.0), buffer, {"a": buffer})])
    await store.artifacts.put([ArtifactRecord(Stream("t", "n"), "u", True, buffer, buffer, 0.0)])
    buffer[:] = b"behind"
    found, (artifact,) = (
        (await store.load(["t"]))["t"],
        await store.artifacts.read(Stream("t", "n")),
    )
    assert [found.spec, found.parts["a"], artifact.meta, artifact.metrics] == [b"before"] * 4


async def test_wake_times_that_change_often_take_no_memory():
    store = InMemoryStore()
    await store.create([task("t")])
    for version in range(1, 5000):
        await store.commit([commit("t", version, wake_at=float(version))])
    assert len(store._tasks._wakes._heap) < 100
    assert await store.due(before=5000.0, limit=10) == ["t"]
