"""The store suite: installations that share a server."""

from contextlib import AsyncExitStack

from flowkit.protocols import (
    ArchivedPart,
    ArtifactRecord,
    KeyedRecord,
    RecordDeletion,
    Store,
    Stream,
    TaskQuery,
)
from flowkit_testing.conformance._store_base import (
    NOON,
    OpenNamespace,
    StoreSuite,
    change,
    in_namespace,
    load_one,
    record,
)
from flowkit_testing.conformance._store_keyed_records import delete, put, values

LONG_AGO = 1000.0


class Namespaces(StoreSuite):
    """Isolation of namespaces: a store sees, changes and deletes only its own data."""

    async def both(
        self, stack: AsyncExitStack, open_namespace: OpenNamespace | None, unique: str
    ) -> tuple[Store, Store]:
        """Open stores of two namespaces. The name of one begins with the name of the other."""
        first, second = (
            in_namespace(open_namespace, f"n{unique}"),
            in_namespace(open_namespace, f"n{unique}_b"),
        )
        return await stack.enter_async_context(first), await stack.enter_async_context(second)

    async def test_tasks_of_two_namespaces_may_have_one_id_and_one_key(
        self, open_namespace: OpenNamespace | None, unique: str, task_id: str
    ) -> None:
        async with AsyncExitStack() as stack:
            first, second = await self.both(stack, open_namespace, unique)
            for number, store in enumerate((first, second)):
                created = record(
                    task_id, spec=b"%d" % number, idempotency_key="key", wake_at=NOON + number
                )
                assert list(await store.create([created])) == [task_id]
            await first.commit(
                [change(task_id, wake_at=NOON, archive=[ArchivedPart("a", 1, b"A")])]
            )
            await first.artifacts.put(
                [ArtifactRecord(Stream(task_id, "node"), "u", True, b"{}", b"{}", NOON)]
            )
            assert (await load_one(first, task_id)).version == 2
            task = await load_one(second, task_id)
            assert (task.spec, task.version) == (b"1", 1)
            assert list(await second.scan_archive(task_id, prefix="")) == []
            assert list(await second.artifacts.read(Stream(task_id, "node"))) == []

    async def test_tasks_and_keyed_records_are_read_in_their_namespace(
        self, open_namespace: OpenNamespace | None, unique: str, task_id: str
    ) -> None:
        async with AsyncExitStack() as stack:
            first, second = await self.both(stack, open_namespace, unique)
            await first.create([record(task_id, wake_at=NOON, tags=frozenset({"tag"}))])
            await put(first, KeyedRecord("kind", "key", b"1", due_at=NOON))
            assert list(await second.load([task_id])) == []
            assert (await second.list_tasks(TaskQuery()))[0] == []
            assert (await second.list_tasks(TaskQuery(tags=["tag"])))[0] == []
            assert list(await second.due(before=NOON, limit=10)) == []
            assert dict(await second.records.get("kind", ["key"])) == {}
            assert list(await second.records.scan("kind")) == []
            assert list(await second.records.due("kind", before=NOON, limit=10)) == []
            assert await put(second, KeyedRecord("kind", "key", b"2")) is True
            assert await values(first, "kind") == {"key": b"1"}
            assert [task.header.task_id for task in (await first.list_tasks(TaskQuery()))[0]] == [
                task_id
            ]

    async def test_nothing_is_deleted_in_another_namespace(
        self, open_namespace: OpenNamespace | None, unique: str, task_id: str
    ) -> None:
        async with AsyncExitStack() as stack:
            first, second = await self.both(stack, open_namespace, unique)
            await first.create([record(task_id, finished_at=LONG_AGO)])
            await put(first, KeyedRecord("kind", "key", b"1", due_at=NOON))
            assert await second.purge(finished_before=LONG_AGO * 2) == 0
            assert await delete(second, RecordDeletion("kind", "key")) is False
            assert list(await first.load([task_id])) == [task_id]
            assert await values(first, "kind") == {"key": b"1"}

    async def test_namespaces_are_compared_exactly(
        self, open_namespace: OpenNamespace | None, unique: str, task_id: str
    ) -> None:
        names = [f"n{unique}a_b", f"n{unique}A_b", f"n{unique}a-b", f"n{unique}axb"]
        async with AsyncExitStack() as stack:
            stores = [
                await stack.enter_async_context(in_namespace(open_namespace, name))
                for name in names
            ]
            for number, store in enumerate(stores):
                assert list(await store.load([task_id])) == [], (
                    f"{names[number]} shows a task of another namespace"
                )
                await store.create([record(task_id, spec=b"%d" % number)])
            assert [(await load_one(store, task_id)).spec for store in stores] == [
                b"%d" % number for number in range(len(stores))
            ]
