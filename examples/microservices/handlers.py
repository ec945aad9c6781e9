"""The handlers of the flow in ``flow.yaml``, by the service they belong to.

The task's params are an order: ``item``, ``count``, ``amount``, ``card`` and ``address``.

A request to a service carries a key made of the task's id and the name of the step. Both are the
same in every attempt, so a request that is repeated after a lost answer is executed once.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from examples.microservices.services import Payments, Shipping, Stock
from flowkit.errors import NodeFailure
from flowkit.worker import FunctionHandler, RunContext, handler


class Order(BaseModel):
    item: str
    count: int
    amount: int
    card: str
    address: str


def stock_handlers(stock: Stock) -> list[FunctionHandler[..., Any]]:
    """Return the handlers of a worker that serves the stock."""

    @handler("reserve")
    async def reserve(item: Any, ctx: RunContext) -> dict[str, Any]:
        order = order_of(ctx.params)
        try:
            await stock.reserve(key(ctx, "reserve"), order.item, order.count)
        except LookupError as error:
            raise NodeFailure(str(error), reason_code="out_of_stock", permanent=True) from error
        return {"item": order.item, "count": order.count}

    @handler("release")
    async def release(item: Any, ctx: RunContext) -> str:
        await stock.release(key(ctx, "reserve"))
        return "released"

    return [reserve, release]


def payment_handlers(payments: Payments) -> list[FunctionHandler[..., Any]]:
    """Return the handlers of a worker that serves the payments."""

    @handler("charge")
    async def charge(item: Any, ctx: RunContext) -> dict[str, Any]:
        order = order_of(ctx.params)
        try:
            await payments.charge(key(ctx, "charge"), order.card, order.amount)
        except PermissionError as error:
            raise NodeFailure(str(error), reason_code="card_declined", permanent=True) from error
        except ConnectionError as error:
            raise NodeFailure(str(error), reason_code="bank_unreachable") from error
        return {"charged": order.amount}

    @handler("refund")
    async def refund(item: Any, ctx: RunContext) -> dict[str, Any]:
        return {"refunded": await payments.refund(key(ctx, "charge"))}

    return [charge, refund]


def shipping_handlers(shipping: Shipping) -> list[FunctionHandler[..., Any]]:
    """Return the handlers of a worker that serves the shipping."""

    @handler("ship")
    async def ship(item: Any, ctx: RunContext) -> dict[str, Any]:
        try:
            return {"parcel": await shipping.ship(key(ctx, "ship"), order_of(ctx.params).address)}
        except LookupError as error:
            raise NodeFailure(str(error), reason_code="no_carrier", permanent=True) from error

    return [ship]


@handler("confirm")
async def confirm(item: Any, ctx: RunContext) -> str:
    return f"your order is on its way: {ctx.results['ship']['parcel']}"


@handler("apologise")
async def apologise(item: Any, ctx: RunContext) -> str:
    refunded = ctx.results["refund"]["refunded"] if "refund" in ctx.results else 0
    return (
        f"we are sorry; you get {refunded} back"
        if refunded
        else "we are sorry; nothing was charged"
    )


MAIL_HANDLERS = [confirm, apologise]


def order_of(params: Mapping[str, Any]) -> Order:
    return Order.model_validate(params)


def key(ctx: RunContext, step: str) -> str:
    return f"{ctx.task_id}/{step}"
