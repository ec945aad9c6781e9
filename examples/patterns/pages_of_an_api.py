from collections.abc import AsyncIterator
from typing import Any

from flowkit import flow
from flowkit.worker import handler

ANSWERS: list[Any] = [{"rows": [1, 2], "next": 1}, {"rows": [3], "next": None}]


@handler("pages_of")
async def pages_of(api: str) -> AsyncIterator[dict[str, Any]]:
    page = 0
    while page is not None:
        answer = ANSWERS[page]  # your request to the API
        yield {"api": api, "rows": answer["rows"]}
        page = answer["next"]


@handler("load")
async def load(item: dict[str, Any]) -> dict[str, int]:
    return {"loaded": len(item["rows"])}


@flow
def crawl(api: str = "https://example.org/rows") -> None:
    load.stream(pages_of(api))
