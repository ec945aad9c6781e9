from flowkit import flow
from flowkit.worker import handler


@handler("sales")
async def sales(shop: str, day: str) -> float:
    return float(len(shop))


@handler("total")
async def total(amounts: list[float]) -> float:
    return sum(amounts)


@flow
def all_sales(day: str = "2026-01-31") -> object:
    return total([sales.options(node_id=shop)(shop, day) for shop in ("paris", "rome", "oslo")])
