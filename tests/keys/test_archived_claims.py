"""Places for claims of nodes whose records are in the archive."""

import pytest

from flowkit._engine import KeyGranted, KeysAnswered, NodeResolved, ResultCached, ReturnKey
from flowkit._records.queries import load_task
from flowkit._records.record_parts import KEEP_ENDED
from flowkit._tasks.event_processor import EventProcessor
from flowkit.graph import Graph
from flowkit.task import ENDED, Resolution, TaskSpec
from flowkit_testing import InMemoryStore
from tests.builders import graph, node
from tests.coordinator.processors import processor_of

SIZE, STEP = 2 * KEEP_ENDED, 64
SKIPPED = Resolution("skipped", "me", "", None)


async def ended(store: InMemoryStore, **fields: object) -> EventProcessor:
    """Store a task whose nodes claimed a key or result and have ended, and return the processor of
    another process.
    """
    processor = processor_of(store)
    parsed = Graph.parse(graph(*(node(f"n{index}", **fields) for index in range(SIZE))))
    spec = TaskSpec("t", parsed.plan, created_at=1.0, secret=b"key")
    await processor.create([processor.submit(spec, parsed.source, certainly_new=True)])
    for first in range(0, SIZE, STEP):
        some = range(first, min(first + STEP, SIZE - 1))
        await processor.apply({"t": [NodeResolved(index, SKIPPED) for index in some]})
    stored = await load_task(store, "t")
    assert stored.marks[0] in ENDED
    assert 0 not in stored.records
    return processor_of(store)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("together", [False, True])
async def test_a_place_for_an_archived_node_is_given_back_unless_its_claim_is_a_later_one(
    together: bool, number: int
) -> None:
    """A process that died has left the claim in the queue. A later claim is of a retry that this
    copy of the task does not know.
    """
    processor = await ended(InMemoryStore(), concurrency_key="k")
    granted = KeyGranted(0, number)
    outcome = await processor.apply({"t": [KeysAnswered([granted]) if together else granted]})
    returned = [
        (effect.index, effect.claim.key, effect.claim.number)
        for todo in outcome.effects
        for effect in todo.effects
        if isinstance(effect, ReturnKey)
    ]
    assert returned == ([(0, "k", 1)] if number == 1 else [])


async def test_a_result_for_an_archived_node_is_given_back() -> None:
    processor = await ended(InMemoryStore(), cache={"key": "c", "ttl_sec": 60})
    outcome = await processor.apply({"t": [ResultCached(0, 1, "c", 1.0, "result")]})
    effects = [effect for todo in outcome.effects for effect in todo.effects]
    assert [type(effect) for effect in effects] == [ReturnKey]
