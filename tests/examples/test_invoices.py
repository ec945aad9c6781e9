"""The example of a flow in typed Python."""

from typing import Any

from examples.invoices import handlers as invoices
from examples.invoices.flow import invoicing
from examples.invoices.models import Rate
from flowkit.flows import Flow
from flowkit.worker import FunctionHandler, handler
from flowkit_testing import Cluster

PARAMS = {"customer": {"name": "Ada", "currency": "EUR"}}


def handlers_of(flow: Flow[...]) -> dict[str, Any]:
    return dict(flow.build().handlers)


async def test_the_rate_that_arrives_first_is_used(flowkit_cluster: Cluster):
    view = await flowkit_cluster.run(invoicing, handlers=handlers_of(invoicing), params=PARAMS)
    assert view.result == {
        "amount": 324.0,
        "message": "Ada: 324 EUR for 4 hours, due on 2026-03-02",
    }
    assert view.nodes["bank_rate"].status == "cancelled"
    assert view.nodes["approve"].status == "skipped"


async def test_the_other_rate_is_used_if_one_fails(flowkit_cluster: Cluster):
    @handler("market_rate")
    async def closed(currency: str) -> Rate:
        raise ConnectionError("the market is closed")

    view = await flowkit_cluster.run(
        invoicing,
        handlers={**handlers_of(invoicing), "market_rate": closed},
        params={**PARAMS, "limit": 100},
    )
    assert view.result["amount"] == 320.0
    assert view.nodes["approve"].result == "320.0 approved"


async def test_a_reminder_follows_an_invoice_that_is_not_sent(flowkit_cluster: Cluster):
    @handler("send")
    async def offline(bill: Any, text: Any) -> None:
        raise ConnectionError("no network")

    view = await flowkit_cluster.run(
        invoicing, handlers={**handlers_of(invoicing), "send": offline}, params=PARAMS
    )
    assert view.status == "finished"
    assert view.nodes["remind"].result == ["send: ConnectionError: no network"]


def test_the_handlers_are_plain_functions_for_unit_tests():
    assert isinstance(invoices.checked_rate, FunctionHandler)
    rate = Rate(currency="EUR", per_hour=80, source="bank")
    assert invoices.checked_rate(rate) == rate
