from collections.abc import AsyncIterator
from typing import Any

from flowkit import flow
from flowkit.worker import RunContext, handler


@handler("documents")
async def documents(folder: str, ctx: RunContext) -> AsyncIterator[dict[str, str]]:
    for number in range(12):
        await ctx.clock.sleep(0.1)
        yield {"path": f"{folder}/{number}.txt"}


@handler("extract_text")
async def extract_text(document: dict[str, str]) -> dict[str, str]:
    return {"text": f"text of {document['path']}"}


@handler("embed")
async def embed(texts: list[dict[str, str]]) -> dict[str, list[int]]:
    return {"vectors": [len(one["text"]) for one in texts]}  # one request for all of them


@handler("count_vectors")
async def count_vectors(embedded: Any, ctx: RunContext) -> int:
    return sum([len(one["vectors"]) async for one in ctx.artifacts.read("embed")])


@flow
def index(folder: str = "inbox") -> object:
    texts = extract_text.stream(documents(folder))
    return count_vectors(embed.stream(texts, size=5, max_wait_sec=2))
