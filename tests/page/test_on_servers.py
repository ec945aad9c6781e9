"""The page in a browser, over a cluster on Kafka and MongoDB."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from anyio.from_thread import start_blocking_portal
from playwright.sync_api import expect

from flowkit import Client
from tests.page import shop as shops
from tests.page.browsers import go, open_browser, open_page
from tests.page.shop import Shop, serving
from tests.services.support import QUICK_KAFKA, Installation

pytestmark = pytest.mark.services


@asynccontextmanager
async def running(shop: Shop, installation: Installation) -> AsyncIterator[Client]:
    async with (
        installation.coordinator(),
        installation.worker(shop.handlers(), worker_id="ada"),
        installation.client() as client,
    ):
        yield client
    await installation.drop()


def test_a_task_is_followed_live_decided_retried_and_read_on_kafka_and_mongodb(
    kafka_address: str, mongo_address: str
) -> None:
    shop = Shop()
    installation = Installation(kafka=kafka_address, mongo=mongo_address, kafka_options=QUICK_KAFKA)
    nodes = [
        *shops.RELEASE["nodes"],
        {"node_id": "charge", "type": "charge", "depends_on": ["roll_out"]},
    ]
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running(shop, installation)) as client,
        portal.wrap_async_context_manager(serving(client)) as address,
        open_browser() as browser,
        open_page(browser, address) as page,
    ):
        shop.bank_is_open = False
        portal.call(lambda: client.create_task(graph={"nodes": nodes}, task_id="r/1"))
        go(page, "/tasks/r%2F1?node=sign_off", "r/1")
        status = page.locator("main .badge").first
        page.get_by_role("button", name="release", exact=True).click()
        page.get_by_label(re.compile("Share of shops")).fill("25")
        page.get_by_role("dialog").get_by_role("button", name="release").click()
        expect(status).to_contain_text("failed")
        shop.bank_is_open = True
        go(page, "/tasks?status=failed", "Tasks")
        page.get_by_role("link", name="r/1").click()
        page.get_by_role("status").get_by_role("button", name="charge").click()
        expect(page.get_by_label("Node charge")).to_contain_text("the bank is closed")
        page.get_by_role("button", name="Retry from here").click()
        page.get_by_role("dialog").get_by_role("button", name="Retry").click()
        expect(status).to_contain_text("finished")
        page.get_by_role("tab", name="Logs").click()
        expect(page.get_by_text("charged the card")).to_be_visible()
        go(page, "/", "Is it well?")
        expect(page.get_by_role("row", name="live coordinators 1")).to_be_visible()
