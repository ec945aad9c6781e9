"""Every query uses an index."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from flowkit._records.letter_records import drop_letters, park_letters, read_letters
from flowkit._records.worker_sessions import WorkerSession, end_session, sessions_of
from flowkit.protocols import (
    ArchivedPart,
    KeyedRecord,
    RecordChange,
    RecordDeletion,
    Stream,
    TaskQuery,
)
from flowkit.task import DeadLetter
from flowkit_mongo import MongoConfig, MongoStore
from flowkit_mongo._indexes import INDEXES
from tests.mongo.recording import Commands
from tests.store_records import NOON, artifact, change, put_session, task

pytestmark = pytest.mark.services

LARGE = b"x" * 2000
NOT_EXPLAINED = {
    "lsid",
    "$clusterTime",
    "txnNumber",
    "$db",
    "writeConcern",
    "readConcern",
    "$readPreference",
    "ordered",
    "bypassDocumentValidation",
}


@pytest.fixture
def config() -> MongoConfig:
    return MongoConfig(blob_threshold_bytes=1024)


async def use_everything(store: MongoStore) -> None:
    """Call all methods in all ways that make different queries."""
    labels = {"team": "a", "tier": "gold"}
    tags = ["waiting:approval", "parent:p"]
    header: dict[str, Any] = {
        "pipeline": "p",
        "labels": labels,
        "wake_at": NOON,
        "tags": frozenset(tags),
    }
    tasks = [
        task(f"t{number}", spec=LARGE, idempotency_key=f"k{number}", **header)
        for number in range(20)
    ]
    await store.create(tasks)
    await store.create([task("other", spec=LARGE, idempotency_key="k1"), tasks[2]])
    await store.load(["t1", "t2"])
    part = ArchivedPart("a.b", 1, LARGE)
    await store.commit(
        [
            change("t1", put={"state": LARGE}, archive=[part], finished_at=1.0),
            change("t2", 7, put={"state": LARGE}),
        ]
    )
    await store.commit([change("t2", put={"state": LARGE}, archive=[part])])
    await store.commit([change("t2", 2, archive=[replace(part, rank=2)])])
    await store.read_archive("t1", ["a.b", "c"])
    for after in ("", "a"):
        await store.scan_archive("t1", prefix="a", after=after)
    await store.due(before=NOON, limit=10)
    for query in (
        {},
        {"statuses": ["queued"]},
        {"statuses": ["queued", "running"]},
        {"pipeline": "p"},
        {"labels": labels},
        {"pipeline": "p", "statuses": ["queued", "running"], "labels": labels},
        {"tags": tags[:1]},
        {"tags": tags, "statuses": ["queued", "running"], "labels": labels},
        {"created_after": NOON, "created_before": NOON + 1},
        {"tags": tags, "created_after": NOON, "created_before": NOON + 1},
    ):
        _, after = await store.list_tasks(TaskQuery(**query, limit=3))
        await store.list_tasks(TaskQuery(**query, limit=3, after=after))
    await store.wait_for_change("t1", 0)
    await put_session(store, WorkerSession("w", ["r"], 1, NOON))
    await sessions_of(store)
    await end_session(store, "w")
    letters = [
        DeadLetter(f"batch-t1-{number}", NOON, "batch", "code", "error", "t1", data=LARGE)
        for number in range(3)
    ]
    await park_letters(store, letters)
    await park_letters(store, letters[:1])
    await read_letters(store)
    await read_letters(store, task_id="t1", after="batch-t1-0")
    await read_letters(store, task_id="t1", kind="batch")
    await read_letters(store, kind="batch", after="batch-t1-0")
    await read_letters(store, letter_ids=["batch-t1-0", "batch-t1-1"])
    await drop_letters(store, ["batch-t1-0", "batch-t1-1"])
    await change_records(store)
    stream = Stream("t1", "node")
    await store.artifacts.put(
        [artifact(stream, "u1"), artifact(stream, "u2", LARGE), artifact(Stream("t1", "b"), "u")]
    )
    await store.artifacts.put(
        [artifact(stream, "u1"), artifact(stream, "u3"), artifact(Stream("t1", "b"), "u", LARGE)]
    )
    await store.artifacts.read(stream, after=1)
    await store.artifacts.known(stream, ["u1", "x"])
    (cursor, _), *_ = await store.artifacts.scan("t1", limit=2)
    await store.artifacts.scan("t1", after=cursor)
    await store.purge(finished_before=2.0)
    await store.check()


async def change_records(store: MongoStore) -> None:
    """Change keyed records alone and together, on top of right and wrong revisions."""
    records = store.records
    new = [KeyedRecord("kind", key, b"1", due_at=NOON, task_id="t1") for key in ("a", "b", "c")]
    for op_id in ("one", "two"):
        await records.change([RecordChange(op_id, new)])
    for op_id in ("three", "four"):
        await records.change([RecordChange(op_id, [replace(new[0], revision="one")])])
    gone = [RecordDeletion("kind", "b"), RecordDeletion("kind", "c", "one")]
    for op_id in ("five", "six"):
        await records.change([RecordChange(op_id, [replace(new[0], revision="three")], gone)])
    await records.get("kind", ["a", "x"])
    for last in (False, True):
        await records.scan("kind", last=last)
        await records.scan("kind", prefix="a", after="a", last=last)
    await asyncio.gather(*(records.scan("kind", prefix=prefix) for prefix in "abc"))
    await records.due("kind", before=NOON, limit=10)


def plans(plan: Any) -> Iterator[str]:
    """Yield the stages of a winning plan."""
    if isinstance(plan, dict):
        if isinstance(plan.get("stage"), str):
            yield plan["stage"]
        for name, value in plan.items():
            if name != "rejectedPlans":
                yield from plans(value)
    elif isinstance(plan, list):
        for value in plan:
            yield from plans(value)


def explainable(name: str, command: dict[str, Any]) -> Iterator[dict[str, Any]]:
    plain = {key: value for key, value in command.items() if key not in NOT_EXPLAINED}
    if name == "find":
        # GridFS queries for any file to find out whether the bucket is empty. The search for
        # damaged records reads all documents.
        searches = "$jsonSchema" in str(plain["filter"])
        if not searches and (plain["filter"] or plain.get("limit") != 1):
            yield plain
    elif name == "aggregate" and "$unionWith" in str(plain["pipeline"]):
        first = plain["pipeline"]
        unions = [each["$unionWith"]["pipeline"] for each in first if "$unionWith" in each]
        for match, sort, limit, *_ in [first, *unions]:
            where, order = match["$match"], sort["$sort"]
            yield {"find": plain[name], "filter": where, "sort": order, "limit": limit["$limit"]}
    elif name in ("update", "delete"):
        for statement in plain[name + "s"]:
            yield {name: plain[name], name + "s": [statement]}


async def test_no_query_scans_a_collection_or_sorts_in_memory(
    store: MongoStore, database: AsyncDatabase, commands: Commands
) -> None:
    commands.sent.clear()
    await use_everything(store)
    asked = [each for name, command in list(commands.sent) for each in explainable(name, command)]
    assert len(asked) > 60
    for command in asked:
        stages = set(
            plans(
                (await database.command("explain", command, verbosity="queryPlanner"))[
                    "queryPlanner"
                ]["winningPlan"]
            )
        )
        assert "COLLSCAN" not in stages, command
        assert "SORT" not in stages, command


async def test_the_indexes_are_made_at_start(store: MongoStore, database: AsyncDatabase) -> None:
    for index in INDEXES:
        information = await database[f"flowkit_{index.collection}"].index_information()
        assert information[index.name]["key"] == list(index.keys)


async def test_a_second_start_makes_no_index(
    store: MongoStore, database: AsyncDatabase, commands: Commands
) -> None:
    commands.sent.clear()
    async with MongoStore(database):
        assert "createIndexes" not in commands.names()


async def test_doctor_names_a_missing_index(store: MongoStore, database: AsyncDatabase) -> None:
    assert all(result.ok for result in await store.check())
    await database["flowkit_tasks"].drop_index("due")
    (wrong,) = [result for result in await store.check() if not result.ok]
    assert "tasks.due" in wrong.detail
    assert wrong.remedy


async def test_a_namespace_is_a_prefix_of_the_collections(database: AsyncDatabase) -> None:
    async with MongoStore(database, namespace="other") as store:
        await store.create([task("t")])
        assert all(name.startswith("other_") for name in await database.list_collection_names())
