"""The store suite: several processes, and processes that are killed."""

from dataclasses import replace

import anyio

from flowkit.protocols import KeyedRecord, Store
from flowkit_testing._conformance_jobs import value_of
from flowkit_testing.conformance._processes import Opener, other_processes
from flowkit_testing.conformance._store_base import StoreSuite, load_one, record
from flowkit_testing.conformance._store_keyed_records import put, values

VERSIONS = 20
COUNTS = 20
KILLS = 4
CONFIRMED = 3
"""Number of commits that another process makes before it is killed."""
SIZE = 300_000
"""Size of the parts that it writes. It is large, so that a commit that is not atomic takes long."""


class Processes(StoreSuite):
    """Store that several processes use.

    An adapter that works in one process only skips these tests.
    """

    async def test_of_commits_by_two_processes_one_is_applied_for_each_version(
        self, store: Store, opener: Opener | None, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        jobs = [
            ("commit_each_version", {"task_id": task_id, "name": name, "versions": VERSIONS})
            for name in ("one", "other")
        ]
        async with other_processes(opener, *jobs) as (one, other):
            with anyio.fail_after(self.patience):
                await one.go()
                await other.go()
                applied = {"one": await one.line(), "other": await other.line()}
        assert sorted([*applied["one"], *applied["other"]]) == list(range(1, VERSIONS + 1))
        task = await load_one(store, task_id)
        assert task.version == VERSIONS + 1
        assert task.op_id in {
            f"{name}-{VERSIONS}" for name, versions in applied.items() if VERSIONS in versions
        }

    async def test_a_commit_by_another_process_wakes_a_waiter(
        self, store: Store, opener: Opener | None, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        job = ("commit_each_version", {"task_id": task_id, "name": "other", "versions": 1})
        async with other_processes(opener, job) as (other,):
            with anyio.fail_after(self.patience):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(store.wait_for_change, task_id, 1)
                    await anyio.sleep(self.quiet_sec / 10)
                    await other.go()
        assert (await load_one(store, task_id)).version == 2

    async def test_a_process_that_is_killed_leaves_each_commit_whole_or_absent(
        self, store: Store, opener: Opener | None, task_id: str
    ) -> None:
        await store.create(
            [record(task_id, parts={"first": value_of(1, SIZE), "second": value_of(1, SIZE)})]
        )
        confirmed = 1
        for _ in range(2):
            async with other_processes(
                opener, ("commit_until_killed", {"task_id": task_id, "size": SIZE})
            ) as (other,):
                with anyio.fail_after(self.patience):
                    await other.go()
                    for _ in range(CONFIRMED):
                        assert await other.line() > confirmed
                        confirmed += 1
                    await other.kill()
            task = await load_one(store, task_id)
            assert task.version >= confirmed
            assert dict(task.parts) == {
                "first": value_of(task.version, SIZE),
                "second": value_of(task.version, SIZE),
            }
            assert task.op_id == f"op-{task.version - 1}"
            names = [f"version{version:06}" for version in range(2, task.version + 1)]
            archived = await store.read_archive(task_id, names)
            assert dict(archived) == {
                name: value_of(version, SIZE) for version, name in enumerate(names, 2)
            }
            confirmed = task.version

    async def test_changes_of_keyed_records_by_two_processes_lose_nothing(
        self, store: Store, opener: Opener | None, unique: str
    ) -> None:
        kind = f"k{unique}"
        await put(store, *(KeyedRecord(kind, key, b"0") for key in ("one", "other", "sum")))
        jobs = [
            ("count_in_two_records", {"kind": kind, "name": name, "times": COUNTS})
            for name in ("one", "other")
        ]
        async with other_processes(opener, *jobs) as processes:
            with anyio.fail_after(self.patience):
                for process in processes:
                    await process.go()
                for process in processes:
                    assert await process.line() == COUNTS
        assert await values(store, kind) == {
            "one": b"%d" % COUNTS,
            "other": b"%d" % COUNTS,
            "sum": b"%d" % (2 * COUNTS),
        }

    async def test_a_process_that_is_killed_leaves_each_change_of_records_whole_or_absent(
        self, store: Store, opener: Opener | None, unique: str
    ) -> None:
        kind = f"k{unique}"
        await put(store, *(KeyedRecord(kind, key, b"0") for key in ("one", "sum")))
        confirmed = 0
        for number in range(KILLS):
            job = ("count_until_killed", {"kind": kind, "name": "one"})
            async with other_processes(opener, job) as (other,):
                with anyio.fail_after(self.patience):
                    await other.go()
                    for _ in range(CONFIRMED + number):
                        confirmed = await other.line()
                    await other.kill()
            found = await store.records.get(kind, ["one", "sum"])
            assert found["one"].data == found["sum"].data
            assert found["one"].revision == found["sum"].revision
            assert int(found["one"].data) >= confirmed
            # The unfinished change of the killed process does not block the next one.
            later = [replace(each, due_at=1.0) for each in found.values()]
            assert await put(store, *later, op_id=f"later-{number}") is True
