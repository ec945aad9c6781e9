"""The store suite: creating and loading tasks."""

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from flowkit.errors import RecordTooLarge
from flowkit.protocols import ArchivedPart, Store, TaskRecord
from flowkit_testing.conformance._common import assert_well_formed
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

NO_TEXT = b'\x00\xff\xfe{"\r\n\x80'
"""Bytes like those of a plugin that encodes payloads."""


class Creating(StoreSuite):
    """Creation of tasks."""

    async def test_entering_gives_the_store_itself(self, open_store: OpenStore | None) -> None:
        another = open_another(open_store)
        async with another as entered:
            assert entered is another

    @pytest.mark.parametrize(
        "header",
        [
            {},
            {"pipeline": "etl"},
            {"labels": {"team": "a", "tier": "gold"}},
            {"labels": {"a.b": "x", "$set": "y", "": "empty", "schlüssel": "wért"}},
            {"idempotency_key": True},
            {"tags": frozenset({"reason:x", "a.b", "$set", "schlüssel"})},
            {"wake_at": NOON + 0.25},
            {"status": "finished", "finished_at": NOON + 1.5},
            {
                "created_at": NOON + 0.123457,
                "wake_at": NOON + 0.234568,
                "finished_at": NOON + 0.345679,
            },
            {
                "pipeline": "p",
                "labels": {"l": "1"},
                "idempotency_key": True,
                "wake_at": 1.0,
                "finished_at": 2.0,
            },
        ],
        ids=[
            "plain",
            "pipeline",
            "labels",
            "odd-labels",
            "key",
            "tags",
            "wake",
            "finished",
            "microseconds",
            "all",
        ],
    )
    async def test_a_task_loads_as_it_was_created(
        self, store: Store, task_id: str, header: dict[str, Any]
    ) -> None:
        key = f"key-{task_id}" if header.get("idempotency_key") else None
        created = record(task_id, **{**header, "idempotency_key": key})
        assert list(await store.create([created])) == [task_id]
        assert plain(await load_one(store, task_id)) == created

    @pytest.mark.parametrize(
        "parts",
        [
            {},
            {"a": b"{}"},
            {"state": b'{"k.ey":{"$set":1}}', "n1": b"[1,2]", "x2y": '"grün ✓"'.encode()},
        ],
        ids=["none", "one", "several"],
    )
    async def test_parts_load_as_they_were_created(
        self, store: Store, task_id: str, parts: dict[str, bytes]
    ) -> None:
        await store.create([record(task_id, parts=parts)])
        assert dict((await load_one(store, task_id)).parts) == parts

    @pytest.mark.parametrize("size", [0, 100, 3_000_000])
    async def test_a_spec_loads_as_it_was_created(
        self, store: Store, task_id: str, size: int
    ) -> None:
        spec = b'"' + b"s" * size + b'"'
        await store.create([record(task_id, spec=spec)])
        assert (await load_one(store, task_id)).spec == spec

    async def test_bytes_that_are_no_text_load_as_they_were_stored(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id, spec=NO_TEXT, parts={"a": NO_TEXT})])
        await store.commit(
            [change(task_id, put={"b": NO_TEXT}, archive=[ArchivedPart("c", 1, NO_TEXT)])]
        )
        task = await load_one(store, task_id)
        assert (task.spec, dict(task.parts)) == (NO_TEXT, {"a": NO_TEXT, "b": NO_TEXT})
        assert dict(await store.read_archive(task_id, ["c"])) == {"c": NO_TEXT}

    async def test_a_new_task_has_version_one_and_its_operation(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id, op_id="op-0")])
        task = await load_one(store, task_id)
        assert (task.version, task.op_id) == (1, "op-0")

    async def test_creating_answers_in_order(self, store: Store, task_id: str) -> None:
        ids = [f"{task_id}-{number}" for number in (3, 1, 2)]
        assert list(await store.create([record(name) for name in ids])) == ids
        assert set(await store.load(ids)) == set(ids)

    async def test_creating_nothing_is_allowed(self, store: Store) -> None:
        assert list(await store.create([])) == []

    async def test_an_id_is_created_once(self, store: Store, task_id: str) -> None:
        await store.create([record(task_id, spec=b"1")])
        assert list(await store.create([record(task_id, spec=b"2", status="other", parts={})])) == [
            task_id
        ]
        assert plain(await load_one(store, task_id)) == record(task_id, spec=b"1")

    async def test_an_id_created_again_does_not_undo_commits(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        await store.commit([change(task_id)])
        await store.create([record(task_id)])
        assert (await load_one(store, task_id)).version == 2

    async def test_an_idempotency_key_stands_for_the_first_task(
        self, store: Store, task_id: str
    ) -> None:
        key = f"key-{task_id}"
        await store.create([record(task_id, idempotency_key=key)])
        assert list(await store.create([record(f"{task_id}-other", idempotency_key=key)])) == [
            task_id
        ]
        assert set(await store.load([task_id, f"{task_id}-other"])) == {task_id}

    async def test_one_call_may_name_a_key_twice(self, store: Store, task_id: str) -> None:
        key = f"key-{task_id}"
        records = [
            record(task_id, idempotency_key=key),
            record(f"{task_id}-other", idempotency_key=key),
        ]
        first, second = await store.create(records)
        assert first == second
        assert set(await store.load([task_id, f"{task_id}-other"])) == {first}

    async def test_one_call_may_name_an_id_twice(self, store: Store, task_id: str) -> None:
        assert list(
            await store.create([record(task_id, spec=b"1"), record(task_id, spec=b"2")])
        ) == [task_id, task_id]

    async def test_a_call_may_mix_new_tasks_and_known_ones(
        self, store: Store, task_id: str
    ) -> None:
        key = f"key-{task_id}"
        await store.create([record(task_id, idempotency_key=key)])
        ids = [f"{task_id}-1", f"{task_id}-2", f"{task_id}-3"]
        answer = await store.create(
            [record(ids[0]), record(ids[1], idempotency_key=key), record(ids[2])]
        )
        assert list(answer) == [ids[0], task_id, ids[2]]
        assert set(await store.load(ids)) == {ids[0], ids[2]}

    async def test_tasks_without_a_key_do_not_stand_for_each_other(
        self, store: Store, task_id: str
    ) -> None:
        ids = [f"{task_id}-{number}" for number in range(3)]
        for name in ids:
            assert list(await store.create([record(name)])) == [name]

    @pytest.mark.parametrize("count", [2, 10])
    async def test_one_task_is_stored_of_many_created_at_the_same_time_with_a_key(
        self, store: Store, task_id: str, count: int
    ) -> None:
        answers: list[str] = []
        ids = [f"{task_id}-{number}" for number in range(count)]

        async def create(name: str) -> None:
            answers.extend(await store.create([record(name, idempotency_key=f"key-{task_id}")]))

        async with anyio.create_task_group() as tasks:
            for name in ids:
                tasks.start_soon(create, name)
        assert len(set(answers)) == 1
        assert set(await store.load(ids)) == set(answers)

    async def test_one_task_is_stored_of_many_created_at_the_same_time_with_an_id(
        self, store: Store, task_id: str
    ) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(
                    store.create,
                    [record(task_id, spec=b"%d" % number, parts={"spec": b"%d" % number})],
                )
        task = await load_one(store, task_id)
        assert task.spec == task.parts["spec"]

    async def test_a_record_above_the_limit_is_refused_and_not_written(
        self, store: Store, task_id: str
    ) -> None:
        if self.oversize_bytes is None:
            pytest.skip("the store has no limit")
        huge = record(task_id, spec=b"x" * self.oversize_bytes, idempotency_key=f"key-{task_id}")
        with pytest.raises(RecordTooLarge):
            await store.create([huge])
        assert await store.load([task_id]) == {}
        other = f"{task_id}-other"
        assert list(await store.create([record(other, idempotency_key=f"key-{task_id}")])) == [
            other
        ]

    async def test_what_the_creator_changes_afterwards_is_not_seen(
        self, store: Store, task_id: str
    ) -> None:
        parts, labels = {"a": b"1"}, {"l": "1"}
        await store.create([record(task_id, parts=parts, labels=labels)])
        parts["a"], labels["l"] = b"2", "2"
        task = await load_one(store, task_id)
        assert (dict(task.parts), dict(task.header.labels)) == ({"a": b"1"}, {"l": "1"})

    async def test_another_connection_sees_what_was_created(
        self, store: Store, open_store: OpenStore | None, task_id: str
    ) -> None:
        async with open_another(open_store) as other:
            await store.create([record(task_id)])
            assert plain(await load_one(other, task_id)) == record(task_id)

    async def test_what_was_created_outlives_the_connection(
        self, open_store: OpenStore | None, task_id: str
    ) -> None:
        async with open_another(open_store) as first:
            await first.create([record(task_id)])
            await first.commit([change(task_id, put={"more": b"1"})])
        async with open_another(open_store) as second:
            assert dict((await load_one(second, task_id)).parts) == {
                "state": b'{"n":0}',
                "more": b"1",
            }

    async def test_check_raises_nothing(self, store: Store) -> None:
        results = await store.check()
        assert_well_formed(results)
        assert all(result.ok for result in results), results


class Loading(StoreSuite):
    """Loading of tasks."""

    async def test_a_task_that_does_not_exist_is_not_loaded(
        self, store: Store, task_id: str
    ) -> None:
        assert dict(await store.load([task_id])) == {}

    async def test_loading_nothing_gives_nothing(self, store: Store) -> None:
        assert dict(await store.load([])) == {}

    async def test_those_that_exist_are_loaded(self, store: Store, task_id: str) -> None:
        await store.create([record(f"{task_id}-a"), record(f"{task_id}-b")])
        tasks = await store.load({f"{task_id}-a", f"{task_id}-b", f"{task_id}-c"})
        assert {name: task.header.task_id for name, task in tasks.items()} == {
            name: name for name in (f"{task_id}-a", f"{task_id}-b")
        }

    async def test_many_tasks_load_at_once(self, store: Store, task_id: str) -> None:
        ids = [f"{task_id}-{number}" for number in range(300)]
        await store.create([record(name, spec=name.encode()) for name in ids])
        tasks = await store.load(ids)
        assert {name: task.spec for name, task in tasks.items()} == {
            name: name.encode() for name in ids
        }

    async def test_a_loaded_task_does_not_change_with_later_commits(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        before = await load_one(store, task_id)
        await store.commit([change(task_id, put={"state": b'{"n":1}'}, status="done")])
        assert plain(before) == record(task_id)

    async def test_changing_a_loaded_task_does_not_change_the_store(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id, labels={"l": "1"})])
        task = await load_one(store, task_id)
        for mapping in (task.parts, task.header.labels):
            if isinstance(mapping, dict):
                mapping["intruder"] = b"1"
        again: TaskRecord = await load_one(store, task_id)
        assert plain(again) == record(task_id, labels={"l": "1"})

    async def test_loading_is_never_older_than_a_confirmed_commit(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        for version in range(1, 11):
            await store.commit([change(task_id, version, put={"state": b"%d" % version})])
            task = await load_one(store, task_id)
            assert (task.version, task.parts["state"]) == (version + 1, b"%d" % version)

    async def test_another_connection_loads_what_was_committed(
        self, store: Store, open_store: OpenStore | None, task_id: str
    ) -> None:
        await store.create([record(task_id)])
        async with open_another(open_store) as other:
            for version in range(1, 6):
                await store.commit([change(task_id, version)])
                assert (await load_one(other, task_id)).version == version + 1

    async def test_a_task_loads_as_of_one_version_while_it_changes(
        self, store: Store, task_id: str
    ) -> None:
        await store.create([record(task_id, parts={"a": b"1", "b": b"1"})])

        async def write() -> None:
            for version in range(1, 31):
                value = b"%d" % (version + 1)
                await store.commit([change(task_id, version, put={"a": value, "b": value})])
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            while True:
                task = await load_one(store, task_id)
                assert task.parts["a"] == task.parts["b"] == b"%d" % task.version
                await anyio.lowlevel.checkpoint()
