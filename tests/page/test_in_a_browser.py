"""The page in a browser, over a cluster on SQLite."""

import re
from collections.abc import Iterator
from itertools import count
from urllib.parse import quote

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from playwright.sync_api import Browser, Locator, Page, Route, expect

from flowkit import Client, Schedule, Trigger
from flowkit_web._tokens import Role, add_token, remove_token
from tests.page import shop as shops
from tests.page.browsers import faults_of, go, open_browser, open_page, press
from tests.page.shop import Shop, running, serving

TASK_TABS = ("graph", "timeline", "nodes", "events", "data", "artifacts", "logs")
VIEWS = {
    "/": "Is it well?",
    "/tasks": "Tasks",
    "/tasks?status=failed&labels=a=b": "Tasks",
    "/waiting": "Waiting",
    "/approvals": "Approvals",
    "/flows": "Flows",
    "/flows/order?version=2": "order",
    "/schedules": "Schedules",
    "/schedules/nightly": "nightly",
    "/triggers": "Triggers",
    "/triggers/deliver": "deliver",
    "/workers": "Workers",
    "/dead-letters": "Dead letters",
    **{f"/tasks/shown?tab={tab}": "shown" for tab in TASK_TABS},
    "/tasks/shown?node=charge": "shown",
}


class Site:
    """The shop, and its client in the event loop of another thread."""

    def __init__(self, portal: BlockingPortal, client: Client, shop: Shop, address: str) -> None:
        self.portal = portal
        self.client = client
        self.shop = shop
        self.address = address
        self.numbers = count(1)

    def submit(self, flow: str, task_id: str, **labels: str) -> None:
        self.portal.call(lambda: self.client.create_task(flow=flow, task_id=task_id, labels=labels))

    def wait(self, task_id: str) -> str:
        return self.portal.call(lambda: self.client.wait(task_id, timeout=60)).status


async def _prepare(client: Client) -> None:
    for name, graph in shops.FLOWS.items():
        await client.put_flow(name, graph, description=f"The {name} of the shop")
    more = {"node_id": "mail", "type": "send", "depends_on": ["send"]}
    await client.put_flow("order", {"nodes": [*shops.ORDER["nodes"], more]})
    await client.put_schedule(
        Schedule("nightly", flow="reminder", cron="0 3 * * *", timezone="Europe/Berlin")
    )
    await client.put_trigger(Trigger("deliver", source="task:order", flow="delivery"))
    await client.pause_trigger("deliver")
    await client.create_task(flow="order", task_id="shown")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    shop, folder = Shop(), tmp_path_factory.mktemp("shop")
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running(shop, folder)) as client,
        portal.wrap_async_context_manager(serving(client)) as address,
    ):
        portal.call(_prepare, client)
        yield Site(portal, client, shop, address)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with open_page(browser, site.address) as page:
        yield page


@pytest.fixture
def failed_order(site: Site) -> str:
    """A task that failed while the bank was closed. Now it is open again."""
    return fail_an_order(site)


def fail_an_order(site: Site) -> str:
    task_id = f"order-{next(site.numbers)}"
    site.shop.bank_is_open = False
    site.submit("order", task_id, customer="mia")
    assert site.wait(task_id) == "failed"
    site.shop.bank_is_open = True
    return task_id


def status_of_task(page: Page) -> Locator:
    """Return the status in the heading of a task's view."""
    return page.locator("main .badge").first


def test_failed_tasks_are_found_from_the_start_page_and_retried_together(
    page: Page, site: Site, failed_order: str
) -> None:
    go(page, "/", "Is it well?")
    press(page, page.get_by_role("link", name=re.compile("tasks? of the last hour failed")))
    row = page.get_by_role("row").filter(has_text=failed_order)
    expect(row).to_contain_text("bank_closed: the bank is closed")
    assert "status=failed" in page.url
    press(page, page.get_by_role("button", name="Retry all that match"))
    press(page, page.get_by_role("button", name="Retry them"))
    expect(page.get_by_role("heading", name=re.compile("tasks changed"))).to_be_visible()
    press(page, page.get_by_role("button", name="Close"))
    expect(page.get_by_text("No task matches the filter.")).to_be_visible()
    assert site.wait(failed_order) == "finished"


def test_a_failed_task_is_found_explained_and_retried_from_its_node_by_keyboard(
    page: Page, site: Site, failed_order: str
) -> None:
    go(page, "/tasks?status=failed", "Tasks")
    press(page, page.get_by_role("link", name=failed_order))
    expect(
        page.get_by_text("node 'charge' failed: bank_closed: the bank is closed")
    ).to_be_visible()
    press(page, page.get_by_role("status").get_by_role("button", name="charge"))
    press(page, page.get_by_role("button", name="Retry from here"))
    press(page, page.get_by_role("dialog").get_by_role("button", name="Retry"))
    expect(status_of_task(page)).to_contain_text("finished")
    assert site.wait(failed_order) == "finished"
    press(page, page.get_by_role("tab", selected=True), "ArrowLeft")  # from the first to the last
    expect(page.get_by_role("tab", name="Logs")).to_be_focused()
    expect(page.get_by_text("charged the card")).to_be_visible()


def test_a_task_is_shown_live_signalled_and_cancelled(page: Page, site: Site) -> None:
    site.submit("delivery", "parcel-3")
    go(page, "/tasks/parcel-3?node=picked_up", "parcel-3")
    expect(status_of_task(page)).to_contain_text("deferred")
    site.portal.call(lambda: site.client.signal("parcel-3", "truck"))
    expect(status_of_task(page)).to_contain_text("finished")
    site.submit("delivery", "parcel-4")
    go(page, "/tasks/parcel-4", "parcel-4")
    press(page, page.get_by_role("button", name="Cancel", exact=True))
    press(page, page.get_by_role("dialog").get_by_role("button", name="Cancel the task"))
    expect(status_of_task(page)).to_contain_text("cancelled")
    assert site.wait("parcel-4") == "cancelled"


def test_a_node_with_shards_keeps_its_start_and_a_shard_is_not_settled_alone(
    page: Page, site: Site
) -> None:
    site.shop.takes_sec = {"label": 0.8, "label end": 0.8}
    site.submit("labels", "labels-1")
    settle = page.get_by_role("button", name="Settle…")
    go(page, "/tasks/labels-1?tab=nodes&node=labels", "labels-1")
    expect(settle).to_be_visible()
    page.get_by_role("button", name="List them").click()
    page.get_by_role("button", name="labels[0]").click()
    shard = page.get_by_role("complementary", name="Node labels[0]")
    expect(shard.get_by_text("Its logs")).to_be_visible()
    expect(shard).to_contain_text("running")
    expect(settle).to_have_count(0)
    page.get_by_role("button", name="Close the node").click()
    page.get_by_role("button", name="← All nodes").click()
    took = page.get_by_role("row").filter(has_text="labels").get_by_role("cell").nth(5)
    expect(status_of_task(page)).to_contain_text("finished")
    live = took.inner_text()
    page.reload()
    expect(took).to_have_text(live)
    assert float(live.removesuffix(" s")) > 2
    site.shop.takes_sec = {}


def test_a_task_with_large_integers_runs_again_with_the_params_that_were_edited(
    page: Page, site: Site
) -> None:
    properties = {
        "order": {"type": "integer"},
        "rate": {"type": "number"},
        "size": {"enum": ["S", "M"]},
    }
    schema = {"type": "object", "properties": properties, "required": ["size"]}
    graph = {**shops.REMINDER, "params": schema}
    params = {"order": 2**53 + 1, "rate": 1.0, "size": "S", "total": 2**100}
    site.portal.call(lambda: site.client.create_task(graph=graph, params=params, task_id="large"))
    go(page, "/tasks/large?tab=data", "large")
    expect(page.get_by_text(f'"total": {2**100}')).to_be_visible()
    page.get_by_role("button", name="Run again…").click()
    field = page.get_by_label("order")
    expect(field).to_have_value(str(2**53 + 1))
    field.fill(str(2**64 + 1))
    size = page.get_by_label("size")
    size.select_option("—")
    assert not size.evaluate("(element) => element.checkValidity()")
    size.select_option("M")
    page.get_by_role("dialog").get_by_role("button", name="Submit").click()
    expect(page).not_to_have_url(re.compile("large"))
    again = site.portal.call(site.client.get_task, page.url.rsplit("/", 1)[-1])
    assert again.params == {**params, "order": 2**64 + 1, "size": "M"}
    assert isinstance(again.params["rate"], float)


def test_an_optional_object_of_a_form_binds_only_if_a_field_of_it_is_filled(
    page: Page, site: Site
) -> None:
    gift = {
        "type": "object",
        "properties": {"to": {"type": "string"}, "card": {"type": "string"}},
        "required": ["to"],
    }
    schema = {"type": "object", "properties": {"gift": gift}}
    site.portal.call(
        lambda: site.client.create_task(
            graph={**shops.REMINDER, "params": schema}, task_id="without-gift"
        )
    )
    go(page, "/tasks/without-gift", "without-gift")
    page.get_by_role("button", name="Run again…").click()
    group = page.get_by_role("group", name="gift (optional)")
    card, to = group.get_by_label("card"), group.get_by_label("to", exact=True)
    card.fill("With love")
    expect(to).to_have_attribute("required", "")
    card.fill("")
    expect(to).not_to_have_attribute("required", "")
    page.get_by_role("dialog").get_by_role("button", name="Submit").click()
    expect(page).not_to_have_url(re.compile("without-gift"))
    again = site.portal.call(site.client.get_task, page.url.rsplit("/", 1)[-1])
    assert again.params == {}


def test_a_filter_is_in_the_address_and_survives_a_reload(page: Page, site: Site) -> None:
    site.submit("delivery", "parcel-1", customer="ann")
    site.submit("delivery", "parcel-2", customer="bob, jr.=x")
    go(page, "/tasks", "Tasks")
    press(page, page.get_by_role("button", name="More filters"))
    field = page.get_by_label("Label")
    press(page, field, "End")
    page.keyboard.type("customer=bob, jr.=x")
    page.keyboard.press("Enter")
    expect(page.get_by_role("row").filter(has_text="parcel-2")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="parcel-1")).to_have_count(0)
    page.reload()
    expect(page.get_by_role("button", name="customer=bob, jr.=x")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="parcel-2")).to_be_visible()
    press(page, page.get_by_role("button", name="Cancel all that match"))
    press(page, page.get_by_role("dialog").get_by_label("Reason"), "End")
    page.keyboard.type("out of stock")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="1 of 1 tasks changed")).to_be_visible()
    assert site.wait("parcel-2") == "cancelled"
    expect(page.get_by_role("row").filter(has_text="parcel-2")).to_contain_text("out of stock")


def test_a_decision_is_made_with_a_form_by_keyboard(page: Page, site: Site) -> None:
    site.submit("release", "release-7")
    go(page, "/approvals", "Approvals")
    prompt = page.get_by_role("heading", name="Release version 2.4")
    expect(prompt).to_have_css("white-space", "pre-line")
    press(page, page.get_by_role("button", name="release", exact=True))
    press(page, page.get_by_label(re.compile("Share of shops")), "End")
    page.keyboard.type("25")
    press(page, page.get_by_role("dialog").get_by_role("button", name="release"))
    expect(page.get_by_text("Decided: release")).to_be_visible()
    assert site.wait("release-7") == "finished"
    view = site.portal.call(site.client.get_task, "release-7")
    assert view.nodes["sign_off"].result["values"] == {"share": 25}
    assert view.nodes["sign_off"].result["by"] == "local"
    expect(page.get_by_text("Nothing waits for a decision.")).to_be_visible()


def test_a_refused_decision_shows_the_reason_in_the_dialog(page: Page, site: Site) -> None:
    site.submit("release", "release-8")
    waiting = {"status": "deferred", "waiting": "approval"}  # the page reads nothing newer
    page.route("**/nodes/sign_off", lambda route: route.fulfill(json=waiting))
    go(page, "/approvals", "Approvals")
    page.get_by_role("button", name="reject", exact=True).click()
    expect(page.get_by_label(re.compile("Share of shops"))).to_have_count(0)
    site.portal.call(lambda: site.client.cancel("release-8"))
    assert site.wait("release-8") == "cancelled"
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="reject").click()
    expect(dialog.get_by_role("alert")).to_contain_text("release-8")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_a_decision_that_is_filled_in_says_who_was_faster_and_keeps_what_was_entered(
    page: Page, site: Site
) -> None:
    page.clock.install()
    for number, place in ((11, "/approvals"), (12, "/tasks/release-12?node=sign_off")):
        task_id = f"release-{number}"
        site.submit("release", task_id)
        page.goto(place)
        page.get_by_role("button", name="release", exact=True).click()
        dialog = page.get_by_role("dialog", name="Decide: release")
        share = dialog.get_by_label(re.compile("Share of shops"))
        share.fill("25")
        site.portal.call(
            lambda one: site.client.decide(one, "sign_off", "reject", by="ann"), task_id
        )
        assert site.wait(task_id) == "failed"
        page.clock.run_for(10_000)
        expect(dialog.get_by_role("alert")).to_contain_text("Already decided by ann: reject.")
        expect(share).to_have_value("25")
        expect(dialog.get_by_role("button", name="release")).to_be_disabled()


def test_what_is_closed_gives_the_focus_back(page: Page, site: Site) -> None:
    go(page, "/tasks/shown", "shown")
    again = page.get_by_role("button", name="Run again…")
    for close in ("Escape", "Back"):
        again.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        if close == "Escape":
            page.keyboard.press(close)
        else:
            press(page, page.get_by_role("button", name=close))
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(again).to_be_focused()
    box = page.get_by_role("button", name=re.compile("^charge"))
    panel = page.get_by_role("complementary", name="Node charge")
    for start in ("box", "panel"):
        box.press("Enter")
        expect(panel).to_contain_text("Its logs")
        if start == "panel":
            panel.get_by_role("button", name="Its logs").focus()
        page.keyboard.press("Escape")
        expect(panel).to_have_count(0)
        expect(box).to_be_focused()
    tab = page.get_by_role("tab", selected=True)
    tab.press("End")
    expect(page.get_by_role("tab", name="Logs")).to_be_focused()
    tab.press("Home")
    expect(page.get_by_role("tab", name="Graph")).to_be_focused()


def test_a_fault_of_a_field_replaces_the_refusal_of_the_server(page: Page, site: Site) -> None:
    schema = {"properties": {"count": {"type": "integer"}}, "required": ["count"]}
    graph = {**shops.REMINDER, "params": schema}
    site.portal.call(
        lambda: site.client.create_task(graph=graph, params={"count": 1}, task_id="counted")
    )
    go(page, "/tasks/counted", "counted")
    page.get_by_role("button", name="Run again…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Edit as JSON").click()
    dialog.get_by_label("Values").fill('{"count": "x"}')
    dialog.get_by_role("button", name="Submit").click()
    expect(dialog.get_by_role("alert")).to_contain_text("count")
    dialog.get_by_label("Values").fill('{"count": ')
    expect(dialog.get_by_text("This is not JSON")).to_be_visible()
    expect(dialog.get_by_role("alert")).to_have_count(0)


def test_a_schedule_shows_its_next_times_and_makes_a_task_now(page: Page, site: Site) -> None:
    go(page, "/schedules", "Schedules")
    press(page, page.get_by_role("link", name="nightly"))
    times = page.get_by_role("row").get_by_text(re.compile("03:00:00"))
    expect(times).to_have_count(10)
    press(page, page.get_by_role("button", name="Times: local"))
    expect(page.get_by_role("row").get_by_text(re.compile("0[12]:00:00"))).to_have_count(10)
    press(page, page.get_by_role("button", name="Trigger now"))
    press(page, page.get_by_role("button", name="Make it"))
    history = page.locator("section").filter(has_text="History")
    expect(history.get_by_role("link")).to_have_count(1)
    (made,) = site.portal.call(lambda: site.client.list_tasks(pipeline="reminder")).items
    assert made.schedule == "nightly"


def test_a_trigger_is_opened_from_the_list(page: Page) -> None:
    go(page, "/triggers", "Triggers")
    page.get_by_role("link", name="deliver", exact=True).click()
    expect(page.get_by_role("heading", name="deliver", level=1)).to_be_visible()
    expect(page.get_by_role("heading", name="paused")).to_be_visible()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    expect(page.locator("dd").filter(has_text="task:order")).to_be_visible()
    waiting = page.locator("dt").filter(has_text="Events that wait").locator("+ dd")
    expect(waiting).to_have_text(re.compile("[1-9]"))


def test_dead_letters_are_chosen_and_dropped(page: Page, site: Site, failed_order: str) -> None:
    go(page, "/dead-letters", "Dead letters")
    row = page.get_by_role("row").filter(has_text=failed_order)
    expect(row).to_contain_text("bank_closed")
    press(page, row.get_by_role("checkbox"), "Space")
    press(page, page.get_by_role("button", name="Drop 1"))
    press(page, page.get_by_role("button", name="Drop them"))
    expect(row).to_have_count(0)


def test_dead_letters_are_found_from_the_start_page(
    page: Page, site: Site, failed_order: str
) -> None:
    go(page, "/", "Is it well?")
    press(page, page.get_by_role("link", name=re.compile("^[0-9]+ dead letters?$")))
    expect(page.get_by_role("row").filter(has_text=failed_order)).to_be_visible()


def test_a_box_of_many_nodes_lists_them_and_a_map_says_how_many_children_failed(
    page: Page, site: Site
) -> None:
    nodes = [{"node_id": f"n{number}", "type": "robot"} for number in range(100)]
    items = {"over": [1, 2], "on_item_failure": "continue"}
    charges = {"node_id": "charges", "type": "charge", "map": items}
    site.shop.bank_is_open = False
    site.portal.call(
        lambda: site.client.create_task(graph={"nodes": [charges, *nodes]}, task_id="wide")
    )
    go(page, "/tasks/wide", "wide")
    page.get_by_role("button", name=re.compile("100 × robot")).click()
    group = page.get_by_role("complementary", name="Group of nodes")
    expect(group.get_by_role("heading", name="100 nodes")).to_be_visible()
    expect(group.get_by_role("button", name="n0", exact=True)).to_be_visible()
    page.get_by_role("tab", name="Nodes").click()
    row = page.get_by_role("row").filter(has_text="charges")
    expect(row).to_contain_text("finished")
    expect(row).to_contain_text("2 failed")
    site.shop.bank_is_open = True
    page.goto("/nosuchpage")
    expect(page.get_by_text("There is no page at this address.")).to_be_visible()


def test_a_long_error_leaves_room_for_the_view_of_its_task(page: Page, site: Site) -> None:
    error = "it failed " * 300

    def fail_it(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "status": "failed", "error": error})

    page.route(re.compile(r"/tasks/shown\?"), fail_it)
    go(page, "/tasks/shown", "shown")
    expect(page.get_by_text(error.strip())).to_be_visible()
    tabs = page.get_by_role("tablist").bounding_box()
    assert tabs is not None
    assert tabs["y"] < 400


def test_a_low_window_scrolls_the_panel_of_a_node_and_cuts_no_part_of_it(
    page: Page, site: Site
) -> None:
    assert site.wait("shown") == "finished"
    page.set_viewport_size({"width": 1280, "height": 400})
    go(page, "/tasks/shown?node=charge", "shown")
    expect(page.get_by_text("History", exact=True)).to_be_visible()
    for part in (page.locator(".explanation"), page.locator(".panel pre.json").first):
        assert part.evaluate("(element) => element.scrollHeight <= element.clientHeight")


def test_dead_letters_that_are_refused_stay_chosen_with_their_reasons(
    page: Page, site: Site, failed_order: str
) -> None:
    def refuse_one(route: Route) -> None:
        (refused,) = site.portal.call(lambda: site.client.dead_letters(task_id=failed_order)).items
        items = [
            {"letter_id": one, "retried": one != refused.letter_id, "detail": "its data is lost"}
            for one in route.request.post_data_json["letter_ids"]
        ]
        route.fulfill(json={"items": items, "next": None})

    page.route("**/dead-letters/retry", refuse_one)
    tasks = [failed_order, fail_an_order(site)]
    go(page, "/dead-letters", "Dead letters")
    boxes = [
        page.get_by_role("row").filter(has_text=task).get_by_role("checkbox") for task in tasks
    ]
    for box in boxes:
        press(page, box, "Space")
    press(page, page.get_by_role("button", name="Retry 2"))
    press(page, page.get_by_role("button", name="Retry them"))
    expect(page.get_by_role("dialog", name="1 of 2 retried")).to_contain_text("its data is lost")
    press(page, page.get_by_role("dialog").get_by_role("button", name="Close"))
    expect(page.get_by_role("button", name="Drop 1")).to_be_enabled()
    expect(boxes[0]).to_be_checked()
    expect(boxes[1]).not_to_be_checked()
    go(page, "/dead-letters?kind=bogus", "Dead letters")
    expect(page.get_by_role("alert")).to_contain_text('kind is "bogus"')


def test_a_filter_that_is_not_known_shows_no_tasks_and_changes_none(
    page: Page, site: Site, failed_order: str
) -> None:
    go(page, "/tasks?status=failed&flow=delivery", "Tasks")
    expect(page.get_by_role("alert")).to_contain_text("flow is not a filter here")
    expect(page.get_by_role("button", name="Retry all that match")).to_have_count(0)
    expect(page.get_by_role("row")).to_have_count(0)
    press(page, page.get_by_role("link", name="Remove all filters"))
    expect(page.get_by_role("row").filter(has_text=failed_order)).to_be_visible()
    go(page, "/waiting?for=bogus", "Waiting")
    expect(page.get_by_role("alert")).to_contain_text('for is "bogus"')
    expect(page.get_by_role("button", pressed=True)).to_have_count(0)


def test_a_server_with_tokens_asks_for_one_and_keeps_it_out_of_addresses(
    page: Page, site: Site
) -> None:
    records, clock = site.client.store.records, site.client.clock
    secret = site.portal.call(add_token, records, "ann", Role.VIEWER, clock)
    try:
        page.goto("/tasks")
        dialog = page.get_by_role("dialog", name="This server needs a token")
        expect(dialog).to_be_visible()
        page.keyboard.press("Escape")
        dialog.get_by_label("Token").fill("fk_wrong")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("does not accept the token")
        dialog.get_by_label("Token").fill(secret)
        page.keyboard.press("Enter")
        expect(page.get_by_text("ann viewer")).to_be_visible()
        expect(dialog).to_have_count(0)
        page.reload()
        expect(page.get_by_text("ann viewer")).to_be_visible()
        assert secret not in page.url
        assert page.evaluate("() => localStorage.length") == 0
        page.goto("/schedules/nightly")
        expect(page.get_by_role("heading", name="Next times")).to_be_visible()
        expect(page.get_by_role("button", name="Trigger now")).to_have_count(0)
        page.get_by_role("button", name="Sign out").click()
        expect(dialog).to_be_visible()
    finally:
        site.portal.call(remove_token, records, "ann")


@pytest.mark.parametrize(("theme", "rules"), [("light", ()), ("dark", ("color-contrast",))])
def test_no_view_has_a_serious_fault_for_screen_readers(
    browser: Browser, site: Site, failed_order: str, theme: str, rules: tuple[str, ...]
) -> None:
    site.submit("release", f"release-{theme}")
    with open_page(browser, site.address, theme=theme) as page:
        for place, heading in VIEWS.items():
            go(page, place, heading)
            expect(page.get_by_text("Loading…")).to_have_count(0)
            assert faults_of(page, *rules) == [], place
        page.get_by_role("link", name="Approvals").click()
        page.get_by_role("button", name="release", exact=True).first.click()
        assert faults_of(page, *rules) == []


def test_a_narrow_screen_scrolls_in_no_view_to_the_side(browser: Browser, site: Site) -> None:
    with open_page(browser, site.address, width=360) as page:
        for place, heading in VIEWS.items():
            go(page, place, heading)
            expect(page.get_by_text("Loading…")).to_have_count(0)
            assert is_as_wide_as_screen(page), place
            expect(page.locator("nav [aria-current]")).to_be_in_viewport()
        assert page.locator(".side").evaluate("(element) => element.clientHeight") < 64
        go(page, "/tasks/shown?tab=logs", "shown")
        text = page.locator(".log-text").first.bounding_box()
        assert text is not None
        assert text["width"] > 250


def test_a_wide_screen_shows_all_columns_of_each_list(page: Page) -> None:
    for place in ("/tasks", "/schedules", "/triggers", "/workers"):
        go(page, place, VIEWS[place])
        expect(page.get_by_role("cell").first).to_be_visible()
        lists = page.locator(".scrolled")
        cut = lists.evaluate_all("(all) => all.filter((one) => one.scrollWidth > one.clientWidth)")
        assert cut == [], place


def test_a_dialog_shows_its_buttons_on_a_small_screen(browser: Browser, site: Site) -> None:
    properties = {f"question {number}": {"type": "string"} for number in range(9)}
    approval = {
        "prompt": "Go?",
        "choices": ["yes-" + "x" * 60],
        "form": {"properties": {"": {"type": "string"}, "pick": {"enum": [1, "1"]}, **properties}},
    }
    flow = {"nodes": [{"node_id": "ask", "type": "approval", "io": approval}]}
    site.portal.call(lambda: site.client.create_task(graph=flow, task_id="asks"))
    with open_page(browser, site.address, width=360) as page:
        page.set_viewport_size({"width": 360, "height": 640})
        go(page, "/triggers", "Triggers")
        page.get_by_role("button", name="Resume").click()
        assert is_within_screen(page.get_by_role("dialog"), page)
        go(page, "/tasks/asks?node=ask", "asks")
        page.get_by_role("button", name="yes-").click()
        dialog = page.get_by_role("dialog")
        for name in ("Back", "yes-"):
            expect(dialog.get_by_role("button", name=name)).to_be_in_viewport(ratio=1)
        assert is_within_screen(dialog, page)
        dialog.get_by_label('property ""').fill("named")
        dialog.get_by_label("pick").select_option(label='"1"')
        dialog.get_by_label("question 8").fill("the last")
        dialog.get_by_role("button", name="yes-").click()
        assert site.wait("asks") == "finished"
    view = site.portal.call(site.client.get_task, "asks")
    assert view.result["ask"]["values"] == {"": "named", "pick": "1", "question 8": "the last"}


def test_names_of_users_are_shown_with_escapes_and_without_widening_the_page(
    page: Page, site: Site
) -> None:
    odd = "a\u202eb"
    shown = "a\\u202eb"
    ask = {"prompt": f"{odd}\x9b", "choices": [odd, "no"], "assignees": [odd, "local"]}
    choice = {"title": odd, "description": odd, "enum": [odd]}
    form = {"title": odd, "type": "object", "properties": {odd: choice}}
    nodes = [
        {"node_id": odd, "type": "approval", "io": {**ask, "form": form}},
        {"node_id": f"{odd}-role", "type": odd},
        {"node_id": f"{odd}-signal", "type": "wait_signal", "io": {"signal": odd}},
    ]
    long_word = "word" * 200
    site.portal.call(lambda: site.client.put_flow("odd", {"nodes": nodes}, description=long_word))
    site.submit("odd", "odd-1", kind=odd)
    node = quote(odd)
    places = {
        "/": "Is it well?",
        "/approvals": "Approvals",
        f"/tasks?labels=kind={long_word}": "Tasks",
        "/flows/odd": "odd",
        f"/flows/{node}": shown,
        f"/tasks/odd-1?tab=graph&node={node}": "odd-1",
    }
    for place, heading in places.items():
        go(page, place, heading)
        expect(page.get_by_text("Loading…")).to_have_count(0)
        assert raw_texts(page) == [], place
        assert is_as_wide_as_screen(page), place
    for tab in TASK_TABS:
        page.get_by_role("tab", name=tab.title()).click()
        expect(page.get_by_role("tabpanel")).to_contain_text(shown)
        assert raw_texts(page) == [], tab
    go(page, "/approvals", "Approvals")
    page.get_by_role("button", name=shown).click()
    dialog = page.get_by_role("dialog", name=f"Decide: {shown}")
    dialog.get_by_label(shown).select_option(label=shown)
    assert raw_texts(page) == []
    dialog.get_by_role("button", name=shown).click()
    expect(page.get_by_text(f"Decided: {shown}")).to_be_visible()
    view = site.portal.call(site.client.get_task, "odd-1")
    assert view.nodes[odd].result["choice"] == odd
    assert view.nodes[odd].result["values"] == {odd: odd}
    site.portal.call(lambda: site.client.cancel("odd-1"))


def raw_texts(page: Page) -> list[str]:
    """Return the texts, titles and names of a page with characters that change other text."""
    found: list[str] = page.evaluate(
        r"""() => {
            const raw = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]/
            const texts = [document.title]
            for (const one of document.querySelectorAll('*')) {
                for (const part of one.childNodes) if (part.nodeType === 3) texts.push(part.data)
                for (const name of ['title', 'aria-label']) texts.push(one.getAttribute(name) ?? '')
            }
            return texts.filter((text) => raw.test(text))
        }"""
    )
    return found


def is_as_wide_as_screen(page: Page) -> bool:
    """Return whether the page needs no scrolling to the side."""
    return not page.evaluate(
        "() => [document.documentElement, document.querySelector('main')]"
        ".some((one) => one.scrollWidth > one.clientWidth)"
    )


def is_within_screen(dialog: Locator, page: Page) -> bool:
    """Return whether a dialog and all that it shows is as wide as the screen at most."""
    expect(dialog).to_be_visible()
    return bool(
        dialog.evaluate(
            "(one) => one.scrollWidth <= one.clientWidth"
            " && one.getBoundingClientRect().right <= innerWidth"
        )
    )
