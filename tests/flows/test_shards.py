"""Nodes whose batches are divided among shards: ``io.shards``."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit.errors import NodeFailure, TaskRefused
from flowkit.protocols import ArtifactRecord, Stream
from flowkit.worker import (
    Batch,
    BatchResult,
    FinalizeResult,
    Handler,
    InputRequest,
    RunContext,
    handler,
)
from flowkit_testing import Cluster
from tests.builders import DAY, die, ended, graph, node

QUICK = CoordinatorConfig(
    heartbeat_soft_sec=2, heartbeat_hard_sec=4, lease_ttl_sec=4, scheduler_tick_sec=2
)
LIVELY = WorkerConfig(hb_interval_sec=1, pull_poll_ms_default=200, cancel_grace_sec=2)
ONE_SLOT = WorkerConfig(max_concurrency=1)


@handler("p")
async def numbers(item: int) -> AsyncIterator[dict[str, int]]:
    for number in range(item):
        yield {"n": number}


class Reads(Handler):
    """Reads numbers, each for some seconds, and keeps what each of its runs did."""

    def __init__(self, seconds: float = 0.3) -> None:
        self.seconds = seconds
        self.done: list[tuple[str, int]] = []
        self.inits: list[str] = []
        self.ends: list[str] = []
        self.fails: dict[int, int] = {}
        """Number of failures that a number has left."""

    async def init(self, run_info: dict[str, Any]) -> None:
        self.inits.append(run_info["node_id"])

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        number = batch.payload["meta"]["n"]
        await ctx.clock.sleep(self.seconds)
        if self.fails.get(number):
            self.fails[number] -= 1
            raise NodeFailure(f"no {number}", reason_code="no", permanent=not self.fails[number])
        self.done.append((ctx.node_id, number))
        return BatchResult(
            success=True, metrics={"sum": number, "count": 1}, artifacts_ref={"n": number}
        )

    async def finalize(self, ctx: RunContext) -> FinalizeResult:
        self.ends.append(ctx.node_id)
        read = [meta["n"] async for meta in ctx.artifacts.read() if "n" in meta]
        return FinalizeResult(result=sorted(read), metrics={"ends": 1}, artifacts_ref={"all": True})


def sharded(count: int, shards: int, *more: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a graph with a producer ``p`` and a reader ``c`` that has shards."""
    io = {"start_when": "first_batch", "shards": shards} | fields.pop("io", {})
    return graph(
        node("p", "p", io={"input_inline": count}), node("c", "c", "p", io=io, **fields), *more
    )


async def test_the_shards_of_a_node_run_on_all_workers() -> None:
    reads = Reads()
    async with Cluster(worker_config=ONE_SLOT) as cluster:
        await cluster.add_worker({"p": numbers})
        for _ in range(4):
            await cluster.add_worker({"c": reads})
        before = cluster.clock.monotonic()
        task_id = await cluster.client.create_task(graph=sharded(20, 4))
        view = await cluster.client.wait(task_id, timeout=DAY)
        took = cluster.clock.monotonic() - before
    assert view.status == "finished", view
    assert view.nodes["c"].result == list(range(20))
    assert Counter(reads.done) == Counter((f"c[{n % 4}]", n) for n in range(20))
    assert took <= 1.8
    assert len({view.nodes[f"c[{shard}]"].worker_id for shard in range(4)}) == 4
    assert (sorted(reads.inits), reads.ends) == ([f"c[{shard}]" for shard in range(4)], ["c"])
    assert view.nodes["c"].metrics == {"sum": 190, "count": 20, "ends": 1}
    assert view.nodes["c[1]"].metrics == {"sum": 45, "count": 5}
    assert view.nodes["c"].attempt == 1
    assert view.nodes["c"].started_at == view.nodes["c[0]"].started_at


async def test_each_shard_has_windows_of_its_own() -> None:
    seen: dict[str, list[list[int]]] = {}

    async def windows(items: list[dict[str, int]], ctx: RunContext) -> None:
        seen.setdefault(ctx.node_id, []).append([item["n"] for item in items])

    document = sharded(10, 3, io={"batching": {"size": 2}})
    async with Cluster() as cluster:
        view = await cluster.run(document, handlers={"p": numbers, "c": windows})
    assert view.status == "finished"
    assert seen == {
        "c[0]": [[0, 3], [6, 9]],
        "c[1]": [[1, 4], [7]],
        "c[2]": [[2, 5], [8]],
    }


async def test_the_shards_divide_artifacts_and_not_their_items() -> None:
    seen: dict[str, list[list[int]]] = {}

    @handler("lists")
    async def lists(item: int) -> AsyncIterator[dict[str, list[int]]]:
        for number in range(item):
            yield {"items": [number, -number]}

    async def one(items: list[int], ctx: RunContext) -> None:
        seen.setdefault(ctx.node_id, []).append(items)

    pull = {"input_adapter": "pull.from_artifacts.rechunk:size", "input_args": {"size": 1}}
    document = graph(
        node("p", "lists", io={"input_inline": 3}),
        node("c", "c", "p", io={"shards": 2, "input_inline": pull}),
    )
    async with Cluster() as cluster:
        view = await cluster.run(document, handlers={"lists": lists, "c": one})
    assert view.status == "finished"
    assert seen == {"c[0]": [[0], [0], [2], [-2]], "c[1]": [[1], [-1]]}


async def test_the_artifacts_of_all_shards_are_one_stream_for_the_nodes_below() -> None:
    read: list[int] = []

    @handler("twice")
    async def twice(item: dict[str, int], ctx: RunContext) -> AsyncIterator[dict[str, int]]:
        for sign in (1, -1):
            yield {"n": sign * item["n"]}

    async def last(item: dict[str, int], ctx: RunContext) -> None:
        read.append(item["n"])
        assert ctx.node_id == "z"

    document = sharded(
        20,
        3,
        node("z", "z", "c", io={"start_when": "first_batch"}),
        node("m", "m", "c", map={"over": {"artifacts": "c"}}, io={"input_inline": "${item.n}"}),
    )
    async with Cluster() as cluster:
        handlers = {"p": numbers, "c": twice, "z": last, "m": lambda item: item}
        view = await cluster.run(document, handlers=handlers)
        stored = [one.meta["n"] async for one in cluster.client.artifacts(view.id, "c")]
    both = sorted([*range(20), *(-n for n in range(20))])
    assert (view.status, sorted(read), sorted(view.nodes["m"].result)) == ("finished", both, both)
    assert sorted(stored) == both
    assert view.nodes["c"].result is None


async def test_a_shard_of_a_killed_worker_alone_runs_again() -> None:
    reads = Reads(1.0)
    async with Cluster(
        coordinator_config=QUICK, worker_config=LIVELY.model_copy(update={"max_concurrency": 1})
    ) as cluster:
        await cluster.add_worker({"p": numbers})
        workers = [await cluster.add_worker({"c": reads}) for _ in range(3)]
        task_id = await cluster.client.create_task(graph=sharded(30, 3))
        await cluster.clock.sleep(4.5)
        await die(cluster, workers[0])
        await cluster.add_worker({"c": reads})
        view = await ended(cluster, task_id)
    assert (view.status, view.nodes["c"].attempt) == ("finished", 2)
    assert sorted(view.nodes[f"c[{shard}]"].attempt for shard in range(3)) == [1, 1, 2]
    assert view.nodes["c"].result == list(range(30))
    assert view.nodes["c"].metrics == {"sum": 435, "count": 30, "ends": 1}
    assert reads.ends == ["c"]
    # What the worker had stored was not processed again.
    assert all(times == 1 for times in Counter(reads.done).values())


async def test_a_worker_that_stops_hands_its_shards_over() -> None:
    reads = Reads(1.0)
    config = WorkerConfig(max_concurrency=2, cancel_grace_sec=0.1)
    async with Cluster(worker_config=config) as cluster:
        first = await cluster.add_worker({"p": numbers, "c": reads})
        task_id = await cluster.client.create_task(graph=sharded(10, 2))
        await cluster.clock.sleep(2.5)
        await cluster.add_worker({"p": numbers, "c": reads})
        await cluster.stop_worker(first)
        view = await ended(cluster, task_id)
    assert (view.status, view.nodes["c"].attempt) == ("finished", 1)
    assert view.nodes["c"].result == list(range(10))


async def test_a_batch_that_fails_for_good_is_a_letter_of_its_shard() -> None:
    reads = Reads(0.0)
    reads.fails = {4: 1}
    document = sharded(9, 3, on_batch_failure="skip")
    async with Cluster() as cluster:
        client = cluster.client
        await cluster.add_worker({"p": numbers, "c": reads})
        view = await ended(cluster, await client.create_task(graph=document))
        (letter,) = (await client.dead_letters(task_id=view.id)).items
        assert (letter.node_id, letter.uid) == ("c[1]", "p:4")
        assert (view.nodes["c"].skipped_batches, view.nodes["c[1]"].skipped_batches) == (1, 1)
        assert view.nodes["c"].metrics["count"] == 8
        (outcome,) = await client.retry_dead_letters([letter.letter_id])
        assert outcome.done
        again = await ended(cluster, view.id)
        assert not (await client.dead_letters(task_id=view.id)).items
    assert again.nodes["c"].skipped_batches == 0
    assert again.nodes["c"].metrics == {"sum": 36, "count": 9, "ends": 1}
    assert again.nodes["c"].result == list(range(9))
    assert Counter(reads.done).most_common(1)[0][1] == 1


async def test_a_shard_that_fails_for_good_fails_its_node() -> None:
    reads = Reads(0.1)
    reads.fails = {4: 1}
    async with Cluster() as cluster:
        await cluster.add_worker({"p": numbers, "c": reads})
        view = await ended(cluster, await cluster.client.create_task(graph=sharded(9, 3)))
        failed = view.nodes["c"]
        assert (view.status, failed.status, failed.reason_code) == ("failed", "failed", "no")
        assert failed.error == "'c[1]' failed: no 4"
        await cluster.client.retry(view.id)
        again = await ended(cluster, view.id)
    assert (again.status, again.nodes["c"].result) == ("finished", list(range(9)))
    assert Counter(reads.done).most_common(1)[0][1] == 1


async def test_the_end_of_a_node_with_shards_is_retried_alone() -> None:
    class FailsAtTheEnd(Reads):
        async def finalize(self, ctx: RunContext) -> FinalizeResult:
            if not self.ends:
                self.ends.append(ctx.node_id)
                raise NodeFailure("not yet")
            return await super().finalize(ctx)

    reads = FailsAtTheEnd(0.0)
    async with Cluster() as cluster:
        view = await cluster.run(sharded(6, 2), handlers={"p": numbers, "c": reads}, timeout=DAY)
    assert (view.status, view.nodes["c"].attempt) == ("finished", 2)
    assert (len(reads.inits), reads.ends, len(reads.done)) == (2, ["c", "c"], 6)
    assert view.nodes["c"].metrics == {"sum": 15, "count": 6, "ends": 1}


@pytest.mark.parametrize("slow", [0, 2])
async def test_a_producer_waits_for_the_slowest_shard(slow: int) -> None:
    produced, read, most = 0, Counter[str](), 0

    @handler("p")
    async def produce(item: int, ctx: RunContext) -> AsyncIterator[dict[str, int]]:
        nonlocal produced, most
        for number in range(item):
            await ctx.clock.sleep(0.05)
            produced += 1
            if read:
                most = max(most, produced - 3 * min(read[f"c[{shard}]"] for shard in range(3)))
            yield {"n": number}

    async def consume(item: dict[str, int], ctx: RunContext) -> None:
        read[ctx.node_id] += 1
        await ctx.clock.sleep(1.0 if ctx.node_id == f"c[{slow}]" else 0.0)

    document = sharded(90, 3, io={"max_ahead": 9})
    async with Cluster() as cluster:
        view = await cluster.run(document, handlers={"p": produce, "c": consume}, timeout=DAY)
    assert view.status == "finished"
    assert 6 <= most <= 9 + 6


async def test_the_shards_of_a_producer_wait_for_a_reader_that_is_behind() -> None:
    stored, read, most = Counter[str](), 0, 0

    async def pass_on(item: dict[str, int], ctx: RunContext) -> dict[str, int]:
        nonlocal most
        # One shard takes longer, and those that are ahead do not wait for it.
        await ctx.clock.sleep(2.0 if ctx.node_id == "c[0]" else 0.01)
        stored[ctx.node_id] += 1
        most = max(most, stored.total() - read if read else 0)
        return item

    async def last(item: dict[str, int], ctx: RunContext) -> None:
        nonlocal read
        read += 1
        await ctx.clock.sleep(0.5)

    reader = node("z", "z", "c", io={"start_when": "first_batch", "max_ahead": 8})
    async with Cluster() as cluster:
        handlers = {"p": numbers, "c": pass_on, "z": last}
        view = await cluster.run(sharded(80, 4, reader), handlers=handlers, timeout=DAY)
    assert (view.status, read) == ("finished", 80)
    assert 4 <= most <= 8 + 6


async def test_shards_divide_only_what_a_node_pulls() -> None:
    class Proposes(Reads):
        async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
            return {"input_adapter": "own", "input_args": {}}

    class Adapters:
        @staticmethod
        def flowkit_register_input_adapters(register: Any) -> None:
            register("own", own)

    async def own(request: InputRequest) -> AsyncIterator[Batch]:
        yield Batch("all", 1)

    async with Cluster(plugins=[Adapters()]) as cluster:
        view = await cluster.run(sharded(6, 2), handlers={"p": numbers, "c": Proposes()})
    failed = view.nodes["c"]
    assert (failed.reason_code, failed.attempt) == ("bad_input_args", 1)
    assert "io.shards divides the artifacts that a node pulls" in str(failed.error)


async def test_a_cancelled_node_stops_all_its_shards() -> None:
    reads = Reads(60)
    async with Cluster() as cluster:
        await cluster.add_worker({"p": numbers, "c": reads})
        task_id = await cluster.client.create_task(graph=sharded(6, 3))
        await cluster.clock.sleep(2)
        before = await cluster.client.get_task(task_id)
        assert before.nodes["c"].children == {"running": 3}
        await cluster.client.cancel(task_id)
        view = await ended(cluster, task_id)
    assert {view.nodes[name].status for name in ("c", "c[0]", "c[1]", "c[2]")} == {"cancelled"}
    assert (reads.done, reads.ends) == ([], [])


async def test_shards_are_listed_read_and_explained_like_children_of_a_map() -> None:
    class Logs(Reads):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            ctx.log.info("read %s", batch.batch_uid)
            return await super().process_batch(batch, ctx)

    async with Cluster() as cluster:
        handlers = {"p": numbers, "c": Logs(0.0)}
        view = await cluster.run(sharded(4, 2), handlers=handlers)
        client = cluster.client
        listed = (await client.nodes(view.id, map="c")).items
        logs = [line.text async for line in client.logs(view.id, "c[1]")]
        of_node = [line.text async for line in client.logs(view.id, "c")]
        explained = await client.explain(view.id, "c[0]")
    assert [shard.node_id for shard in listed] == ["c[0]", "c[1]"]
    assert logs == ["read p:1", "read p:3"]
    assert sorted(of_node) == [f"read p:{number}" for number in range(4)]
    assert explained.startswith("'c[0]' has finished")


async def test_the_letter_of_a_shard_runs_that_shard_again() -> None:
    class FailsToBegin(Reads):
        async def init(self, run_info: dict[str, Any]) -> None:
            if run_info["node_id"] == "c[1]" and self.fails:
                self.fails.clear()
                raise NodeFailure("no disk", permanent=True)
            await super().init(run_info)

    reads = FailsToBegin(0.0)
    reads.fails = {-1: 1}
    async with Cluster() as cluster:
        client = cluster.client
        await cluster.add_worker({"p": numbers, "c": reads})
        view = await ended(cluster, await client.create_task(graph=sharded(9, 3)))
        (letter,) = (await client.dead_letters(task_id=view.id)).items
        assert (view.status, letter.node_id, letter.kind) == ("failed", "c[1]", "node")
        (outcome,) = await client.retry_dead_letters([letter.letter_id])
        assert outcome.done
        again = await ended(cluster, view.id)
    assert (again.status, again.nodes["c"].result) == ("finished", list(range(9)))
    assert Counter(reads.done).most_common(1)[0][1] == 1


@pytest.mark.parametrize("outcome", ["finished", "failed", "skipped"])
async def test_an_operator_settles_a_node_with_shards_and_none_of_its_shards(outcome: Any) -> None:
    reads = Reads(1.0)
    async with Cluster() as cluster:
        client = cluster.client
        await cluster.add_worker({"p": numbers, "c": reads})
        task_id = await client.create_task(graph=sharded(20, 2))
        await cluster.clock.sleep(3.5)
        with pytest.raises(
            TaskRefused,
            match=r"node 'c\[1\]' of task '.*' is a shard, whose remaining artifacts would be lost;"
            " resolve 'c' instead",
        ):
            await client.resolve_node(task_id, "c[1]", outcome, by="ann")
        assert (await client.get_task(task_id)).nodes["c[1]"].status == "running"
        await client.resolve_node(task_id, "c", outcome, by="ann")
        view = await ended(cluster, task_id)
    assert (view.nodes["c"].status, view.nodes["c"].resolved_by) == (outcome, "ann")
    assert {view.nodes[f"c[{shard}]"].status for shard in range(2)} == {"cancelled"}
    assert reads.ends == []


async def test_a_node_with_shards_ends_with_one_slot_more_than_its_readers_hold() -> None:
    async def reads(item: dict[str, Any]) -> None:
        pass

    readers = [node(name, "z", "c", io={"start_when": "first_batch"}) for name in ("z1", "z2")]
    async with Cluster(worker_config=WorkerConfig(max_concurrency=3)) as cluster:
        await cluster.add_worker({"p": numbers, "c": Reads(), "z": reads})
        task_id = await cluster.client.create_task(graph=sharded(6, 2, *readers))
        view = await ended(cluster, task_id)
    assert (view.status, view.nodes["c"].result) == ("finished", list(range(6)))


async def test_the_artifacts_of_a_node_are_listed_as_its_readers_get_them() -> None:
    """The clocks of the workers decide the order among those of the whole task alone."""
    async with Cluster() as cluster:
        task_id = await cluster.client.create_task(graph=graph(node("c", "c")))
        uids = ["0/p:1", "1/p:2", "0/p:3"]
        records = [
            ArtifactRecord(
                stream=Stream(task_id, "c"),
                uid=uid,
                partial=True,
                meta=b"{}",
                metrics=b"{}",
                created_at=created_at,
            )
            for uid, created_at in zip(uids, (3.0, 2.0, 1.0), strict=True)
        ]
        await cluster.store.artifacts.put(records)
        of_node = [one.uid async for one in cluster.client.artifacts(task_id, "c")]
        of_task = [one.uid async for one in cluster.client.artifacts(task_id)]
    assert (of_node, of_task) == (uids, uids[::-1])
