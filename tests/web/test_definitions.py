"""Flows, schedules and triggers over the web API."""

from datetime import datetime, timedelta

from flowkit import Schedule, next_times
from tests.builders import graph, node
from tests.web.api import cluster_with_api, problem

FLOW = graph(node("a", "work"))


async def test_flows_are_registered_listed_and_read_by_version() -> None:
    async with cluster_with_api() as (cluster, http):
        first = await http.post("/flows", json={"name": "etl/x", "graph": FLOW})
        assert (first.status_code, first.json()["version"]) == (200, 1)
        other = graph(node("b", "work"))
        body = {"name": "etl/x", "graph": other, "description": "new"}
        assert (await http.post("/flows", json=body)).json()["version"] == 2
        (listed,) = (await http.get("/flows")).json()["items"]
        assert (listed["name"], listed["version"], listed["description"]) == ("etl/x", 2, "new")
        assert (await http.get("/flows/etl%2Fx?version=1")).json()["graph"] == FLOW
        latest = await cluster.client.get_flow("etl/x")
        assert (await http.get("/flows/etl%2Fx")).json() == latest.model_dump(mode="json")
        assert problem(await http.get("/flows/etl%2Fx?version=3")) == (404, "flow_not_found")
        task = await http.post("/tasks", json={"flow": "etl/x", "version": 1})
        assert (await cluster.client.wait(task.json()["id"])).flow == "etl/x"


async def test_a_schedule_is_stored_paused_triggered_backfilled_and_deleted() -> None:
    async with cluster_with_api() as (cluster, http):
        document = {"id": "s", "graph": FLOW, "cron": "0 6 * * *", "timezone": "Europe/Berlin"}
        stored = await http.post("/schedules", json=document)
        assert (stored.status_code, stored.json()["schedule"]["graph"]) == (200, FLOW)
        assert [one["id"] for one in (await http.get("/schedules")).json()["items"]] == ["s"]
        assert (await http.post("/schedules/s/pause")).status_code == 204
        assert (await http.get("/schedules/s")).json()["paused"] is True
        assert (await http.post("/schedules/s/resume")).status_code == 204
        made = await http.post("/schedules/s/trigger")
        assert made.status_code == 201
        assert (await cluster.client.wait(made.json()["id"])).schedule == "s"
        span = {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T23:00:00+01:00"}
        filled = await http.post("/schedules/s/backfill", json=span)
        assert [one["id"] for one in filled.json()["items"]] == [
            "s@2020-01-01T05:00:00Z",
            "s@2020-01-02T05:00:00Z",
        ]
        days = {"start": "2020-01-01", "end": "2020-01-02T06:00"}
        same = await http.post("/schedules/s/backfill", json=days)
        assert same.json() == filled.json()
        early = await http.post("/schedules/s/backfill", json={**days, "end": "2020-01-02T05:59"})
        assert early.json()["items"] == filled.json()["items"][:1]
        first_day = {"start": "0001-01-01", "end": "0001-01-02"}
        refused = await http.post("/schedules/s/backfill", json=first_day)
        assert problem(refused) == (422, "invalid_request")
        assert (await http.delete("/schedules/s")).status_code == 204
        assert problem(await http.get("/schedules/s")) == (404, "schedule_not_found")


async def test_the_next_times_of_a_schedule_are_listed_in_its_zone() -> None:
    async with cluster_with_api() as (cluster, http):
        document = {"id": "s", "graph": FLOW, "cron": "0 6 * * *", "timezone": "Europe/Berlin"}
        await http.post("/schedules", json=document)
        times = (await http.get("/schedules/s/next?count=3")).json()["times"]
        now = cluster.client.clock.now_dt()
        assert [datetime.fromisoformat(time) for time in times] == next_times(
            Schedule.model_validate(document), now, 3
        )
        assert all("T06:00:00+0" in time for time in times)
        assert len((await http.get("/schedules/s/next")).json()["times"]) == 10
        once = {"id": "o", "graph": FLOW, "at": (now + timedelta(1)).isoformat()}
        await http.post("/schedules", json=once)
        assert len((await http.get("/schedules/o/next")).json()["times"]) == 1
        assert problem(await http.get("/schedules/s/next?count=0"))[0] == 422
        assert problem(await http.get("/schedules/x/next")) == (404, "schedule_not_found")


async def test_a_schedule_with_a_wrong_field_is_refused_with_all_its_faults() -> None:
    async with cluster_with_api() as (_, http):
        body = {"id": "s", "graph": FLOW, "every_sec": 0.1, "overlap": "never"}
        answer = await http.post("/schedules", json=body)
        assert problem(answer) == (422, "invalid_request")
        fields = {fault["field"] for fault in answer.json()["errors"]}
        assert fields == {"body.every_sec", "body.overlap"}
        for time in ("soon", "2027-01-01T00:00:00"):
            answer = await http.post("/schedules", json={"id": "s", "graph": FLOW, "at": time})
            assert answer.json()["detail"] == (
                f'body.at: must be a time with a zone, such as 2026-11-27T10:00:00Z, not "{time}"'
            )
        labels = {"id": "s", "graph": FLOW, "every_sec": 5, "labels": {"a=b": "c"}, "x": 1}
        faults = (await http.post("/schedules", json=labels)).json()["errors"]
        assert {fault["field"] for fault in faults} == {"body.labels", "body.x"}
        faulty = {"id": "s", "graph": {"nodes": []}, "every_sec": 60}
        assert problem(await http.post("/schedules", json=faulty))[0] == 422
        past = {"id": "s", "graph": FLOW, "at": "2020-01-01T00:00:00Z"}
        assert problem(await http.post("/schedules", json=past)) == (409, "schedule_refused")


async def test_a_trigger_is_stored_paused_and_deleted() -> None:
    async with cluster_with_api() as (_, http):
        document = {"id": "g", "graph": FLOW, "source": "task:etl", "when": "event.value.id != ''"}
        stored = await http.post("/triggers", json=document)
        assert (stored.status_code, stored.json()["paused"]) == (200, False)
        assert (await http.post("/triggers/g/pause")).status_code == 204
        (listed,) = (await http.get("/triggers")).json()["items"]
        assert (listed["id"], listed["paused"]) == ("g", True)
        assert (await http.post("/triggers/g/resume")).status_code == 204
        assert (await http.delete("/triggers/g")).status_code == 204
        assert problem(await http.delete("/triggers/g")) == (404, "trigger_not_found")
        unknown = await http.post("/triggers", json={**document, "source": "mail:x"})
        assert problem(unknown) == (409, "trigger_refused")
