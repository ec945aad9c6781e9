"""Names of concurrency keys, rates and the keys of caches: the values of their expressions."""

from functools import partial

import anyio.to_thread

from flowkit._expressions import BudgetExceeded, InvalidExpression
from flowkit._records.cache_records import cache_key
from flowkit._tasks.evaluation import Evaluations
from flowkit._tasks.run_inputs import own_names
from flowkit._tasks.scopes import scope_of
from flowkit.graph._nodes_read import nodes_needed
from flowkit.graph._templates import (
    bad_expression,
    evaluate_key,
    expressions_in_key,
    path_of_key,
    pointer,
)
from flowkit.protocols import Store
from flowkit.task import WHOLE_TASK, ClaimKind, Task


async def name_of_key(
    store: Store, task: Task, index: int, kind: ClaimKind, evaluations: Evaluations
) -> str:
    """Return the name of the concurrency key, the rate or the key of the cache of a node, or of the
    key of the task as a whole.

    Raises:
        NodeFailure: an expression cannot be evaluated; permanent, ``bad_expression``.
        StoreError: the results that the key reads could not be loaded.
    """
    key, plan = task.spec.named(index, kind), task.spec.plan
    assert key is not None
    node = None if index == WHOLE_TASK else index
    try:
        find = partial(nodes_needed, plan, node, list(expressions_in_key(key)))
        needed = await anyio.to_thread.run_sync(find, abandon_on_cancel=True)
        assert needed is not None
        scope = await scope_of(store, task, node, needed)
        if node is not None:
            scope |= await own_names(store, task, node)
        value = await evaluations.bounded(
            lambda budget, at_once: evaluate_key(key, scope, budget, at_once=at_once)
        )
    except (BudgetExceeded, InvalidExpression) as error:
        raise bad_expression(f"{pointer(path_of_key(key))}: {error}") from None
    return cache_key(plan, index, value) if kind == "cache" else str(value)
