from typing import Annotated, Literal

from pydantic import Field

from flowkit import flow
from flowkit.worker import handler


@handler("price")
async def price(items: int, shipping: str) -> float:
    return items * 2.5 + (9 if shipping == "fast" else 4)


@flow
def order(
    items: Annotated[int, Field(ge=1)], shipping: Literal["fast", "slow"] = "slow"
) -> dict[str, object]:
    total = price(items, shipping)
    return {"items": items, "total": total}
