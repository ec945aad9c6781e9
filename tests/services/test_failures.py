"""Servers and processes that fail under load: no node is lost or repeated, and work continues."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest
from aiokafka import AIOKafkaProducer

from flowkit.config import CommonConfig
from flowkit.messages import NodeStarted, NodeSucceeded, RunNode, StreamMoved, TaskTouched, encode
from flowkit.worker import handler
from flowkit_kafka import KafkaBus
from tests.builders import chain, work
from tests.servers.kafka import KafkaServer
from tests.servers.mongod import MongoServers
from tests.services.load import Disaster, Load
from tests.services.processes import Processes, until
from tests.services.support import QUICK_KAFKA, Installation, ends_of, events_of

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

SHUTDOWN = 91
QUICK_COORDINATOR = {
    "scheduler_tick_sec": 1,
    "heartbeat_soft_sec": 2,
    "heartbeat_hard_sec": 3,
    "lease_ttl_sec": 3,
}
QUICK_WORKER = {"hb_interval_sec": 0.5}


@pytest.fixture
def fragile(own_kafka: KafkaServer, own_mongo: MongoServers) -> Installation:
    """An installation on servers that the tests break and repair."""
    return on(own_kafka.address, own_mongo)


def on(kafka: str, mongo: MongoServers) -> Installation:
    # The client checks the server often, because a fail point simulates a state that the
    # server's own heartbeats contradict.
    return Installation(
        kafka=kafka, mongo=mongo.address + "&heartbeatFrequencyMS=500", kafka_options=QUICK_KAFKA
    )


@asynccontextmanager
async def load_on(
    installation: Installation, *, coordinators: int = 2, workers: int = 2
) -> AsyncIterator[Load]:
    async with AsyncExitStack() as opened:
        for _ in range(coordinators):
            await opened.enter_async_context(
                installation.coordinator(worker_types=["work"], **QUICK_COORDINATOR)
            )
        for _ in range(workers):
            await opened.enter_async_context(installation.worker([work], **QUICK_WORKER))
        yield Load(await opened.enter_async_context(installation.client()))


def in_thread(step: Callable[[], object]) -> Disaster:
    return lambda: anyio.to_thread.run_sync(step)


async def test_the_broker_is_restarted(fragile: Installation, own_kafka: KafkaServer) -> None:
    async with load_on(fragile) as load:
        await load.through(in_thread(own_kafka.restart))


async def test_a_broker_that_lost_everything_is_used_again_without_restarts(
    fragile: Installation, own_kafka: KafkaServer
) -> None:
    begun, may_end = anyio.Event(), anyio.Event()

    @handler("gated")
    async def gated(item: Any) -> None:
        begun.set()
        await may_end.wait()

    async with load_on(fragile) as load, fragile.worker([gated]), fragile.client() as client:
        running = await client.create_task(graph=chain("gated", "work"))
        with anyio.fail_after(90):
            await begun.wait()
        await load.through(in_thread(own_kafka.wipe))
        may_end.set()
        assert (await client.wait(running, timeout=90)).status == "finished"


async def test_the_database_is_killed_and_started_again(
    fragile: Installation, own_mongo: MongoServers
) -> None:
    (server,) = own_mongo.members

    def power_cut() -> None:
        server.kill()
        server.start()

    async with load_on(fragile) as load:
        await load.through(in_thread(power_cut))


async def test_the_primary_steps_down(mongo_set_of_three: MongoServers, kafka_address: str) -> None:
    async with load_on(on(kafka_address, mongo_set_of_three)) as load:
        await load.through(in_thread(mongo_set_of_three.step_down))


async def test_writes_fail_before_and_after_they_are_applied(
    fragile: Installation, own_mongo: MongoServers
) -> None:
    async with load_on(fragile) as load:

        def failing(**how: Any) -> Disaster:
            async def disaster() -> None:
                with own_mongo.failing("update", "insert", times=3, **how):
                    await load.more(15)

            return disaster

        await load.through(
            failing(closeConnection=True),
            failing(errorCode=SHUTDOWN),
            failing(writeConcernError={"code": SHUTDOWN, "errmsg": "shutting down"}),
            failing(writeConcernError={"code": 64, "errmsg": "timed out"}),
        )


async def test_a_worker_is_killed_and_its_node_runs_elsewhere(
    installation: Installation, processes: Processes
) -> None:
    async with installation.coordinator(
        worker_types=["work", "gated"], **QUICK_COORDINATOR
    ) as coordinator:
        victim = processes.worker(**QUICK_WORKER)
        task_id = await coordinator.create_task(graph=chain("gated", "work"))
        await until(lambda: bool(processes.recorded("began")))
        heir = await processes.worker(**QUICK_WORKER).until("worker_started")

        async def kill() -> None:
            victim.kill()
            processes.open_gate()

        await Load(coordinator).through(kill)
        view = await coordinator.wait(task_id, timeout=90)
        ends = ends_of(await events_of(coordinator, task_id))
    assert (view.status, view.nodes["n0"].result, view.nodes["n0"].attempt) == (
        "finished",
        heir.pid,
        2,
    )
    assert ends == {"n0": ["finished"], "n1": ["finished"], "": ["finished"]}


async def test_a_coordinator_is_killed_and_another_goes_on(
    installation: Installation, processes: Processes
) -> None:
    victim = await processes.coordinator(worker_types="work").until("coordinator_ready")
    async with installation.worker([work], **QUICK_WORKER), installation.client() as client:
        load = Load(client)

        async def join() -> None:
            await stack.enter_async_context(installation.coordinator(**QUICK_COORDINATOR))

        async with AsyncExitStack() as stack:
            await load.through(join, in_thread(victim.kill))


async def test_workers_join_and_leave_all_the_time(installation: Installation) -> None:
    async with load_on(installation, coordinators=1, workers=0) as load, AsyncExitStack() as stack:
        present = [await stack.enter_async_context(installation.worker([work], **QUICK_WORKER))]

        async def one_comes_and_one_goes() -> None:
            present.append(
                await stack.enter_async_context(installation.worker([work], **QUICK_WORKER))
            )
            await load.more(5)
            await present.pop(0).stop()

        await load.through(*[one_comes_and_one_goes] * 4)


def foreign_messages(task_id: str) -> tuple[list[bytes], list[bytes]]:
    """Return messages that must be parked on each topic, and valid ones without an effect."""
    future = json.loads(encode(TaskTouched(task_id=task_id))) | {"v": 99}
    parked = [
        b"",
        b"\xff\xfe\x00garbage",
        b"[1, 2]",
        b'{"hello": "world"}',
        json.dumps(future).encode(),
        b"{" * 100_000,
    ]
    forged = NodeSucceeded(
        task_id=task_id,
        index=0,
        attempt=1,
        token="0" * 24,
        worker_id="w",
        started_at=1,
        at=2,
        result="forged",
    )
    strange = [
        forged,
        forged.model_copy(update={"index": 10_000}),
        forged.model_copy(update={"task_id": "unknown"}),
    ]
    return parked, [*map(encode, strange), encode(TaskTouched(task_id="unknown"))]


async def publish_foreign(kafka: str, by_topic: dict[str, Sequence[bytes]]) -> None:
    """Publish like another program, with its own keys, partitions and headers."""
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for topic, values in by_topic.items():
            for number, value in enumerate(values):
                await producer.send_and_wait(
                    topic,
                    value,
                    key=b"\xff\xfe",
                    partition=number % 2,
                    headers=[("odd", b"\xff"), ("odd", b"")],
                )
            await producer.send_and_wait(topic, None, key=b"tombstone", partition=0)


async def dead_letters(cfg: CommonConfig, count: int) -> list[tuple[str, bytes]]:
    """Return the original topic and the value of ``count`` dead letters."""
    found: list[tuple[str, bytes]] = []
    with anyio.fail_after(30):
        async with (
            KafkaBus(cfg.bus_address(), cfg) as bus,
            bus.subscribe([cfg.dead_letter_topic], group="reader") as letters,
        ):
            while len(found) < count:
                for letter in await letters.receive(max_messages=100):
                    assert letter.message.headers["flowkit-reason"]
                    found.append(
                        (letter.message.headers["flowkit-topic"].decode(), letter.message.value)
                    )
    return found


async def test_garbage_and_foreign_messages_on_every_topic_are_parked(
    installation: Installation, kafka_address: str
) -> None:
    cfg = installation.config
    commands = cfg.command_topic("work")
    async with load_on(installation) as load, installation.client() as client:
        task_id = await client.create_task(graph=chain("unserved"))
        parked, harmless = foreign_messages(task_id)
        started = encode(
            NodeStarted(task_id=task_id, index=0, attempt=1, token="t", worker_id="w", at=1)
        )
        command = RunNode(
            task_id=task_id, index=0, attempt=1, token="t", node_id="n0", role="unserved"
        )
        hint = encode(StreamMoved(task_id=task_id, node_id="n0"))
        by_topic = {
            cfg.events_topic: [*parked, encode(command), hint, *harmless],
            commands: [*parked, encode(command), started, hint],
            cfg.control_topic: [*parked, encode(command), started],
        }
        # The control topic may have one partition only.
        control = {cfg.control_topic: by_topic.pop(cfg.control_topic)}

        async def disturb() -> None:
            await publish_foreign(kafka_address, by_topic)
            async with AIOKafkaProducer(bootstrap_servers=kafka_address) as producer:
                for value in control[cfg.control_topic]:
                    await producer.send_and_wait(cfg.control_topic, value, key=b"\xff")

        await load.through(disturb)
        expected = [(cfg.events_topic, value) for value in [*parked, encode(command), hint, b""]]
        expected += [(commands, value) for value in [*parked, encode(command), started, hint, b""]]
        found = await dead_letters(cfg, len(expected))
        view = await client.get_task(task_id)
    assert sorted(found) == sorted(expected)
    assert not view.status.terminal
    assert view.nodes["n0"].status == "queued"


async def test_roles_of_any_name_have_topics(installation: Installation) -> None:
    roles = ["send mail", "größe", "a/b", "x--a"]
    handlers = dict.fromkeys(roles, work)
    async with installation.coordinator() as coordinator, installation.worker(handlers):
        task_id = await coordinator.create_task(graph=chain(*roles))
        view = await coordinator.wait(task_id, timeout=30)
    assert view.status == "finished"


async def test_a_role_whose_topic_kafka_refuses_delays_no_other(installation: Installation) -> None:
    """Kafka refuses a topic whose name differs from another only in ``.`` and ``_``."""
    async with (
        installation.coordinator(worker_types=["a.b"]) as coordinator,
        load_on(installation, coordinators=1, workers=1) as load,
    ):
        stuck = [await coordinator.create_task(graph=chain("a_b")) for _ in range(3)]
        with anyio.fail_after(90):
            await load.through()
        views = [await coordinator.get_task(task_id) for task_id in stuck]
    assert {view.nodes["n0"].status for view in views} == {"queued"}
