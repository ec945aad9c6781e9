"""Tasks over the web API, on a cluster in virtual time."""

import json
from typing import Any

import pytest

from flowkit_web._routes import EVENTS, ROUTES
from flowkit_web._tokens import Role
from tests.builders import graph, node
from tests.web.api import cluster_with_api, problem, serving

APPROVAL = node("ok", "approval", io={"prompt": "Go?", "assignees": ["ann"]})
OTHERS = node("ok", "approval", io={"prompt": "Go?", "assignees": ["bob"]})
JSON = "application/json"
METHODS = {
    "/tasks": "GET, HEAD, POST",
    "/schedules/x": "DELETE, GET, HEAD",
    "/tasks/x/events": "GET",
    "/tasks/x/cancel": "POST",
    "/healthz": "GET, HEAD",
}


async def test_a_task_is_submitted_and_read_as_the_client_reads_it() -> None:
    async with cluster_with_api() as (cluster, http):
        flow = graph(node("a", "work", io={"input_inline": "${ params.x }"}))
        body = {"graph": flow, "params": {"x": 5}, "labels": {"team": "a"}, "task_id": "t"}
        made = await http.post("/tasks", json=body)
        assert (made.status_code, made.json()) == (201, {"id": "t"})
        assert (await http.post("/tasks", json=body)).json() == {"id": "t"}
        view = await cluster.client.wait("t")
        assert view.result == {"a": 5}
        assert (await http.get("/tasks/t")).json() == view.model_dump(mode="json")
        found = (await http.get("/tasks/t/nodes/a")).json()
        assert found == view.nodes["a"].model_dump(mode="json")
        explained = (await http.get("/tasks/t/nodes/a/explain")).json()
        assert explained["explanation"] == await cluster.client.explain("t", "a")
        refused = await http.post("/tasks", json={**body, "params": {"x": 6}})
        assert problem(refused) == (409, "task_refused")


async def test_a_refused_graph_lists_all_its_faults() -> None:
    async with cluster_with_api() as (_, http):
        flow = graph(node("a", "work", "b"), node("c", "work", "d"))
        answer = await http.post("/tasks", json={"graph": flow})
        assert problem(answer) == (422, "graph_invalid")
        assert [fault["node_id"] for fault in answer.json()["errors"]] == ["a", "c"]
        both = await http.post("/tasks", json={})
        assert problem(both) == (422, "graph_invalid")
        unknown = await http.post("/tasks", json={"grpah": flow})
        assert problem(unknown) == (422, "invalid_request")
        assert unknown.json()["errors"][0]["field"] == "body.grpah"


WRONG_QUERIES = {
    "labels=x": ("labels", 'must have the form KEY=VALUE, not "x"'),
    "status=failed&status=odd": ("status", "must be 'queued', 'running',"),
    "created_after=yesterday": ("created_after", "expected a time such as 2026-11-27 or"),
    "created_before=1700000000": ("created_before", "expected a time such as 2026-11-27 or"),
    "limit=0": ("limit", 'must be at least 1, not "0"'),
    "root=false": ("root", 'must be true or left out, not "false"'),
}
WRONG_BODIES: dict[str, tuple[dict[str, Any], str, str]] = {
    "/tasks": ({"labels": {"a": 1}}, "labels.a", "must be a string, not 1"),
    "/tasks/t/retry": ({"from_nodes": ["a", None]}, "from_nodes[1]", "must be a string, not null"),
    "/dead-letters/drop": ({"letter_ids": []}, "letter_ids", "must have at least 1 item"),
    "/cancel-tasks": ({"created_after": 5}, "created_after", "must be a string with a time"),
    "/tasks/t/signal": (
        {"name": "n", "payload": {"dict": {"a": 1}, "a": [{"dict": float("inf")}]}},
        "payload.a[0].dict",
        "must be a finite number, not Infinity",
    ),
    "/tasks/t/nodes/n/resolve": (
        {"outcome": "failed", "result": [1, float("inf")]},
        "result[1]",
        "must be a finite number, not Infinity",
    ),
    "/triggers": (
        {"id": "t", "source": "task:", "flow": "f"},
        "source",
        "it names no pipeline; write task:PIPELINE",
    ),
    "/tasks/t/cancel": ({"force": "\ud800"}, "force", 'must be true or false, not "\\ud800"'),
}


@pytest.mark.parametrize(("query", "fault"), WRONG_QUERIES.items(), ids=WRONG_QUERIES)
async def test_a_wrong_value_of_a_query_is_named_as_the_client_wrote_it(
    query: str, fault: tuple[str, str]
) -> None:
    field, text = fault
    async with cluster_with_api() as (_, http):
        answer = await http.get(f"/tasks?{query}")
        assert problem(answer) == (422, "invalid_request")
        (found,) = answer.json()["errors"]
        assert found["field"] == f"query.{field}"
        assert found["message"].startswith(text)


@pytest.mark.parametrize(("place", "case"), WRONG_BODIES.items(), ids=WRONG_BODIES)
async def test_a_wrong_value_of_a_body_is_named_as_the_client_wrote_it(
    place: str, case: tuple[dict[str, Any], str, str]
) -> None:
    body, field, text = case
    async with cluster_with_api() as (_, http):
        content = json.dumps(body).replace("Infinity", "1e999")
        answer = await http.post(place, content=content, headers={"Content-Type": JSON})
        assert problem(answer) == (422, "invalid_request")
        (found,) = answer.json()["errors"]
        assert found["field"] == f"body.{field}"
        assert found["message"].startswith(text)


async def test_lists_have_the_filters_and_pages_of_list_tasks() -> None:
    async with cluster_with_api() as (cluster, http):
        for number in range(5):
            labels = {"odd": str(number % 2), "a": "="}
            kind = "fail" if number == 3 else "work"
            flow = graph(node("n", kind, retry_policy={"max": 0}))
            await cluster.client.create_task(graph=flow, task_id=f"t{number}", labels=labels)
            await cluster.client.wait(f"t{number}")

        async def ids(query: str) -> list[str]:
            answer = await http.get(f"/tasks?{query}")
            return [view["id"] for view in answer.json()["items"]]

        assert await ids("labels=odd=1&labels=a==") == ["t3", "t1"]
        assert await ids("status=failed&status=cancelled") == ["t3"]
        assert await ids("reason_code=bad_input") == ["t3"]
        assert await ids("root=true&limit=2") == ["t4", "t3"]
        assert await ids("created_after=2100-01-01T00:00:00Z") == []
        day = "2100-01-01"
        for time in (day, f"{day}T00:00", f"{day}T00:00:00Z"):
            assert len(await ids(f"created_before={time}")) == 5, time
        first = (await http.get("/tasks?limit=3")).json()
        assert await ids(f"limit=3&after={first['next']}") == ["t1", "t0"]
        wrong = ("after=x", "status=odd", "limit=0", "limit=201", "root=false", "labels=x")
        for query in (*wrong, "labels=odd=1&labels=odd=0"):
            assert problem(await http.get(f"/tasks?{query}"))[0] == 422, query


async def test_a_task_is_paused_resumed_cancelled_and_retried() -> None:
    async with cluster_with_api() as (cluster, http):
        flow = graph(node("s", "sleep", io={"for_sec": 60}), node("a", "work", "s"))
        await cluster.client.create_task(graph=flow, task_id="t")
        assert (await http.post("/tasks/t/pause")).status_code == 204
        assert (await http.get("/tasks/t")).json()["status"] == "paused"
        assert (await http.post("/tasks/t/resume")).status_code == 204
        assert problem(await http.post("/tasks/t/retry")) == (409, "task_refused")
        assert (await http.post("/tasks/t/cancel", json={"reason": "why"})).status_code == 204
        view = await cluster.client.wait("t")
        assert (view.status, view.error) == ("cancelled", "why")
        assert (await http.post("/tasks/t/retry", json={"from_nodes": ["s"]})).status_code == 204
        await cluster.clock.sleep(1)
        assert (await http.post("/tasks/t/nodes/s/run-now")).status_code == 204
        assert (await cluster.client.wait("t")).status == "finished"
        rerun = await http.post("/tasks/t/rerun")
        assert rerun.status_code == 201
        again = await cluster.client.get_task(rerun.json()["id"])
        assert again.rerun_of == "t"


async def test_many_tasks_are_changed_by_a_filter() -> None:
    async with cluster_with_api() as (cluster, http):
        flow = graph(node("s", "sleep", io={"for_sec": 60}))
        for number in range(3):
            labels = {"team": "a" if number else "b"}
            await cluster.client.create_task(graph=flow, task_id=f"t{number}", labels=labels)
        body: dict[str, Any] = {"labels": {"team": "a"}}
        answer = await http.post("/cancel-tasks", json={**body, "reason": "over"})
        assert answer.json() == {"found": 2, "changed": 2, "refused": {}}
        await cluster.client.wait("t1")
        assert (await http.post("/retry-tasks", json=body)).json()["changed"] == 2
        assert problem(await http.post("/cancel-tasks", json={}))[0] == 422
        assert (await cluster.client.get_task("t0")).status == "deferred"


async def test_a_signal_wakes_its_node_and_a_wrong_one_is_refused() -> None:
    async with cluster_with_api() as (cluster, http):
        flow = graph(node("w", "wait_signal", io={"signal": "go"}))
        await cluster.client.create_task(graph=flow, task_id="t")
        wrong = await http.post("/tasks/t/signal", json={"name": "stop"})
        assert problem(wrong) == (409, "signal_refused")
        sent = await http.post("/tasks/t/signal", json={"name": "go", "payload": [1]})
        assert sent.status_code == 204
        assert (await cluster.client.wait("t")).result == {"w": [1]}


async def test_decisions_have_the_name_of_the_token_and_assignees_are_enforced() -> None:
    async with cluster_with_api(name="ann") as (cluster, http):
        await cluster.client.create_task(graph=graph(APPROVAL), task_id="mine")
        await cluster.client.create_task(graph=graph(OTHERS), task_id="others")
        listed = (await http.get("/approvals?assignee=ann")).json()["items"]
        assert [one["task_id"] for one in listed] == ["mine"]
        choice = {"choice": "approve", "comment": "fine"}
        foreign = await http.post("/tasks/others/nodes/ok/decide", json=choice)
        assert problem(foreign) == (403, "not_assigned")
        named = await http.post("/tasks/mine/nodes/ok/decide", json={**choice, "by": "bob"})
        assert problem(named) == (422, "invalid_request")
        assert (await http.post("/tasks/mine/nodes/ok/decide", json=choice)).status_code == 204
        result = (await cluster.client.wait("mine")).result["ok"]
        assert (result["by"], result["comment"]) == ("ann", "fine")
        again = await http.post("/tasks/mine/nodes/ok/decide", json=choice)
        assert problem(again) == (409, "already_decided")


async def test_an_operator_settles_a_node_under_the_name_of_the_token() -> None:
    async with cluster_with_api() as (cluster, http):
        flow = graph(node("s", "sleep", io={"for_sec": 60}))
        await cluster.client.create_task(graph=flow, task_id="t")
        body = {"outcome": "finished", "result": {"x": 1}, "reason": "known"}
        assert (await http.post("/tasks/t/nodes/s/resolve", json=body)).status_code == 204
        view = await cluster.client.wait("t")
        assert (view.result, view.nodes["s"].resolved_by) == ({"s": {"x": 1}}, "ann")


async def test_an_approval_is_resolved_as_finished_by_an_admin_alone() -> None:
    forged = {"outcome": "finished", "result": {"choice": "approve", "by": "bob"}}
    async with cluster_with_api(role=Role.OPERATOR) as (cluster, operator):
        for task_id in ("a", "b"):
            await cluster.client.create_task(graph=graph(OTHERS), task_id=task_id)
        refused = await operator.post("/tasks/a/nodes/ok/resolve", json=forged)
        assert problem(refused) == (403, "forbidden")
        assert "resolved as finished needs admin" in refused.json()["detail"]
        failed = await operator.post("/tasks/b/nodes/ok/resolve", json={"outcome": "failed"})
        assert failed.status_code == 204
        async with serving(cluster.client, name="root") as admin:
            settled = await admin.post("/tasks/a/nodes/ok/resolve", json=forged)
            assert settled.status_code == 204
        assert (await cluster.client.wait("a")).nodes["ok"].resolved_by == "root"


async def test_artifacts_and_nodes_come_in_pages() -> None:
    async with cluster_with_api() as (cluster, http):
        flow = graph(node("b", "batches"), node("m", "work", "b", map={"over": [{}] * 5}))
        await cluster.client.create_task(graph=flow, task_id="t")
        await cluster.client.wait("t")
        every = [one.model_dump(mode="json") async for one in cluster.client.artifacts("t", "b")]
        for place in ("/tasks/t/nodes/b/artifacts", "/tasks/t/artifacts"):
            first = (await http.get(f"{place}?limit=2")).json()
            assert (first["items"], first["next"]) == (every[:2], "2")
            last = (await http.get(f"{place}?limit=2&after=2")).json()
            assert (last["items"], last["next"]) == (every[2:], None)
        reads = {"start_when": "first_batch", "shards": 2}
        flow = graph(node("b", "batches"), node("c", "work", "b", io=reads))
        await cluster.client.create_task(graph=flow, task_id="s")
        await cluster.client.wait("s")
        of_shard = (await http.get("/tasks/s/nodes/c[1]/artifacts")).json()["items"]
        assert [one["uid"] for one in of_shard] == ["1/b:1"]
        for cursor in ("x", "-1", "01", "9" * 30):
            assert problem(await http.get(f"/tasks/t/artifacts?after={cursor}"))[0] == 422
        page = (await http.get("/tasks/t/nodes?map=m&limit=2&status=finished")).json()
        assert [one["node_id"] for one in page["items"]] == ["m[0]", "m[1]"]
        assert problem(await http.get("/tasks/t/nodes?map=b"))[0] == 422


async def test_log_lines_come_in_pages() -> None:
    async with cluster_with_api() as (cluster, http):
        flow = graph(node("t", "talk", io={"input_inline": 3}), node("w", "work"))
        await cluster.client.create_task(graph=flow, task_id="t")
        await cluster.client.wait("t")
        for place in ("/tasks/t/nodes/t/logs", "/tasks/t/logs"):
            first = (await http.get(f"{place}?limit=2")).json()
            last = (await http.get(f"{place}?limit=2&after={first['next']}")).json()
            assert [one["text"] for one in first["items"] + last["items"]] == ["0", "1", "2"]
            assert (first["items"][0]["node_id"], last["next"]) == ("t", None)
        assert (await http.get("/tasks/t/nodes/w/logs")).json() == {"items": [], "next": None}
        assert problem(await http.get("/tasks/t/logs?after=x"))[0] == 422


async def test_every_route_that_answers_get_answers_head() -> None:
    async with cluster_with_api() as (_, http):
        for route in ROUTES:
            if route.method == "GET" and route.responses is not EVENTS and "{" not in route.path:
                assert (await http.head(route.path)).status_code == 200, route.path
        assert (await http.head("/tasks/x")).status_code == 404


async def test_what_is_not_there_is_not_found() -> None:
    async with cluster_with_api() as (cluster, http):
        await cluster.client.create_task(graph=graph(node("a", "work")), task_id="t")
        for path in ("", "/events", "/artifacts", "/logs", "/nodes", "/nodes/a/explain"):
            assert problem(await http.get(f"/tasks/x{path}")) == (404, "task_not_found")
        for path in ("/nodes/b", "/nodes/b/explain", "/nodes/b/artifacts", "/nodes/b/logs"):
            assert problem(await http.get(f"/tasks/t{path}")) == (404, "task_not_found")
        assert problem(await http.get("/nowhere")) == (404, "not_found")
        for path, methods in METHODS.items():
            refused = await http.patch(path)
            assert problem(refused) == (405, "method_not_allowed")
            assert refused.headers["allow"] == methods
