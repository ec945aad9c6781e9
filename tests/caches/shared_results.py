"""Tasks that share one result, on any store and bus."""

from typing import Any

from flowkit import Client, Coordinator
from flowkit.worker import handler

WITHIN_SEC = 120
TASKS = 20
FLOW = {
    "nodes": [
        {
            "node_id": "fetch",
            "type": "fetch",
            "io": {"input_inline": {"url": "${params.url}"}},
            "cache": {"key": "${params.url}", "ttl_sec": 3_600},
        }
    ]
}


class Fetcher:
    """Handler that counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    @property
    def handlers(self) -> list[Any]:
        async def run(item: Any) -> str:
            self.runs += 1
            return f"{item['url']}#{self.runs}"

        return [handler("fetch")(run)]


async def one_result_is_shared(
    one: Coordinator, other: Coordinator | Client, fetcher: Fetcher
) -> None:
    """Check that tasks that two processes submit share one result until it is deleted."""
    for number in (1, 2):
        ids = [
            await verbs.create_task(graph=FLOW, params={"url": "a"})
            for verbs in (one, other) * (TASKS // 2)
        ]
        views = [await one.wait(task_id, timeout=WITHIN_SEC) for task_id in ids]
        assert {view.nodes["fetch"].result for view in views} == {f"a#{number}"}
        assert sum(view.nodes["fetch"].cached for view in views) == TASKS - 1
        assert await other.delete_cached("fetch", key="a") == 1
    assert fetcher.runs == 2
