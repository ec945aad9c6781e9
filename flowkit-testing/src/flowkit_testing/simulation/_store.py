"""The store of a simulated cluster: one server, and a connection for each process."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any, Self, TypeVar

from flowkit.errors import FlowKitError, StoreUnavailable
from flowkit.protocols import (
    ArtifactRecord,
    ArtifactStore,
    CheckResult,
    Commit,
    KeyedRecord,
    RecordChange,
    RecordDeletion,
    RecordStore,
    Stream,
    TaskQuery,
    TaskRecord,
)
from flowkit_testing._store import InMemoryStore
from flowkit_testing.simulation._process import Process
from flowkit_testing.simulation._world import World

T = TypeVar("T")

PATIENCE_SEC = 3.0
"""Seconds that a connection waits for an unreachable server."""

OnCommit = Callable[[TaskRecord, Commit, TaskRecord, str], None]


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine of the in-memory store, which never waits."""
    try:
        call.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    call.close()
    raise AssertionError("the in-memory store waits")


class StoreServer:
    """The server of a simulated store: the records, and the faults of arriving requests."""

    def __init__(self, world: World, store: InMemoryStore | None = None) -> None:
        self.world = world
        self.store = store or InMemoryStore()
        self.down = False
        self.on_create: list[Callable[[TaskRecord, str], None]] = []
        self.on_commit: list[OnCommit] = []
        self.on_put: list[Callable[[Sequence[ArtifactRecord], Sequence[bool], str], None]] = []
        self._waiting: dict[str, list[tuple[asyncio.Future[None], int, bool]]] = {}
        self.damaged: dict[str, str] = {}
        """The kind of damage done to each task's record, by task."""
        self._in_the_way: dict[str, float] = {}
        """Tasks blocked by a commit that will be rolled back, with the time until which they are.
        """

    # ------------------------------------------------------------ requests

    def arrive(
        self,
        future: "asyncio.Future[Any]",
        who: str,
        name: str,
        apply: Callable[[int | None], Any],
        write: bool,
    ) -> None:
        """Handle a request that has arrived."""
        world = self.world
        if self.down:
            error = StoreUnavailable(f"{name}: the store is unreachable")
            world.call(world.chances.uniform(0.05, PATIENCE_SEC), world.settle, future, None, error)
        elif not write:
            self._read(future, who, name, apply)
        elif world.should_inject("write_refused", who, name):
            world.settle(future, None, StoreUnavailable(f"{name}: refused"))
        elif world.should_inject("write_late", who, name):
            world.settle(future, None, StoreUnavailable(f"{name}: timed out"))
            world.call(world.between(0.05, 20), self._apply_without_answer, apply)
        elif world.should_inject("write_unconfirmed", who, name):
            self._apply_without_answer(apply)
            world.settle(future, None, StoreUnavailable(f"{name}: not confirmed"))
        else:
            self._apply(future, apply)

    def _read(
        self, future: "asyncio.Future[Any]", who: str, name: str, apply: Callable[[int | None], Any]
    ) -> None:
        if self.world.should_inject("read_fails", who, name):
            self.world.settle(future, None, StoreUnavailable(f"{name}: the store is unreachable"))
        else:
            self._apply(future, apply)

    def _apply(self, future: "asyncio.Future[Any]", apply: Callable[[int | None], Any]) -> None:
        try:
            self.world.settle(future, apply(None))
        except FlowKitError as error:
            self.world.settle(future, None, error)

    def _apply_without_answer(self, apply: Callable[[int | None], Any]) -> None:
        """Apply all of a write or its first part. No answer is sent."""
        try:
            apply(None if self.world.chances.random() < 0.5 else self.world.chances.randrange(4))
        except FlowKitError as error:
            self.world.note("store", f"a write without an answer failed: {error}")

    # ------------------------------------------------------------ tasks

    def create(self, records: Sequence[TaskRecord], who: str) -> Sequence[str]:
        stored = at_once(self.store.create(records))
        for record, task_id in zip(records, stored, strict=True):
            self.world.note("store", f"create {task_id} by {who}")
            for watch in self.on_create:
                watch(record, task_id)
        return stored

    def commit(self, commits: Sequence[Commit], who: str) -> Sequence[bool]:
        return [self._commit(commit, who) for commit in commits]

    def _commit(self, commit: Commit, who: str) -> bool:
        world, task_id = self.world, commit.task_id
        before = at_once(self.store.load([task_id])).get(task_id)
        if before is not None and before.version == commit.expected_version:
            if self._in_the_way.get(task_id, 0.0) > world.now():
                world.note(
                    "store",
                    f"refuse {task_id} v{commit.expected_version + 1} by {who}: another one is in"
                    " the way",
                )
                return False
            if world.should_inject("conflict", who, task_id):
                before = self._commit_as_another_process(before)
            elif world.should_inject("write_rolled_back", who, task_id):
                self._in_the_way[task_id] = world.now() + world.chances.uniform(0.01, 0.3)
                raise StoreUnavailable("commit: not confirmed")
        applied = at_once(self.store.commit([commit]))[0]
        if not applied or before is None:
            world.note("store", f"refuse {task_id} v{commit.expected_version + 1} by {who}")
            return False
        state = commit.put.get("state", b"").decode("ascii", "replace")
        world.note(
            "store",
            f"commit {task_id} v{commit.expected_version + 1} {commit.status} {state} by {who}",
        )
        after = at_once(self.store.load([task_id]))[task_id]
        for watch in self.on_commit:
            watch(before, commit, after, who)
        self._wake(task_id, after)
        return True

    def _commit_as_another_process(self, record: TaskRecord) -> TaskRecord:
        header = record.header
        nothing = Commit(
            header.task_id,
            record.version,
            "another-process",
            header.status,
            header.wake_at,
            header.finished_at,
            {},
        )
        at_once(self.store.commit([nothing]))
        return at_once(self.store.load([header.task_id]))[header.task_id]

    def damage(self, chances: Random) -> None:
        """Store a damaged copy of a due task.

        It is as if the record had been damaged before any process read it.
        """
        found, _ = at_once(self.store.list_tasks(TaskQuery(limit=1000)))
        whole = [record for record in found if record.header.task_id not in self.damaged]
        if not whole:
            return
        record = chances.choice(whole)
        how = chances.choice(sorted(_DAMAGES))
        header = replace(
            record.header,
            task_id=f"damaged-{len(self.damaged) + 1}",
            status="running",
            idempotency_key=None,
        )
        header = replace(header, wake_at=self.world.epoch + self.world.now(), finished_at=None)
        spec, parts = _DAMAGES[how](record.spec, dict(record.parts))
        at_once(self.store.create([TaskRecord(header, spec, parts)]))
        self.damaged[header.task_id] = how
        self.world.inject(
            "damaged_records",
            "store",
            f"{header.task_id}, a copy of {record.header.task_id}: {how}",
        )

    # ------------------------------------------------------------ waiting for changes

    def wait(self, future: "asyncio.Future[None]", task_id: str, version: int, ended: bool) -> None:
        if self.down:
            self.world.settle(
                future, None, StoreUnavailable("wait_for_change: the store is unreachable")
            )
            return
        record = at_once(self.store.load([task_id])).get(task_id)
        if record is None or _is_news(record, version, ended):
            self.world.settle(future)
        else:
            self._waiting.setdefault(task_id, []).append((future, version, ended))

    def _wake(self, task_id: str, record: TaskRecord) -> None:
        waiting = self._waiting.pop(task_id, None)
        if waiting is None:
            return
        world = self.world
        for future, version, ended in waiting:
            if future.done():
                continue
            if _is_news(record, version, ended):
                world.call(
                    world.chances.uniform(0, world.faults.slow_sec)
                    if world.should_inject("slow")
                    else 0.0,
                    world.settle,
                    future,
                )
            else:
                self._waiting.setdefault(task_id, []).append((future, version, ended))

    def go_down(self) -> None:
        """Disconnect all processes."""
        self.down = True
        waiting, self._waiting = self._waiting, {}
        for futures in waiting.values():
            for future, _, _ in futures:
                self.world.settle(
                    future, None, StoreUnavailable("wait_for_change: the store went away")
                )

    # ------------------------------------------------------------ keyed records and artifacts

    def change(self, changes: Sequence[RecordChange], who: str) -> Sequence[bool]:
        return [self._change(change, who) for change in changes]

    def _change(self, change: RecordChange, who: str) -> bool:
        concerned: list[KeyedRecord | RecordDeletion] = [*change.put, *change.delete]
        names = ", ".join(f"{each.kind} {each.key}" for each in concerned)
        if not change.durable and self.world.should_inject("session_lost", who, names):
            return True
        stored = [record for record in change.put if record.revision]
        if stored and self.world.should_inject("conflict", who, names):
            self._change_as_another_process(stored[0])
        (applied,) = at_once(self.store.records.change([change]))
        self.world.note("store", f"{'change' if applied else 'refuse'} {names} by {who}")
        return applied

    def _change_as_another_process(self, record: KeyedRecord) -> None:
        """Store a record again, as it is, under another revision."""
        found = at_once(self.store.records.get(record.kind, [record.key]))
        changes = [RecordChange(f"another-{each.revision}", [each]) for each in found.values()]
        at_once(self.store.records.change(changes))

    def put(self, records: Sequence[ArtifactRecord], who: str) -> Sequence[bool]:
        new = at_once(self.store.artifacts.put(records))
        for record, is_new in zip(records, new, strict=True):
            self.world.note(
                "store",
                f"artifact {record.stream.task_id}/{record.stream.node_id} {record.uid}"
                f" new={is_new} by {who}",
            )
        for watch in self.on_put:
            watch(records, new, who)
        return new


HISTORY = "zeros for the history"
Parts = dict[str, bytes]
_DAMAGES: Mapping[str, Callable[[bytes, Parts], tuple[bytes, Parts]]] = {
    "half of the spec": lambda spec, parts: (spec[: len(spec) // 2], parts),
    "no spec": lambda _, parts: (b"", parts),
    "half of the state": lambda spec, parts: (
        spec,
        parts | {"state": parts["state"][: len(parts["state"]) // 2]},
    ),
    "no state": lambda spec, parts: (
        spec,
        {name: data for name, data in parts.items() if name != "state"},
    ),
    "zeros for a node": lambda spec, parts: (spec, parts | {"n0": bytes(16)}),
    HISTORY: lambda spec, parts: (spec, parts | {"e0000000001": bytes(16)}),
}
"""Ways to damage the spec and the parts of a record so that it cannot be decoded."""


def _is_news(record: TaskRecord, version: int, ended: bool) -> bool:
    return record.version > version and (not ended or record.header.finished_at is not None)


class _Connection:
    """The requests of one process."""

    def __init__(self, server: StoreServer, process: Process) -> None:
        self._server = server
        self._process = process

    async def _ask(self, name: str, apply: Callable[[int | None], T], *, write: bool = False) -> T:
        world = self._server.world
        future: asyncio.Future[T] = world.loop.create_future()
        delay = world.latency()
        if world.should_inject("slow", self._process.name, name):
            delay += world.between(0.01, world.faults.slow_sec)
        world.call(delay, self._server.arrive, future, self._process.name, name, apply, write)
        return await future


class SimArtifacts(_Connection):
    """The :class:`~flowkit.protocols.ArtifactStore` as one process sees it."""

    async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
        records = list(records)
        return await self._ask(
            "put", lambda most: self._server.put(records[:most], self._process.name), write=True
        )

    async def read(
        self, stream: Stream, *, after: int = 0, limit: int = 100, latest: bool = False
    ) -> Sequence[ArtifactRecord]:
        if not latest and self._server.world.should_inject("stale_read", self._process.name):
            return []
        return await self._ask(
            "read", lambda _: self._now("read", stream, after=after, limit=limit)
        )

    async def known(self, stream: Stream, uids: Collection[str]) -> set[str]:
        uids = list(uids)
        return await self._ask("known", lambda _: self._now("known", stream, uids))

    async def scan(
        self, task_id: str, *, after: tuple[float, str] | None = None, limit: int = 100
    ) -> Sequence[tuple[tuple[float, str], ArtifactRecord]]:
        return await self._ask(
            "scan", lambda _: self._now("scan", task_id, after=after, limit=limit)
        )

    def _now(self, name: str, *args: Any, **options: Any) -> Any:
        return at_once(getattr(self._server.store.artifacts, name)(*args, **options))


class SimRecords(_Connection):
    """The :class:`~flowkit.protocols.RecordStore` as one process sees it."""

    async def get(self, kind: str, keys: Collection[str]) -> Mapping[str, KeyedRecord]:
        keys = list(keys)
        return await self._ask("get", lambda _: self._now("get", kind, keys))

    async def change(self, changes: Sequence[RecordChange]) -> Sequence[bool]:
        changes = list(changes)
        return await self._ask(
            "change",
            lambda most: self._server.change(changes[:most], self._process.name),
            write=True,
        )

    async def scan(
        self, kind: str, *, prefix: str = "", after: str = "", limit: int = 100, last: bool = False
    ) -> Sequence[KeyedRecord]:
        return await self._ask(
            "scan records",
            lambda _: self._now("scan", kind, prefix=prefix, after=after, limit=limit, last=last),
        )

    async def due(self, kind: str, *, before: float, limit: int) -> Sequence[KeyedRecord]:
        return await self._ask(
            "due records", lambda _: self._now("due", kind, before=before, limit=limit)
        )

    def _now(self, name: str, *args: Any, **options: Any) -> Any:
        return at_once(getattr(self._server.store.records, name)(*args, **options))


class SimStore(_Connection):
    """The :class:`~flowkit.protocols.Store` as one process sees it."""

    def __init__(self, server: StoreServer, process: Process) -> None:
        super().__init__(server, process)
        self.artifacts: ArtifactStore = SimArtifacts(server, process)
        self.records: RecordStore = SimRecords(server, process)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    def _now(self, name: str, *args: Any, **options: Any) -> Any:
        return at_once(getattr(self._server.store, name)(*args, **options))

    async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
        records = list(records)
        return await self._ask(
            "create",
            lambda most: self._server.create(records[:most], self._process.name),
            write=True,
        )

    async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
        task_ids = list(task_ids)
        return await self._ask("load", lambda _: self._now("load", task_ids))

    async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
        commits = list(commits)
        return await self._ask(
            "commit",
            lambda most: self._server.commit(commits[:most], self._process.name),
            write=True,
        )

    async def read_archive(self, task_id: str, names: Collection[str]) -> Mapping[str, bytes]:
        names = list(names)
        return await self._ask("read_archive", lambda _: self._now("read_archive", task_id, names))

    async def scan_archive(
        self, task_id: str, *, prefix: str, after: str = "", limit: int = 1000
    ) -> Sequence[tuple[str, bytes]]:
        return await self._ask(
            "scan_archive",
            lambda _: self._now("scan_archive", task_id, prefix=prefix, after=after, limit=limit),
        )

    async def due(self, *, before: float, limit: int) -> Sequence[str]:
        return await self._ask("due", lambda _: self._now("due", before=before, limit=limit))

    async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
        return await self._ask("list_tasks", lambda _: self._now("list_tasks", query))

    async def wait_for_change(self, task_id: str, version: int, *, ended: bool = False) -> None:
        world = self._server.world
        future: asyncio.Future[None] = world.loop.create_future()
        world.call(world.latency(), self._server.wait, future, task_id, version, ended)
        await future

    async def purge(self, *, finished_before: float, limit: int = 1000) -> int:
        return await self._ask(
            "purge",
            lambda _: self._now("purge", finished_before=finished_before, limit=limit),
            write=True,
        )

    async def check(self) -> Sequence[CheckResult]:
        return await self._ask("check", lambda _: self._now("check"))
