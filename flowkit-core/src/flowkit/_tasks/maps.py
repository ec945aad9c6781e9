"""Items and results of maps, and sums over the shards of nodes: at once if there are few, or later
beside other work.
"""

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

import anyio.lowlevel
import anyio.to_thread
from pydantic_core import from_json, to_json

from flowkit._engine import (
    ChildrenDue,
    CollectMap,
    EngineSettings,
    MapCollected,
    MapFailed,
    MapOpened,
    OpenMap,
    ReadArtifacts,
    ReadEnds,
    ShardsCollected,
)
from flowkit._engine.events import MapEvent
from flowkit._expressions import Budget, BudgetExceeded, InvalidExpression
from flowkit._json.metrics import Numbers, add_numbers, is_finite
from flowkit._json.values import short
from flowkit._records.map_items import encode_items, items_a_part, tag_of
from flowkit._records.queries import archived_nodes, records_of
from flowkit._tasks.conditions import Allowance
from flowkit._tasks.evaluation import MEMORY_AT_ONCE, STEPS_AT_ONCE, Evaluations
from flowkit._tasks.map_artifacts import new_items
from flowkit._tasks.map_ends import ends_read
from flowkit._tasks.scopes import scope_of
from flowkit.errors import NodeFailure
from flowkit.graph._expanded_plan import is_sharded
from flowkit.graph._map_items import items_of, over_expressions
from flowkit.graph._nodes_read import EDGES_AT_ONCE, nodes_needed
from flowkit.graph._templates import CHARACTERS_AT_ONCE
from flowkit.protocols import Store
from flowkit.task import Mark, Task

MOST_AT_ONCE = 200
"""Items or results that are handled before a commit."""
RESULTS_A_TURN = 500
"""Results that are read before other coroutines run."""

MapEffect = OpenMap | ReadArtifacts | CollectMap | ReadEnds


async def map_event_at_once(
    store: Store,
    task: Task,
    effect: OpenMap | CollectMap,
    allowance: Allowance,
    settings: EngineSettings,
) -> MapEvent | None:
    """Return the outcome of an effect if it takes a few milliseconds at most, else None."""
    state = task.maps.get(effect.index)
    if isinstance(effect, CollectMap):
        small = state is not None and state.size <= MOST_AT_ONCE
        return await collected(store, task, effect, settings) if small else None
    if state is not None:
        return ChildrenDue(effect.index, effect.attempt)
    plan = task.spec.plan
    if is_sharded(plan, effect.index):
        return _shards_opened(task, effect)
    expressions = list(over_expressions(plan.nodes[effect.index]))
    if allowance.steps <= 0 or sum(map(len, expressions)) > CHARACTERS_AT_ONCE:
        return None
    budget = Budget(min(STEPS_AT_ONCE, allowance.steps), MEMORY_AT_ONCE)
    try:
        needed = nodes_needed(plan, effect.index, expressions, most_edges=EDGES_AT_ONCE)
        if needed is None:
            return None
        scope = await scope_of(store, task, effect.index, needed)
        items = items_of(plan.nodes[effect.index], scope, budget, at_once=True)
        if len(items) > MOST_AT_ONCE:
            return None
    except BudgetExceeded:
        return None
    except (InvalidExpression, NodeFailure) as error:
        return _failed(effect, error)
    finally:
        allowance.steps -= budget.used
    return _opened(effect, items, settings)


async def map_event(
    store: Store,
    task: Task,
    effect: MapEffect,
    settings: EngineSettings,
    evaluations: Evaluations,
) -> MapEvent | None:
    """Return the outcome of an effect that takes long; None if there is none. A cancelled
    evaluation ends soon.

    Raises:
        CorruptRecord: the history of a task whose maps are undone is damaged.
        StoreError: results could not be loaded.
    """
    if isinstance(effect, CollectMap):
        return await collected(store, task, effect, settings)
    if isinstance(effect, ReadArtifacts):
        return await new_items(store, task, effect, settings)
    if isinstance(effect, ReadEnds):
        return await ends_read(store, task, effect)
    plan = task.spec.plan
    if is_sharded(plan, effect.index):
        return _shards_opened(task, effect)
    node = plan.nodes[effect.index]
    try:
        find = partial(_needed, task, effect.index)
        needed = await anyio.to_thread.run_sync(find, abandon_on_cancel=True)
        scope = await scope_of(store, task, effect.index, needed)
        items = await evaluations.in_thread(lambda budget, _: items_of(node, scope, budget))
        encode = partial(_opened, effect, items, settings)
        return await anyio.to_thread.run_sync(encode, abandon_on_cancel=True)
    except (BudgetExceeded, InvalidExpression, NodeFailure) as error:
        return _failed(effect, error)


def _needed(task: Task, index: int) -> dict[str, list[int]]:
    plan = task.spec.plan
    needed = nodes_needed(plan, index, over_expressions(plan.nodes[index]))
    assert needed is not None
    return needed


def _opened(effect: MapEffect, items: Sequence[Any], settings: EngineSettings) -> MapEvent:
    if len(items) > settings.max_map_items:
        return MapFailed(
            effect.index,
            effect.attempt,
            "map_too_large",
            f"map.over has {len(items)} items, above the limit of {settings.max_map_items}",
        )
    number = items_a_part(len(items), sum(map(_size, items)))
    parts = list(encode_items(items, number))
    return MapOpened(effect.index, effect.attempt, len(items), number, tag_of(parts), parts)


def _shards_opened(task: Task, effect: OpenMap) -> MapOpened:
    """Return the event that adds the shards of a node, which have no items."""
    shards = task.spec.plan.nodes[effect.index].io.shards
    assert shards is not None
    return MapOpened(effect.index, effect.attempt, shards)


def _size(item: Any) -> int:
    return len(item) if isinstance(item, str) else 8 if _is_short(item) else len(to_json(item))


def _is_short(item: Any) -> bool:
    return item is None or isinstance(item, int | float)


def _failed(effect: MapEffect, error: Exception) -> MapFailed:
    reason = error.reason_code if isinstance(error, NodeFailure) else "bad_expression"
    return MapFailed(effect.index, effect.attempt, reason, str(error))


async def collected(
    store: Store, task: Task, effect: CollectMap, settings: EngineSettings
) -> MapCollected | ShardsCollected | MapFailed:
    """Return the results of the children of a map, in the order of the items; of a node with
    shards, the sums over these.
    """
    if is_sharded(task.spec.plan, effect.index):
        return await _shards_collected(store, task, effect)
    children = task.maps[effect.index].children()
    results: list[Any] = []
    size = 0
    while turn := list(islice(children, RESULTS_A_TURN)):
        if results:
            await anyio.lowlevel.checkpoint()
        found = await _results(store, task, turn)
        results += found
        size += len(to_json(found)) - (1 if results else 0)
        if size > settings.max_result_bytes:
            return MapFailed(
                effect.index,
                effect.attempt,
                "result_too_large",
                f"the results of the children have more than {settings.max_result_bytes} bytes as"
                " JSON (limits.max_result_bytes); store them elsewhere, and return their places",
            )
    return MapCollected(effect.index, effect.attempt, results)


async def _shards_collected(
    store: Store, task: Task, effect: CollectMap
) -> ShardsCollected | MapFailed:
    """Return the sums over the batches of all shards of a node."""
    shards = list(task.maps[effect.index].children())
    records = (await records_of(store, task, shards)).values()
    metrics: Numbers = {}
    for record in records:
        add_numbers(metrics, record.metrics or {})
    infinite = next((name for name, value in metrics.items() if not is_finite(value)), None)
    if infinite is not None:
        error = f"the sums of its metrics must be finite numbers; {short(infinite)} is not"
        return MapFailed(effect.index, effect.attempt, "bad_result", error)
    return ShardsCollected(
        effect.index,
        effect.attempt,
        metrics,
        batches=sum(record.batches for record in records),
        skipped=sum(record.skipped for record in records),
    )


async def _results(store: Store, task: Task, children: Sequence[int]) -> list[Any]:
    """Return the results of these children; None for those that have not finished."""
    found: dict[int, Any] = {}
    archived = []
    for child in children:
        if task.marks[child] != Mark.FINISHED:
            continue
        record = task.records.get(child)
        if record is not None:
            found[child] = record.result
        else:
            archived.append(child)
    if archived:
        # Only the result is needed, so the records are not decoded as models.
        for child, data in (await archived_nodes(store, task, archived)).items():
            found[child] = from_json(data).get("result")
    return [found.get(child) for child in children]
