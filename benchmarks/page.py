"""The page in a browser, over a task of 10,000 nodes and a list of 100,000 tasks.

    python -m benchmarks.page                    makes both in an SQLite file; needs Chromium
    python -m benchmarks.page --tasks 10000      a shorter list

It prints one JSON object a line. ``first_content`` is the time from the call of an address to the
first paint of its content, and ``whole`` that to the last part of the view. ``longest`` is the time
from the input of a user to the paint that follows it, as the browser measures it. Times are in
milliseconds, and medians of ``--rounds``. The server, the cluster and the browser share the
machine.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal
from playwright.sync_api import Browser, Page, expect

from benchmarks.embedded import ROLE, noop, say
from flowkit import Client, Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.worker import Worker
from tests.page.browsers import open_browser, open_page
from tests.page.shop import serving

LAYERS, WIDTH = 100, 100
AT_ONCE = 500
OBSERVED = """
window.inputs = []
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) if (one.interactionId) window.inputs.push(one.duration)
}).observe({ type: 'event', durationThreshold: 16, buffered: true })
"""


def layers() -> dict[str, Any]:
    """Return a graph of 10,000 nodes: each has two parents in the layer above."""
    nodes = [
        {
            "node_id": f"n{layer}-{place}",
            "type": ROLE,
            "depends_on": [
                f"n{layer - 1}-{parent}" for parent in (place, (place + 1) % WIDTH) if layer
            ],
        }
        for layer in range(LAYERS)
        for place in range(WIDTH)
    ]
    return {"nodes": nodes, "max_parallel": 64}


@dataclass(frozen=True)
class Site:
    """Address of the page, and its cluster in the event loop of another thread."""

    portal: BlockingPortal
    client: Client
    address: str


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    db = f"sqlite:///{(folder / 'page.db').as_posix()}"
    worker = WorkerConfig(db=db, max_concurrency=64)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(
            Coordinator(cfg=CoordinatorConfig(db=db, worker_types=[ROLE]))
        ),
        portal.wrap_async_context_manager(Worker(cfg=worker, handlers=[noop])),
        portal.wrap_async_context_manager(Client(db=db)) as client,
        portal.wrap_async_context_manager(serving(client)) as address,
    ):
        yield Site(portal, client, address)


async def fill(client: Client, tasks: int) -> None:
    """Make the tasks: one of them large, and the others with one node that sleeps."""
    await client.create_task(graph=layers(), task_id="large")
    await client.wait("large")
    graph = {"nodes": [{"node_id": "sleep", "type": "sleep", "io": {"for_sec": 86_400}}]}
    for first in range(0, tasks, AT_ONCE):
        async with anyio.create_task_group() as group:
            for number in range(first, min(first + AT_ONCE, tasks)):
                labels = {"customer": str(number % 1_000)}
                group.start_soon(partial(client.create_task, graph=graph, labels=labels))


# ---------------------------------------------------------------- views


def open_graph(page: Page) -> None:
    page.goto("/tasks/large")
    expect(page.locator(".graph .box").first).to_be_visible()


def open_timeline(page: Page) -> None:
    page.goto("/tasks/large?tab=timeline")
    expect(page.locator("main canvas, main .timeline").first).to_be_visible()


def open_nodes(page: Page) -> None:
    page.goto("/tasks/large?tab=nodes")
    expect(page.get_by_role("row").nth(5)).to_be_visible()


def open_tasks(page: Page) -> None:
    page.goto("/tasks")
    expect(page.get_by_role("row").nth(5)).to_be_visible()


def open_start(page: Page) -> None:
    page.goto("/")
    expect(page.locator(".card").first).to_be_visible()


def use_task(page: Page) -> None:
    """Select nodes, change the view, and search among the nodes."""
    page.locator(".graph .box").first.click()
    page.get_by_role("button", name="Critical path").click()
    page.get_by_role("button", name="Zoom in").click()
    for tab in ("Timeline", "Events", "Nodes"):
        page.get_by_role("tab", name=tab).click()
    page.get_by_label("Text").press_sequentially("n99-9")
    page.get_by_label("Order").select_option("name")
    page.get_by_role("button", name="n99-9", exact=True).click()


def use_tasks(page: Page) -> None:
    """Scroll, choose filters, and open a task."""
    for _ in range(10):
        page.mouse.wheel(0, 3_000)
    page.get_by_role("button", name="More filters").click()
    page.get_by_label("Label").press_sequentially("customer=7")
    page.keyboard.press("Enter")
    expect(page.get_by_role("row").filter(has_text="customer=7").first).to_be_visible()
    page.get_by_role("row").nth(1).get_by_role("link").first.click()
    expect(page.get_by_role("tab", name="Logs")).to_be_visible()


VIEWS: Mapping[str, Callable[[Page], None]] = {
    "10,000 nodes: graph": open_graph,
    "10,000 nodes: timeline": open_timeline,
    "10,000 nodes: nodes": open_nodes,
    "all tasks: list": open_tasks,
    "all tasks: start": open_start,
}


def measure_openings(browser: Browser, address: str, rounds: int) -> None:
    for name, open_view in VIEWS.items():
        first, whole = [], []
        for _ in range(rounds):
            with open_page(browser, address) as page:
                open_view(page)
                first.append(page.evaluate(FIRST_CONTENT))
                whole.append(page.evaluate("() => performance.now()"))
        say(name, first_content=statistics.median(first), whole=statistics.median(whole))


FIRST_CONTENT = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
USES = {
    "10,000 nodes: use": (open_graph, use_task),
    "all tasks: use": (open_tasks, use_tasks),
}


def measure_uses(browser: Browser, address: str, rounds: int) -> None:
    for name, (open_view, use) in USES.items():
        longest = []
        for _ in range(rounds):
            with open_page(browser, address) as page:
                page.add_init_script(OBSERVED)
                open_view(page)
                use(page)
                page.wait_for_timeout(200)  # the browser tells about inputs after their paint
                longest.append(max(page.evaluate("() => window.inputs"), default=0))
        say(name, longest=statistics.median(longest))


def main(tasks: int, rounds: int) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="flowkit-page-") as folder,
        site(Path(folder)) as place,
        open_browser() as browser,
    ):
        place.portal.call(fill, place.client, tasks)
        measure_openings(browser, place.address, rounds)
        measure_uses(browser, place.address, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.tasks, arguments.rounds)
