"""The store suite: keyed records."""

from collections.abc import Sequence
from dataclasses import replace

import anyio
import pytest

from flowkit.errors import RecordTooLarge
from flowkit.protocols import KeyedRecord, RecordChange, RecordDeletion, Store
from flowkit_testing.conformance._common import assert_new
from flowkit_testing.conformance._store_base import (
    NOON,
    OpenStore,
    StoreSuite,
    open_another,
    record,
)

LARGEST_DATA = 2_000_000
LONGEST_KEY = 2_000
MOST_RECORDS = 100
LONG_AGO = 1000.0
ODD_KEYS = [" ", "$a.b", "a", "a\x00b", "a/", "a/b", "aa", "b", "é", "\uffff", "😀"]
"""In the order of their code points, which is not that of UTF-16."""


async def put(store: Store, *records: KeyedRecord, op_id: str = "first") -> bool:
    """Put records in one change."""
    (applied,) = await store.records.change([RecordChange(op_id, records)])
    return applied


async def delete(store: Store, *deletions: RecordDeletion) -> bool:
    """Delete records in one change."""
    (applied,) = await store.records.change([RecordChange("delete", delete=deletions)])
    return applied


async def values(store: Store, kind: str) -> dict[str, bytes]:
    """Return the data of all records of a kind, by key."""
    return {found.key: found.data for found in await store.records.scan(kind, limit=1000)}


class KeyedRecords(StoreSuite):
    """Keyed records, and changes of them."""

    @pytest.fixture
    def kind(self, unique: str) -> str:
        return f"k{unique}"

    # ------------------------------------------------------------ one record

    @pytest.mark.parametrize(
        "data",
        [b"", b'{"a":1}', b"\x00\xff", "grün".encode()],
        ids=["empty", "json", "binary", "text"],
    )
    @pytest.mark.parametrize("due_at", [None, NOON + 0.25])
    @pytest.mark.parametrize("task_id", [None, "task.$1"])
    async def test_a_keyed_record_is_read_as_it_was_put(
        self, store: Store, kind: str, data: bytes, due_at: float | None, task_id: str | None
    ) -> None:
        given = KeyedRecord(kind, "a.$b", data, due_at=due_at, task_id=task_id)
        assert await put(store, given, op_id="op") is True
        stored = replace(given, revision="op")
        assert dict(await store.records.get(kind, ["a.$b"])) == {"a.$b": stored}
        assert list(await store.records.scan(kind)) == [stored]
        assert list(await store.records.due(kind, before=NOON + 1, limit=10)) == (
            [] if due_at is None else [stored]
        )

    async def test_only_records_that_exist_are_read(self, store: Store, kind: str) -> None:
        await put(store, KeyedRecord(kind, "a", b"1"), KeyedRecord(kind, "b", b"2"))
        found = await store.records.get(kind, ["b", "a", "c"])
        assert {key: each.data for key, each in found.items()} == {"a": b"1", "b": b"2"}
        assert dict(await store.records.get(kind, [])) == {}
        assert dict(await store.records.get(f"{kind}x", ["a"])) == {}

    async def test_a_key_and_a_kind_may_be_long(self, store: Store, unique: str) -> None:
        kind, key = f"k{unique}".ljust(40, "_"), "é" * LONGEST_KEY
        await put(store, KeyedRecord(kind, key, b"1"))
        assert await values(store, kind) == {key: b"1"}
        assert list(await store.records.get(kind, [key])) == [key]

    async def test_a_record_that_exists_is_not_put_as_a_new_one(
        self, store: Store, kind: str
    ) -> None:
        assert await put(store, KeyedRecord(kind, "a", b"1")) is True
        assert await put(store, KeyedRecord(kind, "a", b"2"), op_id="second") is False
        assert await values(store, kind) == {"a": b"1"}

    async def test_a_record_is_changed_on_top_of_its_revision(
        self, store: Store, kind: str
    ) -> None:
        await put(store, KeyedRecord(kind, "a", b"1", due_at=NOON, task_id="t"), op_id="one")
        changed = KeyedRecord(kind, "a", b"2", revision="one", due_at=NOON + 1, task_id="u")
        assert await put(store, changed, op_id="two") is True
        assert list(await store.records.scan(kind)) == [replace(changed, revision="two")]
        cleared = KeyedRecord(kind, "a", b"", revision="two")
        assert await put(store, cleared, op_id="three") is True
        assert list(await store.records.scan(kind)) == [replace(cleared, revision="three")]

    async def test_a_change_on_top_of_another_revision_is_refused(
        self, store: Store, kind: str
    ) -> None:
        await put(store, KeyedRecord(kind, "a", b"1"), op_id="one")
        await put(store, KeyedRecord(kind, "a", b"2", revision="one"), op_id="two")
        assert await put(store, KeyedRecord(kind, "a", b"3", revision="one"), op_id="x") is False
        assert await put(store, KeyedRecord(kind, "b", b"3", revision="one"), op_id="y") is False
        assert await values(store, kind) == {"a": b"2"}

    async def test_a_record_is_deleted_in_its_revision(self, store: Store, kind: str) -> None:
        await put(store, *(KeyedRecord(kind, key, b"1", due_at=NOON) for key in "ab"), op_id="one")
        assert await delete(store, RecordDeletion(kind, "a", "other")) is False
        assert await delete(store, RecordDeletion(kind, "a", "one")) is True
        assert await values(store, kind) == {"b": b"1"}
        assert await delete(store, RecordDeletion(kind, "b")) is True
        assert await values(store, kind) == {}
        assert list(await store.records.due(kind, before=NOON, limit=10)) == []

    async def test_a_missing_record_is_not_deleted(self, store: Store, kind: str) -> None:
        assert await delete(store, RecordDeletion(kind, "a")) is False
        assert await delete(store, RecordDeletion(kind, "a", "one")) is False

    async def test_a_deleted_record_may_be_put_again(self, store: Store, kind: str) -> None:
        await put(store, KeyedRecord(kind, "a", b"1"), op_id="one")
        await delete(store, RecordDeletion(kind, "a", "one"))
        assert await put(store, KeyedRecord(kind, "a", b"2", revision="one"), op_id="x") is False
        assert await put(store, KeyedRecord(kind, "a", b"3"), op_id="two") is True
        assert await values(store, kind) == {"a": b"3"}

    async def test_data_below_the_smallest_limit_is_stored(self, store: Store, kind: str) -> None:
        for data in (b"x" * LARGEST_DATA, b"\xff" * LARGEST_DATA):
            assert await put(store, KeyedRecord(kind, f"{data[:1]!r}", data), op_id="op")
            assert (await values(store, kind))[f"{data[:1]!r}"] == data

    async def test_data_above_the_limit_is_refused_and_nothing_is_changed(
        self, store: Store, kind: str
    ) -> None:
        if self.oversize_bytes is None:
            pytest.skip("the store has no limit")
        small = KeyedRecord(kind, "small", b"1")
        huge = KeyedRecord(kind, "huge", b"x" * self.oversize_bytes)
        with pytest.raises(RecordTooLarge):
            await store.records.change([RecordChange("one", [small]), RecordChange("two", [huge])])
        assert await values(store, kind) == {}

    async def test_what_the_caller_changes_afterwards_is_not_seen(
        self, store: Store, kind: str
    ) -> None:
        given = KeyedRecord(kind, "a", bytearray(b"1"))  # type: ignore[arg-type]
        await put(store, given)
        given.data += b"2"
        (read,) = (await store.records.get(kind, ["a"])).values()
        read.data, read.due_at = b"3", NOON
        assert await values(store, kind) == {"a": b"1"}
        assert list(await store.records.due(kind, before=NOON, limit=10)) == []

    async def test_another_connection_sees_a_change(
        self, store: Store, open_store: OpenStore | None, kind: str
    ) -> None:
        async with open_another(open_store) as other:
            assert await values(other, kind) == {}
            await put(store, KeyedRecord(kind, "a", b"1"), op_id="one")
            assert await values(other, kind) == {"a": b"1"}
            await put(other, KeyedRecord(kind, "a", b"2", revision="one"), op_id="two")
        assert await values(store, kind) == {"a": b"2"}

    async def test_a_change_that_is_not_durable_is_visible(self, store: Store, kind: str) -> None:
        change = RecordChange("op", [KeyedRecord(kind, "a", b"1")], durable=False)
        assert list(await store.records.change([change])) == [True]
        assert await values(store, kind) == {"a": b"1"}

    # ------------------------------------------------------------ several records

    async def test_a_change_may_concern_many_records(self, store: Store, kind: str) -> None:
        keys = [f"{number:03}" for number in range(MOST_RECORDS)]
        assert await put(store, *(KeyedRecord(kind, key, b"1") for key in keys), op_id="one")
        half = MOST_RECORDS // 2
        change = RecordChange(
            "two",
            [KeyedRecord(f"{kind}x", keys[0], b"2")]
            + [KeyedRecord(kind, key, b"2", revision="one") for key in keys[half:-1]],
            [RecordDeletion(kind, key, "one") for key in keys[:half]],
        )
        assert list(await store.records.change([change])) == [True]
        assert await values(store, kind) == dict.fromkeys(keys[half:-1], b"2") | {keys[-1]: b"1"}
        assert await values(store, f"{kind}x") == {keys[0]: b"2"}

    @pytest.mark.parametrize("wrong", ["taken", "stale", "gone", "not deleted", "not there"])
    async def test_a_refused_change_leaves_all_records_as_they_were(
        self, store: Store, kind: str, wrong: str
    ) -> None:
        first = [KeyedRecord(kind, key, b"1", due_at=NOON) for key in "abc"]
        await put(store, *first, op_id="one")
        puts: dict[str, KeyedRecord] = {
            "taken": KeyedRecord(kind, "c", b"2"),
            "stale": KeyedRecord(kind, "c", b"2", revision="zero"),
            "gone": KeyedRecord(kind, "d", b"2", revision="one"),
        }
        deletions = {
            "not deleted": RecordDeletion(kind, "c", "zero"),
            "not there": RecordDeletion(kind, "d"),
        }
        change = RecordChange(
            "two",
            [
                KeyedRecord(kind, "0new", b"2", due_at=NOON),
                KeyedRecord(kind, "a", b"2", revision="one"),
                KeyedRecord(kind, "new", b"2"),
                *([puts[wrong]] if wrong in puts else ()),
            ],
            [
                RecordDeletion(kind, "b", "one"),
                *([deletions[wrong]] if wrong in deletions else ()),
            ],
        )
        assert list(await store.records.change([change])) == [False]
        stored = [replace(each, revision="one") for each in first]
        assert list(await store.records.scan(kind)) == stored
        assert list(await store.records.due(kind, before=NOON, limit=10)) == stored
        assert dict(await store.records.get(kind, ["0new", "new", "d"])) == {}

    async def test_the_changes_of_a_call_are_independent(self, store: Store, kind: str) -> None:
        await put(store, KeyedRecord(kind, "b", b"1"))
        changes = [
            RecordChange("1", [KeyedRecord(kind, "a", b"2")]),
            RecordChange("2", [KeyedRecord(kind, "b", b"2"), KeyedRecord(kind, "c", b"2")]),
            RecordChange("3", [KeyedRecord(kind, "d", b"2"), KeyedRecord(kind, "e", b"2")]),
            RecordChange("4", delete=[RecordDeletion(kind, "f")]),
        ]
        assert list(await store.records.change(changes)) == [True, False, True, False]
        assert await values(store, kind) == {"a": b"2", "b": b"1", "d": b"2", "e": b"2"}
        assert list(await store.records.change([])) == []

    async def test_of_puts_at_the_same_time_one_is_applied(self, store: Store, kind: str) -> None:
        applied: list[int] = []

        async def put_one(number: int) -> None:
            records = [KeyedRecord(kind, key, b"%d" % number) for key in "ab"]
            if await put(store, *records, op_id=f"op-{number}"):
                applied.append(number)

        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(put_one, number)
        assert len(applied) == 1
        assert await values(store, kind) == dict.fromkeys("ab", b"%d" % applied[0])

    async def test_changes_of_overlapping_records_at_the_same_time_lose_nothing(
        self, store: Store, kind: str
    ) -> None:
        keys = ["a", "b", "c"]
        await put(store, *(KeyedRecord(kind, key, b"100") for key in keys))

        async def move(number: int) -> None:
            """Move one from a record to the next."""
            source, target = keys[number % 3], keys[(number + 1) % 3]
            while True:
                found = await store.records.get(kind, [source, target])
                moved = [
                    replace(found[key], data=b"%d" % (int(found[key].data) + step))
                    for key, step in ((source, -1), (target, 1))
                ]
                if await put(store, *moved, op_id=f"{number}-{found[source].revision}"):
                    return

        with anyio.fail_after(self.patience):
            async with anyio.create_task_group() as group:
                for number in range(10):
                    group.start_soon(move, number)
        assert await values(store, kind) == {"a": b"99", "b": b"101", "c": b"100"}

    # ------------------------------------------------------------ scanning

    async def test_records_are_scanned_in_the_order_of_their_keys(
        self, store: Store, kind: str
    ) -> None:
        for key in reversed(ODD_KEYS):
            await put(store, KeyedRecord(kind, key, b"1"))
        assert [found.key for found in await store.records.scan(kind)] == ODD_KEYS
        found = await store.records.scan(kind, last=True)
        assert [each.key for each in found] == ODD_KEYS[::-1]

    @pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
    @pytest.mark.parametrize("after", ["", "a", "a\x00", "a/", "a/b", "aa", "b", "zz"])
    @pytest.mark.parametrize("prefix", ["", "a", "a/", "é", "\uffff", "x"])
    async def test_records_are_scanned_by_prefix_and_place(
        self, store: Store, kind: str, prefix: str, after: str, last: bool
    ) -> None:
        await put(store, *(KeyedRecord(kind, key, b"1") for key in ODD_KEYS))
        expected = [
            key
            for key in (ODD_KEYS[::-1] if last else ODD_KEYS)
            if key.startswith(prefix) and ((key < after or not after) if last else key > after)
        ]
        for limit in (1, 3, 100):
            found = await store.records.scan(
                kind, prefix=prefix, after=after, limit=limit, last=last
            )
            assert [each.key for each in found] == expected[:limit]

    @pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
    async def test_records_are_scanned_page_by_page(
        self, store: Store, kind: str, last: bool
    ) -> None:
        keys = [f"a{number}" for number in range(7)]
        await put(store, *(KeyedRecord(kind, key, b"1") for key in [*keys, "b"]))
        seen: list[str] = []
        while page := [
            found.key
            for found in await store.records.scan(
                kind, prefix="a", after=seen[-1] if seen else "", limit=2, last=last
            )
        ]:
            assert_new(page, seen)
            seen += page
        assert seen == (keys[::-1] if last else keys)

    async def test_kinds_are_scanned_by_themselves(self, store: Store, kind: str) -> None:
        for name in (kind, f"{kind}_", f"{kind}0"):
            await put(store, KeyedRecord(name, "a", name.encode(), due_at=NOON))
        for name in (kind, f"{kind}_", f"{kind}0"):
            assert await values(store, name) == {"a": name.encode()}
            due = await store.records.due(name, before=NOON, limit=10)
            assert [found.data for found in due] == [name.encode()]

    # ------------------------------------------------------------ due records

    async def due_keys(
        self, store: Store, kind: str, before: float, limit: int = 100
    ) -> Sequence[str]:
        return [each.key for each in await store.records.due(kind, before=before, limit=limit)]

    async def test_due_records_come_in_the_order_of_their_times(
        self, store: Store, kind: str
    ) -> None:
        times = {"a": NOON + 2, "b": NOON, "c": NOON + 1, "d": None, "e": NOON + 3}
        await put(store, *(KeyedRecord(kind, key, b"1", due_at=at) for key, at in times.items()))
        assert await self.due_keys(store, kind, NOON - 0.001) == []
        assert await self.due_keys(store, kind, NOON) == ["b"]
        assert await self.due_keys(store, kind, NOON + 2) == ["b", "c", "a"]
        assert await self.due_keys(store, kind, NOON + 9, limit=2) == ["b", "c"]

    async def test_a_changed_record_is_due_at_its_new_time(self, store: Store, kind: str) -> None:
        await put(store, *(KeyedRecord(kind, key, b"1", due_at=NOON) for key in "ab"), op_id="one")
        later = KeyedRecord(kind, "a", b"1", "one", due_at=NOON + 5)
        never = KeyedRecord(kind, "b", b"1", "one")
        await put(store, later, never, op_id="two")
        assert await self.due_keys(store, kind, NOON + 4) == []
        assert await self.due_keys(store, kind, NOON + 5) == ["a"]

    # ------------------------------------------------------------ tasks

    async def test_a_purge_deletes_the_records_of_its_tasks(
        self, store: Store, kind: str, task_id: str
    ) -> None:
        await store.create([record(task_id, finished_at=LONG_AGO), record(f"{task_id}-running")])
        owners = {
            "a": task_id,
            "b": f"{task_id}-running",
            "c": None,
            "d": task_id.upper(),
            "e": task_id,
        }
        for name in (kind, f"{kind}x"):
            await put(
                store,
                *(
                    KeyedRecord(name, key, b"1", due_at=NOON, task_id=owner)
                    for key, owner in owners.items()
                ),
                op_id="one",
            )
        await put(store, KeyedRecord(kind, "e", b"2", "one"), op_id="two")
        while await store.purge(finished_before=LONG_AGO * 2):
            pass
        assert list(await values(store, kind)) == ["b", "c", "d", "e"]
        assert list(await values(store, f"{kind}x")) == ["b", "c", "d"]
        assert await self.due_keys(store, f"{kind}x", NOON) == ["b", "c", "d"]
        assert await put(store, KeyedRecord(kind, "a", b"3"), op_id="three") is True
