"""A task does not end while its record is damaged, so waiting for it ends with an error."""

import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import anyio
import pytest

from flowkit import Client
from flowkit._records.letter_records import read_letters
from flowkit.client._queries import FIRST_CHECK_SEC, UNCHECKED_SEC
from flowkit.errors import CorruptRecord
from flowkit.protocols import TaskRecord
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster, InMemoryStore
from flowkit_testing._cluster import DAY

CHAIN = {
    "nodes": [
        {"node_id": "a", "type": "work"},
        {"node_id": "b", "type": "work", "depends_on": ["a"]},
    ]
}
MUST_END_SEC = 2 * FIRST_CHECK_SEC

Damage = Callable[[TaskRecord], TaskRecord]


@handler("work")
async def work(item: Any, ctx: RunContext) -> str:
    await ctx.clock.sleep(DAY)
    return "done"


class DamagedStore(InMemoryStore):
    """A store that reads tasks as damaged.

    It is as if another program had changed them without a new version.
    """

    damage: Damage | None = None

    async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
        found = await super().load(task_ids)
        return (
            found
            if self.damage is None
            else {task_id: self.damage(record) for task_id, record in found.items()}
        )


def state(**fields: Any) -> Damage:
    def damage(record: TaskRecord) -> TaskRecord:
        changed = json.dumps({**json.loads(record.parts["state"]), **fields}).encode()
        return replace(record, parts={**record.parts, "state": changed})

    return damage


def header(**fields: Any) -> Damage:
    return lambda record: replace(record, header=replace(record.header, **fields))


def of_a_later_version(record: TaskRecord) -> TaskRecord:
    head, _, graph = record.spec.partition(b"\n")
    return replace(record, spec=json.dumps({**json.loads(head), "v": 2}).encode() + b"\n" + graph)


CONTRADICTIONS: dict[str, Damage] = {
    "a node waits for a parent that has ended": state(marks="F."),
    "no node is left to run": state(marks="FF"),
    "a first node waits": state(marks=".."),
    "only the state has ended": state(status="finished", finished_at=1.0, marks="FF"),
    "only the header has ended": header(status="finished", finished_at=1.0),
    "the state has ended at no time": lambda record: header(status="finished")(
        state(status="finished", marks="FF")(record)
    ),
    "history that is an object": lambda record: replace(
        record, parts={**record.parts, "e0000000001": b"{}"}
    ),
}
UNREADABLE: dict[str, Damage] = {
    "a later version": of_a_later_version,
    "not decoded by a codec": lambda record: replace(
        record, spec=b"", parts={}, fault="plugin 'codec' cannot decode it"
    ),
}
DAMAGES = CONTRADICTIONS | UNREADABLE


async def drain(client: Client) -> None:
    async for _ in client.watch("t"):
        pass


WAITS: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "wait": lambda client: client.wait("t"),
    "wait for a time": lambda client: client.wait("t", 10 * DAY),
    "watch": drain,
}


async def check_end(cluster: Cluster, wait: Callable[[Client], Awaitable[Any]]) -> None:
    """Assert that each client gets the error soon."""
    for client in (cluster.client, *cluster.coordinators):
        began = cluster.clock.monotonic()
        with pytest.raises(CorruptRecord, match="cannot be read"):
            await wait(client)
        assert cluster.clock.monotonic() - began <= MUST_END_SEC


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
async def test_waiting_for_a_task_that_is_damaged_already_ends_soon(
    wait: Callable[[Client], Awaitable[Any]], damage: Damage
) -> None:
    async with Cluster(store=DamagedStore(), coordinators=0) as cluster:
        await cluster.client.create_task(graph=CHAIN, task_id="t")
        cluster.store.damage = damage  # type: ignore[attr-defined]
        began = cluster.clock.monotonic()
        await check_end(cluster, wait)
        assert cluster.clock.monotonic() - began <= UNCHECKED_SEC


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
async def test_waiting_for_a_task_that_is_damaged_while_it_runs_ends_soon(
    wait: Callable[[Client], Awaitable[Any]], damage: Damage
) -> None:
    async with Cluster(store=DamagedStore(), handlers=[work]) as cluster:
        await cluster.client.create_task(graph=CHAIN, task_id="t")

        async def damage_later() -> None:
            await cluster.clock.sleep(5)
            cluster.store.damage = damage  # type: ignore[attr-defined]

        async with anyio.create_task_group() as group:
            group.start_soon(damage_later)
            await check_end(cluster, wait)


@pytest.mark.parametrize("damage", [*CONTRADICTIONS][:3])
async def test_a_task_that_is_quarantined_ends_every_wait_and_can_be_shown(damage: str) -> None:
    async with Cluster(store=DamagedStore(), coordinators=0, handlers=[work]) as cluster:
        await cluster.client.create_task(graph=CHAIN, task_id="t")
        cluster.store.damage = CONTRADICTIONS[damage]  # type: ignore[attr-defined]
        await cluster.add_coordinator()
        await cluster.clock.sleep(60)
        assert [
            letter.reason_code
            for letter in await read_letters(cluster.store, task_id="t", kind="task")
        ] == ["quarantined"]
        for wait in WAITS.values():
            await check_end(cluster, wait)
        assert (await cluster.client.get_task("t")).id == "t"


async def test_a_task_that_ended_is_returned_though_its_history_is_damaged() -> None:
    @handler("work")
    async def quick(item: Any) -> str:
        return "done"

    async with Cluster(store=DamagedStore(), handlers=[quick]) as cluster:
        assert (await cluster.run(CHAIN, task_id="t")).status == "finished"
        cluster.store.damage = CONTRADICTIONS["history that is an object"]  # type: ignore[attr-defined]
        assert (await cluster.client.wait("t")).status == "finished"


@pytest.mark.parametrize("timeout", [0, 0.5, 45, 100.1, 12345.6])
async def test_a_wait_gives_up_after_its_timeout(timeout: float) -> None:
    async with Cluster(handlers=[work]) as cluster:
        await cluster.client.create_task(graph=CHAIN, task_id="t")
        began = cluster.clock.monotonic()
        with pytest.raises(TimeoutError, match="still"):
            await cluster.client.wait("t", timeout)
        assert cluster.clock.monotonic() - began == pytest.approx(timeout, abs=0.001)
