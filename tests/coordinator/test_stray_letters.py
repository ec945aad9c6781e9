"""Dead letters of failures that were not committed."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from flowkit import Coordinator, CoordinatorConfig
from flowkit._dead_letters.letters import node_letter
from flowkit._engine import CancelRequested, Event
from flowkit._records.letter_records import park_letters, read_letters
from flowkit._records.queries import load_task
from flowkit.messages import NodeFailed, NodeProgressed, NodeSucceeded

GRAPH: Any = {
    "nodes": [
        {"node_id": "a", "type": "work", "retry_policy": {"max": 0}},
        {"node_id": "b", "type": "work"},
    ]
}


class Two(NamedTuple):
    """Two coordinators that hold the same task. Node ``a`` runs its only attempt."""

    one: Coordinator
    other: Coordinator
    task_id: str

    async def report(self, kind: type[Any], **fields: Any) -> Event:
        task = await load_task(self.one.store, self.task_id)
        return kind(
            task_id=self.task_id,
            index=0,
            attempt=1,
            token=task.spec.token(0, 1, 0),
            worker_id="w",
            at=2,
            **fields,
        )

    async def apply(self, coordinator: Coordinator, event: Event) -> None:
        await coordinator._scheduler.processor.apply({self.task_id: [event]})

    async def stored(self) -> list[str | None]:
        """Return the nodes of the dead letters in the store."""
        return [letter.node_id for letter in await read_letters(self.one.store)]

    async def listed(self) -> list[str | None]:
        return [letter.node_id for letter in (await self.one.dead_letters()).items]


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    cfg = CoordinatorConfig(db=f"memory://{secrets.token_hex(6)}")
    async with Coordinator(cfg=cfg) as one, Coordinator(cfg=cfg) as other:
        task_id = await one.create_task(graph=GRAPH)
        await one._scheduler.processor.refresh([task_id])
        await other._scheduler.processor.refresh([task_id])
        yield Two(one, other, task_id)


async def failure(two: Two) -> Event:
    return await two.report(
        NodeFailed, started_at=1, reason_code="boom", permanent=True, error="no"
    )


async def test_the_letter_of_a_failure_goes_when_the_node_was_cancelled_first(two: Two) -> None:
    await two.apply(two.other, CancelRequested("enough"))
    await two.apply(two.one, await failure(two))
    assert (await two.one.get_task(two.task_id)).status == "cancelled"
    assert await two.stored() == []


async def test_the_letter_of_a_failure_goes_when_the_node_succeeded_first(two: Two) -> None:
    await two.apply(two.other, await two.report(NodeSucceeded, started_at=1))
    await two.apply(two.one, await failure(two))
    assert (await two.one.get_task(two.task_id)).nodes["a"].status == "finished"
    assert await two.stored() == []


async def test_the_letter_of_a_failure_that_two_coordinators_report_stays(two: Two) -> None:
    event = await failure(two)
    await two.apply(two.other, event)
    await two.apply(two.one, event)
    assert await two.stored() == await two.listed() == ["a"]


async def test_the_letter_of_a_failure_that_is_committed_at_the_second_try_stays(two: Two) -> None:
    await two.apply(two.other, await two.report(NodeProgressed, progress=1))
    await two.apply(two.one, await failure(two))
    assert await two.stored() == await two.listed() == ["a"]


@pytest.mark.parametrize("clock", [1, -100], ids=["ahead", "behind"])
async def test_a_letter_that_a_coordinator_left_when_it_died_is_not_listed_unless_the_node_fails(
    two: Two, clock: float
) -> None:
    task = await load_task(two.one.store, two.task_id)
    await park_letters(two.one.store, [node_letter(task, 0, at=task.spec.created_at + clock)])
    assert (await two.stored(), await two.listed()) == (["a"], [])
    (left,) = await read_letters(two.one.store)
    (outcome,) = await two.one.retry_dead_letters([left.letter_id])
    assert not outcome.done
    await two.apply(two.one, await failure(two))
    assert await two.stored() == await two.listed() == ["a"]


@pytest.mark.parametrize("clock", [1, -100], ids=["ahead", "behind"])
async def test_a_letter_that_a_coordinator_left_when_it_died_is_not_listed_after_a_success(
    two: Two, clock: float
) -> None:
    task = await load_task(two.one.store, two.task_id)
    await park_letters(two.one.store, [node_letter(task, 0, at=task.spec.created_at + clock)])
    await two.apply(two.one, await two.report(NodeSucceeded, started_at=1))
    assert await two.listed() == []


async def test_the_letter_of_a_purged_task_stays_when_its_id_is_used_again(two: Two) -> None:
    task = await load_task(two.one.store, two.task_id)
    task.spec = replace(task.spec, created_at=task.spec.created_at - 3600)
    await park_letters(two.one.store, [node_letter(task, 0, at=task.spec.created_at + 1)])
    await two.apply(two.one, await two.report(NodeSucceeded, started_at=1))
    assert await two.listed() == ["a"]
