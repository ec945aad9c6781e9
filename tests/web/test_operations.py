"""Dead letters, workers, figures, checks and errors over the web API."""

import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from flowkit import Client, errors
from flowkit._records.letter_records import park_letters
from flowkit.protocols import KeyedRecord, RecordChange
from flowkit.task import DeadLetter
from flowkit_testing import Cluster, InMemoryBus, InMemoryStore
from flowkit_web import create_app
from flowkit_web._problems import problem_of
from flowkit_web._stats import FRESH_SEC
from flowkit_web._tokens import Role
from tests.builders import graph, node
from tests.web.api import cluster_with_api, problem, serving, to

FAILING = graph(node("f", "fail", retry_policy={"max": 0}))


async def test_dead_letters_are_listed_read_retried_and_dropped() -> None:
    async with cluster_with_api() as (cluster, http):
        for task_id in ("t1", "t2"):
            await cluster.run(FAILING, task_id=task_id)
        letters = (await http.get("/dead-letters?kind=node&limit=1")).json()
        more = (await http.get(f"/dead-letters?kind=node&after={letters['next']}")).json()
        assert len(letters["items"]) == len(more["items"]) == 1
        (found,) = (await http.get("/dead-letters?task_id=t1")).json()["items"]
        (kept,) = (await cluster.client.dead_letters(task_id="t1")).items
        assert found["letter_id"] == kept.letter_id
        assert (found["reason_code"], found["error"]) == (kept.reason_code, kept.error)
        ids = {"letter_ids": [kept.letter_id]}
        assert (await http.post("/dead-letters/retry", json=ids)).json()["items"][0]["retried"]
        await cluster.client.wait("t1")
        (letter,) = (await http.get("/dead-letters?task_id=t2")).json()["items"]
        dropped = await http.post("/dead-letters/drop", json={"letter_ids": [letter["letter_id"]]})
        assert dropped.json() == {"dropped": 1}
        gone = await http.get("/dead-letters/x")
        assert problem(gone) == (404, "letter_not_found")
        assert problem(await http.get("/dead-letters?kind=odd"))[0] == 422
        assert problem(await http.post("/dead-letters/drop", json={"letter_ids": []}))[0] == 422


async def test_data_of_a_dead_letter_that_json_writers_refuse_is_base64() -> None:
    odd = [b"[" * 100_000, rb'{"x": "\ud800"}', b'{"x": NaN}', b'{"x": 1e999}']
    deep = b"[" * 190 + b"1" + b"]" * 190
    letters = [
        DeadLetter(f"message-{n}", 0.0, "message", "refused", "no", data=data)
        for n, data in enumerate([*odd, deep])
    ]
    async with cluster_with_api() as (cluster, http):
        await park_letters(cluster.store, letters)
        *listed, plain = (await http.get("/dead-letters")).json()["items"]
        assert [b64decode(item["data_base64"]) for item in listed] == odd
        assert plain["data"] == json.loads(deep)
        assert (await http.get("/dead-letters/message-1")).json() == listed[1]


async def test_a_dead_letter_that_cannot_be_decoded_has_a_fault_and_no_time() -> None:
    data = b'{"v":1,"at":9999999999999.5,"reason_code":"","error":""}'
    async with cluster_with_api() as (cluster, http):
        damaged = RecordChange("damaged", [KeyedRecord("letter", "message-1", data)])
        assert await cluster.store.records.change([damaged]) == [True]
        (listed,) = (await http.get("/dead-letters")).json()["items"]
    assert (listed["at"], listed["fault"][:31]) == (None, "its data are invalid: at: Input")


async def test_figures_count_tasks_and_workers_and_are_read_again_after_a_while() -> None:
    async with cluster_with_api() as (cluster, http):
        await cluster.run(FAILING)
        sleeping = graph(node("s", "sleep", io={"for_sec": 3_600}))
        await cluster.client.create_task(graph=sleeping)
        await cluster.clock.sleep(1)
        stats = (await http.get("/stats")).json()
        assert stats["open"]["deferred"] == 1
        assert stats["ended_last_day"] == {"finished": 0, "failed": 1, "cancelled": 0}
        assert stats["ended_last_hour"] == stats["ended_last_day"]
        assert stats["failures_last_day"] == {"bad_input": 1}
        assert (stats["waiting"]["timer"], stats["retrying"]) == (1, 0)
        assert stats["queues"] == []
        assert (stats["workers"]["live"], stats["workers"]["silent"]) == (1, 0)
        assert stats["coordinators"] == {"live": 1, "silent": 0}
        assert stats["letters"] == 1
        await cluster.client.create_task(graph=sleeping)
        assert (await http.get("/stats")).json() == stats
        await cluster.clock.sleep(FRESH_SEC)
        assert (await http.get("/stats")).json()["open"]["deferred"] == 2
        (worker,) = (await http.get("/workers")).json()["items"]
        assert worker["roles"] == ["batches", "fail", "talk", "work"]


class Away(InMemoryStore):
    """Store that can be away."""

    away = False
    hangs = False

    async def list_tasks(self, query: Any) -> Any:
        if self.hangs:
            await anyio.sleep_forever()
        if self.away:
            raise errors.StoreUnavailable("no server at mongodb://ann:secret@db")
        return await super().list_tasks(query)


async def test_a_store_that_is_away_is_a_problem_without_its_password() -> None:
    store = Away()
    async with (
        store,
        Client(store=store, bus=InMemoryBus()) as client,
        serving(client) as http,
        to(create_app(client)) as anyone,
    ):
        assert (await anyone.get("/readyz")).json() == {"status": "ok"}
        store.away = True
        unready = await anyone.get("/readyz")
        assert problem(unready) == (503, "store_unavailable")
        assert "mongodb" not in unready.text
        answer = await http.get("/tasks")
        assert problem(answer) == (503, "store_unavailable")
        assert "secret" not in answer.text
        assert (await anyone.get("/healthz")).status_code == 200


async def test_a_server_is_not_ready_if_the_store_does_not_answer_for_two_seconds() -> None:
    store = Away()
    async with Cluster(store=store) as cluster, to(create_app(cluster.client)) as anyone:
        store.hangs, begin = True, cluster.clock.now()
        assert problem(await anyone.get("/readyz")) == (503, "store_unavailable")
        assert cluster.clock.now() - begin == pytest.approx(2, abs=0.1)


async def test_the_caller_is_named_with_its_role() -> None:
    async with Cluster() as cluster, serving(cluster.client, role=Role.OPERATOR) as http:
        assert (await http.get("/me")).json() == {"name": "ann", "role": "operator"}


async def test_checks_are_at_the_root_too() -> None:
    async with Cluster() as cluster, to(create_app(cluster.client)) as http:
        root = "http://localhost"
        assert (await http.get(f"{root}/healthz")).json() == {"status": "ok"}
        assert (await http.get(f"{root}/readyz")).json() == {"status": "ok"}
        for place in (root, ""):
            assert (await http.head(f"{place}/healthz")).status_code == 200
            assert (await http.head(f"{place}/readyz")).status_code == 200
        assert (await http.get("/openapi.json")).json()["openapi"].startswith("3.1")


def subclasses(kind: type[errors.FlowKitError]) -> Iterator[type[errors.FlowKitError]]:
    for below in kind.__subclasses__():
        if below.__module__ == "flowkit.errors":
            yield below
            yield from subclasses(below)


KINDS = sorted(set(subclasses(errors.FlowKitError)), key=lambda kind: kind.__name__)
INTERNAL = {"ConfigError", "DecodeError", "InvalidExport", "PluginError", "RunCancelled"} | {
    "MessageError",
    "StoreError",
    "WorkerIdTaken",
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_error_that_a_verb_raises_has_a_problem_of_its_own(
    kind: type[errors.FlowKitError],
) -> None:
    error: Any = kind.__new__(kind)
    error.faults = ()
    name = problem_of(error).document.type.rpartition(":")[2]
    assert (name == "internal_error") == (kind.__name__ in INTERNAL)
