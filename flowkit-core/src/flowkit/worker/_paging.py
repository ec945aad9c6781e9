"""Batches that do not come from an adapter: a list cut into pieces, or what a handler iterates
over.
"""

import inspect
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from flowkit.errors import NodeFailure
from flowkit.worker._handler_values import bad_result
from flowkit.worker._handlers import Batch

Page = Batch | Sequence[Batch]
BATCHES_A_PAGE = 100


async def cut(value: Any, batching: dict[str, Any]) -> AsyncGenerator[Page, None]:
    """``io.batching``: the items of a list, ``size`` at a time."""
    items = value.get("items") if isinstance(value, dict) else value
    if not isinstance(items, list):
        message = (
            'io.batching cuts a list, or the "items" of an object, into batches; the input is'
            f" {value!r:.200}"
        )
        raise NodeFailure(message, reason_code="bad_input", permanent=True)
    size = batching["size"]
    batches = (
        Batch(str(number), {"items": items[start : start + size]})
        for number, start in enumerate(range(0, len(items), size))
    )
    page: list[Batch] = []
    for batch in batches:
        page.append(batch)
        if len(page) == BATCHES_A_PAGE:
            yield page
            page = []
    if page:
        yield page


async def one_by_one(made: Any) -> AsyncGenerator[Page, None]:
    """What ``iter_batches`` gave: an asynchronous iterator, or, from an ordinary function, anything
    iterable.
    """
    batch: Any  # looked at where all batches are, in the ledger
    if inspect.isawaitable(made):
        made = await made
    if hasattr(made, "__aiter__"):
        if inspect.isasyncgen(made):
            async with aclosing(made):
                async for batch in made:
                    yield [batch]
        else:
            async for batch in made:
                yield [batch]
        return
    if not hasattr(made, "__iter__"):
        raise bad_result(f"iter_batches gives batches, not {type(made).__name__}")
    for batch in made:
        yield [batch]


def item_of(payload: Any) -> Any:
    """What a function is called with for a batch: its ``items``, else its ``meta``, else the
    payload itself.
    """
    if isinstance(payload, dict):
        for key in ("items", "meta"):
            if key in payload:
                return payload[key]
    return payload
