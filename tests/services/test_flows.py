"""Flows over a real Kafka and a real MongoDB."""

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from flowkit import CoordinatorConfig
from flowkit.worker import Batch, BatchResult, Handler, RunContext, handler
from tests.builders import chain, graph, node, pull, work
from tests.services.support import Installation, ends_of, events_of, fan

pytestmark = pytest.mark.services

WITHIN_SEC = 60
MEGABYTE = 1_000_000


async def test_a_chain_runs_to_its_end(installation: Installation) -> None:
    async with installation.coordinator() as coordinator, installation.worker([work]):
        task_id = await coordinator.create_task(graph=chain(*["work"] * 6))
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        ends = ends_of(await events_of(coordinator, task_id))
    assert view.status == "finished"
    assert ends == {name: ["finished"] for name in ("", "n0", "n1", "n2", "n3", "n4", "n5")}


async def test_a_fan_of_a_thousand_comes_together_again(installation: Installation) -> None:
    async with installation.coordinator() as coordinator, installation.worker([work]):
        task_id = await coordinator.create_task(graph=fan(1000))
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        ends = ends_of(await events_of(coordinator, task_id))
    assert view.status == "finished"
    assert set(map(tuple, ends.values())) == {("finished",)}
    assert len(ends) == 1003


async def largest_of(client: Any, installation: Installation, collection: str) -> int:
    sizes = [
        {"$project": {"size": {"$bsonSize": "$$ROOT"}}},
        {"$group": {"_id": None, "most": {"$max": "$size"}}},
    ]
    cursor = await client[installation.namespace][
        f"{installation.namespace}_{collection}"
    ].aggregate(sizes)
    return max([found["most"] async for found in cursor], default=0)


async def test_no_document_of_a_wide_fan_is_large(installation: Installation) -> None:
    seen: list[int] = []

    async def look(client: Any) -> None:
        while True:
            seen.append(await largest_of(client, installation, "tasks"))
            await anyio.sleep(0.02)

    async with (
        installation.coordinator() as coordinator,
        installation.worker([work]),
        installation.mongo() as client,
    ):
        async with anyio.create_task_group() as group:
            group.start_soon(look, client)
            task_id = await coordinator.create_task(graph=fan(3000))
            view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
            group.cancel_scope.cancel()
        seen.append(await largest_of(client, installation, "archive"))
    assert view.status == "finished"
    assert len(seen) > 10
    assert 0 < max(seen) < MEGABYTE


async def test_a_stream_is_read_while_it_is_written(installation: Installation) -> None:
    first_was_read = anyio.Event()

    @handler("numbers")
    async def numbers(item: Any) -> AsyncIterator[dict[str, int]]:
        yield {"n": 0}
        await first_was_read.wait()
        for number in range(1, 30):
            yield {"n": number}

    seen: list[int] = []

    @handler("read")
    async def read(item: dict[str, int]) -> dict[str, int]:
        seen.append(item["n"])
        first_was_read.set()
        return {"twice": item["n"] * 2}

    async with installation.coordinator() as coordinator, installation.worker([numbers, read]):
        task_id = await coordinator.create_task(
            graph=graph(node("a", "numbers"), pull("b", "read", "a"))
        )
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        artifacts = [artifact.meta async for artifact in coordinator.artifacts(task_id, "b")]
    assert view.status == "finished"
    assert sorted(seen) == list(range(30))
    assert sorted(meta["twice"] for meta in artifacts) == list(range(0, 60, 2))


async def test_a_node_that_ignores_its_cancellation_is_cancelled_after_the_grace(
    installation: Installation,
) -> None:
    running = anyio.Event()

    @handler("stubborn")
    async def stubborn(item: Any) -> None:
        running.set()
        await anyio.sleep_forever()

    grace = {"cancel_grace_sec": 0.5}
    async with (
        installation.coordinator(**grace) as coordinator,
        installation.worker([stubborn, work], **grace),
    ):
        task_id = await coordinator.create_task(graph=chain("stubborn", "work"))
        with anyio.fail_after(WITHIN_SEC):
            await running.wait()
        began = anyio.current_time()
        await coordinator.cancel(task_id, "enough")
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        took = anyio.current_time() - began
    assert (view.status, view.nodes["n0"].status) == ("cancelled", "cancelled")
    assert view.nodes["n1"].attempt == 0
    assert took < 9


async def test_a_failed_attempt_and_a_failed_task_are_tried_again(
    installation: Installation,
) -> None:
    runs: list[tuple[str, int]] = []
    fixed = False

    @handler("flaky")
    async def flaky(item: Any, ctx: RunContext) -> None:
        runs.append((ctx.node_id, ctx.attempt))
        if ctx.attempt == 1:
            raise RuntimeError("not yet")

    @handler("broken")
    async def broken(item: Any) -> str:
        if not fixed:
            raise ValueError("broken")
        return "fixed"

    flow = graph(
        node("a", "flaky", retry_policy={"max": 1, "backoff_sec": 0.05, "jitter": 0}),
        node("b", "broken", "a"),
    )
    async with installation.coordinator() as coordinator, installation.worker([flaky, broken]):
        task_id = await coordinator.create_task(graph=flow)
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        assert (view.status, view.nodes["a"].attempt, view.nodes["b"].reason_code) == (
            "failed",
            2,
            "bad_input",
        )
        fixed = True
        await coordinator.retry(task_id)
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
    assert (view.status, view.result) == ("finished", {"b": "fixed"})
    assert runs == [("a", 1), ("a", 2)]


async def test_what_users_name_may_look_like_the_database_s_own(installation: Installation) -> None:
    values = {"$set": {"a.b": 1, "$where": "x"}, "plain": "$plain"}
    kv = {"sla.days": 3, "odd": ["$set", values], "über": "$x"}
    seed = node("$seed.a", "coordinator_fn", io={"fn": "vars.set", "fn_args": {"kv": kv}})
    count = node(
        "b",
        "coordinator_fn",
        "$seed.a",
        io={"fn": "vars.incr", "fn_args": {"key": "sla.days", "by": 2}},
    )
    last = node("$c.d", "work", "b", when="vars.sla.days == 5", io={"input_inline": values})
    async with installation.coordinator() as coordinator, installation.worker([work]):
        task_id = await coordinator.create_task(
            graph=graph(seed, count, last), params={"$inc": {"a.b": 1}}, labels={"$l.m": "a.$b"}
        )
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        listed = await coordinator.list_tasks(labels={"$l.m": "a.$b"})
    assert view.status == "finished", view.error
    assert view.vars == {"sla": {"days": 5}, "odd": ["$set", values], "über": "$x"}
    assert view.params == {"$inc": {"a.b": 1}}
    assert view.result == {"$c.d": values}
    assert [item.id for item in listed.items] == [task_id]


async def test_params_results_and_artifacts_too_large_for_a_document_s_field_travel_whole(
    installation: Installation,
) -> None:
    text = os.urandom(150_000).hex()

    class Large(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(success=True, artifacts_ref={"text": ctx.params["text"][::-1]})

    @handler("echo")
    async def echo(item: Any, ctx: RunContext) -> Any:
        return ctx.params["text"]

    @handler("compare")
    async def compare(item: Any, ctx: RunContext) -> bool:
        return bool(ctx.results["a"] == ctx.params["text"])

    flow = graph(node("a", "echo"), node("b", "compare", "a"), node("c", "large"))
    async with (
        installation.coordinator() as coordinator,
        installation.worker({"echo": echo, "compare": compare, "large": Large}),
    ):
        task_id = await coordinator.create_task(graph=flow, params={"text": text})
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        (artifact,) = [
            artifact async for artifact in coordinator.artifacts(task_id, "c") if artifact.partial
        ]
    assert view.status == "finished", view.error
    assert (view.result["b"], view.nodes["a"].result == text, view.params == {"text": text}) == (
        True,
        True,
        True,
    )
    assert artifact.meta == {"text": text[::-1]}


async def test_several_coordinators_that_join_meanwhile_let_each_node_end_once(
    installation: Installation,
) -> None:
    runs = Counter[tuple[str, str]]()

    @handler("count")
    async def count(item: Any, ctx: RunContext) -> None:
        runs[ctx.task_id, ctx.node_id] += 1

    async with AsyncExitStack() as opened:
        coordinators = [
            await opened.enter_async_context(installation.coordinator(worker_types=["count"]))
            for _ in range(3)
        ]
        for _ in range(2):
            await opened.enter_async_context(installation.worker([count]))
        client = await opened.enter_async_context(installation.client())
        # The groups still rebalance: reports reach coordinators that know an older state of the
        # task.
        task_ids = [
            await coordinators[number % 3].create_task(graph=fan(10, "count"))
            for number in range(40)
        ]
        views = [await client.wait(task_id, timeout=WITHIN_SEC) for task_id in task_ids]
        ends = [ends_of(await events_of(client, task_id)) for task_id in task_ids]
    assert {view.status for view in views} == {"finished"}
    assert {tuple(statuses) for each in ends for statuses in each.values()} == {("finished",)}
    assert len(runs) == 40 * 12


async def test_topics_that_the_configuration_names_are_used(
    installation: Installation,
) -> None:
    names = {
        "topic_cmd_fmt": "{namespace}-do-{role}",
        "topic_status_fmt": "{namespace}-reports",
        "topic_control_fmt": "{namespace}-all",
    }
    assert (
        CoordinatorConfig(**installation.common, **names).events_topic
        == f"{installation.namespace}-reports"
    )
    async with (
        installation.coordinator(**names) as coordinator,
        installation.worker([work], **names),
    ):
        task_id = await coordinator.create_task(graph=chain("work", "work"))
        assert (await coordinator.wait(task_id, timeout=WITHIN_SEC)).status == "finished"
