"""Confirmed records are found, also by a server that does not show them yet."""

from typing import Any

import pytest
from pymongo import AsyncMongoClient

from flowkit.protocols import ArchivedPart, KeyedRecord, RecordChange, Stream
from flowkit_mongo import MongoStore
from tests.mongo.recording import Commands
from tests.store_records import artifact, change, task

pytestmark = pytest.mark.services

STREAM = Stream("t", "n")


def concerns(commands: Commands, collection: str) -> list[str]:
    """Return the read concern of each query of a collection."""
    return [
        command["readConcern"]["level"]
        for name, command in commands.sent
        if name == "find" and command["find"].endswith(collection)
    ]


async def test_a_task_that_is_not_found_is_looked_for_once_more(
    store: MongoStore, commands: Commands
) -> None:
    await store.create([task("t")])
    commands.sent.clear()
    assert (await store.load(["t", "other"])).keys() == {"t"}
    assert concerns(commands, "_tasks") == ["majority", "linearizable"]


async def test_a_task_that_is_found_is_looked_for_once(
    store: MongoStore, commands: Commands
) -> None:
    await store.create([task("t")])
    commands.sent.clear()
    await store.load(["t"])
    assert concerns(commands, "_tasks") == ["majority"]


async def test_waiting_for_a_task_that_is_not_found_looks_once_more(
    store: MongoStore, commands: Commands
) -> None:
    commands.sent.clear()
    await store.wait_for_change("other", 1)
    assert concerns(commands, "_tasks") == ["majority", "linearizable"]


async def test_an_archived_part_that_is_not_found_is_looked_for_once_more(
    store: MongoStore, commands: Commands
) -> None:
    await store.create([task("t")])
    await store.commit([change("t", archive=[ArchivedPart("a", 1, b"1")])])
    commands.sent.clear()
    assert await store.read_archive("t", ["a", "b"]) == {"a": b"1"}
    assert concerns(commands, "_archive") == ["majority", "linearizable"]


async def test_a_keyed_record_that_a_new_primary_does_not_show_yet_is_read(
    store: MongoStore, commands: Commands
) -> None:
    await store.records.change([RecordChange("op", [KeyedRecord("kind", "a", b"1")])])
    commands.sent.clear()
    assert list(await store.records.get("kind", ["a", "b"])) == ["a"]
    assert concerns(commands, "_records") == ["majority", "linearizable"]


async def test_a_stream_is_read_to_its_end_where_that_is_asked(
    store: MongoStore, commands: Commands
) -> None:
    await store.artifacts.put([artifact(STREAM, "u")])
    commands.sent.clear()
    assert len(await store.artifacts.read(STREAM)) == 1
    assert len(await store.artifacts.read(STREAM, latest=True)) == 1
    assert concerns(commands, "_artifacts") == ["majority", "linearizable"]


async def test_a_server_alone_has_all_there_is(mongo_standalone: str) -> None:
    commands = Commands()
    client: AsyncMongoClient[Any] = AsyncMongoClient(mongo_standalone, event_listeners=[commands])
    async with client, MongoStore(client["flowkit-latest"]) as store:
        await store.artifacts.put([artifact(STREAM, "u")])
        for _ in range(2):
            assert len(await store.artifacts.read(STREAM, latest=True)) == 1
        await client.drop_database("flowkit-latest")
    assert concerns(commands, "_artifacts")[-3:] == ["linearizable", "majority", "majority"]
