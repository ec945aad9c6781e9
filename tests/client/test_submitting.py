"""The arguments of a submission beside its graph are refused at once, or stored unchanged.

None of them is stored and found unreadable later.
"""

import json
from typing import Any

import pytest

from flowkit import GraphError, TaskRefused
from flowkit.errors import SignalRefused
from flowkit_testing import Cluster
from tests.builders import ONE, graph, node, turns_during

LONE = "\ud800"

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a priority in words": ({"priority": "high"}, "priority must be a whole number, not 'high'"),
    "half a priority": ({"priority": 2.5}, "priority must be a whole number, not 2.5"),
    "a priority that is true": ({"priority": True}, "priority must be a whole number, not True"),
    "a priority out of range": (
        {"priority": 2**40},
        "priority must be at most 2147483647, not 1099511627776",
    ),
    "a deadline as text": ({"deadline_sec": "60"}, "deadline_sec must be a number, not '60'"),
    "a deadline that is true": ({"deadline_sec": True}, "deadline_sec must be a number, not True"),
    "a deadline of zero": ({"deadline_sec": 0}, "deadline_sec must be above 0, not 0"),
    "no number of seconds": (
        {"deadline_sec": float("nan")},
        "deadline_sec must be a finite number, not nan",
    ),
    "a deadline in a thousand years": (
        {"deadline_sec": 3.2e10},
        "deadline_sec must be at most 3155760000",
    ),
    "labels in a list": ({"labels": ["x"]}, "labels must be an object, not a list"),
    "labels as text": ({"labels": "ab"}, "labels must be an object, not 'ab'"),
    "a label that is a number": ({"labels": {"a": 7}}, "labels.a must be a string, not 7"),
    "the key of a label with an equals sign": (
        {"labels": {"a=b": "c"}},
        "labels: 'a=b' cannot be the key of a label: a key is not empty and contains no '='",
    ),
    "an empty key of a label": ({"labels": {"": "c"}}, "labels: '' cannot be the key of a label"),
    "a key of a label of a million characters": (
        {"labels": {"x" * 10**6: "a"}},
        "a key of labels must have at most 1000 characters",
    ),
    "a label of a million characters": (
        {"labels": {"a": "x" * 10**6}},
        "labels.a must have at most 1000 characters",
    ),
    "a label that cannot be written": ({"labels": {LONE: "x"}}, "must be valid Unicode"),
    "an empty pipeline": ({"pipeline": ""}, "pipeline must not be empty"),
    "a pipeline that cannot be written": ({"pipeline": LONE}, "pipeline must be valid Unicode"),
    "an id that is empty": ({"task_id": ""}, "task_id must not be empty"),
    "an id that is a number": ({"task_id": 7}, "task_id must be a string, not 7"),
    "an id with a line break": (
        {"task_id": "a\nb"},
        "task_id: it contains characters that cannot be printed",
    ),
    "an id that a URL cannot have": ({"task_id": ".."}, "task_id: '.' and '..' cannot be parts"),
    "a key that is too long": (
        {"idempotency_key": "k" * 201},
        "idempotency_key must have at most 200 characters",
    ),
    "parameters in a list": ({"params": []}, "params must be an object, not a list"),
    "a parameter that cannot be written": (
        {"params": {"a": LONE}},
        "params.a is '\\ud800', which is not valid Unicode",
    ),
    "a parameter that is no number": (
        {"params": {"a": float("inf")}},
        "params.a is inf, which is not a finite number",
    ),
}


@pytest.mark.parametrize(("options", "sentence"), REFUSED.values(), ids=REFUSED)
async def test_a_submission_with_a_fault_is_refused_with_its_place_and_leaves_nothing(
    options: dict[str, Any], sentence: str
) -> None:
    async with Cluster(coordinators=0) as cluster:
        with pytest.raises(GraphError) as caught:
            await cluster.client.create_task(graph=ONE, **options)
        assert (await cluster.client.list_tasks()).items == []
    assert sentence in str(caught.value)
    assert "must not be empty, not" not in str(caught.value)
    assert len(caught.value.faults) == 1


async def test_all_faults_of_a_submission_are_listed_together() -> None:
    async with Cluster(coordinators=0) as cluster:
        with pytest.raises(GraphError) as caught:
            await cluster.client.create_task(
                graph={"nodes": [{"node_id": "a", "type": "work", "depends_on": ["b"]}]},
                params={"a": float("nan")},
                priority="high",  # type: ignore[arg-type]
                labels=7,  # type: ignore[arg-type]
            )
    assert [fault.message.split()[0] for fault in caught.value.faults] == [
        "waits",
        "labels",
        "priority",
        "params.a",
    ]


@pytest.mark.parametrize("priority", [-(2**31), 2**31 - 1])
async def test_the_highest_and_the_lowest_priority_run(priority: int) -> None:
    async with Cluster(handlers={"work": lambda item: item}) as cluster:
        graph = {"nodes": [{"node_id": "a", "type": "work", "priority": priority}]}
        task_id = await cluster.client.create_task(graph=graph, priority=priority)
        assert (await cluster.client.wait(task_id, timeout=60)).status == "finished"


@pytest.mark.parametrize(
    "reason", [7, None, LONE, "x" * 1001], ids=["a number", "nothing", "no text", "too long"]
)
async def test_a_reason_that_cannot_be_kept_is_refused_and_the_task_goes_on(reason: Any) -> None:
    async with Cluster(coordinators=0) as cluster:
        task_id = await cluster.client.create_task(graph=ONE)
        with pytest.raises(TaskRefused, match="a text of at most 1,000 characters"):
            await cluster.client.cancel(task_id, reason)
        assert (await cluster.client.get_task(task_id)).status == "queued"


async def test_nodes_to_begin_from_are_a_list() -> None:
    async with Cluster() as cluster:
        task_id = await cluster.client.create_task(graph=ONE)
        await cluster.client.cancel(task_id)
        await cluster.client.wait(task_id, timeout=60)
        with pytest.raises(TaskRefused, match="not the string 'a'"):
            await cluster.client.retry(task_id, from_nodes="a")
        assert (await cluster.client.get_task(task_id)).status == "cancelled"


# ---------------------------------------------------------------- checks that take long


MANY = graph(
    *(
        node(f"n{n}", io={"input_inline": [f"${{{n} + {m}}}" for m in range(50)]})
        for n in range(100)
    )
)
MANY_FAULTS = graph(
    *(node(f"n{n}", io={"input_inline": [f"${{x{n}}}"] * 20}) for n in range(250)), params={}
)
ROWS = {"properties": {"rows": {"type": "array", "items": {"required": ["id"]}}}}
CHECKED = graph(node("a"), params=ROWS)


@pytest.mark.parametrize(
    ("source", "params", "faults"),
    [
        pytest.param(MANY, None, 0, id="expressions"),
        pytest.param(json.dumps(MANY), None, 0, id="expressions in a text"),
        pytest.param(MANY_FAULTS, None, 5_000, id="expressions with faults"),
        pytest.param(CHECKED, {"rows": [{"id": 1}] * 30_000 + [{}]}, 1, id="params"),
    ],
)
async def test_the_event_loop_turns_while_a_large_submission_is_checked(
    source: Any, params: Any, faults: int
) -> None:
    async with Cluster() as cluster:
        done, turns = await turns_during(cluster.client.create_task(graph=source, params=params))
    assert turns > 20
    if faults:
        assert len(done.exception().faults) == faults
    else:
        assert done.result()


async def test_the_event_loop_turns_while_a_large_payload_is_checked() -> None:
    schema = {"items": {"required": ["id"]}}
    wait = node("a", "wait_signal", io={"signal": "go", "schema": schema})
    async with Cluster() as cluster:
        task_id = await cluster.client.create_task(graph=graph(wait))
        payload = [*[{"id": 1}] * 25_000, {}]
        done, turns = await turns_during(cluster.client.signal(task_id, "go", payload))
    assert turns > 5
    with pytest.raises(SignalRefused, match=r"payload\[25000\]: \"id\" is a required property"):
        done.result()
