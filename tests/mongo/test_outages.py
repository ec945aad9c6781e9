"""Outages of the server, the network and the primary."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio import to_thread

from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.errors import StoreUnavailable
from flowkit.protocols import ArchivedPart, Stream
from flowkit.worker import RunContext, Worker, handler
from flowkit_mongo import MongoConfig, MongoStore
from flowkit_testing import InMemoryBus
from tests.builders import graph, node
from tests.mongo.load import under_load
from tests.mongo.proxy import Wire, wire
from tests.servers.mongod import MongoServers
from tests.servers.ports import LOOPBACK
from tests.store_records import artifact, change, task

pytestmark = pytest.mark.services

SHUTDOWN = 91
LARGE = b"x" * 300_000
CONFIG = MongoConfig(retry_for_sec=15, server_selection_timeout_ms=5_000)


def address(servers: MongoServers, *, options: str = "") -> str:
    """Return the address of a new database whose client checks the server often.

    A fail point simulates a state that the server's own heartbeats contradict.
    """
    return (
        servers.address.replace("/?", f"/flowkit-{uuid.uuid4().hex[:12]}?")
        + "&heartbeatFrequencyMS=500"
        + options
    )


@pytest.fixture
async def impatient(own_mongo: MongoServers) -> AsyncIterator[MongoStore]:
    """Yield a store without retries, on a driver without retries."""
    config = MongoConfig(retry_for_sec=0)
    async with MongoStore(
        address(own_mongo, options="&retryWrites=false&retryReads=false"), config=config
    ) as store:
        await store.create([task("t")])
        yield store


@pytest.fixture
async def patient(own_mongo: MongoServers) -> AsyncIterator[MongoStore]:
    async with MongoStore(address(own_mongo), config=CONFIG) as store:
        await store.create([task("t")])
        yield store


async def test_a_commit_that_the_network_lost_on_its_way_was_not_applied(
    impatient: MongoStore, own_mongo: MongoServers
) -> None:
    with own_mongo.failing("update", closeConnection=True), pytest.raises(StoreUnavailable):
        await impatient.commit([change("t", op_id="lost")])
    assert (await impatient.load(["t"]))["t"].op_id == "created"
    assert await impatient.commit([change("t", op_id="again")]) == [True]


async def test_a_commit_whose_confirmation_failed_may_have_been_applied(
    impatient: MongoStore, own_mongo: MongoServers
) -> None:
    with (
        own_mongo.failing(
            "update", writeConcernError={"code": SHUTDOWN, "errmsg": "shutting down"}
        ),
        pytest.raises(StoreUnavailable),
    ):
        await impatient.commit([change("t", op_id="unknown")])
    # The server answered before the majority had confirmed the write, and a read shows only what
    # it has confirmed. A later confirmed write confirms the earlier one too.
    await impatient.create([task("later")])
    record = (await impatient.load(["t"]))["t"]
    assert (record.op_id, record.version) == ("unknown", 2)


@pytest.mark.parametrize("command", ["insert", "update", "find"])
async def test_an_unavailable_server_is_reported_as_unavailable(
    impatient: MongoStore, own_mongo: MongoServers, command: str
) -> None:
    with own_mongo.failing(command, errorCode=SHUTDOWN), pytest.raises(StoreUnavailable):
        await {
            "insert": lambda: impatient.create([task("u")]),
            "update": lambda: impatient.commit([change("t"), change("u")]),
            "find": lambda: impatient.load(["t"]),
        }[command]()


@pytest.mark.parametrize(
    "failure",
    [{"closeConnection": True}, {"errorCode": SHUTDOWN}, {"writeConcernError": {"code": SHUTDOWN}}],
    ids=str,
)
async def test_what_may_be_repeated_is_repeated(
    patient: MongoStore, own_mongo: MongoServers, failure: dict[str, object]
) -> None:
    stream = Stream("t", "n")
    with own_mongo.failing("insert", "find", times=3, **failure):
        assert await patient.create([task("u", idempotency_key="k"), task("t")]) == ["u", "t"]
    with own_mongo.failing("insert", "find", times=3, **failure):
        assert await patient.artifacts.put([artifact(stream, uid) for uid in "abc"]) == [
            True,
            True,
            True,
        ]
    with own_mongo.failing("insert", "find", times=3, **failure):
        assert await patient.artifacts.put([artifact(stream, uid) for uid in "cda"]) == [
            False,
            True,
            False,
        ]
    assert [(found.uid, found.position) for found in await patient.artifacts.read(stream)] == [
        ("a", 1),
        ("b", 2),
        ("c", 3),
        ("d", 4),
    ]


async def test_artifacts_of_several_streams_are_unavailable_like_those_of_one(
    impatient: MongoStore, own_mongo: MongoServers
) -> None:
    records = [artifact(Stream("t", node), uid) for node in "nm" for uid in "ab"]
    with (
        own_mongo.failing("insert", times=2, closeConnection=True),
        pytest.raises(StoreUnavailable),
    ):
        await impatient.artifacts.put(records)
    assert await impatient.artifacts.put(records) == [True] * 4


async def test_blobs_are_unavailable_like_their_document(
    impatient: MongoStore, own_mongo: MongoServers
) -> None:
    await impatient.create([task("large", spec=LARGE, parts={"a": LARGE})])
    files = f"{impatient._life.resource.context.database.handle.name}.flowkit_blobs.files"
    with (
        own_mongo.failing("find", times=2, namespace=files, closeConnection=True),
        pytest.raises(StoreUnavailable),
    ):
        await impatient.load(["large"])
    assert (await impatient.load(["large"]))["large"].spec == LARGE


async def test_reads_that_are_given_up_while_the_server_is_away_harm_none_that_come_later(
    patient: MongoStore, own_mongo: MongoServers
) -> None:
    (server,) = own_mongo.members
    await to_thread.run_sync(server.kill)
    with anyio.move_on_after(1):
        async with anyio.create_task_group() as tasks:
            for _ in range(30):
                tasks.start_soon(patient.load, ["t"])
    await to_thread.run_sync(server.start)
    assert set(await patient.load(["t"])) == {"t"}


@pytest.fixture
async def between(own_mongo: MongoServers) -> AsyncIterator[Wire]:
    async with wire(own_mongo.members[0].port) as between:
        yield between


def through(between: Wire, *, options: str = "") -> str:
    return f"mongodb://{LOOPBACK}:{between.port}/flowkit-{uuid.uuid4().hex[:12]}?directConnection=true{options}"


@pytest.mark.parametrize("others", [0, 3])
async def test_a_commit_whose_answer_was_lost_was_applied(between: Wire, others: int) -> None:
    source = through(between, options="&retryWrites=false")
    async with MongoStore(source, config=CONFIG) as store:
        await store.create([task(f"t{number}") for number in range(others + 1)])
        between.lose("update")
        with pytest.raises(StoreUnavailable):
            await store.commit(
                [change(f"t{number}", op_id="unknown") for number in range(others + 1)]
            )
        records = await store.load([f"t{number}" for number in range(others + 1)])
        assert {(record.op_id, record.version) for record in records.values()} == {("unknown", 2)}
        assert await store.commit([change("t0", op_id="unknown")]) == [False]


async def test_a_commit_whose_answer_was_lost_is_repeated_by_the_driver_and_applied_once(
    between: Wire,
) -> None:
    source = through(between)
    async with MongoStore(source, config=CONFIG) as store:
        await store.create([task("t"), task("u")])
        between.lose("update")
        assert await store.commit([change("t")]) == [True]
        between.lose("update")
        assert await store.commit([change("t", 2), change("u", 1), change("u", 7)]) == [
            True,
            True,
            False,
        ]
        assert {
            name: record.version for name, record in (await store.load(["t", "u"])).items()
        } == {"t": 3, "u": 2}


async def test_what_was_inserted_and_whose_answer_was_lost_is_new_all_the_same(
    between: Wire,
) -> None:
    source = through(between, options="&retryWrites=false")
    async with MongoStore(source, config=CONFIG) as store:
        stream = Stream("t", "n")
        between.lose("insert", times=2)
        assert await store.artifacts.put([artifact(stream, "a"), artifact(stream, "b")]) == [
            True,
            True,
        ]
        between.lose("insert")
        assert await store.artifacts.put(
            [artifact(stream, "b"), artifact(Stream("t", "m"), "c")]
        ) == [False, True]
        assert [found.uid for found in await store.artifacts.read(stream)] == ["a", "b"]
        between.lose("insert")
        assert await store.create([task("u", idempotency_key="k")]) == ["u"]


async def test_archived_parts_are_durable_before_the_record_drops_them(
    impatient: MongoStore, own_mongo: MongoServers
) -> None:
    await impatient.commit([change("t", put={"n1": b"1"})])
    move = change("t", 2, drop=["n1"], archive=[ArchivedPart("n1", 1, b"1")])
    with own_mongo.failing("update", closeConnection=True), pytest.raises(StoreUnavailable):
        await impatient.commit([move])
    assert "n1" in (await impatient.load(["t"]))["t"].parts
    assert await impatient.commit([move]) == [True]
    assert await impatient.read_archive("t", ["n1"]) == {"n1": b"1"}


async def test_a_server_killed_and_started_again_under_load_loses_nothing(
    own_mongo: MongoServers, caplog: pytest.LogCaptureFixture
) -> None:
    source = address(own_mongo, options="&retryWrites=false")
    async with under_load(lambda: MongoStore(source, config=CONFIG)) as load:
        for _ in range(2):
            (server,) = own_mongo.members
            await to_thread.run_sync(server.kill)
            await to_thread.run_sync(server.start)
            await load.more(50)
    # A commit that was under way fails; what can be repeated is tried again.
    assert load.outages or "unreachable" in caplog.text


async def test_a_primary_that_steps_down_or_dies_under_load_loses_nothing(
    mongo_set_of_three: MongoServers,
) -> None:
    source = address(mongo_set_of_three)
    async with under_load(lambda: MongoStore(source, config=CONFIG)) as load:
        await to_thread.run_sync(mongo_set_of_three.step_down)
        await load.more(50)
        primary = await to_thread.run_sync(mongo_set_of_three.primary)
        await to_thread.run_sync(primary.kill)
        await load.more(50)
        await to_thread.run_sync(primary.start)


async def test_no_worker_is_lost_while_the_server_can_be_read_and_accepts_no_writes(
    own_mongo: MongoServers, caplog: pytest.LogCaptureFixture
) -> None:
    running, may_end = anyio.Event(), anyio.Event()
    attempts: list[int] = []

    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        attempts.append(ctx.attempt)
        running.set()
        await may_end.wait()

    quick = {"heartbeat_soft_sec": 1, "heartbeat_hard_sec": 3, "lease_ttl_sec": 3}
    config = MongoConfig(retry_for_sec=0)
    async with (
        InMemoryBus() as bus,
        MongoStore(address(own_mongo, options="&retryWrites=false"), config=config) as store,
        Coordinator(bus=bus, store=store, cfg=CoordinatorConfig(**quick)) as coordinator,
        Worker(bus=bus, store=store, cfg=WorkerConfig(hb_interval_sec=0.2), handlers=[work]),
    ):
        task_id = await coordinator.create_task(graph=graph(node("n")))
        await running.wait()
        with own_mongo.failing(
            "insert", "update", "findAndModify", times=1_000_000, errorCode=SHUTDOWN
        ):
            await anyio.sleep(2 * quick["heartbeat_hard_sec"])
        may_end.set()
        view = await coordinator.wait(task_id, timeout=30)
    assert (view.status, attempts) == ("finished", [1])
    assert "are lost" not in caplog.text
