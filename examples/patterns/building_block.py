from typing import Any

from flowkit import flow
from flowkit.worker import handler


@handler("fetch")
async def fetch(table: str) -> list[int]:
    return list(range(len(table)))


@handler("check")
async def check(rows: list[int]) -> list[int]:
    return [row for row in rows if row > 0]


@handler("load")
async def load(rows: list[int], table: str) -> int:
    return len(rows)


def synced(table: str) -> Any:
    """Add the steps of one table to the flow."""
    return load(check(fetch(table)), table)


@flow
def nightly() -> object:
    return {"orders": synced("orders"), "users": synced("users")}
