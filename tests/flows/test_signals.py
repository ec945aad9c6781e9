"""Signals to tasks, on a cluster in virtual time."""

from typing import Any

import anyio
import pytest

from flowkit.client import _signals
from flowkit.errors import SignalRefused, TaskNotFound
from flowkit.worker import handler
from flowkit_testing import Cluster
from tests.builders import graph, node


def wait(node_id: str, signal: str, *after: str, **io: Any) -> dict[str, Any]:
    return node(node_id, "wait_signal", *after, io={"signal": signal, **io})


@handler("work")
async def work(item: Any, ctx: Any) -> Any:
    return ctx.results


AMOUNT = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}


async def test_a_signal_wakes_the_node_that_waits_for_it_and_carries_its_payload() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        task_id = await client.create_task(
            graph=graph(wait("paid", "payment", schema=AMOUNT), node("ship", "work", "paid"))
        )
        assert await client.explain(task_id, "paid") == (
            "'paid' waits for the signal 'payment' since 2026-01-01T00:00:00+00:00."
            f" `flowkit signal {task_id} payment` sends it."
        )
        view = await client.get_task(task_id)
        assert (view.status, view.nodes["paid"].waiting) == ("deferred", "signal")
        await client.signal(task_id, "payment", {"amount": 5})
        view = await client.wait(task_id)
        events = [event async for event in client.watch(task_id) if event.kind == "signal"]
    assert view.result == {"ship": {"paid": {"amount": 5}}}
    assert [(event.node_id, event.data) for event in events] == [
        (None, {"signal": "payment", "number": 1})
    ]


async def test_a_signal_may_come_before_the_task_has_begun_and_be_repeated() -> None:
    async with Cluster(handlers=[work], coordinators=0) as cluster:
        client = cluster.client
        task_id = await client.create_task(
            graph=graph(node("a"), wait("w", "go", "a"), wait("v", "go", "a"))
        )
        for _ in range(3):
            await client.signal(task_id, "go", 1, signal_id="first")
        await client.signal(task_id, "go", 2)
        await cluster.add_coordinator()
        view = await client.wait(task_id)
        await client.signal(task_id, "go", 1, signal_id="first")
    assert view.result == {"w": 1, "v": 2}


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown name": (
        {"name": "paid"},
        "no node of task 't' waits for the signal 'paid'; its nodes wait for 'payment', 'refund'",
    ),
    "a payload that does not match": (
        {"name": "payment", "payload": {"amount": "5"}},
        "task 't' refuses the signal 'payment': payload.amount: \"5\" is not of type \"number\"",
    ),
    "no payload where one is needed": (
        {"name": "payment"},
        "task 't' refuses the signal 'payment': payload: null is not of type \"object\"",
    ),
    "a payload that is no JSON": (
        {"name": "refund", "payload": {1, 2}},
        "the payload is not JSON",
    ),
    "a large payload": (
        {"name": "refund", "payload": "x" * 300_000},
        "the payload is larger than 262144 bytes",
    ),
    "an empty name": (
        {"name": ""},
        "the name must have 1 to 200 printable characters",
    ),
    "a name that is no text": ({"name": 7}, "the name must have 1 to 200 printable characters"),
    "an id that is no text": (
        {"name": "refund", "signal_id": 7},
        "signal_id must have 1 to 200 printable characters",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_signal_that_cannot_be_taken_is_refused_and_not_stored(name: str) -> None:
    call, error = REFUSALS[name]
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        flow = graph(wait("a", "payment", schema=AMOUNT), wait("b", "refund"))
        await client.create_task(graph=flow, task_id="t")
        before = (await client.store.load(["t"]))["t"].version
        with pytest.raises(SignalRefused) as refused:
            await client.signal("t", **call)
        assert str(refused.value).startswith(error)
        assert (await client.store.load(["t"]))["t"].version == before
        await client.cancel("t")


async def test_a_refusal_names_once_each_signal_that_nodes_wait_for() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        flow = graph(wait("a", "paid-${params.n}"), wait("b", "paid-${params.n}"))
        task_id = await client.create_task(graph=flow, params={"n": 7})
        await cluster.clock.sleep(1)
        with pytest.raises(SignalRefused, match="its nodes wait for 'paid-7'$"):
            await client.signal(task_id, "nix")
        await client.cancel(task_id)


async def test_tasks_that_have_ended_are_none_or_wait_for_nothing_take_no_signals() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        ended = await client.create_task(graph=graph(wait("a", "go")))
        await client.cancel(ended)
        with pytest.raises(SignalRefused, match="is cancelled: only a task that has not ended"):
            await client.signal(ended, "go")
        task_id = await client.create_task(graph=graph(node("a", "sleep", io={"for_sec": 9})))
        with pytest.raises(SignalRefused, match="waits for the signal 'go'; none waits for any"):
            await client.signal(task_id, "go")
        with pytest.raises(TaskNotFound):
            await client.signal("nix", "go")


async def test_a_payload_goes_to_a_node_whose_schema_it_matches() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        task_id = await client.create_task(
            graph=graph(
                wait("number", "value", schema={"type": "number"}),
                wait("text", "value", schema={"type": "string"}),
            )
        )
        await client.signal(task_id, "value", "five")
        await client.signal(task_id, "value", 5)
        assert (await client.wait(task_id)).result == {"number": 5, "text": "five"}


async def test_any_name_may_be_that_of_a_node_whose_arguments_are_not_evaluated_yet() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        flow = graph(node("a", "sleep", io={"for_sec": 60}), wait("w", "order-${params.n}", "a"))
        task_id = await client.create_task(graph=flow, params={"n": 7})
        await client.signal(task_id, "order-7", 1)
        await cluster.clock.sleep(30)
        assert (await client.wait(task_id)).result == {"w": 1}


async def test_a_task_keeps_a_bounded_size_of_signals() -> None:
    large = "x" * (_signals.MAX_PAYLOAD_BYTES - 100)
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        flow = graph(node("a", "sleep", io={"for_sec": 9}), wait("w", "go", "a"))
        task_id = await client.create_task(graph=flow)
        for _ in range(_signals.MAX_KEPT_BYTES // _signals.MAX_PAYLOAD_BYTES):
            await client.signal(task_id, "go", large)
        with pytest.raises(SignalRefused, match="signals that no node has taken; the limits are"):
            await client.signal(task_id, "go", large)
        assert (await client.wait(task_id)).status == "finished"


async def test_of_many_signals_at_once_each_is_taken_once() -> None:
    async with Cluster(handlers=[work], coordinators=2) as cluster:
        client = cluster.client
        task_id = await client.create_task(
            graph=graph(*(wait(f"w{number}", "go") for number in range(20)))
        )
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(client.signal, task_id, "go", number)
        result = (await client.wait(task_id)).result
    assert sorted((result or {}).values()) == [*range(20)]


async def test_a_refused_signal_names_the_child_tasks_that_take_it() -> None:
    inner = graph(wait("a", "go"))
    middle = graph({"node_id": "s", "type": "subflow", "io": {"graph": inner}})
    outer = {"node_id": "s", "type": "subflow", "io": {"graph": middle}}
    other = {"node_id": "t", "type": "subflow", "io": {"graph": graph(wait("a", "stop"))}}
    flow = graph(outer | {"map": {"over": [1, 2]}}, other)
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=flow)
        await client.clock.sleep(60)
        tasks = (await client.list_tasks(waiting="signal")).items
        waiting = [one.id for one in tasks if one.parent_node == "s"]
        with pytest.raises(SignalRefused) as refused:
            await client.signal(task_id, "go")
        said = f"no node of task '{task_id}' waits for the signal 'go'; send it to one of its"
        assert str(refused.value).startswith(f"{said} child tasks '")
        for child_id in waiting:
            assert f"'{child_id}'" in str(refused.value)
        await client.signal(waiting[0], "go")
        with pytest.raises(SignalRefused, match=f"send it to its child task '{waiting[1]}'$"):
            await client.signal(task_id, "go")
        with pytest.raises(SignalRefused, match="none waits for any"):
            await client.signal(task_id, "nix")
        await client.cancel(task_id)
