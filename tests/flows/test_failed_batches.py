"""Failed batches, their dead letters, and the retries of both, over a whole cluster."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from flowkit import CoordinatorConfig, TaskRefused, TaskView, WorkerConfig
from flowkit._records.letter_records import park_letters
from flowkit.messages import TaskTouched, encode
from flowkit.protocols import Message
from flowkit.task import DeadLetter
from flowkit.worker import Batch, BatchResult, Handler, RunContext, handler
from flowkit_testing import Cluster, InMemoryBus
from tests.builders import die, ended

QUICK = CoordinatorConfig(
    heartbeat_soft_sec=2, heartbeat_hard_sec=4, lease_ttl_sec=4, scheduler_tick_sec=2
)
LIVELY = WorkerConfig(hb_interval_sec=1, pull_poll_ms_default=200, cancel_grace_sec=2)


class Rows(Handler):
    """A handler with one batch for each row; the batches in ``bad`` fail."""

    def __init__(self) -> None:
        self.bad: set[str] = {"b"}
        self.broken = False
        self.seen: list[str] = []

    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        if self.broken:
            raise ValueError("no rows")
        for row in loaded["input_inline"]:
            yield Batch(row, {"row": row})

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        self.seen.append(batch.batch_uid)
        if batch.batch_uid in self.bad:
            raise RuntimeError("cannot")
        return BatchResult(True, {"rows": 1}, {"row": batch.batch_uid})


@handler("after")
async def after(item: Any, ctx: RunContext) -> list[str]:
    return sorted([meta["row"] async for meta in ctx.artifacts.read("a")])


def graph(**node: Any) -> dict[str, Any]:
    first = {"node_id": "a", "type": "rows", "io": {"input_inline": list("abcd")}, **node}
    return {"nodes": [first, {"node_id": "z", "type": "after", "depends_on": ["a"]}]}


async def letters(cluster: Cluster) -> list[str | None]:
    return [letter.uid for letter in (await cluster.client.dead_letters()).items]


# ---------------------------------------------------------------- batches


@pytest.mark.parametrize("retries", [0, 2])
async def test_a_bad_batch_is_tried_alone_then_kept_and_its_node_fails(
    flowkit_cluster: Cluster, retries: int
) -> None:
    rows = Rows()
    view = await flowkit_cluster.run(
        graph(retry_policy={"max": retries}), handlers={"rows": rows, "after": after}
    )
    node = view.nodes["a"]
    assert (view.status, node.status, node.reason_code, node.attempt) == (
        "failed",
        "failed",
        "unexpected_error",
        1,
    )
    assert Counter(rows.seen)["b"] == 1 + retries
    assert all(times == 1 for row, times in Counter(rows.seen).items() if row != "b")
    (letter,) = (await flowkit_cluster.client.dead_letters(task_id=view.id, kind="batch")).items
    assert (letter.node_id, letter.uid, letter.data, letter.error) == (
        "a",
        "b",
        b'{"row":"b"}',
        "RuntimeError: cannot",
    )


async def test_a_node_that_skips_finishes_without_the_batch(flowkit_cluster: Cluster) -> None:
    view = await flowkit_cluster.run(
        graph(on_batch_failure="skip"), handlers={"rows": Rows(), "after": after}
    )
    node = view.nodes["a"]
    assert (view.status, node.metrics, node.skipped_batches) == ("finished", {"rows": 3}, 1)
    assert view.result == {"z": ["a", "c", "d"]}
    assert await letters(flowkit_cluster) == ["b"]


async def test_a_letter_of_a_batch_runs_its_node_for_that_batch_alone(
    flowkit_cluster: Cluster,
) -> None:
    rows, client = Rows(), flowkit_cluster.client
    await flowkit_cluster.add_worker({"rows": rows, "after": after})
    task_id = await client.create_task(graph=graph(retry_policy={"max": 1}))
    assert (await ended(flowkit_cluster, task_id)).status == "failed"
    rows.bad.clear()
    (letter,) = (await client.dead_letters()).items
    (outcome,) = await client.retry_dead_letters([letter.letter_id])
    assert outcome.done
    view = await ended(flowkit_cluster, task_id)
    assert (view.status, view.result, view.nodes["a"].metrics) == (
        "finished",
        {"z": list("abcd")},
        {"rows": 4},
    )
    assert Counter(rows.seen) == {"a": 1, "b": 3, "c": 1, "d": 1}
    assert await letters(flowkit_cluster) == []
    (again,) = await client.retry_dead_letters([letter.letter_id])
    assert not again.done


async def test_retry_of_a_task_takes_back_the_letters_of_what_succeeds(
    flowkit_cluster: Cluster,
) -> None:
    rows, client = Rows(), flowkit_cluster.client
    await flowkit_cluster.add_worker({"rows": rows, "after": after})
    task_id = await client.create_task(graph=graph(retry_policy={"max": 0}))
    assert (await ended(flowkit_cluster, task_id)).status == "failed"
    rows.bad.clear()
    await client.retry(task_id)
    assert (await ended(flowkit_cluster, task_id)).status == "finished"
    assert await letters(flowkit_cluster) == []


async def test_the_letter_of_a_child_of_a_map_adds_the_batch_to_the_child(
    flowkit_cluster: Cluster,
) -> None:
    rows, client = Rows(), flowkit_cluster.client
    flow = graph(on_batch_failure="skip", retry_policy={"max": 0})
    mapped = {"map": {"over": [["a", "b"], ["c", "d"]]}, "io": {"input_inline": "${item}"}}
    flow["nodes"] = [flow["nodes"][0] | mapped]
    await flowkit_cluster.add_worker({"rows": rows})
    view = await ended(flowkit_cluster, await client.create_task(graph=flow))
    assert view.status == "finished"
    assert [view.nodes[f"a[{i}]"].skipped_batches for i in range(2)] == [1, 0]
    rows.bad.clear()
    (letter,) = (await client.dead_letters()).items
    (outcome,) = await client.retry_dead_letters([letter.letter_id])
    assert outcome.done
    again = await ended(flowkit_cluster, view.id)
    assert Counter(rows.seen) == {"a": 1, "b": 2, "c": 1, "d": 1}
    child = again.nodes["a[0]"]
    assert (again.status, child.metrics, child.skipped_batches) == ("finished", {"rows": 2}, 0)
    assert again.nodes["a[1]"] == view.nodes["a[1]"]
    stored = [(one.node_id, one.uid) async for one in client.artifacts(view.id) if one.partial]
    assert sorted(stored) == [("a[0]", "a"), ("a[0]", "b"), ("a[1]", "c"), ("a[1]", "d")]


async def test_a_letter_of_a_finished_task_adds_the_batch_and_runs_all_nodes_below_again(
    flowkit_cluster: Cluster,
) -> None:
    rows, client = Rows(), flowkit_cluster.client
    flow = graph(on_batch_failure="skip", retry_policy={"max": 0})
    flow["nodes"].append({"node_id": "other", "type": "coordinator_fn", "io": {"fn": "noop"}})
    await flowkit_cluster.add_worker({"rows": rows, "after": after})
    view = await ended(flowkit_cluster, await client.create_task(graph=flow))
    assert (view.status, view.result) == ("finished", {"z": ["a", "c", "d"], "other": None})
    with pytest.raises(TaskRefused, match="only a failed or cancelled task"):
        await client.retry(view.id, from_nodes=["a"])
    rows.bad.clear()
    (letter,) = (await client.dead_letters()).items
    (outcome,) = await client.retry_dead_letters([letter.letter_id])
    assert outcome.done
    again = await ended(flowkit_cluster, view.id)
    assert (again.status, again.result, again.error) == (
        "finished",
        {"z": list("abcd"), "other": None},
        None,
    )
    assert (again.nodes["a"].metrics, again.nodes["a"].skipped_batches) == ({"rows": 4}, 0)
    assert {name: node.attempt for name, node in again.nodes.items()} == {
        "a": 2,
        "z": 2,
        "other": 1,
    }
    assert rows.seen == ["a", "b", "c", "d", "b"]
    assert await letters(flowkit_cluster) == []


async def test_a_batch_of_a_finished_task_that_fails_again_leaves_another_letter(
    flowkit_cluster: Cluster,
) -> None:
    client = flowkit_cluster.client
    await flowkit_cluster.add_worker({"rows": Rows(), "after": after})
    view = await ended(
        flowkit_cluster,
        await client.create_task(graph=graph(on_batch_failure="skip", retry_policy={"max": 0})),
    )
    (letter,) = (await client.dead_letters()).items
    (outcome,) = await client.retry_dead_letters([letter.letter_id])
    assert outcome.done
    again = await ended(flowkit_cluster, view.id)
    assert (again.status, again.result, again.nodes["a"].skipped_batches) == (
        "finished",
        {"z": ["a", "c", "d"]},
        1,
    )
    (left,) = (await client.dead_letters()).items
    assert (left.uid, left.attempt) == ("b", 2)


@handler("first")
async def first(item: Any, ctx: RunContext) -> list[str]:
    return sorted(ctx.results)


@pytest.fixture
async def either(flowkit_cluster: Cluster) -> tuple[Cluster, Rows, TaskView]:
    """Return a finished task that skipped a batch of ``a`` and stopped ``s``.

    ``first`` needed one of the two.
    """
    rows = Rows()

    @handler("slow")
    async def slow(item: Any, ctx: RunContext) -> None:
        await ctx.cancellable(ctx.clock.sleep(60))

    flow = graph(on_batch_failure="skip", retry_policy={"max": 0})
    flow |= {"on_node_failure": "continue"}
    flow["nodes"] += [
        {"node_id": "s", "type": "slow"},
        {
            "node_id": "first",
            "type": "first",
            "depends_on": ["a", "s"],
            "fan_in": "any",
            "on_satisfied": "cancel",
        },
    ]
    await flowkit_cluster.add_worker({"rows": rows, "after": after, "first": first, "slow": slow})
    view = await ended(flowkit_cluster, await flowkit_cluster.client.create_task(graph=flow))
    assert (view.status, view.nodes["s"].status, view.nodes["first"].result) == (
        "finished",
        "cancelled",
        ["a"],
    )
    return flowkit_cluster, rows, view


async def retry_letter(cluster: Cluster, task_id: str) -> TaskView:
    (letter,) = (await cluster.client.dead_letters()).items
    (outcome,) = await cluster.client.retry_dead_letters([letter.letter_id])
    assert outcome.done
    return await ended(cluster, task_id)


async def test_a_node_that_a_finished_task_did_not_need_is_stopped_again_after_the_retry_of_a_batch(
    either: tuple[Cluster, Rows, TaskView],
) -> None:
    cluster, rows, view = either
    rows.bad.clear()
    again = await retry_letter(cluster, view.id)
    assert (again.status, again.nodes["s"].status) == ("finished", "cancelled")
    assert again.result == {"z": list("abcd"), "first": ["a"]}


async def test_a_node_that_was_not_needed_replaces_a_retried_node_that_fails(
    either: tuple[Cluster, Rows, TaskView],
) -> None:
    cluster, rows, view = either
    rows.broken = True
    again = await retry_letter(cluster, view.id)
    assert {name: node.status for name, node in again.nodes.items()} == {
        "a": "failed",
        "z": "skipped",
        "s": "finished",
        "first": "finished",
    }
    assert (again.status, again.nodes["first"].result) == ("failed", ["s"])


async def test_a_letter_fills_the_gap_of_a_node_that_finished_in_a_task_that_failed(
    flowkit_cluster: Cluster,
) -> None:
    rows, client = Rows(), flowkit_cluster.client
    broken = True

    @handler("after")
    async def fragile(item: Any, ctx: RunContext) -> Any:
        if broken:
            raise ValueError("no")
        return await after(item, ctx)

    await flowkit_cluster.add_worker({"rows": rows, "after": fragile})
    task_id = await client.create_task(graph=graph(on_batch_failure="skip"))
    view = await ended(flowkit_cluster, task_id)
    assert (view.status, view.nodes["a"].status) == ("failed", "finished")
    broken = False
    rows.bad.clear()
    (letter,) = (await client.dead_letters(kind="batch")).items
    (outcome,) = await client.retry_dead_letters([letter.letter_id])
    assert outcome.done
    view = await ended(flowkit_cluster, task_id)
    assert (view.result, view.nodes["a"].skipped_batches) == ({"z": list("abcd")}, 0)
    assert Counter(rows.seen) == {"a": 1, "b": 4, "c": 1, "d": 1}


async def test_a_letter_of_an_earlier_generation_is_outdated(flowkit_cluster: Cluster) -> None:
    rows, client = Rows(), flowkit_cluster.client
    broken = True

    @handler("after")
    async def fragile(item: Any) -> Any:
        if broken:
            raise ValueError("no")
        return "well"

    await flowkit_cluster.add_worker({"rows": rows, "after": fragile})
    task_id = await client.create_task(
        graph=graph(on_batch_failure="skip", retry_policy={"max": 0})
    )
    await ended(flowkit_cluster, task_id)
    (letter,) = (await client.dead_letters(kind="batch")).items
    rows.bad.clear()
    await client.retry(task_id, from_nodes=["a"])
    assert (await ended(flowkit_cluster, task_id)).status == "failed"
    (outcome,) = await client.retry_dead_letters([letter.letter_id])
    assert (outcome.done, "from the start" in outcome.detail) == (False, True)
    assert await client.drop_dead_letters([letter.letter_id]) == 1


async def test_a_letter_of_a_running_task_waits_for_its_end(flowkit_cluster: Cluster) -> None:
    client, gate = flowkit_cluster.client, anyio.Event()

    @handler("after")
    async def slow(item: Any) -> None:
        await gate.wait()

    await flowkit_cluster.add_worker({"rows": Rows(), "after": slow})
    task_id = await client.create_task(
        graph=graph(on_batch_failure="skip", retry_policy={"max": 0})
    )
    async for event in client.watch(task_id):
        if (event.node_id, event.status) == ("z", "running"):
            (letter,) = (await client.dead_letters()).items
            (outcome,) = await client.retry_dead_letters([letter.letter_id])
            assert (outcome.done, "is running" in outcome.detail) == (False, True)
            gate.set()


async def test_a_batch_of_a_stream_is_tried_again_before_the_stream_has_ended() -> None:
    gate, seen = anyio.Event(), list[tuple[int, int]]()

    @handler("produce")
    async def produce(item: Any) -> AsyncIterator[dict[str, int]]:
        yield {"n": 0}
        yield {"n": 1}
        await gate.wait()
        yield {"n": 2}

    @handler("consume")
    async def consume(item: dict[str, int], ctx: RunContext) -> dict[str, int]:
        seen.append((item["n"], ctx.attempt))
        if seen[-1] == (0, 1):
            raise RuntimeError("not yet")
        if ctx.attempt == 2:
            gate.set()
        return item

    pull = {"input_inline": {"input_adapter": "pull.from_artifacts"}, "start_when": "first_batch"}
    nodes = [
        {"node_id": "p", "type": "produce"},
        {"node_id": "c", "type": "consume", "depends_on": ["p"], "io": pull},
    ]
    async with Cluster(
        handlers=[produce, consume], worker_config=LIVELY, coordinator_config=QUICK
    ) as cluster:
        assert (await cluster.run({"nodes": nodes}, timeout=600)).status == "finished"
    assert seen == [(0, 1), (1, 1), (0, 2), (2, 1)]


# ---------------------------------------------------------------- over lost workers


async def test_tries_before_and_after_a_worker_is_lost_are_bounded_together() -> None:
    seen: list[tuple[str, int]] = []
    in_the_second = anyio.Event()

    class Deadly(Rows):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            if batch.batch_uid == "b":
                seen.append((ctx.worker_id, ctx.attempt))
                if ctx.attempt == 2:
                    in_the_second.set()
                    await anyio.sleep_forever()
            return await super().process_batch(batch, ctx)

    async with Cluster(coordinator_config=QUICK) as cluster:
        first = await cluster.add_worker(
            {"rows": Deadly()}, LIVELY.model_copy(update={"worker_id": "first"})
        )
        task_id = await cluster.client.create_task(
            graph={"nodes": graph(retry_policy={"max": 3})["nodes"][:1]}
        )
        await in_the_second.wait()
        await die(cluster, first)
        await cluster.add_worker(
            {"rows": Deadly()}, LIVELY.model_copy(update={"worker_id": "second"})
        )
        view = await cluster.client.wait(task_id, timeout=600)
    assert view.status == "failed"
    assert seen == [("first", 1), ("first", 2), ("second", 3), ("second", 4)]


async def test_progress_is_there_for_the_attempt_after_a_worker_was_lost() -> None:
    found: list[tuple[int, Any]] = []
    told = anyio.Event()

    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        found.append((ctx.attempt, ctx.progress))
        if ctx.attempt == 1:
            ctx.heartbeat({"page": 7})
            await ctx.clock.sleep(0.5)
            told.set()
            await anyio.sleep_forever()

    async with Cluster(coordinator_config=QUICK) as cluster:
        first = await cluster.add_worker([work], LIVELY.model_copy(update={"worker_id": "first"}))
        task_id = await cluster.client.create_task(
            graph={"nodes": [{"node_id": "a", "type": "work"}]}
        )
        await told.wait()
        await die(cluster, first)
        await cluster.add_worker([work], LIVELY.model_copy(update={"worker_id": "second"}))
        assert (await cluster.client.wait(task_id, timeout=600)).status == "finished"
    assert found == [(1, None), (2, {"page": 7})]


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize("topic", ["flowkit.events", "flowkit.cmd.after"])
async def test_a_refused_message_is_kept_once_with_where_it_came_from(
    flowkit_cluster: Cluster, topic: str
) -> None:
    client = flowkit_cluster.client
    await flowkit_cluster.add_worker([after])
    async with flowkit_cluster.bus.subscribe(["flowkit.dlq"], group="watch") as dead:
        await flowkit_cluster.bus.publish([Message(topic, b"\xff{", "k", {"h": b"\x00"})])
        with anyio.fail_after(60):
            (rejected,) = await dead.receive(max_messages=1)
    (letter,) = (await client.dead_letters(kind="message")).items
    assert (letter.topic, letter.key, letter.headers["h"], letter.data, letter.size) == (
        topic,
        "k",
        b"\x00",
        b"\xff{",
        2,
    )
    assert letter.error == rejected.message.headers["flowkit-reason"].decode()
    assert str(letter.position).encode() == rejected.message.headers["flowkit-position"]


async def test_a_refused_message_is_sent_again_as_it_was(flowkit_cluster: Cluster) -> None:
    client, bus = flowkit_cluster.client, flowkit_cluster.bus
    async with bus.subscribe(["flowkit.events"], group="watch") as events:
        await bus.publish([Message("flowkit.events", b"no message", "k", {"h": b"\x00"})])
        await events.receive(max_messages=100)
        await flowkit_cluster.clock.sleep(1)
        (letter,) = (await client.dead_letters()).items
        (outcome,) = await client.retry_dead_letters([letter.letter_id])
        assert outcome.done
        with anyio.fail_after(60):
            (delivery,) = await events.receive(max_messages=100)
    assert delivery.message == Message("flowkit.events", b"no message", "k", letter.headers)
    await flowkit_cluster.clock.sleep(1)
    (again,) = (await client.dead_letters()).items
    assert (again.letter_id != letter.letter_id, again.position) == (True, delivery.position)


async def test_a_letter_whose_message_was_cut_is_not_sent() -> None:
    async with Cluster(bus=InMemoryBus(max_message_bytes=2 * 1024 * 1024)) as cluster:
        await cluster.bus.publish([Message("flowkit.events", b"x" * (1024 * 1024 + 1))])
        await cluster.clock.sleep(1)
        (letter,) = (await cluster.client.dead_letters()).items
        assert (len(letter.data), letter.size) == (1024 * 1024, 1024 * 1024 + 1)
        (outcome,) = await cluster.client.retry_dead_letters([letter.letter_id])
    assert not outcome.done


# ---------------------------------------------------------------- tasks


async def test_a_quarantined_task_is_loaded_again_on_retry(flowkit_cluster: Cluster) -> None:
    client, store = flowkit_cluster.client, flowkit_cluster.store
    await flowkit_cluster.add_worker([after])
    async with flowkit_cluster.bus.subscribe(["flowkit.events"], group="watch") as events:
        await park_letters(
            store, [DeadLetter("task-t-1", 0.0, "task", "quarantined", "boom", task_id="t")]
        )
        (outcome,) = await client.retry_dead_letters(["task-t-1"])
        with anyio.fail_after(60):
            (delivery,) = await events.receive(max_messages=10)
    assert outcome.done
    assert delivery.message.value == encode(TaskTouched(task_id="t"))
    assert (await client.dead_letters()).items == []


async def test_the_kind_of_a_dead_letter_is_checked(flowkit_cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="kind"):
        await flowkit_cluster.client.dead_letters(kind="letter")
    with pytest.raises(TaskRefused):
        await flowkit_cluster.client.retry(await flowkit_cluster.client.create_task(graph=graph()))
