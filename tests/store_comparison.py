"""Random calls of two stores, which must give the same answers."""

import dataclasses
import random
from collections.abc import Awaitable, Callable
from typing import Any

from flowkit.protocols import (
    ArchivedPart,
    ArtifactRecord,
    Commit,
    DeadLetter,
    Store,
    Stream,
    TaskQuery,
    WorkerSession,
)
from flowkit_testing import InMemoryStore
from tests.store_records import NOON, task

TASKS = ["t1", "t2", "t/3", "t.$4", "t\x005", "t6"]
NAMES = ["a", "b", "c1"]
NODES = ["n", "n.$x", "n\x00/[0]"]
TAGS = ["a", "b:$c", "b:d.e"]
STATUSES = ["queued", "running", "finished"]
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

    def keep(self) -> Step:
        names = ["l1", "l2", "l.$3"]
        letters = [
            DeadLetter(
                self.one(*names),
                NOON,
                "batch",
                "code",
                str(self.count),
                self.one(None, *TASKS),
                None,
                None,
                self.data(),
            )
            for _ in range(2)
        ]
        session = WorkerSession(
            self.one("w1", "w.$2"), tuple(self.some(NAMES)), self.count, NOON, self.labels()
        )
        drop, end = self.some([*names, "l4"]), self.one("w1", "w3")
        steps: list[Step] = [
            lambda store: store.park(letters),
            lambda store: store.renew_session(session),
            lambda store: store.drop_dead_letters(drop),
            lambda store: store.end_session(end),
        ]
        return self.random.choice(steps)

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
        kinds = [self.create, self.commit, self.archive, self.put, self.keep, self.ask, self.purge]
        step: Step = self.random.choices(kinds, weights=[3, 6, 3, 4, 3, 2, 1])[0]()
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
    sessions = sorted(
        ((s.worker_id, list(s.roles), s.beat, dict(s.info)) for s in await store.sessions()),
        key=repr,
    )
    return tasks, archives, artifacts, sessions, list(await store.dead_letters())


async def compare(store: Store, seed: int, *, steps: int) -> None:
    """Make the same calls of both stores, one after the other, and compare their whole content."""
    chance = Steps(seed)
    async with InMemoryStore() as memory:
        for number in range(steps):
            step = chance.next()
            expected, got = await step(memory), await step(store)
            assert got == expected, f"seed {seed}, step {number}"
        assert await everything(store) == await everything(memory), f"seed {seed}, at the end"
