"""The example of an order that is completed or undone."""

from typing import Any

import pytest
import yaml

from examples.microservices.handlers import (
    MAIL_HANDLERS,
    payment_handlers,
    shipping_handlers,
    stock_handlers,
)
from examples.microservices.services import Payments, Shipping, Stock
from flowkit_testing import Cluster
from flowkit_testing.simulation import SimCluster, simulate
from tests.docs.pages import ROOT

FLOW = yaml.safe_load((ROOT / "examples/microservices/flow.yaml").read_text(encoding="utf-8"))
PIECES, AMOUNT = 3, 250


class Shop:
    """The three services, and a check of their state after an order."""

    def __init__(self) -> None:
        self.stock, self.payments, self.shipping = (
            Stock(desk=PIECES),
            Payments(declined=("expired",)),
            Shipping(),
        )

    @property
    def workers(self) -> list[Any]:
        return [
            stock_handlers(self.stock),
            payment_handlers(self.payments),
            shipping_handlers(self.shipping),
            MAIL_HANDLERS,
        ]

    def assert_sold(self, count: int) -> None:
        assert self.stock.pieces == {"desk": PIECES - count}
        assert self.payments.balance == AMOUNT * count
        assert len(self.shipping.parcels) == count


def order(**changes: Any) -> dict[str, Any]:
    return {
        "item": "desk",
        "count": 1,
        "amount": AMOUNT,
        "card": "good",
        "address": "Main Street 1",
    } | changes


async def run(shop: Shop, **changes: Any) -> Any:
    async with Cluster() as cluster:
        for handlers in shop.workers:
            await cluster.add_worker(handlers)
        view = await cluster.run(FLOW, params=order(**changes))
    assert view.status == "finished", view.error
    return view


def ran(view: Any) -> set[str]:
    return {node.node_id for node in view.nodes.values() if node.status == "finished"}


async def test_an_order_is_charged_once_though_the_first_answer_is_lost():
    shop = Shop()

    view = await run(shop)

    assert ran(view) == {"reserve", "charge", "ship", "confirm"}
    assert (view.nodes["charge"].attempt, shop.payments.requests) == (2, 2)
    shop.assert_sold(1)


@pytest.mark.parametrize(
    ("changes", "failed", "reason", "undone"),
    [
        ({"count": PIECES + 1}, "reserve", "out_of_stock", set()),
        ({"card": "expired"}, "charge", "card_declined", {"reserve", "refund", "release"}),
        ({"address": "unknown"}, "ship", "no_carrier", {"reserve", "charge", "refund", "release"}),
    ],
    ids=["out of stock", "declined", "no carrier"],
)
async def test_the_steps_before_a_failure_are_undone(
    changes: dict[str, Any], failed: str, reason: str, undone: set[str]
):
    shop = Shop()

    view = await run(shop, **changes)

    assert view.nodes[failed].reason_code == reason
    assert ran(view) == undone | {"apologise"}
    shop.assert_sold(0)


async def test_each_step_runs_on_the_worker_of_its_service():
    shop = Shop()

    view = await run(shop, address="unknown")

    worker = {node.node_id: node.worker_id for node in view.nodes.values()}
    assert worker["reserve"] == worker["release"] != worker["charge"] == worker["refund"]
    assert len({worker["reserve"], worker["charge"], worker["ship"], worker["apologise"]}) == 4


async def test_an_order_that_is_submitted_twice_is_one_task():
    shop = Shop()
    async with Cluster() as cluster:
        for handlers in shop.workers:
            await cluster.add_worker(handlers)
        views = [
            await cluster.run(FLOW, params=order(), idempotency_key="order-1") for _ in range(2)
        ]

    assert views[0].id == views[1].id
    shop.assert_sold(1)


@pytest.mark.parametrize("address", ["Main Street 1", "unknown"])
def test_an_order_is_completed_or_undone_under_faults(address: str):
    patient: Any = {
        "nodes": [node | {"retry_policy": {"max": 30, "backoff_sec": 1}} for node in FLOW["nodes"]]
    }

    async def scenario(cluster: SimCluster) -> None:
        shop = Shop()
        for handlers in shop.workers:
            await cluster.add_worker(handlers)
        view = await cluster.run(patient, params=order(address=address))
        cluster.assert_finished(view)
        shop.assert_sold(1 if address != "unknown" else 0)

    simulate(scenario, seeds=10, faults="all")
