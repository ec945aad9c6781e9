"""The store suite: ids, keys and names are compared exactly."""

from collections.abc import Sequence
from typing import Any

import pytest

from flowkit.protocols import ArchivedPart, KeyedRecord, RecordDeletion, Store, TaskQuery
from flowkit_testing.conformance._exact_texts import Forget, assert_kept_apart, similar_texts
from flowkit_testing.conformance._store_base import StoreSuite, change, load_one, record
from flowkit_testing.conformance._store_keyed_records import delete, put


class Kind:
    """Kind of text that is a key in a store. ``own`` is a name that only the test uses."""

    forget: Forget | None = None

    def __init__(self, store: Store, own: str) -> None:
        self.store = store
        self.own = own

    async def keep(self, text: str, number: int) -> None:
        raise NotImplementedError

    async def find(self, text: str) -> Sequence[int]:
        raise NotImplementedError

    async def create(self, number: int, **header: Any) -> None:
        await self.store.create([record(f"{self.own}-{number}", spec=b"%d" % number, **header)])

    async def listed(self, **query: Any) -> Sequence[int]:
        found, _ = await self.store.list_tasks(TaskQuery(**query))
        return [int(task.spec) for task in found]


class LoadedTaskId(Kind):
    async def keep(self, text: str, number: int) -> None:
        assert list(await self.store.create([record(text, spec=b"%d" % number)])) == [text]

    async def find(self, text: str) -> Sequence[int]:
        return [int(task.spec) for task in (await self.store.load([text])).values()]


class CommittedTaskId(LoadedTaskId):
    async def find(self, text: str) -> Sequence[int]:
        version = next((task.version for task in (await self.store.load([text])).values()), 1)
        (applied,) = await self.store.commit([change(text, version)])
        return await super().find(text) if applied else []


class ArchivedTaskId(Kind):
    async def keep(self, text: str, number: int) -> None:
        await self.store.create([record(text)])
        await self.store.commit([change(text, archive=[ArchivedPart("a", 1, b"%d" % number)])])

    async def find(self, text: str) -> Sequence[int]:
        scanned = [data for _, data in await self.store.scan_archive(text, prefix="")]
        assert list((await self.store.read_archive(text, ["a"])).values()) == scanned
        return [*map(int, scanned)]


class ArchivedPartName(Kind):
    async def keep(self, text: str, number: int) -> None:
        await self.store.create([record(self.own)])
        version = (await load_one(self.store, self.own)).version
        await self.store.commit(
            [change(self.own, version, archive=[ArchivedPart(text, 1, b"%d" % number)])]
        )

    async def find(self, text: str) -> Sequence[int]:
        return [int(data) for data in (await self.store.read_archive(self.own, [text])).values()]


class Pipeline(Kind):
    async def keep(self, text: str, number: int) -> None:
        await self.create(number, pipeline=text)

    async def find(self, text: str) -> Sequence[int]:
        return await self.listed(pipeline=text)


class Status(Kind):
    async def keep(self, text: str, number: int) -> None:
        await self.create(number, status=text)

    async def find(self, text: str) -> Sequence[int]:
        return await self.listed(statuses=[text])


class LabelName(Kind):
    async def keep(self, text: str, number: int) -> None:
        await self.create(number, labels={text: self.own})

    async def find(self, text: str) -> Sequence[int]:
        return await self.listed(labels={text: self.own})


class LabelValue(Kind):
    async def keep(self, text: str, number: int) -> None:
        await self.create(number, labels={self.own: text})

    async def find(self, text: str) -> Sequence[int]:
        return await self.listed(labels={self.own: text})


class Tag(Kind):
    async def keep(self, text: str, number: int) -> None:
        await self.create(number, tags=frozenset({text}))

    async def find(self, text: str) -> Sequence[int]:
        return await self.listed(tags=[text])


class RecordKey(Kind):
    async def keep(self, text: str, number: int) -> None:
        assert await put(self.store, KeyedRecord("key", text, b"%d" % number)) is True

    async def find(self, text: str) -> Sequence[int]:
        found = await self.store.records.get("key", [text])
        return [int(each.data) for each in found.values()]

    async def forget(self, text: str) -> None:
        assert await delete(self.store, RecordDeletion("key", text)) is True


class PrefixOfRecordKeys(Kind):
    async def keep(self, text: str, number: int) -> None:
        await put(self.store, KeyedRecord("prefix", f"{text}/", b"%d" % number))

    async def find(self, text: str) -> Sequence[int]:
        found = await self.store.records.scan("prefix", prefix=f"{text}/")
        return [int(each.data) for each in found]


KINDS = [
    LoadedTaskId,
    CommittedTaskId,
    ArchivedTaskId,
    ArchivedPartName,
    Pipeline,
    Status,
    LabelName,
    LabelValue,
    Tag,
    RecordKey,
    PrefixOfRecordKeys,
]


class Identity(StoreSuite):
    """Exact comparison of texts: equal only if all characters are equal."""

    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
    async def test_ids_and_names_are_compared_exactly(
        self, store: Store, unique: str, kind: type[Kind]
    ) -> None:
        texts = kind(store, f"own-{unique}")
        await assert_kept_apart(unique, texts.keep, texts.find, texts.forget)

    async def test_idempotency_keys_are_compared_exactly(self, store: Store, unique: str) -> None:
        keys = {f"own-{unique}-{number}": key for number, key in enumerate(similar_texts(unique))}
        for task_id, key in keys.items():
            assert list(await store.create([record(task_id, idempotency_key=key)])) == [task_id], (
                f"{key!r} was confused with another key"
            )
        again = await store.create(
            [record(f"{task_id}-again", idempotency_key=key) for task_id, key in keys.items()]
        )
        assert list(again) == [*keys]

    async def test_revisions_are_compared_exactly(self, store: Store, unique: str) -> None:
        texts = similar_texts(unique)
        for text in texts:
            await put(store, KeyedRecord("revision", text, b"1"), op_id=text)
        for text in texts:
            for number, other in enumerate(texts):
                changed = KeyedRecord("revision", text, b"2", revision=other)
                applied = await put(store, changed, op_id=f"{text}|{number}")
                assert applied is (other == text), f"{other!r} was taken for {text!r}"
