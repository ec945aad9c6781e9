"""Changes of several keyed records, whose writer is stopped between two steps."""

import asyncio
import secrets
from dataclasses import replace
from typing import Any

import anyio
import pytest
from pymongo.asynchronous.database import AsyncDatabase

from flowkit.errors import ConfigError, RecordRefused, StoreUnavailable
from flowkit.protocols import KeyedRecord, RecordChange, RecordDeletion
from flowkit_mongo import MongoStore
from flowkit_mongo._marked_changes import MarkedChanges
from flowkit_mongo._record_changes import RecordChanges
from flowkit_mongo._retention import Retention
from tests.store_records import NOON, task

pytestmark = pytest.mark.services

STEPS = ("note", "mark", "commit", "roll_forward", "abort")
PATIENCE_SEC = 20


class Stopped(Exception):
    """The writer is stopped."""


class StoppingChanges(MarkedChanges):
    """Changes whose writer is stopped before or after one of its steps."""

    def __init__(self, store: MongoStore, step: str, *, after: bool = False) -> None:
        super().__init__(store._life.resource.context)
        self.step = step
        self.after = after

    async def _do(self, step: str, *args: Any) -> Any:
        if step == self.step and not self.after:
            raise Stopped
        result = await getattr(super(), step)(*args)
        if step == self.step:
            raise Stopped
        return result

    async def note(self, *args: Any) -> None:
        await self._do("note", *args)

    async def mark(self, *args: Any) -> Any:
        return await self._do("mark", *args)

    async def commit(self, *args: Any) -> bool:
        return await self._do("commit", *args)

    async def roll_forward(self, *args: Any) -> None:
        await self._do("roll_forward", *args)

    async def abort(self, *args: Any) -> None:
        await self._do("abort", *args)

    async def remove_gone(self, *args: Any) -> None:
        await self._do("remove_gone", *args)


BEFORE = {"a": b"1", "b": b"1"}
AFTER = {"a": b"2", "c": b"2"}


async def begin(store: MongoStore) -> RecordChange:
    """Store two records, and return a change that changes one, deletes one and adds one."""
    first = [KeyedRecord("kind", key, b"1") for key in BEFORE]
    assert await store.records.change([RecordChange("one", first)]) == [True]
    put = [
        KeyedRecord("kind", "a", b"2", "one", due_at=NOON),
        KeyedRecord("kind", "c", b"2", due_at=NOON + 1),
    ]
    return RecordChange("two", put, [RecordDeletion("kind", "b", "one")])


async def contents(store: MongoStore) -> dict[str, bytes]:
    return {each.key: each.data for each in await store.records.scan("kind")}


async def stopped(store: MongoStore, change: RecordChange, step: str, *, after: bool) -> None:
    steps = StoppingChanges(store, step, after=after)
    with pytest.raises(Stopped):
        await RecordChanges(store._life.resource.context, steps).apply([change])


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS[:-1])
async def test_a_writer_that_is_stopped_at_any_step_leaves_a_whole_change_or_none(
    store: MongoStore, database: AsyncDatabase, step: str, after: bool
) -> None:
    change = await begin(store)
    await stopped(store, change, step, after=after)
    is_applied = step == "roll_forward" or (step == "commit" and after)
    expected = AFTER if is_applied else BEFORE
    assert await contents(store) == expected
    found = await store.records.get("kind", "abc")
    assert {key: each.data for key, each in found.items()} == expected
    due = await store.records.due("kind", before=NOON + 1, limit=10)
    assert [each.key for each in due] == (["a", "c"] if is_applied else [])
    # What is left does not stay in the way of other writers.
    next_change = RecordChange("three", [replace(each, data=b"3") for each in found.values()])
    with anyio.fail_after(PATIENCE_SEC):
        assert await store.records.change([next_change]) == [True]
        single = RecordChange("four", [KeyedRecord("kind", "d", b"4")])
        assert await store.records.change([single]) == [True]
    assert await contents(store) == dict.fromkeys(expected, b"3") | {"d": b"4"}
    assert await database["flowkit_records"].count_documents({"next": {"$exists": True}}) == (
        0 if is_applied or step == "note" or (step, after) == ("mark", False) else 1
    )


@pytest.mark.parametrize("by", ["one", "many", "deletion", "updates"])
async def test_a_writer_in_the_way_is_completed_or_prevented_by_each_kind_of_change(
    store: MongoStore, by: str
) -> None:
    for step, revision in (("commit", "one"), ("roll_forward", "two")):
        await database_is_empty(store)
        change = await begin(store)
        await stopped(store, change, step, after=False)
        a = KeyedRecord("kind", "a", b"3", revision)
        y = KeyedRecord("kind", "y", b"1")
        await store.records.change([RecordChange("y", [y])])
        others = {
            "one": [RecordChange("three", [a])],
            "many": [RecordChange("three", [a, KeyedRecord("kind", "x", b"3")])],
            "deletion": [RecordChange("three", delete=[RecordDeletion("kind", "a")])],
            "updates": [
                RecordChange("three", [a]),
                RecordChange("y3", [replace(y, data=b"3", revision="y")]),
            ],
        }
        with anyio.fail_after(PATIENCE_SEC):
            assert all(await store.records.change(others[by]))
        expected = dict(AFTER if revision == "two" else BEFORE)
        expected.pop("a")
        if by != "deletion":
            expected["a"] = b"3"
        if by == "many":
            expected["x"] = b"3"
        expected["y"] = b"3" if by == "updates" else b"1"
        assert await contents(store) == expected


async def database_is_empty(store: MongoStore) -> None:
    for record in await store.records.scan("kind"):
        deletion = RecordDeletion("kind", record.key)
        await store.records.change([RecordChange(secrets.token_hex(4), delete=[deletion])])


async def test_a_committed_change_that_was_left_is_visible_in_all_its_records(
    store: MongoStore, database: AsyncDatabase
) -> None:
    change = await begin(store)
    await stopped(store, change, "roll_forward", after=False)
    for key in "abc":
        found = await store.records.get("kind", [key])
        assert {name: each.data for name, each in found.items()} == {
            name: data for name, data in AFTER.items() if name == key
        }
        assert {each.revision for each in found.values()} <= {"two"}
    assert await store.records.scan("kind", prefix="b") == []
    pages = [await store.records.scan("kind", limit=1, after=after) for after in ("", "a", "c")]
    assert [[each.key for each in page] for page in pages] == [["a"], ["c"], []]
    last = await store.records.scan("kind", last=True)
    assert [each.key for each in last] == ["c", "a"]
    await store.records.due("kind", before=NOON, limit=1)
    assert await database["flowkit_record_changes"].count_documents({}) == 0
    assert await contents(store) == AFTER


async def test_a_purge_deletes_changes_that_were_not_committed_within_the_hour(
    store: MongoStore, database: AsyncDatabase
) -> None:
    change = await begin(store)
    await stopped(store, change, "commit", after=False)
    context = store._life.resource.context

    async def purge(seconds: float) -> None:
        async def later() -> float:
            return await store.server_time() + seconds

        retention = Retention(
            context, forget=lambda task_ids: None, marked_changes=MarkedChanges(context), now=later
        )
        await retention.purge(finished_before=2.0, limit=10)

    await purge(1800)
    assert await database["flowkit_record_changes"].count_documents({}) == 1
    await purge(3700)
    assert await database["flowkit_record_changes"].count_documents({}) == 0
    assert await contents(store) == BEFORE


async def test_records_of_a_task_that_a_change_was_about_to_store_are_purged(
    store: MongoStore,
) -> None:
    await store.create([task("t", finished_at=1.0)])
    new = [KeyedRecord("kind", key, b"1", task_id="t") for key in "ab"]
    await stopped(store, RecordChange("one", new), "roll_forward", after=False)
    assert await store.purge(finished_before=2.0) == 1
    assert await contents(store) == {}


async def test_a_damaged_revision_makes_a_change_with_others_impossible(
    store: MongoStore, database: AsyncDatabase
) -> None:
    change = await begin(store)
    await database["flowkit_records"].update_one({"_id.key": "b"}, {"$set": {"revision": 7}})
    deletions = [RecordDeletion("kind", "b")]
    with pytest.raises(RecordRefused, match="delete it in a change of its own"):
        await store.records.change([replace(change, delete=deletions)])
    assert await store.records.change([RecordChange("x", delete=deletions)]) == [True]


async def test_a_change_of_one_record_is_one_write(store: MongoStore, commands: Any) -> None:
    commands.sent.clear()
    first = KeyedRecord("kind", "a", b"1")
    await store.records.change([RecordChange("one", [first])])
    await store.records.change([RecordChange("two", [replace(first, revision="one")])])
    await store.records.change([RecordChange("three", delete=[RecordDeletion("kind", "a")])])
    assert commands.names() == ["insert", "update", "delete"]


# ---------------------------------------------------------------- changes together


async def put_some(store: MongoStore) -> list[RecordChange]:
    """Store three records, and return a change of each."""
    records = [KeyedRecord("kind", key, b"1") for key in "abc"]
    await store.records.change([RecordChange(f"one {each.key}", [each]) for each in records])
    return [
        RecordChange(f"two {each.key}", [replace(each, data=b"2", revision=f"one {each.key}")])
        for each in records
    ]


def deletions(*revisions: str | None) -> list[RecordChange]:
    """Return deletions of the first records in these revisions."""
    return [
        RecordChange(f"gone {key}", delete=[RecordDeletion("kind", key, revision)])
        for key, revision in zip("abc", revisions, strict=False)
    ]


async def test_changes_of_one_record_each_are_one_read_and_one_write(
    store: MongoStore, commands: Any
) -> None:
    changes = await put_some(store)
    commands.sent.clear()
    assert await store.records.change(changes) == [True, True, True]
    assert commands.names() == ["find", "update"]
    commands.sent.clear()
    outdated = [replace(change, op_id=f"three {change.op_id}") for change in changes]
    assert await store.records.change(outdated) == [False, False, False]
    assert commands.names() == ["find"]
    # A call that is repeated, because its answer was lost.
    assert await store.records.change(changes) == [True, True, True]


async def test_deletions_of_one_record_each_are_one_read_and_two_writes(
    store: MongoStore, commands: Any
) -> None:
    await put_some(store)
    gone = deletions("one a", None, "one c")
    missing = RecordChange("gone d", delete=[RecordDeletion("kind", "d")])
    commands.sent.clear()
    assert await store.records.change([*gone, missing]) == [True, True, True, False]
    assert commands.names() == ["find", "update", "delete"]
    commands.sent.clear()
    assert await store.records.change(gone) == [False, False, False]
    assert commands.names() == ["find"]


async def test_new_changed_and_deleted_records_are_written_together(
    store: MongoStore, commands: Any
) -> None:
    changes = await put_some(store)
    await store.records.change([RecordChange("one e", [KeyedRecord("kind", "e", b"1")])])
    new = [RecordChange(f"new {key}", [KeyedRecord("kind", key, b"1")]) for key in "de"]
    gone = deletions("one a", "other")
    commands.sent.clear()
    answers = await store.records.change([*new, *changes[2:], *gone])
    assert answers == [True, False, True, True, False]
    assert sorted(commands.names()[:4]) == ["delete", "find", "insert", "update"]
    assert await contents(store) == {"b": b"1", "c": b"2", "d": b"1", "e": b"1"}


class Meddling(MarkedChanges):
    """Changes with another writer, who is at work after the read and after the write."""

    def __init__(
        self,
        store: MongoStore,
        *,
        before: RecordChange | None = None,
        after: RecordChange | None = None,
    ) -> None:
        super().__init__(store._life.resource.context)
        self._store, self._writes = store, 0
        self._before = before or put("a", "one a", "other a")
        self._after = after

    async def states(self, concerned: Any) -> Any:
        found = await super().states(concerned)
        if not self._writes:
            assert await self._store.records.change([self._before]) == [True]
        return found

    async def update(self, changes: Any) -> int:
        matched = await super().update(changes)
        self._writes += 1
        if self._after is not None and self._writes == 1:
            assert await self._store.records.change([self._after]) == [True]
        return matched


def put(key: str, revision: str, op_id: str) -> RecordChange:
    return RecordChange(op_id, [KeyedRecord("kind", key, b"9", revision)])


async def test_a_record_that_another_writer_changes_meanwhile_is_refused_alone(
    store: MongoStore,
) -> None:
    changes = await put_some(store)
    steps = Meddling(store)
    applied = await RecordChanges(store._life.resource.context, steps).apply(changes)
    assert applied == [False, True, True]
    assert await contents(store) == {"a": b"9", "b": b"2", "c": b"2"}


async def test_a_record_that_is_to_be_deleted_and_another_writer_changes_is_refused_alone(
    store: MongoStore,
) -> None:
    await put_some(store)
    steps = Meddling(store)
    gone = deletions("one a", "one b", None)
    applied = await RecordChanges(store._life.resource.context, steps).apply(gone)
    assert applied == [False, True, True]
    assert await contents(store) == {"a": b"9"}


async def test_of_two_writers_one_deletes_a_record(store: MongoStore) -> None:
    await put_some(store)
    steps = Meddling(store, before=RecordChange("x", delete=[RecordDeletion("kind", "b", "one b")]))
    gone = deletions("one a", "one b", None)
    applied = await RecordChanges(store._life.resource.context, steps).apply(gone)
    assert applied == [True, False, True]
    assert await contents(store) == {}


async def test_it_is_never_guessed_who_deleted_a_record_that_is_made_again(
    store: MongoStore,
) -> None:
    await put_some(store)
    deleted = RecordChange("x", delete=[RecordDeletion("kind", "b", "one b")])
    steps = Meddling(store, before=deleted, after=put("a", "", "new a"))
    with pytest.raises(StoreUnavailable, match="the outcome of some changes .* is unknown"):
        await RecordChanges(store._life.resource.context, steps).apply(
            deletions("one a", "one b", None)
        )
    assert await contents(store) == {"a": b"9"}


async def test_a_record_is_made_again_while_the_document_of_the_deleted_one_is_removed(
    store: MongoStore,
) -> None:
    new = [KeyedRecord("kind", key, b"9") for key in "ax"]

    class Overtaken(MarkedChanges):
        async def remove_gone(self, *args: Any) -> None:
            await stopped(store, RecordChange("new", new), "roll_forward", after=False)
            await super().remove_gone(*args)

    await put_some(store)
    context = store._life.resource.context
    applied = await RecordChanges(context, Overtaken(context)).apply(deletions("one a", "one b"))
    assert applied == [True, True]
    assert await contents(store) == {"a": b"9", "c": b"1", "x": b"9"}


async def test_a_writer_that_is_stopped_while_it_deletes_leaves_nothing_in_the_way(
    store: MongoStore, database: AsyncDatabase
) -> None:
    await put_some(store)
    steps = StoppingChanges(store, "remove_gone")
    with pytest.raises(Stopped):
        await RecordChanges(store._life.resource.context, steps).apply(
            deletions("one a", "one b", None)
        )
    assert await contents(store) == await store.records.get("kind", "abc") == {}
    assert await store.records.change([put("a", "", "new a")]) == [True]
    assert await contents(store) == {"a": b"9"}
    await store.purge(finished_before=2.0)
    assert await database["flowkit_records"].count_documents({}) == 1


# ---------------------------------------------------------------- scans together


async def test_scans_at_the_same_time_are_one_call(store: MongoStore, commands: Any) -> None:
    keys = [*(f"a{number}" for number in range(5)), "ab", "b", "b1", "c"]
    records = [KeyedRecord("kind", key, key.encode()) for key in keys]
    await store.records.change([RecordChange(each.key, [each]) for each in records])
    wanted = {"a": 3, "ab": 3, "b": 1, "": 9, "d": 3}
    commands.sent.clear()
    found = await asyncio.gather(
        *(store.records.scan("kind", prefix=each, limit=most) for each, most in wanted.items()),
        store.records.scan("other"),
    )
    assert commands.names() == ["aggregate"]
    first = ["a0", "a1", "a2"]
    names = [[each.data.decode() for each in some] for some in found]
    assert names == [first, ["ab"], ["b"], sorted(keys), [], []]


async def test_a_scan_fills_its_page_beside_records_that_do_not_exist_yet(
    store: MongoStore,
) -> None:
    records = [KeyedRecord("kind", key, b"1") for key in "bdfh"]
    await store.records.change([RecordChange("one", records)])
    new = [KeyedRecord("kind", key, b"2") for key in "aceg"]
    await stopped(store, RecordChange("two", new), "commit", after=False)
    found = await store.records.scan("kind", limit=4)
    assert [each.key for each in found] == ["b", "d", "f", "h"]


async def test_it_is_never_guessed_whether_a_record_was_changed_that_is_changed_again(
    store: MongoStore,
) -> None:
    changes = await put_some(store)
    steps = Meddling(store, after=put("b", "two b", "other b"))
    with pytest.raises(StoreUnavailable, match="the outcome of some changes .* is unknown"):
        await RecordChanges(store._life.resource.context, steps).apply(changes)
    assert await contents(store) == {"a": b"9", "b": b"9", "c": b"2"}


async def test_a_store_of_an_earlier_layout_is_refused(
    store: MongoStore, database: AsyncDatabase
) -> None:
    await store.create([task("t")])
    await database["flowkit_tasks"].update_many({}, {"$set": {"schema_version": 1}})
    with pytest.raises(ConfigError, match="an earlier version of flowkit-mongo wrote"):
        async with MongoStore(database):
            pass
