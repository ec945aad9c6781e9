"""The store suite: commits, and waiting for them."""

from functools import partial

import anyio
import pytest

from flowkit.errors import RecordTooLarge
from flowkit.protocols import ArchivedPart, Commit, Store
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


class Committing(StoreSuite):
    """Atomic commits."""

    async def test_a_commit_changes_what_it_says_and_nothing_else(
        self, store: Store, task_id: str
    ) -> None:
        created = record(
            task_id,
            parts={"keep": b"1", "replace": b"1", "gone": b"1"},
            pipeline="p",
            labels={"l": "1"},
            wake_at=5.0,
            tags=frozenset({"old", "kept"}),
        )
        await store.create([created])
        commit = change(
            task_id,
            op_id="op-1",
            status="finished",
            wake_at=7.5,
            finished_at=NOON,
            put={"replace": b"2", "new": b"2"},
            drop=["gone"],
            tags=["kept", "new"],
        )
        assert list(await store.commit([commit])) == [True]
        expected = record(
            task_id,
            parts={"keep": b"1", "replace": b"2", "new": b"2"},
            pipeline="p",
            labels={"l": "1"},
            status="finished",
            wake_at=7.5,
            finished_at=NOON,
            tags=frozenset({"kept", "new"}),
            op_id="op-1",
        )
        task = plain(await load_one(store, task_id))
        assert task.version == 2
        assert (task.header, task.spec, task.parts, task.op_id) == (
            expected.header,
            expected.spec,
            expected.parts,
            expected.op_id,
        )

    async def test_a_commit_may_clear_times(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id, wake_at=5.0, finished_at=6.0)])
        await store.commit([change(task_id, wake_at=None, finished_at=None)])
        header = (await load_one(store, task_id)).header
        assert (header.wake_at, header.finished_at) == (None, None)

    async def test_a_commit_may_clear_tags(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id, tags=frozenset({"a", "b"}))])
        await store.commit([change(task_id)])
        assert (await load_one(store, task_id)).header.tags == frozenset()

    async def test_a_commit_without_parts_still_counts(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id)])
        assert list(await store.commit([change(task_id)])) == [True]
        task = await load_one(store, task_id)
        assert (task.version, dict(task.parts)) == (2, {"state": b'{"n":0}'})

    async def test_dropping_a_part_that_is_not_there_is_allowed(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        assert list(await store.commit([change(task_id, drop=["nothing", "state"])])) == [True]
        assert dict((await load_one(store, task_id)).parts) == {}

    @pytest.mark.parametrize(
        "value",
        [b"{}", b'""', '{"k.e$y":"grün ✓ \\u0000"}'.encode(), b'"' + b"x" * 200_000 + b'"'],
        ids=lambda v: str(len(v)),
    )
    async def test_parts_keep_their_bytes(self, store: Store, task_id: str, value: bytes) -> None:
        await store.create([record(task_id)])
        await store.commit([change(task_id, put={"state": value, "part2": value})])
        assert dict((await load_one(store, task_id)).parts) == {"state": value, "part2": value}

    @pytest.mark.parametrize("expected_version", [0, 1, 3, 99])
    async def test_a_commit_of_another_version_is_refused_and_leaves_no_trace(
        self, store: Store, task_id: str, expected_version: int
    ) -> None:
        await store.create([record(task_id)])
        await store.commit([change(task_id, op_id="op-1", wake_at=3.0)])
        before = plain(await load_one(store, task_id))
        stale = change(
            task_id,
            expected_version,
            op_id="stale",
            status="lost",
            wake_at=9.0,
            put={"state": b"9", "new": b"9"},
            drop=["state"],
            tags=["stale"],
        )
        assert list(await store.commit([stale])) == [False]
        assert plain(await load_one(store, task_id)) == before

    async def test_a_commit_of_a_task_that_does_not_exist_is_refused(
        self, store: Store, task_id: str
    ) -> None:
        assert list(await store.commit([change(task_id), change(task_id, 0)])) == [False, False]
        assert dict(await store.load([task_id])) == {}

    async def test_committing_nothing_is_allowed(self, store: Store) -> None:
        assert list(await store.commit([])) == []

    async def test_the_commits_of_different_tasks_are_independent(
        self, store: Store, task_id: str
    ) -> None:
        ids = [f"{task_id}-{number}" for number in range(4)]
        await store.create([record(name) for name in ids if not name.endswith("2")])
        commits = [change(ids[0]), change(ids[1], 7), change(ids[2]), change(ids[3])]
        assert list(await store.commit(commits)) == [True, False, False, True]
        assert {name: task.version for name, task in (await store.load(ids)).items()} == {
            ids[0]: 2,
            ids[1]: 1,
            ids[3]: 2,
        }

    async def test_of_several_commits_of_a_task_the_first_that_fits_is_applied(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        commits = [
            change(task_id, 5, op_id="stale"),
            change(task_id, 1, op_id="first"),
            change(task_id, 1, op_id="second"),
        ]
        assert list(await store.commit(commits)) == [False, True, False]
        assert (await load_one(store, task_id)).op_id == "first"

    async def test_many_tasks_commit_at_once(self, store: Store, task_id: str) -> None:
        ids = [f"{task_id}-{number}" for number in range(300)]
        await store.create([record(name) for name in ids])
        answers = await store.commit(
            [change(name, 1 + number % 2, op_id=name) for number, name in enumerate(ids)]
        )
        assert list(answers) == [number % 2 == 0 for number in range(300)]
        assert all(
            task.op_id == (name if task.version == 2 else "created")
            for name, task in (await store.load(ids)).items()
        )

    @pytest.mark.parametrize("count", [2, 8])
    async def test_of_commits_at_the_same_time_one_is_applied(
        self, store: Store, task_id: str, count: int
    ) -> None:
        await store.create([record(task_id)])
        assert await self.race([store] * count, task_id)

    async def test_of_commits_over_two_connections_one_is_applied(
        self, store: Store, open_store: OpenStore | None, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        async with open_another(open_store) as other:
            await self.race([store, other] * 4, task_id)

    async def race(self, stores: list[Store], task_id: str) -> str:
        """Commit the same version through each store, and check that the stored parts agree.

        Return the operation that won.
        """
        won: list[str] = []

        async def commit(store: Store, op_id: str) -> None:
            (applied,) = await store.commit(
                [change(task_id, op_id=op_id, put={"state": op_id.encode()})]
            )
            if applied:
                won.append(op_id)

        async with anyio.create_task_group() as tasks:
            for number, store in enumerate(stores):
                tasks.start_soon(commit, store, f"op-{number}")
        task = await load_one(stores[0], task_id)
        assert won == [task.op_id]
        assert (task.version, task.parts["state"]) == (2, task.op_id.encode())
        return task.op_id

    async def test_counting_by_compare_and_set_counts_each_once(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id, parts={"n": b"0"})])

        async def count_to_five() -> None:
            for _ in range(5):
                while True:
                    task = await load_one(store, task_id)
                    more = b"%d" % (int(task.parts["n"]) + 1)
                    if (await store.commit([change(task_id, task.version, put={"n": more})]))[0]:
                        break

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(count_to_five)
        task = await load_one(store, task_id)
        assert (task.parts["n"], task.version) == (b"20", 21)

    async def test_what_the_committer_changes_afterwards_is_not_seen(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        put = {"state": b"1"}
        await store.commit([Commit(task_id, 1, "op", "running", None, None, put)])
        put["state"] = b"2"
        assert (await load_one(store, task_id)).parts["state"] == b"1"

    @pytest.mark.parametrize("where", ["part", "archived part"])
    async def test_a_commit_above_the_limit_is_refused_and_leaves_the_record_as_it_was(
        self, store: Store, task_id: str, where: str
    ) -> None:
        if self.oversize_bytes is None:
            pytest.skip("the store has no limit")
        await store.create([record(task_id)])
        huge = b'"' + b"x" * self.oversize_bytes + b'"'
        parts = (
            {"put": {"state": huge}}
            if where == "part"
            else {"archive": [ArchivedPart("huge", 1, huge)], "put": {"state": b"1"}}
        )
        with pytest.raises(RecordTooLarge):
            await store.commit([change(task_id, **parts)])
        assert plain(await load_one(store, task_id)) == record(task_id)
        assert dict(await store.read_archive(task_id, ["huge"])) == {}
        assert list(await store.commit([change(task_id)])) == [True]


class Waiting(StoreSuite):
    """Waits for changes."""

    async def test_a_wait_for_a_change_that_has_happened_returns_at_once(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        await store.commit([change(task_id)])
        with anyio.fail_after(self.patience):
            await store.wait_for_change(task_id, 0)
            await store.wait_for_change(task_id, 1)

    async def test_a_task_that_does_not_exist_is_not_waited_for(
        self, store: Store, task_id: str
    ) -> None:
        with anyio.fail_after(self.patience):
            await store.wait_for_change(task_id, 1)

    async def test_a_wait_does_not_return_while_nothing_changes(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        with anyio.move_on_after(self.quiet_sec) as scope:
            await store.wait_for_change(task_id, 1)
        assert scope.cancelled_caught

    async def test_a_refused_commit_wakes_no_waiter(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id)])
        with anyio.move_on_after(self.quiet_sec) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store.commit, [change(task_id, 7)])
                await store.wait_for_change(task_id, 1)
        assert scope.cancelled_caught

    @pytest.mark.parametrize("waiters", [1, 5])
    async def test_a_commit_wakes_all_waiters(
        self, store: Store, task_id: str, waiters: int
    ) -> None:
        await store.create([record(task_id)])
        with anyio.fail_after(self.patience):
            async with anyio.create_task_group() as tasks:
                for _ in range(waiters):
                    tasks.start_soon(store.wait_for_change, task_id, 1)
                await anyio.sleep(self.quiet_sec / 10)
                await store.commit([change(task_id)])

    async def test_a_wait_that_was_cancelled_leaves_the_others(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        with anyio.fail_after(self.patience):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store.wait_for_change, task_id, 1)
                with anyio.move_on_after(self.quiet_sec / 10):
                    await store.wait_for_change(task_id, 1)
                await store.commit([change(task_id)])

    async def test_a_version_further_ahead_is_waited_for(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id)])
        with anyio.fail_after(self.patience):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store.wait_for_change, task_id, 3)
                for version in (1, 2, 3):
                    await store.commit([change(task_id, version)])

    async def test_a_commit_over_another_connection_wakes_a_waiter(
        self, store: Store, open_store: OpenStore | None, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        async with open_another(open_store) as other:
            with anyio.fail_after(self.patience):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(store.wait_for_change, task_id, 1)
                    await anyio.sleep(self.quiet_sec / 10)
                    await other.commit([change(task_id)])

    async def test_a_wait_for_the_end_ignores_other_changes(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        await store.commit([change(task_id)])
        with anyio.move_on_after(self.quiet_sec) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store.commit, [change(task_id, 2)])
                await store.wait_for_change(task_id, 1, ended=True)
        assert scope.cancelled_caught

    async def test_a_wait_for_the_end_waits_for_a_later_version_than_the_given_one(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id, finished_at=NOON)])
        with anyio.move_on_after(self.quiet_sec) as scope:
            await store.wait_for_change(task_id, 1, ended=True)
        assert scope.cancelled_caught

    async def test_a_wait_for_an_end_that_has_happened_returns_at_once(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        await store.commit([change(task_id, finished_at=NOON)])
        with anyio.fail_after(self.patience):
            await store.wait_for_change(task_id, 1, ended=True)
            await store.wait_for_change(f"{task_id}-unknown", 1, ended=True)

    async def test_an_end_wakes_all_who_wait_for_it(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id)])
        with anyio.fail_after(self.patience):
            async with anyio.create_task_group() as tasks:
                for version in (0, 1, 2):
                    tasks.start_soon(partial(store.wait_for_change, task_id, version, ended=True))
                await anyio.sleep(self.quiet_sec / 10)
                await store.commit([change(task_id)])
                await store.commit([change(task_id, 2, finished_at=NOON)])

    async def test_an_end_over_another_connection_wakes_a_waiter(
        self, store: Store, open_store: OpenStore | None, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        async with open_another(open_store) as other:
            with anyio.fail_after(self.patience):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(partial(store.wait_for_change, task_id, 1, ended=True))
                    await anyio.sleep(self.quiet_sec / 10)
                    await other.commit([change(task_id, finished_at=NOON)])

    @pytest.mark.parametrize("ended", [False, True])
    async def test_a_wait_for_a_task_that_is_purged_ends(
        self, store: Store, task_id: str, ended: bool
    ) -> None:
        await store.create([record(task_id, finished_at=1000.0)])
        with anyio.fail_after(self.patience):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(store.wait_for_change, task_id, 1, ended=ended))
                await anyio.sleep(self.quiet_sec / 10)
                while await store.purge(finished_before=2000.0):
                    pass
