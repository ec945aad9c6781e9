"""Waiters for changes of tasks are woken by this process and by others."""

from collections.abc import AsyncIterator, Collection
from functools import partial
from pathlib import Path

import anyio
import pytest

from flowkit import Client
from flowkit.errors import StoreError
from flowkit.protocols import TaskRecord
from flowkit_sqlite import SqliteConfig, SqliteStore
from flowkit_testing import InMemoryBus
from tests.store_records import change, task

pytestmark = pytest.mark.anyio

PATIENCE_SEC = 30.0
OF_ANOTHER_PROCESS = SqliteConfig(readers=2)
"""Stores with different settings share no connection, so each is another process to the other."""


@pytest.fixture
async def store(anyio_backend: str, path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(f"sqlite:///{path}") as store:
        yield store


@pytest.fixture
async def other(store: SqliteStore, path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(f"sqlite:///{path}", config=OF_ANOTHER_PROCESS) as other:
        yield other


class Waits:
    """Waits for the end of tasks, and the ids of the tasks whose wait is over."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.over: set[str] = set()

    async def wait(self, task_id: str, version: int = 1, *, ended: bool = True) -> None:
        await self.store.wait_for_change(task_id, version, ended=ended)
        self.over.add(task_id)


async def test_commits_of_another_process_wake_the_waiters_for_their_tasks_alone(
    store: SqliteStore, other: SqliteStore
) -> None:
    names = [f"t{number}" for number in range(300)]
    await store.create([task(name) for name in names])
    waits = Waits(store)
    with anyio.fail_after(PATIENCE_SEC):
        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(waits.wait, name)
            await other.commit([change("t0")])  # its waiter waits for the end
            await other.commit([change(name, finished_at=2.0) for name in names[1:200]])
            while len(waits.over) < 199:
                await anyio.sleep(0.01)
            assert waits.over == {*names[1:200]}
            await store.commit([change("t0", 2, finished_at=2.0)])
            await store.commit([change(name, finished_at=2.0) for name in names[200:]])
    assert waits.over == {*names}


async def test_a_commit_of_another_process_wakes_a_waiter_without_polling(
    anyio_backend: str, path: Path
) -> None:
    # Polling cannot wake the waiter within the time that the test waits.
    config = SqliteConfig(poll_interval_ms=int(PATIENCE_SEC * 2000))
    async with (
        SqliteStore(f"sqlite:///{path}", config=config) as store,
        SqliteStore(f"sqlite:///{path}", config=OF_ANOTHER_PROCESS) as other,
    ):
        await store.create([task("t")])
        waits = Waits(store)
        with anyio.fail_after(PATIENCE_SEC):
            async with anyio.create_task_group() as group:
                group.start_soon(waits.wait, "t")
                await anyio.wait_all_tasks_blocked()
                await other.commit([change("t", finished_at=2.0)])
        assert waits.over == {"t"}


async def test_a_store_that_shares_the_process_wakes_its_waiters(
    store: SqliteStore, path: Path
) -> None:
    await store.create([task("t")])
    waits = Waits(store)
    with anyio.fail_after(PATIENCE_SEC):
        async with SqliteStore(f"sqlite:///{path}") as same, anyio.create_task_group() as group:
            group.start_soon(partial(waits.wait, "t", ended=False))
            await same.commit([change("t")])
    assert waits.over == {"t"}


async def test_a_purge_by_another_process_ends_the_wait(
    store: SqliteStore, other: SqliteStore
) -> None:
    await store.create([task("t", finished_at=1.0)])
    waits = Waits(store)
    with anyio.fail_after(PATIENCE_SEC):
        async with anyio.create_task_group() as group:
            group.start_soon(waits.wait, "t", 7)
            assert await other.purge(finished_before=2.0) == 1


async def test_a_cancelled_wait_does_not_affect_the_others(store: SqliteStore) -> None:
    await store.create([task("t")])
    waits = Waits(store)
    with anyio.fail_after(PATIENCE_SEC):
        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await store.wait_for_change("t", 1)
            for _ in range(3):
                group.start_soon(waits.wait, "t")
            await store.commit([change("t", finished_at=2.0)])
    assert waits.over == {"t"}


async def test_a_closed_store_refuses_to_wait(anyio_backend: str, path: Path) -> None:
    store = SqliteStore(f"sqlite:///{path}")
    with pytest.raises(StoreError, match="not open"):
        await store.wait_for_change("t", 1)
    async with store:
        pass
    with pytest.raises(StoreError, match="closed"):
        await store.wait_for_change("t", 1)


class Counted(SqliteStore):
    """A store that counts how often tasks are loaded."""

    loads = 0

    async def load(self, task_ids: Collection[str]) -> dict[str, TaskRecord]:
        self.loads += 1
        return await super().load(task_ids)


async def test_clients_that_follow_a_task_read_a_change_of_another_process_together(
    anyio_backend: str, path: Path
) -> None:
    followers, changes, seen = 20, 6, 0

    async def follow(client: Client) -> None:
        nonlocal seen
        async for _ in client.watch("t"):
            seen += 1

    async with (
        Counted(f"sqlite:///{path}") as store,
        SqliteStore(f"sqlite:///{path}", config=OF_ANOTHER_PROCESS) as other,
        InMemoryBus() as bus,
        Client(store=store, bus=bus) as here,
        Client(store=other, bus=bus) as there,
    ):
        await there.create_task(graph={"nodes": [{"node_id": "a", "type": "work"}]}, task_id="t")
        with anyio.fail_after(PATIENCE_SEC):
            async with anyio.create_task_group() as group:
                for _ in range(followers):
                    group.start_soon(follow, here)
                await anyio.wait_all_tasks_blocked()
                before = seen, store.loads
                for number, verb in enumerate([there.pause, there.resume] * (changes // 2), 1):
                    await verb("t")
                    while seen < before[0] + number * followers:
                        await anyio.sleep(0.001)
                    await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
    # The first one of them reads alone, and the others after it.
    assert store.loads - before[1] <= changes * 2
