"""Run four orders, one of them submitted twice, on four workers with different roles."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from examples.microservices.handlers import (
    MAIL_HANDLERS,
    payment_handlers,
    shipping_handlers,
    stock_handlers,
)
from examples.microservices.services import Payments, Shipping, Stock
from flowkit import Coordinator, WorkerConfig
from flowkit.worker import Worker

FLOW = Path(__file__).with_name("flow.yaml").read_text(encoding="utf-8")
ADDRESS = "memory://microservices"
ORDERS: dict[str, dict[str, Any]] = {
    "order-1": {
        "item": "lamp",
        "count": 2,
        "amount": 60,
        "card": "good",
        "address": "Main Street 1",
    },
    "order-2": {
        "item": "lamp",
        "count": 90,
        "amount": 2700,
        "card": "good",
        "address": "Main Street 2",
    },
    "order-3": {
        "item": "desk",
        "count": 1,
        "amount": 250,
        "card": "expired",
        "address": "Main Street 3",
    },
    "order-4": {"item": "desk", "count": 1, "amount": 250, "card": "good", "address": "unknown"},
}


async def main() -> None:
    stock, payments, shipping = Stock(lamp=10, desk=3), Payments(declined=("expired",)), Shipping()
    workers = {
        "stock": stock_handlers(stock),
        "payments": payment_handlers(payments),
        "shipping": shipping_handlers(shipping),
        "mail": MAIL_HANDLERS,
    }
    async with AsyncExitStack() as stack:
        coordinator = await stack.enter_async_context(Coordinator(db=ADDRESS))
        for name, handlers in workers.items():
            await stack.enter_async_context(
                Worker(db=ADDRESS, cfg=WorkerConfig(worker_id=name), handlers=handlers)
            )

        task_ids = {name: await submit(coordinator, name) for name in ORDERS}
        again = await submit(coordinator, "order-1")
        print(
            "order-1 is submitted twice:"
            f" {'one task' if again == task_ids['order-1'] else 'two tasks'}"
        )

        for name, task_id in task_ids.items():
            view = await coordinator.wait(task_id)
            ran = [
                f"{node.node_id} ({node.worker_id})"
                for node in view.nodes.values()
                if node.status == "finished"
            ]
            failed = [
                f"{node.node_id} failed: {node.reason_code}"
                for node in view.nodes.values()
                if node.status == "failed"
            ]
            letter = next(iter((view.result or {}).values()))
            print(f"{name} {view.status}: {', '.join(failed + ran)}\n  {letter}")

    print(
        f"stock {stock.pieces}, balance {payments.balance}, parcels {len(shipping.parcels)},"
        f" requests to the bank {payments.requests}"
    )


async def submit(coordinator: Coordinator, name: str) -> str:
    return await coordinator.create_task(
        graph=FLOW, params=ORDERS[name], idempotency_key=name, pipeline="orders"
    )


if __name__ == "__main__":
    asyncio.run(main())
