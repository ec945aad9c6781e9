"""Handlers for the patterns in YAML: stand-ins for your own, most of which return their input."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from flowkit.worker import FunctionHandler, RunContext, handler

RETURN_THEIR_INPUT = (
    "book check copy fetch mail parse pay read refund report ship train_on_gpu unbook write"
)


async def echo(item: Any) -> Any:
    return item


@handler("pages")
async def pages(count: int, ctx: RunContext) -> AsyncIterator[dict[str, int]]:
    for number in range(count):
        await ctx.clock.sleep(0.1)
        yield {"page": number}


@handler("files")
async def files(count: int) -> AsyncIterator[dict[str, list[str]]]:
    yield {"files": [f"file {number}" for number in range(count)]}


@handler("load")
async def load(rows: list[Any]) -> dict[str, int]:
    return {"rows": len(rows)}


@handler("count_words")
async def count_words(text: str) -> int:
    return len(text.split())


@handler("add_up")
async def add_up(numbers: list[int]) -> int:
    return sum(numbers)


HANDLERS: Mapping[str, FunctionHandler[..., Any]] = {
    "pages": pages,
    "files": files,
    "load": load,
    "count_words": count_words,
    "add_up": add_up,
    **{role: handler(role)(echo) for role in RETURN_THEIR_INPUT.split()},
}
