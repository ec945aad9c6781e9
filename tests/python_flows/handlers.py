"""Handlers that flows in the tests call."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from pydantic import BaseModel

from flowkit.worker import FunctionHandler, RunContext, handler


class Tenant(BaseModel):
    name: str


@dataclass
class Rows:
    total: int
    day: date | None = None


@handler("extract", retry_policy={"max": 5})
async def extract(tenant: Tenant) -> Rows:
    return Rows(len(tenant.name))


@handler("merge")
def merge(rows: list[Rows], day: date, scale: int = 1) -> Rows:
    return Rows(scale * sum(one.total for one in rows), day)


@handler("square")
def square(n: int) -> int:
    return n * n


@handler("note")
async def note(text: str = "nothing") -> str:
    return text


@handler("alert")
async def alert(ctx: RunContext) -> dict[str, Any]:
    return {node_id: error["reason_code"] for node_id, error in ctx.errors.items()}


@handler("fail", retry_policy={"max": 0})
async def fail(text: str, ctx: RunContext) -> None:
    raise RuntimeError(text)


@handler("wait")
async def wait(seconds: float, ctx: RunContext) -> float:
    await ctx.cancellable(ctx.clock.sleep(seconds))
    return seconds


@handler("numbers")
async def numbers(upto: int) -> AsyncIterator[dict[str, Any]]:
    for number in range(upto):
        yield {"number": number}


@handler("double")
async def double(item: dict[str, Any]) -> dict[str, Any]:
    return {"number": 2 * item["number"]}


@handler("add")
async def add(item: dict[str, Any]) -> dict[str, Any]:
    return item


class Trip(BaseModel):
    id: int
    to: str


@handler("book")
async def book(to: str) -> Trip:
    return Trip(id=len(to), to=to)


@handler("cancel_booking", retry_policy={"max": 20})
async def cancel_booking(trip: Trip, ctx: RunContext) -> str:
    return f"cancelled {trip.to}"


@handler("refund")
async def refund(trip: Trip, amount: int, reason: str = "") -> str:
    return f"{amount} for {trip.to}: {reason}"


HANDLERS: list[FunctionHandler[..., Any]] = [
    extract,
    merge,
    square,
    note,
    alert,
    fail,
    wait,
    numbers,
    double,
    add,
    book,
    cancel_booking,
    refund,
]
