"""Graphs of real workflows, as WfCommons publishes them: their order and duration, and what happens
if a node fails.

They are read from ``../shared`` if it exists.
"""

import json
import logging
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from flowkit import CoordinatorConfig, TaskView, WorkerConfig
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster

MOST_BYTES = 100_000
"""The largest graph of which a node fails: larger ones take long and show no more."""
MOST_NODES = 4_000
"""More than any of the graphs has."""
HOUR = 3600.0
FOLDER = Path(__file__).parents[3] / "shared" / "cases" / "wfcommons"
ALL_GRAPHS = sorted(FOLDER.glob("*.json"))
GRAPHS = [path for path in ALL_GRAPHS if path.stat().st_size <= MOST_BYTES]

Document = dict[str, Any]


def descendants(document: Document, node_id: str) -> set[str]:
    found: set[str] = set()
    while (
        more := {
            one["node_id"] for one in document["nodes"] if {node_id, *found} & {*one["depends_on"]}
        }
        - found
    ):
        found |= more
    return found


def weak_node(document: Document) -> str:
    """Return the node whose failure splits the graph most evenly.

    About as many nodes are below it as beside it, and at least two levels.
    """

    def balance(node_id: str) -> int:
        below = descendants(document, node_id)
        deep = any(descendants(document, one) for one in below)
        return min(len(below), len(document["nodes"]) - len(below)) if deep else -1

    return max((one["node_id"] for one in document["nodes"]), key=balance)


class Run:
    """A cluster that runs one graph with a node that fails until it is repaired."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.weak = weak_node(document)
        self.broken = True
        self.executed = Counter[str]()
        self.parents = {one["node_id"]: sorted(one["depends_on"]) for one in document["nodes"]}

        @handler("any")
        async def work(item: Any, ctx: RunContext) -> Any:
            self.executed[ctx.node_id] += 1
            await ctx.clock.sleep(item["sleep"] if item else 0)
            if ctx.node_id == self.weak and self.broken:
                raise ValueError("the node is broken")
            return sorted(ctx.results)

        self.handlers = dict.fromkeys({one["type"] for one in document["nodes"]}, work)

    def assert_stopped_below(self, view: TaskView) -> None:
        """Assert that no node below the failed one ran, and that all others did.

        Each had the data of all its parents.
        """
        below = descendants(self.document, self.weak)
        finished = self.parents.keys() - below - {self.weak}
        assert below
        assert not below & self.executed.keys()
        assert {
            node_id for node_id in below if view.nodes[node_id].reason_code != "upstream_failed"
        } == set()
        assert {node_id: view.nodes[node_id].result for node_id in finished} == {
            node_id: self.parents[node_id] for node_id in finished
        }


def read(path: Path) -> Document:
    document: Document = json.loads(path.read_text(encoding="utf-8"))
    return document


@pytest.fixture(autouse=True)
def failures_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


needs_graphs = pytest.mark.skipif(
    not GRAPHS, reason="there are no graphs of WfCommons beside the project"
)


def seconds_of(one: Document) -> float:
    """Return the running time of a node in the real run."""
    seconds: float = one.get("io", {}).get("input_inline", {}).get("sleep", 0.0)
    return seconds


def critical_path_sec(document: Document) -> float:
    """Return the length of the longest path through the graph, in seconds."""
    nodes = {one["node_id"]: one for one in document["nodes"]}

    @cache
    def ends_at(node_id: str) -> float:
        one = nodes[node_id]
        return max(map(ends_at, one["depends_on"]), default=0.0) + seconds_of(one)

    return max(map(ends_at, nodes))


@needs_graphs
@pytest.mark.parametrize("path", ALL_GRAPHS, ids=lambda path: path.stem)
async def test_a_graph_takes_as_long_as_its_critical_path_if_the_slots_suffice(path: Path) -> None:
    document = read(path)
    begun: dict[str, float] = {}
    ended: dict[str, float] = {}

    @handler("any")
    async def work(item: Any, ctx: RunContext) -> None:
        assert ctx.node_id not in begun, "each node runs once"
        begun[ctx.node_id] = ctx.clock.now()
        await ctx.clock.sleep(item["sleep"] if item else 0)
        ended[ctx.node_id] = ctx.clock.now()

    async with Cluster(
        handlers=dict.fromkeys({one["type"] for one in document["nodes"]}, work),
        coordinator_config=CoordinatorConfig(max_in_flight=MOST_NODES, scheduler_tick_sec=HOUR),
        worker_config=WorkerConfig(max_concurrency=MOST_NODES),
    ) as cluster:
        view = await cluster.run(document)
    assert view.status == "finished"
    assert begun.keys() == ended.keys() == view.nodes.keys()
    assert {
        one["node_id"]: parent
        for one in document["nodes"]
        for parent in one["depends_on"]
        if begun[one["node_id"]] < ended[parent]
    } == {}
    took_sec = (view.finished_at - view.created_at).total_seconds()
    assert took_sec == pytest.approx(critical_path_sec(document), abs=0.001)


@needs_graphs
@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
async def test_only_what_does_not_depend_on_a_failure_runs_and_a_retry_completes_every_input(
    path: Path,
) -> None:
    run = Run(read(path))
    async with Cluster(handlers=run.handlers) as cluster:
        view = await cluster.run(run.document | {"on_node_failure": "continue"})
        assert view.status == "failed"
        run.assert_stopped_below(view)
        run.broken = False
        await cluster.client.retry(view.id)
        view = await cluster.client.wait(view.id)
    assert view.status == "finished"
    assert {node_id: one.result for node_id, one in view.nodes.items()} == run.parents
    assert {node_id for node_id, times in run.executed.items() if times > 1} == {run.weak}


@needs_graphs
@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
async def test_a_task_that_handles_the_failure_finishes_without_its_descendants(path: Path) -> None:
    run = Run(read(path))
    for one in run.document["nodes"]:
        if one["node_id"] == run.weak:
            one["routing"] = {"on_failure": ["handler-of-the-failure"]}
    run.document["nodes"].append(
        {"node_id": "handler-of-the-failure", "type": one["type"], "depends_on": []}
    )
    async with Cluster(handlers=run.handlers) as cluster:
        view = await cluster.run(run.document)
    assert view.status == "finished"
    run.assert_stopped_below(view)
    assert view.nodes["handler-of-the-failure"].status == "finished"
