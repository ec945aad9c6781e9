"""Load like that of coordinators, workers and clients, which continues through outages.

Afterwards, the load is checked for lost and repeated writes.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from flowkit.errors import StoreUnavailable
from flowkit.protocols import Stream
from flowkit_mongo import MongoStore
from tests.store_records import artifact, change, task

STREAM = Stream("load", "node")


class Load:
    """Writers that continue until they are stopped."""

    def __init__(self, store: MongoStore) -> None:
        self.store = store
        self.stopping = False
        self.confirmed: dict[str, list[str]] = defaultdict(list)
        self.created: dict[str, set[str]] = defaultdict(set)
        self.put: list[str] = []
        self.outages = 0
        self.steps = 0
        self.goal = 0
        self.reached = anyio.Event()

    async def commit(self, task_id: str, writer: int) -> None:
        """Append to a task's log by compare-and-set.

        After an unknown outcome, the log shows whether the commit was applied.
        """
        number = 0
        while not self.stopping:
            number += 1
            mark = f"{task_id}.{writer}.{number}"
            try:
                record = (await self.store.load([task_id]))[task_id]
                log = record.parts["log"] + f" {mark}".encode()
                (applied,) = await self.store.commit(
                    [change(task_id, record.version, op_id=mark, put={"log": log})]
                )
            except StoreUnavailable:
                self.outages += 1
                applied = mark.encode() in (await self.reload(task_id)).split()
            if applied:
                self.confirmed[task_id].append(mark)
                self.step()

    async def reload(self, task_id: str) -> bytes:
        while True:
            try:
                return (await self.store.load([task_id]))[task_id].parts["log"]
            except StoreUnavailable:
                self.outages += 1

    async def put_artifacts(self, writer: int) -> None:
        number = 0
        while not self.stopping:
            uids = [f"{writer}.{number}", f"{writer}.{number + 1}", f"shared.{number}"]
            try:
                await self.store.artifacts.put([artifact(STREAM, uid) for uid in uids])
            except StoreUnavailable:
                self.outages += 1
                continue
            self.put += uids
            number += 2
            self.step()

    async def create(self) -> None:
        number = 0
        while not self.stopping:
            key = f"key-{number // 2}"
            try:
                self.created[key].update(
                    await self.store.create([task(f"task-{number}", idempotency_key=key)])
                )
            except StoreUnavailable:
                self.outages += 1
                continue
            number += 1
            self.step()

    async def more(self, steps: int) -> None:
        """Return when ``steps`` more steps were confirmed."""
        self.goal, self.reached = self.steps + steps, anyio.Event()
        with anyio.fail_after(60):
            await self.reached.wait()

    def step(self) -> None:
        self.steps += 1
        if self.steps >= self.goal:
            self.reached.set()

    async def check(self) -> None:
        """Check that no confirmed write is lost and none was applied twice."""
        records = await self.store.load(list(self.confirmed))
        for task_id, marks in self.confirmed.items():
            log = records[task_id].parts["log"].decode().split()
            assert sorted(log) == sorted(marks)
            assert records[task_id].version == len(log) + 1
        found = await self.store.artifacts.read(STREAM, limit=100_000)
        assert [record.position for record in found] == list(range(1, len(found) + 1))
        assert sorted(record.uid for record in found) == sorted(set(self.put))
        assert all(len(task_ids) == 1 for task_ids in self.created.values())
        assert set(
            await self.store.load([name for names in self.created.values() for name in names])
        ) == set().union(*self.created.values())


@asynccontextmanager
async def under_load(open_store: Callable[[], MongoStore]) -> AsyncIterator[Load]:
    """Keep up the load within this context, then stop and check it."""
    async with open_store() as store:
        load = Load(store)
        await store.create([task(f"t{number}", parts={"log": b""}) for number in range(3)])
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                for writer in range(2):
                    tasks.start_soon(load.commit, f"t{number}", writer)
            for writer in range(2):
                tasks.start_soon(load.put_artifacts, writer)
            tasks.start_soon(load.create)
            await load.more(50)
            yield load
            await load.more(100)
            load.stopping = True
        await load.check()
