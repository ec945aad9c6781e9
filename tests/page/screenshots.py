"""Take the screenshots of the documentation: ``python -m tests.page.screenshots``.

They are of the shop of the tests, in light and dark.
"""

import tempfile
from pathlib import Path

from anyio.from_thread import start_blocking_portal
from playwright.sync_api import Page, expect

from flowkit import Client, Schedule, TaskStatus, Trigger
from tests.page import shop as shops
from tests.page.browsers import go, open_browser, open_page
from tests.page.built import built_page
from tests.page.shop import Shop, running, serving

FOLDER = Path(__file__).parents[2] / "docs" / "images"
VIEWS = {
    "start": ("/", "Is it well?"),
    "tasks": ("/tasks", "Tasks"),
    "graph": ("/tasks/order-2291?node=charge", "order-2291"),
    "timeline": ("/tasks/order-2290?tab=timeline", "order-2290"),
    "waiting": ("/waiting?for=signal", "Waiting"),
    "approvals": ("/approvals", "Approvals"),
    "flow": ("/flows/order?version=2", "order"),
    "schedule": ("/schedules/nightly", "nightly"),
}
RETRIES = {"max": 1, "backoff_sec": 0.6}
SECONDS = {"read": 0.4, "reserve": 1.1, "charge": 0.5, "send": 0.7}
"""Times of the task whose timeline is shown."""
CUSTOMERS = ("ann", "bob", "mia", "tom")


async def prepare(client: Client, shop: Shop) -> None:
    """Fill the shop with tasks in all statuses."""
    for name, graph in shops.FLOWS.items():
        await client.put_flow(name, graph, description=f"The {name} of the shop")
    mail = {"node_id": "mail", "type": "send", "depends_on": ["send"]}
    nodes = [{**one, "retry_policy": RETRIES} for one in shops.ORDER["nodes"]]
    await client.put_flow("order", {"nodes": [*nodes, mail]})
    await client.put_schedule(
        Schedule("nightly", flow="reminder", cron="0 3 * * *", timezone="Europe/Berlin")
    )
    await client.put_schedule(Schedule("hourly", flow="delivery", every_sec=3_600))
    await client.trigger_schedule("hourly")
    await client.put_trigger(Trigger("deliver", source="task:release", flow="delivery"))
    for number in range(2_270, 2_290):
        await submit(client, "order", f"order-{number}", customer=CUSTOMERS[number % 4])
    for number in range(2_270, 2_290):
        await client.wait(f"order-{number}")
    shop.takes_sec, shop.refusals = SECONDS, 1
    await submit(client, "order", "order-2290", customer="mia")
    await client.wait("order-2290")
    shop.takes_sec = {}
    for number, flow in enumerate(("release", "delivery", "delivery", "reminder")):
        await submit(client, flow, f"{flow}-{number}")
    shop.bank_is_open = False
    await submit(client, "order", "order-2291", customer="mia")
    assert (await client.wait("order-2291")).status == TaskStatus.FAILED


async def submit(client: Client, flow: str, task_id: str, **labels: str) -> None:
    await client.create_task(flow=flow, task_id=task_id, labels=labels)


def shoot(page: Page, theme: str) -> None:
    for name, (place, heading) in VIEWS.items():
        go(page, place, heading)
        expect(page.get_by_text("Loading…")).to_have_count(0)
        page.wait_for_load_state("networkidle")  # such as the history of a node
        page.evaluate("() => document.fonts.ready")
        page.screenshot(path=FOLDER / f"page-{name}-{theme}.png", animations="disabled")


def main() -> None:
    built_page()
    FOLDER.mkdir(exist_ok=True)
    shop = Shop()
    with (
        tempfile.TemporaryDirectory() as folder,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running(shop, Path(folder))) as client,
        portal.wrap_async_context_manager(serving(client)) as address,
        open_browser() as browser,
    ):
        portal.call(prepare, client, shop)
        for theme in ("light", "dark"):
            with open_page(browser, address, theme=theme) as page:
                shoot(page, theme)


if __name__ == "__main__":
    main()
