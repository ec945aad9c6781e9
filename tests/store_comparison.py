"""Random calls of two stores, which must give the same answers."""

import dataclasses
import random
from collections.abc import Awaitable, Callable
from typing import Any

from flowkit.protocols import (
    ArchivedPart,
    ArtifactRecord,
    Commit,
    KeyedRecord,
    RecordChange,
    RecordDeletion,
    Store,
    Stream,
    TaskQuery,
)
from flowkit_testing import InMemoryStore
from tests.store_records import NOON, task

TASKS = ["t1", "t2", "t/3", "t.$4", "t\x005", "t6"]
NAMES = ["a", "b", "c1"]
NODES = ["n", "n.$x", "n\x00/[0]"]
TAGS = ["a", "b:$c", "b:d.e"]
STATUSES = ["queued", "running", "finished"]
RECORDS = ["a", "a/b", "a\x00b", "b", "é"]
TIMES = [NOON, NOON + 0.5, NOON + 1, NOON + 2]

Step = Callable[[Store], Awaitable[Any]]


class Steps:
    """Random steps. Each step calls both stores with the same arguments."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count = 0

    def some(self, values: list[Any]) -> list[Any]:
        return self.random.sample(values, self.random.randint(0, len(values)))

    def one(self, *values: Any) -> Any:
        return self.random.choice(values)

    def data(self) -> bytes:
        self.count += 1
        return b'"%d%s"' % (self.count, b"x" * self.one(*[0] * 15, 2000))

    def parts(self) -> dict[str, bytes]:
        return {name: self.data() for name in self.some(NAMES)}

    def labels(self) -> dict[str, str]:
        return {name: self.one("1", "2") for name in self.some(["a", "b.c", "$d"])}

    def tags(self) -> frozenset[str]:
        return frozenset(self.some(TAGS) if self.one(True, False) else ())

    def create(self) -> Step:
        records = [
            task(
                task_id,
                spec=self.data(),
                parts=self.parts(),
                labels=self.labels(),
                created_at=self.one(*TIMES),
                pipeline=self.one(None, "p", "q"),
                idempotency_key=self.one(None, "k1", "k2"),
                wake_at=self.one(None, *TIMES),
                tags=self.tags(),
            )
            for task_id in self.some(TASKS)
        ]
        return lambda store: store.create(records)

    def plan(self, task_id: str) -> dict[str, Any]:
        """Return a commit without its version."""
        self.count += 1
        return {
            "task_id": task_id,
            "op_id": f"op{self.count}",
            "status": self.one(*STATUSES),
            "wake_at": self.one(None, *TIMES),
            "finished_at": self.one(None, None, *TIMES),
            "put": self.parts(),
            "drop": self.some(NAMES),
            "tags": self.tags(),
        }

    def commit(self) -> Step:
        plans = [
            (self.plan(task_id), self.one(0, 0, 0, 0, 1, -1))
            for task_id in (*self.some(TASKS), *self.some(TASKS))
        ]

        async def step(store: Store) -> Any:
            loaded = await store.load(TASKS)
            versions = {task_id: record.version for task_id, record in loaded.items()}
            return await store.commit(
                [
                    Commit(expected_version=versions.get(plan["task_id"], 1) + off, **plan)
                    for plan, off in plans
                ]
            )

        return step

    def archive(self) -> Step:
        # A refused commit may leave its archived parts, so these fit.
        task_id = self.one(*TASKS)
        parts = [
            ArchivedPart(name, self.random.randint(0, 5), self.data())
            for name in self.some([*NAMES, "x.$"])
        ]

        async def step(store: Store) -> Any:
            loaded = await store.load([task_id])
            if task_id not in loaded:
                return None
            return await store.commit(
                [
                    Commit(
                        task_id,
                        loaded[task_id].version,
                        "archived",
                        "running",
                        None,
                        None,
                        {},
                        (),
                        parts,
                    )
                ]
            )

        return step

    def put(self) -> Step:
        records = [
            ArtifactRecord(
                Stream(self.one(*TASKS), self.one(*NODES), self.one(0, 1)),
                self.one("u1", "u2", "u.$3", ""),
                self.one(True, False),
                self.one(None, self.data()),
                self.data(),
                NOON,
            )
            for _ in range(self.random.randint(0, 5))
        ]
        return lambda store: store.artifacts.put(records)

    def change(self) -> Step:
        """Change keyed records, on top of the revisions that are stored and of others."""
        names = self.some(RECORDS)
        groups = [names] if self.one(True, False) else [[name] for name in names]
        plans = [(self.record_change(group), group) for group in groups if group]
        wrong = self.one(*[None] * 4, *RECORDS)

        async def step(store: Store) -> Any:
            stored = await store.records.get("kind", RECORDS)
            revisions = {name: record.revision for name, record in stored.items()}
            if wrong is not None:
                revisions[wrong] = "wrong"
            return await store.records.change(
                [self.on_top_of(change, revisions) for change, _ in plans]
            )

        return step

    def record_change(self, names: list[str]) -> RecordChange:
        """Return a change without revisions."""
        self.count += 1
        put = [
            KeyedRecord(
                "kind",
                name,
                self.data(),
                due_at=self.one(None, *TIMES),
                task_id=self.one(None, *TASKS),
            )
            for name in names
            if self.one(True, True, False)
        ]
        kept = {record.key for record in put}
        gone = [RecordDeletion("kind", name) for name in names if name not in kept]
        return RecordChange(f"op{self.count}", put, gone)

    @staticmethod
    def on_top_of(change: RecordChange, revisions: dict[str, str]) -> RecordChange:
        put = [
            dataclasses.replace(record, revision=revisions.get(record.key, ""))
            for record in change.put
        ]
        gone = [
            dataclasses.replace(each, revision=revisions.get(each.key)) for each in change.delete
        ]
        return dataclasses.replace(change, put=put, delete=gone)

    def read(self) -> Step:
        prefix, after, last = self.one("", "a", "a/"), self.one("", *RECORDS), self.one(True, False)
        limit, before = self.one(1, 2, 100), self.one(*TIMES)
        names = self.some(RECORDS)

        async def step(store: Store) -> Any:
            due = await store.records.due("kind", before=before, limit=100)
            return (
                await store.records.get("kind", names),
                list(
                    await store.records.scan(
                        "kind", prefix=prefix, after=after, limit=limit, last=last
                    )
                ),
                sorted(due, key=lambda record: (record.due_at, record.key)),
            )

        return step

    def purge(self) -> Step:
        before = self.one(*TIMES)
        return lambda store: store.purge(finished_before=before)

    def ask(self) -> Step:
        labels = self.labels() if self.one(True, False) else {}
        query = TaskQuery(
            statuses=self.some(STATUSES),
            pipeline=self.one(None, "p"),
            labels=labels,
            limit=2,
            tags=self.some(TAGS) if self.one(True, False) else (),
            created_after=self.one(None, None, *TIMES),
            created_before=self.one(None, None, *TIMES),
            oldest_first=self.one(True, False),
        )
        before, limit = self.one(*TIMES), self.one(1, 100)
        stream = Stream(self.one(*TASKS), self.one(*NODES), self.one(0, 1))
        prefix, name = self.one("", "a", "c"), self.one("", "a", "b")

        async def step(store: Store) -> Any:
            pages, after = [], None
            while not pages or after is not None:
                page, after = await store.list_tasks(dataclasses.replace(query, after=after))
                pages.append(list(page))
            due = await store.due(before=before, limit=100)
            artifacts = await store.artifacts.read(stream, after=limit - 1, limit=limit)
            archived = await store.read_archive(stream.task_id, ["a", "x.$", "none"])
            scanned = await store.scan_archive(
                stream.task_id, prefix=prefix, after=name, limit=limit
            )
            return pages, sorted(due), list(artifacts), archived, [tuple(item) for item in scanned]

        return step

    def next(self) -> Step:
        weights = {
            self.create: 3,
            self.commit: 6,
            self.archive: 3,
            self.put: 4,
            self.change: 4,
            self.read: 2,
            self.ask: 2,
            self.purge: 1,
        }
        step: Step = self.random.choices(list(weights), weights=list(weights.values()))[0]()
        return step


async def everything(store: Store) -> Any:
    tasks = await store.load(TASKS)
    archives = [
        [tuple(item) for item in await store.scan_archive(task_id, prefix="")]
        for task_id in sorted(tasks)
    ]
    artifacts = [
        sorted((record for _, record in await store.artifacts.scan(task_id)), key=repr)
        for task_id in TASKS
    ]
    return tasks, archives, artifacts, list(await store.records.scan("kind"))


async def compare(store: Store, seed: int, *, steps: int) -> None:
    """Make the same calls of both stores, one after the other, and compare their whole content."""
    chance = Steps(seed)
    async with InMemoryStore() as memory:
        for number in range(steps):
            step = chance.next()
            expected, got = await step(memory), await step(store)
            assert got == expected, f"seed {seed}, step {number}"
        assert await everything(store) == await everything(memory), f"seed {seed}, at the end"
