"""A damaged document affects no other, and is shown with its fault."""

import json
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from pymongo import MongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import WriteError
from typer.testing import CliRunner

from flowkit import Client, Coordinator, CoordinatorConfig, WorkerConfig
from flowkit._records.letter_records import park_letters, read_letters
from flowkit.cli._app import app
from flowkit.errors import CorruptRecord, RecordRefused
from flowkit.protocols import (
    ArchivedPart,
    KeyedRecord,
    RecordChange,
    RecordDeletion,
    Stream,
    TaskQuery,
)
from flowkit.task import DeadLetter
from flowkit.worker import RunContext, Worker, handler
from flowkit_mongo import MongoConfig, MongoStore
from flowkit_mongo._documents import artifact_id
from flowkit_testing import InMemoryBus
from tests.damaged_keyed_records import check_all_are_named
from tests.mongo.damage import FOREIGN_IDS, LARGEST, Case, cases, copies, damage
from tests.store_records import NOON, artifact, change, task

pytestmark = pytest.mark.services

Database = AsyncDatabase[dict[str, Any]]
LARGE = b"x" * 2000
CANARIES = [f"canary-{number}" for number in range(5)]
REST = 120.0


@pytest.fixture
def config() -> MongoConfig:
    return MongoConfig(retry_for_sec=0, blob_threshold_bytes=1024)


async def one_of(database: Database, collection: str, **where: Any) -> dict[str, Any]:
    document = await database[f"flowkit_{collection}"].find_one(where)
    assert document is not None
    return document


async def faults(store: MongoStore, collection: str) -> dict[str, str]:
    """Return the faults that ``dlq ls`` shows of a collection, by id."""
    found = await store.damaged_records(limit=10_000)
    return {
        record.record_id: record.fault
        for record in found
        if record.place == f"flowkit_{collection}"
    }


async def spread(
    database: Database, collection: str, like: dict[str, Any], **fields: Callable[[Any], Any]
) -> dict[str, Case]:
    """Store damaged copies of a document, one for each case, and sound ones as canaries.

    Some canaries have ids of other types.
    """
    found = {case.name: case for case in cases(like)}
    await database[f"flowkit_{collection}"].insert_many(
        copies(like, [*found, *CANARIES, *FOREIGN_IDS], **fields)
    )
    return await damage(database, collection, found)


def check_fault_is_named(case: Case, text: str) -> None:
    """Check that a fault names the field, the version of the schema or the missing blob."""
    assert any(word in text for word in (case.field.partition(".")[0], "schema version", "blob"))


# ---------------------------------------------------------------- tasks


async def test_a_damaged_task_is_read_as_such_and_hinders_no_other(
    store: MongoStore, database: Database
) -> None:
    like = task(
        "like",
        pipeline="p",
        labels={"team": "a"},
        idempotency_key="key",
        wake_at=NOON,
        finished_at=NOON,
        spec=LARGE,
        parts={"state": b"0", "n0": LARGE},
    )
    await store.create([like, task("other")])
    like_change = change("like", put={"n1": b"1"}, finished_at=NOON, tags=["tag"])
    await store.commit([like_change, change("other")])
    found = await spread(
        database, "tasks", await one_of(database, "tasks", _id="like"), idempotency_key=repr
    )

    loaded = await store.load([*found, *CANARIES])
    whole = loaded[CANARIES[0]]
    assert set(loaded) == {*found, *CANARIES}
    for name, record in loaded.items():
        assert isinstance(record.version, int)
        if record.fault is not None:
            assert (
                found[name].field.partition(".")[0] in record.fault
                or "schema version" in record.fault
            )
            assert (record.spec, record.parts) == (b"", {})
    unharmed = {name for name in found if loaded[name].fault is None}
    assert unharmed == {
        case.name
        for case in found.values()
        if (case.kind == "missing" and case.field in OPTIONAL)
        or (case.kind in FITTING.get(case.field, ()))
    }
    assert all(
        (loaded[name].spec, dict(loaded[name].parts)) == (whole.spec, dict(whole.parts))
        for name in CANARIES
    )

    listed: set[str] = set()
    after = None
    while True:
        page, after = await store.list_tasks(TaskQuery(limit=50, after=after))
        assert not listed & {record.header.task_id for record in page}
        listed |= {record.header.task_id for record in page}
        if after is None:
            break
    assert set(CANARIES) <= listed

    due = await store.due(before=NOON, limit=10_000)
    assert all(isinstance(task_id, str) for task_id in due)

    shown = await faults(store, "tasks")
    # A missing blob is noticed only by a read.
    pointing_nowhere = {"spec-blob-text", "spec-blob-text-with-NUL"}
    assert set(shown) == (set(found) - unharmed - pointing_nowhere) | set(map(repr, FOREIGN_IDS))
    (line,) = [result for result in await store.check() if result.name == "mongodb records"]
    assert not line.ok


OPTIONAL = {
    "schema_version",
    "pipeline",
    "labels",
    "idempotency_key",
    "wake_at",
    "finished_at",
    "tags",
    "recent",
    "parts.state",
    "parts.n0",
    "parts.n1",
}
TEXTS = {"text", "text with NUL"}
NUMBERS = {"number", "negative"}
VALUES = {"text", "text with NUL", "binary"}
FITTING: dict[str, set[str]] = {
    "version": {"number"},
    "op_id": TEXTS,
    "status": TEXTS,
    "created_at": NUMBERS,
    "spec": VALUES,
    "pipeline": TEXTS,
    "idempotency_key": TEXTS,
    "wake_at": NUMBERS,
    "finished_at": NUMBERS,
    "parts.state": VALUES,
    "parts.n0": VALUES,
    "parts.n1": VALUES,
}
"""Wrong values that the store cannot distinguish from right ones."""


async def test_the_commits_of_others_in_the_same_call_go_through(
    store: MongoStore, database: Database
) -> None:
    await store.create([task("like", wake_at=NOON), task("other")])
    await store.commit([change("like"), change("other")])
    found = await spread(database, "tasks", await one_of(database, "tasks", _id="like"))
    mine = [name for name in found if found[name].field in ("parts", "recent", "version", "op_id")]
    put = {"state": b"1"}
    with pytest.raises(RecordRefused):
        await store.commit(
            [change(name, 2, put=put) for name in [*CANARIES[:2], *mine, *CANARIES[2:]]]
        )
    loaded = await store.load([*mine, *CANARIES])
    assert {loaded[name].version for name in CANARIES} == {3}
    for name in mine:
        # Each commit alone is refused, has the wrong version, or is not affected by the damage. The
        # store never counts as unavailable.
        try:
            applied = await store.commit([change(name, loaded[name].version, put=put)])
        except RecordRefused:
            assert loaded[name].fault is not None
        else:
            assert applied == [True] or loaded[name].fault is not None


async def test_waiters_for_a_damaged_task_are_woken_and_the_others_continue_to_wait(
    store: MongoStore, database: Database
) -> None:
    await store.create([task("like")])
    found = await spread(database, "tasks", await one_of(database, "tasks"))
    versions = [
        name for name in found if found[name].field == "version" and found[name].kind != "number"
    ]
    with anyio.fail_after(REST):
        async with anyio.create_task_group() as waiting:
            for name in [*versions, *CANARIES]:
                waiting.start_soon(store.wait_for_change, name, 7 if name in versions else 1)
            for name in CANARIES:
                await store.commit([change(name)])


async def test_an_idempotency_key_of_a_damaged_task_is_reported(
    store: MongoStore, database: Database
) -> None:
    await store.create([task("like", idempotency_key="k")])
    like = await one_of(database, "tasks")
    await database["flowkit_tasks"].delete_many({})
    await database["flowkit_tasks"].insert_many(
        [{**like, "_id": 7}, {**like, "_id": "x", "idempotency_key": ["l"]}]
    )
    for key in "kl":
        with pytest.raises(CorruptRecord, match="idempotency key"):
            await store.create([task("new", idempotency_key=key)])
    assert await store.create([task("new", idempotency_key="m")]) == ["new"]


# ---------------------------------------------------------------- archive and artifacts


async def test_a_damaged_part_of_the_archive_fails_the_reads_that_need_it_alone(
    store: MongoStore, database: Database
) -> None:
    await store.create([task("t")])
    await store.commit([change("t", archive=[ArchivedPart("like", 3, LARGE)])])
    like = await one_of(database, "archive")
    found = {case.name: case for case in cases(like)}
    names = [f"a{number:03}" for number in range(len(found))]
    by_id = dict(zip(names, found.values(), strict=True))
    await database["flowkit_archive"].insert_many(
        [
            {**like, "_id": {"task": task_id, "name": name}}
            for name in names
            for task_id in (name, "whole")
        ]
    )
    for name, case in by_id.items():
        with suppress(WriteError):
            await database["flowkit_archive"].update_one(
                {"_id": {"task": name, "name": name}}, case.update
            )
    await database["flowkit_archive"].insert_many([{**like, "_id": one} for one in FOREIGN_IDS])
    for name, case in by_id.items():
        try:
            part = (await store.read_archive(name, [name]))[name]
        except CorruptRecord as error:
            check_fault_is_named(case, str(error))
        else:
            assert part == LARGE or (case.field, case.kind) in [("data", kind) for kind in VALUES]
    assert await store.scan_archive("whole", prefix="", limit=1000) == [
        (name, LARGE) for name in names
    ]
    # A scan returns the parts before a damaged one; the next scan raises its fault.
    await database["flowkit_archive"].update_one(
        {"_id": {"task": "whole", "name": names[2]}}, {"$unset": {"data": ""}}
    )
    assert [name for name, _ in await store.scan_archive("whole", prefix="a")] == names[:2]
    with pytest.raises(CorruptRecord, match="'data' is missing"):
        await store.scan_archive("whole", prefix="a", after=names[1])


@pytest.mark.parametrize("rank", [None, "x", LARGEST, float("nan"), 2])
async def test_a_part_that_is_archived_again_takes_the_place_of_one_whose_rank_is_damaged(
    store: MongoStore, database: Database, rank: Any
) -> None:
    await store.create([task("t")])
    await store.commit([change("t", archive=[ArchivedPart("a", 3, b"old")])])
    await database["flowkit_archive"].update_one({}, {"$set": {"rank": rank}})
    await store.commit([change("t", 2, archive=[ArchivedPart("a", 4, b"new")])])
    assert await store.read_archive("t", ["a"]) == {"a": b"new"}


async def test_a_damaged_artifact_fails_its_stream_alone(
    store: MongoStore, database: Database
) -> None:
    stream = Stream("t", "n")
    await store.artifacts.put([artifact(stream, uid, LARGE) for uid in "abc"])
    like = [await one_of(database, "artifacts", uid=uid) for uid in "abc"]
    found = {case.name: case for case in cases(like[1])}
    damaged = await damage_streams(database, like, found)
    for name, case in damaged.items():
        own = Stream(name, "n")
        try:
            read = await store.artifacts.read(own)
            # A reader of the stream notices a gap.
            assert [record.position for record in read] in ([1], [1, 3], [1, 2, 3], [1, 3, 7])
            if len(read) == 1:
                with pytest.raises(CorruptRecord):
                    await store.artifacts.read(own, after=1)
            await store.artifacts.scan(name)
        except CorruptRecord as error:
            check_fault_is_named(case, str(error))
        assert {"a", "c"} <= await store.artifacts.known(own, "abc")
    for name in CANARIES:
        whole = Stream(name, "n")
        assert [record.meta for record in await store.artifacts.read(whole)] == [LARGE] * 3
        assert len(await store.artifacts.scan(name)) == 3
        assert await store.artifacts.put([artifact(whole, "c"), artifact(whole, "d")]) == [
            False,
            True,
        ]
    shown = await faults(store, "artifacts")
    assert len(shown) > len(damaged) * 0.8


async def damage_streams(
    database: Database, like: list[dict[str, Any]], found: dict[str, Case]
) -> dict[str, Case]:
    """Store a stream of three records for each case, the second one damaged, and sound streams."""
    names = [*found, *CANARIES]
    await database["flowkit_artifacts"].insert_many(
        [
            {**one, "_id": artifact_id(Stream(name, "n"), one["uid"]), "task_id": name}
            for name in names
            for one in like
        ]
    )
    second = {artifact_id(Stream(name, "n"), "b"): case for name, case in found.items()}
    applied = await damage(database, "artifacts", second)
    return {
        name: case for name, case in found.items() if artifact_id(Stream(name, "n"), "b") in applied
    }


@pytest.mark.parametrize("position", [None, "x", LARGEST, float("nan"), -1, True])
async def test_nothing_goes_behind_an_artifact_whose_position_is_damaged(
    store: MongoStore, database: Database, position: Any
) -> None:
    damaged, whole = Stream("t", "n"), Stream("u", "n")
    await store.artifacts.put(
        [artifact(stream, uid) for stream in (damaged, whole) for uid in "ab"]
    )
    await database["flowkit_artifacts"].update_one(
        {"task_id": "t", "uid": "b"}, {"$set": {"position": position}}
    )
    async with MongoStore(database) as other:
        with pytest.raises(CorruptRecord, match="position"):
            await other.artifacts.put([artifact(damaged, "c"), artifact(damaged, "d")])
        assert await other.artifacts.put([artifact(whole, "c")]) == [True]


async def test_a_file_that_is_half_there_fails_what_points_at_it_alone(
    store: MongoStore, database: Database
) -> None:
    await store.create([task(name, spec=LARGE) for name in CANARIES])
    names: list[str] = []
    for collection in ("files", "chunks"):
        await store.create([task("like", spec=LARGE)])
        like = await one_of(database, f"blobs.{collection}")
        for case in cases(like):
            if case.field in (
                "metadata",
                "filename",
                "uploadDate",
                "chunkSize",
            ) or case.field.startswith("metadata."):
                continue
            names.append(name := f"{collection}-{case.name}")
            await store.create([task(name, spec=LARGE)])
            blob = (await one_of(database, "tasks", _id=name))["spec"]["blob"]
            key = {"_id": blob} if collection == "files" else {"files_id": blob}
            with suppress(WriteError):
                await database[f"flowkit_blobs.{collection}"].update_one(key, case.update)
    async with MongoStore(database, config=MongoConfig(retry_for_sec=0)) as fresh:
        loaded = await fresh.load([*names, *CANARIES])
        assert {loaded[name].spec for name in CANARIES} == {LARGE}
        assert all(
            "blob" in str(loaded[name].fault) or loaded[name].spec == LARGE for name in names
        )
        assert sum(loaded[name].fault is not None for name in names) > len(names) * 0.7
        assert any("chunks" in fault for fault in (await faults(fresh, "blobs.files")).values())


# ---------------------------------------------------------------- keyed records, notes


def key(name: str) -> dict[str, str]:
    """Return the id of a keyed record."""
    return {"kind": "kind", "key": name}


async def test_a_damaged_keyed_record_is_read_with_its_fault_and_can_be_deleted(
    store: MongoStore, database: Database
) -> None:
    whole = KeyedRecord("kind", "like", b"data", due_at=NOON, task_id="t")
    assert list(await store.records.change([RecordChange("op", [whole])])) == [True]
    like = await one_of(database, "records")
    like["next"] = {"change": "x", "revision": "y", "data": "z", "due_at": None, "task_id": None}
    found = {case.name: case for case in cases(like)}
    collection = database["flowkit_records"]
    await collection.insert_many(
        [{**like, "_id": key(name)} for name in [*found, *CANARIES]]
        + [{**like, "_id": each} for each in FOREIGN_IDS]
        + [{**like, "_id": {"kind": "kind", "key": each}} for each in FOREIGN_IDS]
    )
    for name, case in [*found.items()]:
        try:
            await collection.update_one({"_id": key(name)}, case.update)
        except WriteError:
            del found[name]
    records = {each.key: each for each in await store.records.scan("kind", limit=10_000)}
    assert set(records) >= {"like", *found, *CANARIES}
    for name in CANARIES:
        assert records[name] == replace(whole, key=name, revision="op")
    damaged = {name for name in found if records[name].fault is not None}
    assert len(damaged) > len(found) * 0.6
    for name in damaged:
        check_fault_is_named(found[name], records[name].fault)
        assert records[name].data == b""
    assert {f"kind {name}" for name in damaged} <= set(await faults(store, "records"))
    due = {each.key for each in await store.records.due("kind", before=NOON, limit=10_000)}
    assert set(CANARIES) <= due
    deletions = [
        RecordChange(f"delete {name}", delete=[RecordDeletion("kind", name)]) for name in found
    ]
    assert await store.records.change(deletions) == [True] * len(found)
    assert not set(found) & {each.key for each in await store.records.scan("kind", limit=10_000)}


async def test_a_purge_deletes_what_is_over_and_nothing_that_a_damaged_id_could_mean(
    store: MongoStore, database: Database
) -> None:
    letter = DeadLetter("batch-over-1", NOON, "batch", "code", "error", "over", data=LARGE)
    await park_letters(store, [letter])
    await store.create([task("over", finished_at=1.0, spec=LARGE), task("stays", spec=LARGE)])
    like = await one_of(database, "tasks", _id="over")
    old = datetime(2020, 1, 1, tzinfo=UTC)
    await database["flowkit_tasks"].insert_many(copies(like, FOREIGN_IDS))
    await database["flowkit_purged"].insert_many([{"_id": one, "at": old} for one in FOREIGN_IDS])
    notes = [
        {"_id": case.name, **case.update.get("$set", {})} for case in cases({"_id": "", "at": old})
    ]
    await database["flowkit_purged"].insert_many(notes)
    await database["flowkit_blobs.files"].update_many({}, {"$set": {"uploadDate": old}})
    assert await store.purge(finished_before=2.0) == 1
    assert await store.purge(finished_before=2.0) == 0
    assert (await store.load(["stays"]))["stays"].spec == LARGE
    assert await read_letters(store) == [letter]
    assert len(await faults(store, "tasks")) == len(FOREIGN_IDS)


# ---------------------------------------------------------------- coordinators


CHAIN = {
    "nodes": [
        {"node_id": "a", "type": "hold"},
        {"node_id": "b", "type": "hold", "depends_on": ["a"]},
    ]
}
EVERY = 5
"""Coordinators are tested with one case in this many, which include each field and each value."""
QUICK = {"scheduler_tick_sec": 0.2, "command_check_sec": 0.2, "lease_ttl_sec": 600.0}


class Installation:
    """Coordinators and a worker on an in-memory bus and a real store.

    Their tasks are victims, which will be damaged, and canaries.
    """

    def __init__(self, store: MongoStore, database: Database) -> None:
        self.store, self.database, self.bus = store, database, InMemoryBus()
        self.gate = anyio.Event()
        self.running: set[tuple[str, str]] = set()
        self.victims: dict[str, Case] = {}
        self.config = CoordinatorConfig(**QUICK)
        self.client = Client(bus=self.bus, store=store, cfg=self.config)

    def coordinator(self) -> Coordinator:
        return Coordinator(bus=self.bus, store=self.store, cfg=self.config)

    def worker(self) -> Worker:
        @handler("hold")
        async def hold(item: Any, ctx: RunContext) -> str:
            self.running.add((ctx.task_id, ctx.node_id))
            await self.gate.wait()
            return "x" * 10

        return Worker(
            bus=self.bus, store=self.store, cfg=WorkerConfig(max_concurrency=500), handlers=[hold]
        )

    async def submit(self) -> None:
        await self.client.create_task(
            graph=CHAIN,
            task_id="like",
            labels={"team": "a"},
            idempotency_key="k",
            deadline_sec=3600.0,
        )
        like = await one_of(self.database, "tasks")
        self.victims = {case.name: case for case in list(cases(like))[::EVERY]}
        for name in [*self.victims, *CANARIES]:
            await self.client.create_task(
                graph=CHAIN,
                task_id=name,
                labels={"team": "a"},
                idempotency_key=name,
                deadline_sec=3600.0,
            )

    async def damage(self) -> None:
        self.victims = await damage(self.database, "tasks", self.victims)

    async def end(self) -> None:
        """Check that the canaries finish, and that each victim finishes or is quarantined."""
        self.gate.set()
        with anyio.fail_after(REST):
            for name in CANARIES:
                assert (await self.client.wait(name)).status == "finished"
            while unsettled := [name for name in self.victims if not await self._is_settled(name)]:
                await anyio.sleep(0.1)
                assert unsettled
        listed = [view.id for view in (await self.client.list_tasks(limit=1000)).items]
        assert set(CANARIES) <= set(listed)
        assert [event async for event in self.client.watch(CANARIES[0])][-1].status == "finished"
        await self.client.damaged_records()

    async def _is_settled(self, name: str) -> bool:
        if await read_letters(self.store, task_id=name, kind="task"):
            return True
        try:
            return (await self.client.get_task(name)).status == "finished"
        except CorruptRecord:
            # A coordinator that holds a task does not read its specification again.
            record = (await self.store.load([name])).get(name)
            if record is not None and record.header.status == "finished":
                return True
            # No query finds a document outside of the indexes; the search shows it.
            return name in await faults(self.store, "tasks")


async def test_damaged_tasks_that_a_coordinator_meets_first_stop_no_other(
    store: MongoStore, database: Database
) -> None:
    there = Installation(store, database)
    async with there.bus, there.client:
        await there.submit()
        await there.damage()
        async with there.coordinator(), there.coordinator(), there.worker():
            await there.end()
    for name in there.victims:
        letters = await read_letters(store, task_id=name, kind="task")
        assert not letters or (name, "a") not in there.running


async def test_tasks_that_are_damaged_while_a_coordinator_holds_them_stop_no_other(
    store: MongoStore, database: Database
) -> None:
    there = Installation(store, database)
    async with there.bus, there.client:
        await there.submit()
        async with there.coordinator(), there.coordinator(), there.worker():
            with anyio.fail_after(REST):
                while len(there.running) < len(there.victims) + len(CANARIES):
                    await anyio.sleep(0.02)
            await there.damage()
            await there.end()


@pytest.mark.parametrize("damage", ["marks", "status"])
async def test_waiting_for_a_task_whose_fields_contradict_each_other_ends(
    store: MongoStore, database: Database, damage: str
) -> None:
    there = Installation(store, database)
    async with there.bus, there.client, there.coordinator() as coordinator, there.worker():
        await there.client.create_task(graph=CHAIN, task_id="t")
        with anyio.fail_after(REST):
            while not there.running:
                await anyio.sleep(0.02)
            state = json.loads((await one_of(database, "tasks"))["parts"]["state"]) | {
                "marks": "FF"
            }
            wrong = (
                {"parts.state": json.dumps(state).encode()}
                if damage == "marks"
                else {"status": "finished", "finished_at": 1.0}
            )
            await database["flowkit_tasks"].update_one({"_id": "t"}, {"$set": wrong})
            for client in (there.client, coordinator):
                with pytest.raises(CorruptRecord, match="'t' cannot be read"):
                    await client.wait("t")
                with pytest.raises(CorruptRecord, match="'t' cannot be read"):
                    await anext(client.watch("t"))
            there.gate.set()


# ---------------------------------------------------------------- on the command line


def test_the_command_line_shows_what_is_damaged(mongo_address: str, tmp_path: Path) -> None:
    name = f"flowkit-{uuid.uuid4().hex[:12]}"
    address = mongo_address.replace("/?", f"/{name}?")

    def run(*args: str) -> Any:
        return CliRunner().invoke(app, [*args, "--db", address, "--bus", "memory://damage"])

    with MongoClient[dict[str, Any]](mongo_address) as client:
        try:
            assert run("dlq", "ls").stdout == "no dead letters\n"
            client[name]["flowkit_records"].insert_one(
                {"_id": {"kind": "letter", "key": "message-l"}, "revision": 7, "data": "{}"}
            )
            client[name]["flowkit_tasks"].insert_one({"_id": 7})
            graph = tmp_path / "graph.json"
            graph.write_text('{"nodes": [{"node_id": "a", "type": "work"}]}')
            assert run("submit", str(graph), "--task-id", "no-json").exit_code == 0
            client[name]["flowkit_tasks"].update_one(
                {"_id": "no-json"}, {"$set": {"parts.state": "{"}}
            )
            rows = {row["letter_id"]: row for row in json.loads(run("dlq", "ls", "--json").stdout)}
            doctor = run("doctor", "--json")
            listed = run("ls")
        finally:
            client.drop_database(name)
    assert {(letter_id, row["kind"]) for letter_id, row in rows.items()} == {
        ("message-l", "message"),
        ("flowkit_tasks/7", "record"),
        ("task/no-json", "record"),
        ("flowkit_records/letter message-l", "record"),
    }
    assert "field 'revision'" in rows["message-l"]["fault"]
    found = {check["name"]: check for check in json.loads(doctor.stdout)["checks"]}
    line = found["mongodb records"]
    assert (doctor.exit_code, line["ok"], found["tasks"]["ok"]) == (1, False, False)
    assert "2 damaged" in line["detail"]
    assert "field 'revision'" in line["detail"]
    assert "task 'no-json' cannot be read: Invalid JSON" in found["tasks"]["detail"]
    assert listed.exit_code == 0


async def test_keyed_records_that_cannot_be_decoded_are_named_by_doctor(store: MongoStore) -> None:
    await check_all_are_named(store)
