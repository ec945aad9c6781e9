"""Tasks with nodes that wait, on a cluster in virtual time."""

from typing import Any

import pytest

from flowkit.graph import Graph
from flowkit.worker import handler
from flowkit_testing import Cluster
from tests.builders import DAY, graph, node


def sleep(node_id: str, *after: str, **io: Any) -> dict[str, Any]:
    return node(node_id, "sleep", *after, io=io)


@handler("work")
async def work(item: Any) -> Any:
    return item


async def test_a_node_sleeps_for_days_with_the_value_of_an_expression() -> None:
    flow = graph(
        node("days", io={"input_inline": "${params.days}"}),
        sleep("nap", "days", for_sec=f"${{results.days * {DAY}}}"),
        node("end", "work", "nap"),
    )
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(flow, params={"days": 30})
    assert view.status == "finished"
    nap = view.nodes["nap"]
    assert nap.started_at is not None
    assert nap.finished_at is not None
    assert (nap.finished_at - nap.started_at).total_seconds() == pytest.approx(30 * DAY, abs=1)


async def test_a_sleep_needs_no_worker_and_a_task_of_sleeps_is_deferred() -> None:
    async with Cluster(handlers=[work]) as cluster:
        task_id = await cluster.client.create_task(graph=graph(sleep("nap", for_sec=60)))
        view = await cluster.client.get_task(task_id)
        nap = view.nodes["nap"]
        assert (view.status, nap.status, nap.waiting) == ("deferred", "deferred", "timer")
        assert nap.waiting_until is not None
        said = await cluster.client.explain(task_id, "nap")
        assert said.startswith(f"'nap' sleeps until {nap.waiting_until.isoformat('T', 'seconds')}")
        assert (await cluster.client.wait(task_id)).result == {"nap": None}


async def test_wrong_arguments_and_expressions_fail_the_node_at_once() -> None:
    flow = graph(
        sleep("text", for_sec="${params.text}"),
        sleep("nothing", for_sec="${params.nothing}"),
        on_node_failure="continue",
    )
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(flow, params={"text": "long"})
    found = {node_id: (one.reason_code, one.attempt) for node_id, one in view.nodes.items()}
    assert found == {"text": ("bad_input", 1), "nothing": ("bad_expression", 1)}
    assert view.nodes["text"].error == "io.for_sec must be a number, not 'long'"
    assert "/io/for_sec" in str(view.nodes["nothing"].error)


async def test_thousands_of_expressions_of_one_task_are_stored_in_few_commits() -> None:
    naps = [sleep(f"n{number}", for_sec="${params.n}") for number in range(2_000)]
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(graph(*naps), params={"n": 5})
        record = (await cluster.client.store.load([view.id]))[view.id]
    assert view.status == "finished"
    assert record.version < 40


def test_a_graph_with_a_sleep_is_the_same_in_python_and_as_a_document() -> None:
    built = Graph()
    built.node("nap", "sleep", for_sec=60, timeouts={"start_to_close_sec": 9})
    document = graph(node("nap", "sleep", io={"for_sec": 60}, timeouts={"start_to_close_sec": 9}))
    assert built == Graph.parse(document)
    assert Graph.parse(built.to_dict()) == built
    assert built.to_dict()["nodes"][0]["io"] == {"for_sec": 60}
