"""Requests of the page about one task: its graph, nodes, events and log lines."""

import json
from datetime import datetime

from flowkit_web._task_endpoints import batch_times
from tests.builders import graph, node
from tests.web.api import cluster_with_api, problem
from tests.web.test_event_streams import events_in

FLOW = graph(
    node("m", "work", map={"over": [1, 2]}, io={"input_inline": {"x": 1}}), node("end", "work", "m")
)


async def test_a_task_is_read_without_its_nodes_and_its_nodes_in_brief() -> None:
    async with cluster_with_api() as (cluster, http):
        view = await cluster.run(FLOW, task_id="t")
        alone = (await http.get("/tasks/t?nodes=none")).json()
        assert alone == view.model_copy(update={"nodes": {}}).model_dump(mode="json")
        outline = (await http.get("/tasks/t/outline")).json()
        assert outline["seq"] == view.seq
        assert [brief["node_id"] for brief in outline["nodes"]] == ["m", "end"]
        assert outline["nodes"][0]["children"] == {"finished": 2}
        ran = {"attempt", "worker_id", "started_at", "finished_at"}
        assert outline["nodes"][1].keys() == {"node_id", "type", "status"} | ran
        assert problem(await http.get("/tasks/t?nodes=some")) == (422, "invalid_request")


async def test_the_graph_of_a_task_is_read_as_it_was_written() -> None:
    async with cluster_with_api() as (cluster, http):
        await cluster.run(FLOW, task_id="t")
        assert (await http.get("/tasks/t/graph")).json() == FLOW
        assert problem(await http.get("/tasks/x/graph")) == (404, "task_not_found")


async def test_past_events_come_in_pages_of_a_task_or_a_node() -> None:
    async with cluster_with_api() as (cluster, http):
        await cluster.run(FLOW, task_id="t")
        every = [event.model_dump(mode="json") async for event in cluster.client.watch("t")]
        first = (await http.get("/tasks/t/history?limit=3")).json()
        rest = (await http.get(f"/tasks/t/history?after={first['next']}")).json()
        assert first["items"] + rest["items"] == every
        of_end = (await http.get("/tasks/t/history?node_id=end")).json()["items"]
        assert of_end == [event for event in every if event["node_id"] == "end"]
        for wrong in ("limit=10001", "after=x"):
            assert problem(await http.get(f"/tasks/t/history?{wrong}"))[0] == 422


async def test_log_lines_of_a_task_or_a_node_are_followed_until_its_end() -> None:
    async with cluster_with_api() as (cluster, http):
        flow = graph(
            node("a", "talk", io={"input_inline": 2}),
            node("b", "talk", "a", io={"input_inline": 1}),
        )
        await cluster.client.create_task(graph=flow, task_id="t")
        *lines, end = events_in((await http.get("/tasks/t/logs/follow")).text)
        expected = [line.model_dump(mode="json") async for line in cluster.client.logs("t")]
        assert [json.loads(line["data"]) for line in lines] == expected
        assert len(expected) == 3
        assert end == {"event": "end", "data": "{}"}
        *lines, _ = events_in((await http.get("/tasks/t/nodes/b/logs/follow")).text)
        assert [json.loads(line["data"])["node_id"] for line in lines] == ["b"]
        assert problem(await http.get("/tasks/t/nodes/x/logs/follow"))[0] == 404


async def test_the_approvals_of_one_task_are_listed() -> None:
    async with cluster_with_api() as (cluster, http):
        waiting = graph(node("ok", "approval", io={"prompt": "Go?"}))
        for name in ("t", "u"):
            await cluster.client.create_task(graph=waiting, task_id=name)
        await cluster.clock.sleep(1)
        found = (await http.get("/approvals?task_id=t")).json()["items"]
        assert [one["task_id"] for one in found] == ["t"]


async def test_the_times_of_batches_are_read_by_node() -> None:
    async with cluster_with_api() as (cluster, http):
        flow = graph(node("a", "batches"), node("b", "batches", "a"), node("c", "work", "b"))
        await cluster.run(flow, task_id="t")
        client = cluster.client
        found = (await http.get("/tasks/t/batches")).json()
        assert found["complete"]
        assert [*map(len, found["times"].values())] == [3, 3]
        times = [one.created_at async for one in client.artifacts("t", "b") if one.partial]
        assert [datetime.fromisoformat(text) for text in found["times"]["b"]] == times
        cut = await batch_times(client.artifacts("t"), most=4)
        assert ([*map(len, cut.times.values())], cut.complete) == ([3, 1], False)
