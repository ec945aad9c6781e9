"""The store suite: archived parts, and deletion of ended tasks."""

from contextlib import AsyncExitStack

import pytest

from flowkit.protocols import ArchivedPart, ArtifactRecord, Store, Stream
from flowkit_testing.conformance._common import assert_new
from flowkit_testing.conformance._store_base import (
    NOON,
    OpenStore,
    StoreSuite,
    change,
    load_one,
    open_another,
    plain,
    record,
)


class Archiving(StoreSuite):
    """Archived parts of a task."""

    async def archive(
        self, store: Store, task_id: str, *parts: ArchivedPart, version: int = 1
    ) -> None:
        (applied,) = await store.commit([change(task_id, version, archive=parts)])
        assert applied

    async def test_an_archived_part_is_read_by_name(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id)])
        await self.archive(store, task_id, ArchivedPart("a", 1, b"A"), ArchivedPart("b", 1, b"B"))
        assert dict(await store.read_archive(task_id, ["a"])) == {"a": b"A"}
        assert dict(await store.read_archive(task_id, {"a", "b", "c"})) == {"a": b"A", "b": b"B"}

    async def test_nothing_is_read_where_nothing_was_archived(
        self, store: Store, task_id: str
    ) -> None:
        assert dict(await store.read_archive(task_id, ["a"])) == {}
        await store.create([record(task_id)])
        assert dict(await store.read_archive(task_id, ["a"])) == {}
        assert dict(await store.read_archive(task_id, [])) == {}

    @pytest.mark.parametrize(
        "name", ["plain", "a.b", "$set", "node[0]", "with space/and.slash", "ключ-✓", "n" * 300]
    )
    async def test_an_archived_part_may_have_any_name(
        self, store: Store, task_id: str, name: str
    ) -> None:
        await store.create([record(task_id)])
        await self.archive(store, task_id, ArchivedPart(name, 1, b"data"))
        assert dict(await store.read_archive(task_id, [name])) == {name: b"data"}
        assert [tuple(item) for item in await store.scan_archive(task_id, prefix=name)] == [
            (name, b"data")
        ]

    @pytest.mark.parametrize("ranks", [(1, 2), (2, 1), (1, 3, 2), (0, 1), (9, 10)])
    async def test_of_two_archived_parts_the_higher_rank_stays(
        self, store: Store, task_id: str, ranks: tuple[int, ...]
    ) -> None:
        await store.create([record(task_id)])
        for version, rank in enumerate(ranks, 1):
            await self.archive(
                store, task_id, ArchivedPart("a", rank, b"%d" % rank), version=version
            )
        assert dict(await store.read_archive(task_id, ["a"])) == {"a": b"%d" % max(ranks)}

    @pytest.mark.parametrize("ranks", [(1, 2), (2, 1)])
    async def test_of_two_archived_in_one_commit_the_higher_rank_stays(
        self, store: Store, task_id: str, ranks: tuple[int, ...]
    ) -> None:
        await store.create([record(task_id)])
        await self.archive(
            store, task_id, *(ArchivedPart("a", rank, b"%d" % rank) for rank in ranks)
        )
        assert [tuple(item) for item in await store.scan_archive(task_id, prefix="")] == [
            ("a", b"2")
        ]

    async def test_a_refused_commit_does_not_replace_a_higher_rank(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        await self.archive(store, task_id, ArchivedPart("a", 2, b"2"))
        assert list(
            await store.commit([change(task_id, 1, archive=[ArchivedPart("a", 1, b"1")])])
        ) == [False]
        assert dict(await store.read_archive(task_id, ["a"])) == {"a": b"2"}

    async def test_a_part_moves_to_the_archive_in_one_commit(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id, parts={"n1": b"1", "n2": b"2"})])
        await store.commit([change(task_id, drop=["n1"], archive=[ArchivedPart("n1", 1, b"1")])])
        assert dict((await load_one(store, task_id)).parts) == {"n2": b"2"}
        assert dict(await store.read_archive(task_id, ["n1"])) == {"n1": b"1"}

    async def test_many_archived_parts_are_read_at_once(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id)])
        parts = {f"n{number}": b"%d" % number for number in range(300)}
        await self.archive(
            store, task_id, *(ArchivedPart(name, 1, data) for name, data in parts.items())
        )
        assert dict(await store.read_archive(task_id, [*parts, "unknown"])) == parts

    async def test_each_task_has_its_own_archive(self, store: Store, task_id: str) -> None:
        other = f"{task_id}-other"
        await store.create([record(task_id), record(other)])
        await self.archive(store, task_id, ArchivedPart("a", 1, b"mine"))
        await self.archive(store, other, ArchivedPart("a", 1, b"theirs"))
        assert dict(await store.read_archive(task_id, ["a"])) == {"a": b"mine"}
        assert [tuple(item) for item in await store.scan_archive(other, prefix="")] == [
            ("a", b"theirs")
        ]

    async def test_a_large_part_is_archived(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id)])
        await self.archive(store, task_id, ArchivedPart("a", 1, b"x" * 1_000_000))
        assert len((await store.read_archive(task_id, ["a"]))["a"]) == 1_000_000

    @pytest.mark.parametrize(
        ("prefix", "expected"),
        [
            ("", ["a", "a.b", "a.c", "a0", "b", "x[1]"]),
            ("a", ["a", "a.b", "a.c", "a0"]),
            ("a.", ["a.b", "a.c"]),
            ("x[1", ["x[1]"]),
            ("c", []),
        ],
    )
    async def test_scanning_gives_the_names_with_a_prefix_in_order(
        self, store: Store, task_id: str, prefix: str, expected: list[str]
    ) -> None:
        await store.create([record(task_id)])
        await self.archive(
            store,
            task_id,
            *(
                ArchivedPart(name, 1, name.encode())
                for name in ("b", "a0", "a.c", "x[1]", "a", "a.b")
            ),
        )
        assert [tuple(item) for item in await store.scan_archive(task_id, prefix=prefix)] == [
            (name, name.encode()) for name in expected
        ]

    @pytest.mark.parametrize("limit", [1, 3, 10])
    async def test_scanning_goes_on_after_a_name(
        self, store: Store, task_id: str, limit: int
    ) -> None:
        await store.create([record(task_id)])
        names = [f"n{number:02}" for number in range(10)]
        await self.archive(
            store, task_id, *(ArchivedPart(name, 1, b"") for name in (*names, "other"))
        )
        seen: list[str] = []
        while page := await store.scan_archive(
            task_id, prefix="n", after=seen[-1] if seen else "", limit=limit
        ):
            assert len(page) <= limit
            found = [name for name, _ in page]
            assert_new(found, seen)
            seen += found
        assert seen == names

    async def test_another_connection_reads_the_archive(
        self, store: Store, open_store: OpenStore | None, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        await self.archive(store, task_id, ArchivedPart("a", 1, b"A"))
        async with open_another(open_store) as other:
            assert dict(await other.read_archive(task_id, ["a"])) == {"a": b"A"}


LONG_AGO = 1000.0
PURGES = 100
"""Number of ``purge`` calls that is more than enough to delete all data of the tests."""


class Purging(StoreSuite):
    """Deletion of ended tasks.

    The tests purge tasks that ended in 1970, so that others on a shared server stay.
    """

    async def purge_all(self, store: Store) -> None:
        for _ in range(PURGES):
            if await store.purge(finished_before=LONG_AGO * 2) == 0:
                return
        pytest.fail(f"after {PURGES} calls of purge, there are still tasks to delete")

    async def test_a_purged_task_is_gone_with_its_archive_and_artifacts(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id, pipeline=task_id)])
        stream = Stream(task_id, "node")
        await store.artifacts.put([ArtifactRecord(stream, "u", True, b"{}", b"{}", NOON)])
        await store.commit(
            [
                change(
                    task_id,
                    status="finished",
                    finished_at=LONG_AGO,
                    wake_at=None,
                    archive=[ArchivedPart("a", 1, b"A")],
                )
            ]
        )
        await self.purge_all(store)
        assert dict(await store.load([task_id])) == {}
        assert dict(await store.read_archive(task_id, ["a"])) == {}
        assert list(await store.scan_archive(task_id, prefix="")) == []
        assert list(await store.artifacts.read(stream)) == []
        assert list(await store.artifacts.scan(task_id)) == []
        assert task_id not in await store.due(before=NOON, limit=100_000)

    async def test_nothing_of_a_purged_task_is_in_a_new_one_of_its_id(
        self, store: Store, open_store: OpenStore | None, task_id: str
    ) -> None:
        stream = Stream(task_id, "node")
        await store.create(
            [record(task_id, parts={"old": b"1", "state": b"1"}, idempotency_key=f"key-{task_id}")]
        )
        await store.artifacts.put(
            [ArtifactRecord(stream, uid, True, b"{}", b"{}", NOON) for uid in ("u", "v")]
        )
        old = change(
            task_id,
            finished_at=LONG_AGO,
            put={"late": b"1"},
            archive=[ArchivedPart("a", 9, b"old"), ArchivedPart("b", 1, b"old")],
        )
        await store.commit([old])
        await self.purge_all(store)
        assert list(await store.create([record(task_id)])) == [task_id]
        stores = [store]
        async with AsyncExitStack() as stack:
            if open_store is not None:
                stores.append(await stack.enter_async_context(open_store()))
            for one in stores:
                assert plain(await load_one(one, task_id)) == record(task_id)
                assert list(await one.scan_archive(task_id, prefix="")) == []
                assert list(await one.artifacts.read(stream, latest=True)) == []
                assert await one.artifacts.known(stream, ["u", "v"]) == set()
        await store.commit([change(task_id, archive=[ArchivedPart("a", 1, b"new")])])
        assert dict(await store.read_archive(task_id, ["a", "b"])) == {"a": b"new"}
        assert list(
            await store.artifacts.put([ArtifactRecord(stream, "v", True, b"{}", b"{}", NOON)])
        ) == [True]
        assert [found.position for found in await store.artifacts.read(stream)] == [1]

    async def test_a_purged_task_refuses_commits(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id, finished_at=LONG_AGO)])
        await self.purge_all(store)
        assert list(await store.commit([change(task_id)])) == [False]

    async def test_the_key_of_a_purged_task_is_free_again(self, store: Store, task_id: str) -> None:
        await store.create(
            [record(task_id, finished_at=LONG_AGO, idempotency_key=f"key-{task_id}")]
        )
        await self.purge_all(store)
        again = f"{task_id}-again"
        assert list(await store.create([record(again, idempotency_key=f"key-{task_id}")])) == [
            again
        ]

    @pytest.mark.parametrize("finished_at", [None, LONG_AGO * 2, NOON])
    async def test_a_task_that_did_not_end_before_stays(
        self, store: Store, task_id: str, finished_at: float | None
    ) -> None:
        await store.create([record(task_id, finished_at=finished_at)])
        await self.purge_all(store)
        assert set(await store.load([task_id])) == {task_id}

    async def test_a_task_that_is_old_and_has_not_ended_stays(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id, created_at=LONG_AGO, wake_at=None)])
        await self.purge_all(store)
        assert set(await store.load([task_id])) == {task_id}

    async def test_an_ended_task_that_is_to_be_woken_stays_and_hides_no_other(
        self, store: Store, task_id: str
    ) -> None:
        await self.purge_all(store)
        woken, other = task_id, f"{task_id}-other"
        await store.create(
            [
                record(woken, finished_at=LONG_AGO, wake_at=NOON),
                record(other, finished_at=LONG_AGO + 1),
            ]
        )
        assert await store.purge(finished_before=LONG_AGO * 2, limit=1) == 1
        assert set(await store.load([woken, other])) == {woken}
        await store.commit([change(woken, finished_at=LONG_AGO, wake_at=None)])
        await self.purge_all(store)
        assert not await store.load([woken])

    async def test_a_task_that_runs_again_stays(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id, finished_at=LONG_AGO)])
        await store.commit([change(task_id, finished_at=None)])
        await self.purge_all(store)
        assert set(await store.load([task_id])) == {task_id}

    async def test_purging_says_how_many_and_keeps_to_its_limit(
        self, store: Store, task_id: str
    ) -> None:
        await self.purge_all(store)
        ids = [f"{task_id}-{number}" for number in range(3)]
        await store.create([record(name, finished_at=LONG_AGO) for name in ids])
        assert await store.purge(finished_before=LONG_AGO * 2, limit=2) == 2
        assert len(await store.load(ids)) == 1
        assert await store.purge(finished_before=LONG_AGO * 2, limit=2) == 1
        assert await store.purge(finished_before=LONG_AGO * 2, limit=2) == 0
