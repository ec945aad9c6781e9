"""Ended tasks are deleted with all their records."""

from datetime import UTC, datetime

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from flowkit.protocols import ArchivedPart, KeyedRecord, RecordChange, Stream
from flowkit_mongo import MongoStore
from flowkit_mongo._marked_changes import MarkedChanges
from flowkit_mongo._retention import Retention
from tests.store_records import NOON, artifact, change, task

LARGE = b"x" * 300_000
STREAM = Stream("t", "n")


async def left(database: AsyncDatabase) -> dict[str, int]:
    counts = {
        name: await database[name].count_documents({})
        for name in await database.list_collection_names()
    }
    return {name.removeprefix("flowkit_"): count for name, count in counts.items() if count}


async def run(store: MongoStore) -> None:
    """Store an ended task with all kinds of records."""
    await store.create([task("t", spec=LARGE)])
    await store.commit(
        [
            change(
                "t",
                finished_at=1.0,
                archive=[ArchivedPart("a", 1, b"1"), ArchivedPart("b", 1, LARGE)],
            )
        ]
    )
    await store.artifacts.put([artifact(STREAM, "u"), artifact(STREAM, "v", LARGE)])


def purging(store: MongoStore, seconds: float) -> Retention:
    """Return the store's retention with a clock that is ``seconds`` ahead."""

    async def later() -> float:
        return await store.server_time() + seconds

    context = store._life.resource.context
    return Retention(
        context, forget=lambda task_ids: None, marked_changes=MarkedChanges(context), now=later
    )


@pytest.mark.services
async def test_what_a_late_worker_stored_is_deleted_within_the_hour(
    store: MongoStore, database: AsyncDatabase
) -> None:
    await run(store)
    assert await store.purge(finished_before=2.0) == 1
    assert await left(database) == {"purged": 1}
    await store.artifacts.put([artifact(STREAM, "late", LARGE)])
    record = KeyedRecord("kind", "late", b"1", task_id=STREAM.task_id)
    await store.records.change([RecordChange("op", [record])])
    assert await purging(store, 1800).purge(finished_before=2.0, limit=10) == 0
    assert (await left(database))["artifacts"] == 1
    assert await purging(store, 3700).purge(finished_before=2.0, limit=10) == 0
    assert await left(database) == {}


@pytest.mark.services
async def test_a_purge_that_crashed_half_way_is_finished(
    store: MongoStore, database: AsyncDatabase
) -> None:
    await run(store)
    await store._life.resource.retention._note(["t"])
    await database["flowkit_tasks"].delete_many({})
    assert "archive" in await left(database)
    await purging(store, 3700).purge(finished_before=2.0, limit=10)
    assert await left(database) == {}


@pytest.mark.services
async def test_a_task_that_was_noted_but_lives_keeps_everything(
    store: MongoStore, database: AsyncDatabase
) -> None:
    await run(store)
    await store._life.resource.retention._note(["t"])
    await store.commit([change("t", 2, finished_at=None)])
    before = await left(database)
    await purging(store, 3700).purge(finished_before=2.0, limit=10)
    assert await left(database) == {
        name: count for name, count in before.items() if name != "purged"
    }


@pytest.mark.services
async def test_blobs_of_a_task_that_was_never_created_are_deleted(
    store: MongoStore, database: AsyncDatabase
) -> None:
    await run(store)
    lost = store._life.resource.context.blobs.outgoing("never")
    lost.write("spec", LARGE)
    await store._life.resource.context.blobs.upload([lost])
    await purging(store, 1800).purge(finished_before=0.0, limit=10)
    assert (await left(database))["blobs.files"] == 4
    await purging(store, 3700).purge(finished_before=0.0, limit=10)
    assert (await left(database))["blobs.files"] == 3
    assert (await store.load(["t"]))["t"].spec == LARGE


@pytest.mark.services
@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"metadata": None},
        {"metadata": [{"task_id": "never"}]},
        {"metadata": {"task_id": {"a": 1}}},
    ],
)
async def test_files_of_others_in_the_bucket_are_left_alone(
    store: MongoStore, database: AsyncDatabase, metadata: dict[str, object]
) -> None:
    await run(store)
    await database["flowkit_blobs.files"].insert_one(
        {"_id": "theirs", "uploadDate": datetime.fromtimestamp(NOON, UTC), **metadata}
    )
    assert await purging(store, 3700).purge(finished_before=2.0, limit=10) == 1
    assert await left(database) == {"purged": 1, "blobs.files": 1}


@pytest.mark.services
async def test_a_stream_of_a_deleted_task_starts_at_its_beginning(store: MongoStore) -> None:
    await run(store)
    await store.purge(finished_before=2.0)
    await store.artifacts.put([artifact(STREAM, "u")])
    assert [found.position for found in await store.artifacts.read(STREAM)] == [1]
