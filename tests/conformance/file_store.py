"""A small store in one file, for several processes, and variants with one defect each."""

import dataclasses
import fcntl
import os
import pickle
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio

from flowkit.protocols import ArtifactRecord, ArtifactStore, Commit, KeyedRecord, RecordChange
from flowkit_testing._store import InMemoryStore

POLL_SEC = 0.005


class FileStore(InMemoryStore):
    """Reads the whole file before each operation and replaces it afterwards, under a lock."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)
        self.artifacts = FileArtifacts(self)  # type: ignore[assignment]
        self.records = FileRecords(self)  # type: ignore[assignment]

    def read(self) -> None:
        if self.path.exists():
            self.contents = pickle.loads(self.path.read_bytes())

    @property
    def contents(self) -> tuple[Any, ...]:
        return self._tasks, self._artifacts._tasks, self._records._kinds, self._records._by_task

    @contents.setter
    def contents(self, contents: tuple[Any, ...]) -> None:
        self._tasks, self._artifacts._tasks = contents[:2]
        self._records._kinds, self._records._by_task = contents[2:]

    def write(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_bytes(pickle.dumps(self.contents))
        new.rename(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.read()
            yield

    async def wait_for_change(self, task_id: str, version: int, *, ended: bool = False) -> None:
        while (task := (await self.load([task_id])).get(task_id)) and (
            task.version <= version or (ended and not task.header.finished_at)
        ):
            await anyio.sleep(POLL_SEC)


class FileArtifacts:
    """The artifacts in the same file."""

    def __init__(self, store: FileStore) -> None:
        self.store = store

    async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
        with self.store.locked():
            answers = await self.store._artifacts.put(records)
            self.store.write()
            return answers


class FileRecords:
    """The keyed records in the same file."""

    def __init__(self, store: FileStore) -> None:
        self.store = store

    async def change(self, changes: Sequence[RecordChange]) -> Sequence[bool]:
        with self.store.locked():
            answers = await self.store._records.change(changes)
            self.store.write()
            return answers

    async def get(self, kind: str, keys: Collection[str]) -> Mapping[str, KeyedRecord]:
        with self.store.locked():
            return await self.store._records.get(kind, keys)

    async def scan(self, kind: str, **options: Any) -> Sequence[KeyedRecord]:
        with self.store.locked():
            return await self.store._records.scan(kind, **options)


def through_the_file(method: Callable[..., Any], *, writes: bool) -> Any:
    async def call(self: FileStore, *args: Any, **options: Any) -> Any:
        with self.locked():
            answer = await method(self, *args, **options)
            if writes:
                self.write()
            return answer

    return call


for name in ("create", "commit", "load", "read_archive"):
    setattr(
        FileStore,
        name,
        through_the_file(getattr(InMemoryStore, name), writes=name in ("create", "commit")),
    )
for name in ("read", "known", "scan"):

    async def read(self: FileArtifacts, *args: Any, name: str = name, **options: Any) -> Any:
        with self.store.locked():
            return await getattr(self.store._artifacts, name)(*args, **options)

    setattr(FileArtifacts, name, read)


# ---------------------------------------------------------------- defects

LAST = 3
"""Number of the last confirmed write: the process is killed in the middle of the next one.

That next write never ends, so the half of it stays however late the kill comes."""


class WithoutALock(FileStore):
    """Lets two processes commit at the same time."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        self.read()
        yield

    async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
        self.read()
        answers = await InMemoryStore.commit(self, commits)
        await self.until_another_process_is_here()
        if any(answers):
            self.path.with_suffix(f".{os.getpid()}").write_bytes(pickle.dumps(self.contents))
            self.path.with_suffix(f".{os.getpid()}").rename(self.path)
        return answers

    async def until_another_process_is_here(self) -> None:
        """Let both processes read the first version before one of them writes the second."""
        self.path.with_suffix(f".here-{os.getpid()}").touch()
        while len(list(self.path.parent.glob("*.here-*"))) < 2:
            await anyio.sleep(POLL_SEC)


class TearsCommits(FileStore):
    """Writes one part of a commit before the others."""

    commits = 0

    async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
        if self.commits == LAST:
            await anyio.sleep_forever()
        answers = await super().commit(commits)
        self.commits += 1
        if self.commits == LAST:
            with self.locked():
                self._tasks.rows[commits[0].task_id].parts["first"] = b"half of the next commit"
                self.write()
        return answers


class TearsChanges(FileStore):
    """Writes one record of a change before the others."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.records = TornRecords(self)  # type: ignore[assignment]


class TornRecords(FileRecords):
    changes = 0

    async def change(self, changes: Sequence[RecordChange]) -> Sequence[bool]:
        if self.changes == LAST:
            await anyio.sleep_forever()
        answers = await super().change(changes)
        self.changes += 1
        if self.changes == LAST:
            with self.store.locked():
                (first, *_) = changes[0].put
                torn = dataclasses.replace(first, revision=changes[0].op_id, data=b"1000")
                await self.store._records.change([RecordChange("half of the next", [torn])])
                self.store.write()
        return answers


class WritesAtTheEnd(FileStore):
    """Confirms commits that are only in the memory of its process."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        if not self._tasks.rows:
            self.read()
        yield

    def write(self) -> None:
        pass


class HearsItselfOnly(FileStore):
    """Notifies waiters only of the commits of this process."""

    wait_for_change = InMemoryStore.wait_for_change


class LeavesGaps(FileStore):
    """Reserves the position of a record before the record is stored."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.artifacts = GapArtifacts(self)  # type: ignore[assignment]


class GapArtifacts(FileArtifacts):
    puts = 0

    async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
        if self.puts == LAST:
            await anyio.sleep_forever()
        answers = await super().put(records)
        self.puts += 1
        if self.puts == LAST:
            with self.store.locked():
                log = self.store._artifacts._log(records[0].stream)
                assert log is not None
                log.records.append(
                    dataclasses.replace(records[0], uid="next", position=len(log.records) + 2)
                )
                self.store.write()
        return answers


def open_file(kind: str, path: str) -> FileStore:
    """Open a store by the name of its class; other processes call this."""
    store: FileStore = globals()[kind](path)
    return store


@asynccontextmanager
async def open_file_artifacts(kind: str, path: str) -> AsyncIterator[ArtifactStore]:
    async with open_file(kind, path) as store:
        yield store.artifacts
