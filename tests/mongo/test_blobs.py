"""Large payloads are stored in GridFS, and blobs without a document are deleted."""

import json
from typing import Any

import pytest
from bson import encode
from pymongo import AsyncMongoClient, MongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.database import Database
from pymongo.monitoring import CommandSucceededEvent

from flowkit._records.letter_records import park_letters, read_letters
from flowkit.errors import CorruptRecord, RecordTooLarge, StoreUnavailable
from flowkit.protocols import ArchivedPart, Stream, TaskQuery
from flowkit.task import DeadLetter
from flowkit_mongo import MongoConfig, MongoStore
from flowkit_mongo._context import TRIES
from tests.mongo.recording import Commands
from tests.store_records import NOON, artifact, change, task

pytestmark = pytest.mark.services

Document = dict[str, Any]

LARGE = b"x" * 300_000
LARGER = b"y" * 400_000


async def blobs(database: AsyncDatabase) -> list[str]:
    """Return the uses of the blobs, and check that each has one chunk."""
    files = await database["flowkit_blobs.files"].find().to_list(None)
    chunks = await database["flowkit_blobs.chunks"].distinct("files_id")
    assert sorted(chunks) == sorted(file["_id"] for file in files)
    return sorted(file["metadata"]["use"] for file in files)


async def test_what_is_small_is_readable_text_in_the_document(
    store: MongoStore, database: AsyncDatabase
) -> None:
    await store.create([task("t", spec=b'{"nodes":[]}', parts={"n12": '"grün"'.encode()})])
    document = await database["flowkit_tasks"].find_one({"_id": "t"})
    assert document is not None
    assert (document["spec"], document["parts"], document["schema_version"]) == (
        '{"nodes":[]}',
        {"n12": '"grün"'},
        2,
    )
    assert await blobs(database) == []


async def test_bytes_that_are_no_text_come_back_as_they_were(store: MongoStore) -> None:
    await store.create([task("t", spec=b"\xff\x00", parts={"a": b"\x80"})])
    record = (await store.load(["t"]))["t"]
    assert (record.spec, record.parts["a"]) == (b"\xff\x00", b"\x80")


async def test_what_is_large_lies_beside_the_document(
    store: MongoStore, database: AsyncDatabase
) -> None:
    await store.create([task("t", spec=LARGE, parts={"a": LARGE, "b": b"1"})])
    await store.commit([change("t", put={"c": LARGE}, archive=[ArchivedPart("d", 1, LARGE)])])
    await store.artifacts.put([artifact(Stream("t", "n"), "u", LARGE)])
    assert await blobs(database) == ["archive/d", "meta", "part/a", "part/c", "spec"]
    record = (await store.load(["t"]))["t"]
    assert (record.spec, dict(record.parts)) == (LARGE, {"a": LARGE, "b": b"1", "c": LARGE})
    assert await store.read_archive("t", ["d"]) == {"d": LARGE}
    assert [found.meta for found in await store.artifacts.read(Stream("t", "n"))] == [LARGE]


async def test_many_middling_parts_do_not_make_a_large_document(
    store: MongoStore, database: AsyncDatabase
) -> None:
    await store.create([task("t", parts={f"n{number}": b"x" * 200_000 for number in range(30)})])
    document = await database["flowkit_tasks"].find_one({"_id": "t"})
    assert document is not None
    assert len(encode(document)) < 1_000_000
    assert sum(map(len, (await store.load(["t"]))["t"].parts.values())) == 6_000_000


async def test_parts_that_are_smaller_than_a_pointer_stay_in_a_full_document(
    store: MongoStore, database: AsyncDatabase
) -> None:
    records = {f"n{number}": b'{"attempt":1,"first_attempt":2}' for number in range(2_000)}
    parts = {f"s{number}": b"x" * 250_000 for number in range(4)}
    await store.create([task("t", parts={**parts, **records})])
    assert len(await blobs(database)) == 1
    assert dict((await store.load(["t"]))["t"].parts) == {**parts, **records}


async def test_a_large_part_that_is_replaced_is_deleted(
    store: MongoStore, database: AsyncDatabase
) -> None:
    await store.create([task("t", parts={"a": LARGE})])
    await store.commit([change("t", 1, put={"a": LARGER}, archive=[ArchivedPart("z", 1, LARGE)])])
    await store.commit([change("t", 2, put={"a": LARGE}, archive=[ArchivedPart("z", 2, LARGER)])])
    assert await blobs(database) == ["archive/z", "part/a"]
    assert (await store.load(["t"]))["t"].parts["a"] == LARGE
    assert await store.read_archive("t", ["z"]) == {"z": LARGER}


async def test_blobs_of_those_that_came_second_are_deleted(
    store: MongoStore, database: AsyncDatabase
) -> None:
    stream = Stream("t", "n")
    for _ in range(2):
        await store.create(
            [
                task("t", spec=LARGE, idempotency_key="k"),
                task("other", spec=LARGER, idempotency_key="k"),
            ]
        )
        await store.commit([change("t", 7, put={"a": LARGE})])
        await store.commit([change("t", 8, put={"a": LARGE}), change("none", 8, put={"a": LARGE})])
        await store.artifacts.put([artifact(stream, "u", LARGE), artifact(stream, "u", LARGER)])
    assert await blobs(database) == ["meta", "spec"]
    assert (await store.load(["t"]))["t"].spec == LARGE


async def test_a_lower_rank_leaves_no_blob(store: MongoStore, database: AsyncDatabase) -> None:
    await store.create([task("t")])
    for version, rank in enumerate((2, 1, 2), 1):
        await store.commit([change("t", version, archive=[ArchivedPart("z", rank, LARGE)])])
    assert await blobs(database) == ["archive/z"]


async def test_purging_tasks_deletes_their_blobs(
    store: MongoStore, database: AsyncDatabase
) -> None:
    await test_what_is_large_lies_beside_the_document(store, database)
    await store.commit([change("t", 2, finished_at=1.0)])
    assert await store.purge(finished_before=2.0) == 1
    assert await blobs(database) == []


async def test_a_spec_that_was_read_is_not_read_again(
    store: MongoStore, commands: Commands
) -> None:
    await store.create([task("t", spec=LARGE)])
    await store.load(["t"])
    commands.sent.clear()
    assert (await store.load(["t"]))["t"].spec == LARGE
    assert commands.names() == ["find"]


@pytest.mark.parametrize("limit", [0, 500_000])
async def test_the_memory_of_blobs_is_bounded(database: AsyncDatabase, limit: int) -> None:
    async with MongoStore(database, config=MongoConfig(blob_cache_bytes=limit)) as store:
        await store.create([task(f"t{number}", spec=LARGE) for number in range(4)])
        await store.load([f"t{number}" for number in range(4)])
        assert sum(map(len, store._life.resource.context.blobs._cache.values())) <= limit


async def test_a_part_above_the_limit_is_refused(database: AsyncDatabase) -> None:
    async with MongoStore(database, config=MongoConfig(max_record_bytes=10_000)) as store:
        await store.create([task("t")])
        with pytest.raises(RecordTooLarge, match="'a' of task 't'"):
            await store.commit([change("t", put={"a": LARGE})])
        with pytest.raises(RecordTooLarge, match="task 'u'"):
            await store.create([task("u", spec=LARGE)])
        assert (await store.load(["t", "u"]))["t"].version == 1


class Replacing(Commands):
    """Replaces a task's blob ``times`` times, after its document and before its blob is read."""

    def __init__(self, collections: Database[Document], times: int) -> None:
        super().__init__()
        self._collections, self._times = collections, times

    def succeeded(self, event: CommandSucceededEvent) -> None:
        name, command = self.sent[-1]
        if (
            name == event.command_name == "find"
            and command["find"] == "flowkit_tasks"
            and self._times
        ):
            self._times -= 1
            (old,) = self._collections["flowkit_blobs.files"].find()
            new = f"blob{self._times}"
            self._collections["flowkit_blobs.files"].insert_one(old | {"_id": new})
            self._collections["flowkit_blobs.chunks"].update_many(
                {"files_id": old["_id"]}, {"$set": {"files_id": new}}
            )
            self._collections["flowkit_tasks"].update_one(
                {"_id": "t"}, {"$set": {"spec.blob": new}}
            )
            self._collections["flowkit_blobs.files"].delete_one({"_id": old["_id"]})


@pytest.mark.parametrize("times", [TRIES - 1, TRIES])
async def test_a_task_whose_blob_is_replaced_while_it_is_read_is_read_again(
    store: MongoStore, database: AsyncDatabase, mongo_address: str, times: int
) -> None:
    await store.create([task("t", spec=LARGE)])
    with MongoClient[Document](mongo_address) as other:
        # The first query is that of the opening.
        replacing = Replacing(other[database.name], times + 1)
        async with (
            AsyncMongoClient(mongo_address, event_listeners=[replacing]) as client,
            MongoStore(client[database.name], config=MongoConfig(retry_for_sec=0)) as reader,
        ):
            if times == TRIES:
                with pytest.raises(StoreUnavailable, match="change faster than they can be read"):
                    await reader.load(["t"])
            record = (await reader.load(["t"]))["t"]
            assert (record.fault, record.spec) == (None, LARGE)


@pytest.mark.parametrize("version", [99, "2", None])
async def test_a_task_of_a_later_version_is_not_misread_and_hides_no_other(
    store: MongoStore, database: AsyncDatabase, version: object
) -> None:
    await store.create([task("later", spec=LARGE), task("t", spec=LARGE)])
    await database["flowkit_tasks"].update_one(
        {"_id": "later"}, {"$set": {"schema_version": version}}
    )
    fault = f"document 'later' has schema version {version!r}; this FlowKit knows 2"
    assert await read(store, "later", "t") == {"later": (fault, b""), "t": (None, LARGE)}


async def test_a_task_whose_blob_is_gone_hides_no_other(
    store: MongoStore, database: AsyncDatabase
) -> None:
    await store.create([task("poor", spec=LARGE, parts={"a": LARGER}), task("t", spec=LARGE)])
    document = await database["flowkit_tasks"].find_one({"_id": "poor"})
    assert document is not None
    await database["flowkit_blobs.files"].delete_one({"_id": document["parts"]["a"]["blob"]})
    fault = (
        f"document 'poor' points at blob {document['parts']['a']['blob']!r}, which does not exist"
        " or is damaged"
    )
    assert await read(store, "poor", "t") == {"poor": (fault, b""), "t": (None, LARGE)}


@pytest.mark.parametrize("value", [{"blob": 1}, {"blob": ["a"]}, {}])
async def test_a_task_that_points_at_what_is_no_blob_hides_no_other(
    store: MongoStore, database: AsyncDatabase, value: dict[str, object]
) -> None:
    await store.create([task("poor"), task("t", spec=LARGE)])
    await database["flowkit_tasks"].update_one({"_id": "poor"}, {"$set": {"parts.state": value}})
    fault = (
        "its document is not one that FlowKit wrote: field 'parts' must be values by the names of"
        " parts, but is dict (wrong: state)"
    )
    assert await read(store, "poor", "t") == {"poor": (fault, b""), "t": (None, LARGE)}


async def read(store: MongoStore, *task_ids: str) -> dict[str, tuple[str | None, bytes]]:
    """Return the fault and the spec of each task, and check that a list shows the same."""
    loaded = {
        task_id: (record.fault, record.spec)
        for task_id, record in (await store.load(task_ids)).items()
    }
    listed, _ = await store.list_tasks(TaskQuery())
    assert {record.header.task_id: (record.fault, record.spec) for record in listed} == loaded
    return loaded


async def test_an_archived_part_or_artifact_that_cannot_be_read_is_an_error_and_not_left_out(
    store: MongoStore, database: AsyncDatabase
) -> None:
    stream = Stream("t", "n")
    await store.create([task("t")])
    await store.commit(
        [change("t", archive=[ArchivedPart("a", 1, LARGE), ArchivedPart("b", 1, b"1")])]
    )
    await store.artifacts.put([artifact(stream, "u"), artifact(stream, "v")])
    await database["flowkit_blobs.files"].delete_many({})
    await database["flowkit_artifacts"].update_one({"uid": "u"}, {"$set": {"schema_version": 99}})
    with pytest.raises(
        CorruptRecord, match=r"'name': 'a'.* points at blob '\w+', which does not exist"
    ):
        await store.read_archive("t", ["a", "b"])
    with pytest.raises(CorruptRecord, match=r"schema version 99; this FlowKit knows 2"):
        await store.artifacts.read(stream)


@pytest.mark.parametrize("name", ["a.b", "$a", "A", "1a", "", "a\x00", "a\n"])
async def test_a_part_cannot_be_named_like_a_path_or_an_operator(
    store: MongoStore, name: str
) -> None:
    await store.create([task("t")])
    with pytest.raises(ValueError, match="invalid name of a part"):
        await store.commit([change("t", put={name: b"1"})])
    with pytest.raises(ValueError, match="invalid name of a part"):
        await store.commit([change("t", drop=[name])])
    assert (await store.load(["t"]))["t"].version == 1


ODD = ["$set", "a.b", "a\x00b", '{"$gt":""}', "/", "é" * 200, '"],["', "'"]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
async def test_users_may_name_things_as_they_like(store: MongoStore, odd: str) -> None:
    await store.create(
        [
            task(
                odd,
                labels={odd: odd},
                pipeline=odd,
                idempotency_key=odd,
                spec=json.dumps({odd: 1}).encode(),
            )
        ]
    )
    record = (await store.load([odd]))[odd]
    assert (record.header.labels, record.header.pipeline) == ({odd: odd}, odd)
    await store.commit(
        [change(odd, archive=[ArchivedPart(odd, 1, b"1"), ArchivedPart(f"{odd}/", 1, b"2")])]
    )
    assert await store.scan_archive(odd, prefix=odd) == [(odd, b"1"), (f"{odd}/", b"2")]
    streams = [Stream(odd, odd), Stream(odd, f"{odd}/0"), Stream(f"{odd}/{odd}", odd)]
    for stream in streams:
        assert await store.artifacts.put([artifact(stream, odd), artifact(stream, f"{odd}/1")]) == [
            True,
            True,
        ]
        assert await store.artifacts.known(stream, [odd, "x"]) == {odd}
    assert len(await store.artifacts.scan(odd)) == 4
    letter = DeadLetter(f"batch-{odd}-1", NOON, "batch", odd, odd, odd, odd, odd)
    await park_letters(store, [letter])
    assert await read_letters(store, task_id=odd) == [letter]
