"""The standard scenarios, which FlowKit must pass under all faults."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import anyio

from flowkit import Client, Schedule, ScheduleRefused, ScheduleView, Trigger
from flowkit._schedules import next_times
from flowkit.config import LogConfig
from flowkit.errors import (
    AlreadyDecided,
    NodeFailure,
    NotRunning,
    SignalRefused,
    StoreUnavailable,
    TaskNotFound,
    TaskRefused,
)
from flowkit.protocols import Stream
from flowkit.task import LogLine, TaskView
from flowkit.worker import Batch, BatchResult, FinalizeResult, Handler, RunContext, handler
from flowkit_testing.simulation import ProcessDied, Setup, SimCluster, setup_of
from flowkit_testing.simulation._cluster import COORDINATOR, WORKER
from tests.builders import graph
from tests.simulation.trigger_sources import SOURCES, SimulatedSource

TALK = 40
"""Lines that a run of the handler ``talk`` logs."""
PATIENT = {"max": 60, "backoff_sec": 0.2, "max_backoff_sec": 5.0, "jitter": 0.5}
"""More attempts than any series of lost workers uses up."""
CONVERGE_SEC = 240.0
"""Seconds after the last fault in which every scenario ends. The longest handlers take 30 s, and
leases double with each attempt.
"""


def node(
    node_id: str, role: str = "work", after: list[str] | None = None, **fields: Any
) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "type": role,
        "depends_on": after or [],
        "retry_policy": PATIENT,
        **fields,
    }


def call(
    node_id: str, function: str, after: list[str] | None = None, **args: Any
) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "type": "coordinator_fn",
        "depends_on": after or [],
        "io": {"fn": function, "fn_args": args},
    }


# ---------------------------------------------------------------- handlers


async def a_while(ctx: RunContext) -> None:
    await ctx.clock.sleep(random.choice([0.0, 0.01, 0.3, 2.0, 8.0]))


@handler("work")
async def work(item: Any, ctx: RunContext) -> Any:
    await a_while(ctx)
    return {"node": ctx.node_id, "item": item, "from": sorted(ctx.results)}


@handler("talk")
async def talk(item: Any, ctx: RunContext) -> None:
    """Log numbered lines with a mark of this run."""
    mark = f"{random.getrandbits(48):012x}"
    for number in range(TALK):
        ctx.log.info("%s %d", mark, number)
        if number % 10 == 5:
            await a_while(ctx)
            ctx.raise_if_cancelled()
    if ctx.attempt == 1 and item == "fails":
        raise RuntimeError("the first attempt fails")


@handler("slow")
async def slow(item: Any, ctx: RunContext) -> Any:
    for step in range(10):
        ctx.heartbeat({"step": step})
        await ctx.clock.sleep(3)
        ctx.raise_if_cancelled()
    return "done"


@handler("deaf")
async def deaf(item: Any, ctx: RunContext) -> Any:
    with anyio.CancelScope(shield=True):
        await ctx.clock.sleep(2)
    await ctx.clock.sleep(300)


@handler("third_time")
async def third_time(item: Any, ctx: RunContext) -> Any:
    await a_while(ctx)
    if ctx.attempt < 3:
        raise RuntimeError(f"attempt {ctx.attempt} fails")
    return ctx.attempt


@handler("never")
async def never(item: Any, ctx: RunContext) -> Any:
    await a_while(ctx)
    raise RuntimeError("it never goes well")


@handler("wrong")
async def wrong(item: Any, ctx: RunContext) -> Any:
    raise ValueError("the input is wrong")


@handler("wrong_at_first")
async def wrong_at_first(item: Any, ctx: RunContext) -> Any:
    if ctx.attempt == 1:
        raise ValueError("the input is wrong")
    return {"node": ctx.node_id}


@handler("first_generation_fails")
async def first_generation_fails(item: Any, ctx: RunContext) -> Any:
    await a_while(ctx)
    if not ctx.vars.get("repaired"):
        raise ValueError("not yet")
    return "repaired"


@handler("odd")
async def odd(item: Any, ctx: RunContext) -> Any:
    """Fail for even numbers until the vars say that they are repaired."""
    await a_while(ctx)
    if item % 2 == 0 and not ctx.vars.get("repaired"):
        raise ValueError("an even number")
    return item


@handler("plain")
def plain(item: Any) -> Any:
    return {"sum": sum(item)}


@handler("produce")
async def produce(item: Any, ctx: RunContext) -> AsyncIterator[Any]:
    for number in range(item["batches"]):
        if number % 10 == 0:
            await a_while(ctx)
        yield {"items": [number, number]}


@handler("count_up")
async def count_up(item: Any, ctx: RunContext) -> AsyncIterator[Any]:
    for number in range(item):
        if number % 3 == 0:
            await a_while(ctx)
        yield {"from": ctx.node_id, "number": number}


class Collect(Handler):
    """A handler that keeps its windows."""

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        await ctx.clock.sleep(random.choice([0.0, 0.0, 0.5]))
        return BatchResult(True, {}, {"window": batch.payload["items"]})


class Several(Handler):
    """A handler that fails for 7, and for other numbers at times."""

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        number = batch.payload["meta"]["number"]
        await ctx.clock.sleep(random.choice([0.0, 0.1, 1.0]))
        assert ctx.batch_uid == batch.batch_uid
        if number == 7 or random.random() < 0.1:
            raise NodeFailure("no", permanent=number == 7)
        return BatchResult(True, {"batches": 1}, {"number": number})


class PassOn(Handler):
    """A handler that stores what it reads."""

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return BatchResult(True, {"batches": 1}, batch.payload["meta"])


class Shares(Handler):
    """A handler of windows or single numbers that fails at times, also in ``finalize``."""

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        items = batch.payload.get("items") or [batch.payload["meta"]]
        await ctx.clock.sleep(random.choice([0.0, 0.3]))
        if random.random() < 0.1:
            raise NodeFailure("no")
        found = [item["number"] for item in items]
        return BatchResult(True, {"numbers": len(found)}, {"numbers": found})

    async def finalize(self, ctx: RunContext) -> FinalizeResult:
        if random.random() < 0.3:
            raise NodeFailure("no")
        read = [meta async for meta in ctx.artifacts.read()]
        found = sorted(number for one in read for number in one.get("numbers", ()))
        return FinalizeResult({}, {"all": len(found)}, {"numbers": found})


class Consume(Handler):
    """A handler that counts its input; each batch counts once."""

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        items = (
            batch.payload["items"] if "items" in batch.payload else batch.payload["meta"]["items"]
        )
        if random.random() < 0.05:
            await ctx.clock.sleep(0.5)
        return BatchResult(True, {"items": len(items), "sum": sum(items)}, {"items": items})


@handler("produce_half_at_first")
async def produce_half_at_first(item: Any, ctx: RunContext) -> AsyncIterator[Any]:
    for number in range(4):
        if number == 2:
            await a_while(ctx)
            if ctx.attempt == 1:
                raise ValueError("the input is wrong")
        yield {"items": [number]}


class Proposes(Consume):
    """A handler that pulls although its graph names no input adapter."""

    async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
        return {"input_adapter": "pull.from_artifacts", "input_args": {"from_node": "half"}}


class SkipsAtFirst(Handler):
    """A handler of three batches that gives up one of them in the first attempt."""

    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        for uid in ("one", "two", "three"):
            yield Batch(uid)

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        await a_while(ctx)
        if batch.batch_uid == "two" and ctx.attempt == 1:
            raise ValueError("the input is wrong")
        return BatchResult(True, {"items": 1})


class Report(Handler):
    """A handler that reads all of its input and sets a result and metrics in ``finalize``."""

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return BatchResult(True, {"seen": 1})

    async def finalize(self, ctx: RunContext) -> FinalizeResult:
        found = [meta async for meta in ctx.artifacts.read("consume")]
        return FinalizeResult({"found": len(found)}, {"found": len(found)}, {"found": len(found)})


@handler("link")
async def link(item: Any, ctx: RunContext) -> Any:
    """Return the mark of this run, and that of the run whose result it has read."""
    await ctx.clock.sleep(random.choice([0.0, 0.0, 0.01, 0.3, 2.0]))
    if item == "odd" and ctx.attempt == 1 and random.random() < 0.3:
        raise RuntimeError("the first attempt fails")
    before = [result["mark"] for result in ctx.results.values() if result is not None]
    return {"mark": f"{random.getrandbits(48):012x}", "before": before}


HANDLERS = {
    "work": work,
    "link": link,
    "talk": talk,
    "slow": slow,
    "deaf": deaf,
    "third_time": third_time,
    "never": never,
    "wrong": wrong,
    "plain": plain,
    "odd": odd,
    "wrong_at_first": wrong_at_first,
    "first_generation_fails": first_generation_fails,
    "produce": produce,
    "count_up": count_up,
    "collect": Collect,
    "consume": Consume,
    "several": Several,
    "pass_on": PassOn,
    "shares": Shares,
    "report": Report,
    "produce_half_at_first": produce_half_at_first,
    "proposes": Proposes,
    "skips_at_first": SkipsAtFirst,
}


# ---------------------------------------------------------------- scenarios


def clocks_are_right(cluster: SimCluster) -> bool:
    """Return whether all clocks are right.

    A time limit holds by the clocks of the coordinators. If they are wrong, it may pass unnoticed.
    """
    return not cluster.faults.skew_sec and not cluster.faults.jumps_per_run


async def chain(cluster: SimCluster) -> None:
    names = ["a", "b", "c", "d", "e"]
    view = await cluster.run(
        graph(
            *(
                node(name, after=[before]) if before else node(name)
                for before, name in zip([None, *names], names, strict=False)
            )
        )
    )
    cluster.assert_finished(view)
    assert view.result == {"e": {"node": "e", "item": None, "from": ["d"]}}


async def fan_out_and_in(cluster: SimCluster) -> None:
    leaves = [f"n{number}" for number in range(6)]
    view = await cluster.run(
        graph(
            node("root"),
            *(node(leaf, after=["root"]) for leaf in leaves),
            node("join", after=leaves),
        )
    )
    cluster.assert_finished(view)
    assert view.nodes["join"].result["from"] == leaves


async def fan_in_of_some(cluster: SimCluster) -> None:
    view = await cluster.run(
        graph(
            node("a"),
            node("b"),
            node("c", "slow"),
            node("first", after=["a", "b"], fan_in="any"),
            node("two", after=["a", "b", "c"], fan_in="count:2", on_satisfied="cancel"),
        )
    )
    assert view.status in ("finished", "failed"), view.status
    assert view.nodes["first"].status == view.nodes["two"].status == "finished"


async def retries(cluster: SimCluster) -> None:
    view = await cluster.run(graph(node("a", "third_time"), node("b", after=["a"])))
    cluster.assert_finished(view)
    assert view.nodes["a"].result >= 3


async def attempts_run_out(cluster: SimCluster) -> None:
    policy = {"max": 2, "backoff_sec": 0.5}
    view = await cluster.run(graph(node("a", "never", retry_policy=policy), node("b", after=["a"])))
    assert (view.status, view.nodes["a"].status, view.nodes["b"].status) == (
        "failed",
        "failed",
        "cancelled",
    )
    assert view.nodes["a"].attempt == 3
    assert cluster.times_executed("b") == 0


async def streaming(cluster: SimCluster, batches: int = 40) -> None:
    pull = {
        "input_adapter": "pull.from_artifacts.rechunk:size",
        "input_args": {"size": 1, "from_node": "produce"},
    }
    view = await cluster.run(
        graph(
            node("produce", "produce", io={"input_inline": {"batches": batches}}),
            node(
                "consume",
                "consume",
                ["produce"],
                io={"start_when": "first_batch", "input_inline": pull},
            ),
            node("report", "report", ["consume"]),
        )
    )
    cluster.assert_finished(view)
    assert view.nodes["consume"].metrics == {"items": 2 * batches, "sum": batches * (batches - 1)}
    assert view.nodes["report"].result == {"found": 2 * batches}
    artifacts = [artifact async for artifact in cluster.client.artifacts(view.id, "produce")]
    # They are in the order of the workers' clocks, which may be wrong.
    assert sorted(artifact.meta["items"][0] for artifact in artifacts) == list(range(batches))


async def long_stream(cluster: SimCluster) -> None:
    await streaming(cluster, 250)


async def parallel_batches(cluster: SimCluster) -> None:
    """Batches that end out of order, some of them after retries, are stored once each."""
    count = random.choice([8, 30])
    io = {"start_when": random.choice(["ready", "first_batch"]), "parallel": random.choice([2, 5])}
    io["input_inline"] = {"input_adapter": "pull.from_artifacts"}
    retries = {"max": 60, "backoff_sec": 0.5}
    view = await cluster.run(
        graph(
            node("a", "count_up", io={"input_inline": count}),
            node("c", "several", ["a"], io=io, on_batch_failure="skip", retry_policy=retries),
        )
    )
    cluster.assert_finished(view)
    assert view.nodes["c"].metrics == {"batches": count - 1}
    assert view.nodes["c"].skipped_batches == 1
    found = [one.meta["number"] async for one in cluster.client.artifacts(view.id, "c")]
    assert sorted(found) == [number for number in range(count) if number != 7]
    (letter,) = (await cluster.client.dead_letters(task_id=view.id)).items
    assert letter.uid == "a:7"


async def flow_control(cluster: SimCluster) -> None:
    """A stream ends, although producers wait for readers that are killed or retried."""
    count, reads = random.choice([12, 40]), {"start_when": "first_batch"}
    ahead = random.choice([1, 4, 10])
    retries = {"max": 60, "backoff_sec": 0.5}
    view = await cluster.run(
        graph(
            node("a", "count_up", io={"input_inline": count}),
            node("b", "pass_on", ["a"], io={**reads, "max_ahead": ahead, "parallel": 2}),
            node(
                "c",
                "several",
                ["b"],
                io={**reads, "max_ahead": random.choice([1, 5])},
                on_batch_failure="skip",
                retry_policy=retries,
            ),
        )
    )
    cluster.assert_finished(view)
    assert view.nodes["b"].metrics == {"batches": count}
    assert view.nodes["c"].metrics == {"batches": count - 1}


async def shards(cluster: SimCluster) -> None:
    """Each artifact is read by the shard that its position names, and the node ends once, although
    shards are killed, retried and read slowly.
    """
    count, (few, many) = random.choice([0, 12, 40]), random.sample([1, 2, 3, 5], 2)
    reads = {"start_when": random.choice(["ready", "first_batch"])}
    reads["input_inline"] = {"input_adapter": "pull.from_artifacts"}
    retries = {"max": 60, "backoff_sec": 0.5}
    ahead = {} if reads["start_when"] == "ready" else {"max_ahead": random.choice([1, 4, 10])}
    view = await cluster.run(
        graph(
            node("a", "count_up", io={"input_inline": count}),
            node("b", "pass_on", ["a"], io={**reads, **ahead, "shards": few, "parallel": 2}),
            node(
                "c",
                "several",
                ["b"],
                io={**reads, **ahead, "shards": many},
                on_batch_failure="skip",
                retry_policy=retries,
            ),
            max_parallel=random.choice([None, None, 1, 2, 4]),
        )
    )
    cluster.assert_finished(view)
    left = count - (count > 7)
    assert view.nodes["b"].metrics == ({"batches": count} if count else {})
    assert view.nodes["c"].metrics == ({"batches": left} if left else {})
    assert view.nodes["c"].skipped_batches == count - left
    uids = {name: await _uids(cluster, Stream(view.id, name)) for name in "abc"}
    for reader, source, missing in (("b", "a", 0), ("c", "b", count - left)):
        places = {uid: place for place, uid in enumerate(uids[source])}
        read = [uid.split("/", 1) for uid in uids[reader]]
        number_of = few if reader == "b" else many
        for shard, uid in read:
            assert places[uid.removeprefix(f"{source}:")] % number_of == int(shard), uids
        assert len({uid for _, uid in read}) == count - missing


async def shards_that_are_retried(cluster: SimCluster) -> None:
    """A node with shards is cancelled, or fails in one of them or at its end. It goes on with what
    its shards have stored; windows keep their bounds; the end of the node sees all of it.
    """
    count, shards = 12, random.choice([2, 3])
    stops = random.choice(["never", "cancelled", "failed"])
    pull = {"input_adapter": "pull.from_artifacts"}
    io: dict[str, Any] = {"shards": shards, "input_inline": pull}
    if random.random() < 0.5:
        io["batching"] = {"size": 2}
    policy = {"max": 1, "backoff_sec": 0.1} if stops == "failed" else PATIENT
    document = graph(
        node("a", "count_up", io={"input_inline": count}),
        node("b", "shares", ["a"], io=io, retry_policy=policy),
        node("m", after=["b"], map={"over": {"artifacts": "b"}}, io=ITEM),
        node("c", "pass_on", ["b"], io={"start_when": "first_batch", "shards": 2}),
    )
    task_id = await cluster.client.create_task(graph=document)
    if stops == "cancelled":
        await cluster.clock.sleep(random.choice([0.1, 1.0, 5.0]))
        await cluster.client.cancel(task_id)
    view = await cluster.client.wait(task_id)
    while view.status != "finished":
        assert stops != "never"
        named = random.choice([None, None, ["b"], ["b[0]"]])
        await cluster.client.retry(task_id, from_nodes=named if "b[0]" in view.nodes else None)
        view = await cluster.client.wait(task_id)
    cluster.assert_finished(view)
    numbers = list(range(count))
    assert view.nodes["b"].result == {"numbers": numbers}
    assert view.nodes["b"].metrics == {"numbers": count}
    read = [one.meta async for one in cluster.client.artifacts(view.id, "c")]
    mapped = [child["item"] for child in view.nodes["m"].result]
    for found in (read, mapped):
        assert sorted(number for one in found for number in one.get("numbers", ())) == numbers


async def _uids(cluster: SimCluster, stream: Stream) -> list[str]:
    """Return the uids of all artifacts of a stream, in order."""
    return [one.uid for one in await cluster.store.artifacts.read(stream, limit=1000)]


async def windows(cluster: SimCluster) -> None:
    counts, size = {"a": 20, "b": 9}, random.choice([1, 3, 8])
    batching: dict[str, Any] = {"size": size}
    seconds = random.choice([0.05, 1.0, 10.0, None])
    start_when = random.choice(["ready", "first_batch"])
    if seconds is not None and start_when == "first_batch":
        batching["max_wait_sec"] = seconds
    view = await cluster.run(
        graph(
            *(node(name, "count_up", io={"input_inline": n}) for name, n in counts.items()),
            node(
                "c",
                "collect",
                list(counts),
                io={"start_when": start_when, "batching": batching}
                | {"input_inline": {"input_adapter": "pull.from_artifacts"}},
            ),
        )
    )
    cluster.assert_finished(view)
    stored = [one async for one in cluster.client.artifacts(view.id, "c")]
    found: dict[str, list[list[int]]] = {name: [] for name in counts}
    for one in stored:
        window = one.meta["window"]
        assert 1 <= len(window) <= size, window
        for name, numbers in found.items():
            numbers.append([item["number"] for item in window if item["from"] == name])
    for name, parts in found.items():
        numbers = [number for part in sorted(parts) for number in part]
        assert numbers == list(range(counts[name])), f"windows of {name}: {parts}"
    executed = {run.batch_uid for run in cluster.executions if run.node_id == "c"} - {None}
    assert executed == {one.uid for one in stored}, "attempts had different windows"


async def routing(cluster: SimCluster) -> None:
    view = await cluster.run(
        graph(
            node("a", "wrong", routing={"on_success": ["good"], "on_failure": ["repair"]}),
            node("good"),
            node("repair"),
            node("after", after=["repair"]),
        )
    )
    cluster.assert_finished(view)
    assert (view.nodes["a"].status, view.nodes["good"].status, view.nodes["after"].status) == (
        "failed",
        "skipped",
        "finished",
    )


def statuses(view: TaskView) -> dict[str, str]:
    """Return the ids of the nodes of each status."""
    found: dict[str, list[str]] = {}
    for node_id, one in view.nodes.items():
        found.setdefault(one.status, []).append(node_id)
    return {status: " ".join(node_ids) for status, node_ids in found.items()}


async def below_a_failure(cluster: SimCluster) -> None:
    view = await cluster.run(
        graph(
            node("e", "wrong"),
            node("d"),
            node("f", after=["e"]),
            node("g", after=["f", "d"]),
            node("h", after=["g", "d"]),
            node("some", after=["f", "d"], fan_in="any"),
            node("end", after=["some"]),
            on_node_failure="continue",
        )
    )
    assert (view.status, statuses(view)) == (
        "failed",
        {"failed": "e", "finished": "d some end", "skipped": "f g h"},
    )
    assert not any(map(cluster.times_executed, "fgh"))


async def after_all_ends(cluster: SimCluster) -> None:
    view = await cluster.run(
        graph(
            node("e", "wrong"),
            node("s", "slow"),
            node("below", after=["e"]),
            node("off", when="false"),
            node("tidy", after=["e", "s", "below", "off"], fan_in="ended"),
            node("end", after=["tidy"]),
            on_node_failure="continue",
        )
    )
    assert (view.status, statuses(view)) == (
        "failed",
        {"failed": "e", "finished": "s tidy end", "skipped": "below off"},
    )
    assert view.nodes["tidy"].result["from"] == ["s"]


async def without_optional_data(cluster: SimCluster) -> None:
    view = await cluster.run(
        graph(
            node("extra", "wrong", optional=True),
            node("d"),
            node("below", after=["extra"]),
            node("join", after=["extra", "below", "d"]),
            node("end", after=["join"]),
        )
    )
    cluster.assert_finished(view)
    for _ in range(2):
        assert statuses(view) == {"failed": "extra", "finished": "d join end", "skipped": "below"}
        assert view.nodes["join"].result["from"] == ["d"]
        await retry_letters(cluster, view.id)  # the finished task runs again, and fails again
        view = await cluster.client.wait(view.id)


TIDY = {"input_inline": {"status": "${task.status}", "error": "${task.error}"}}


async def saga(cluster: SimCluster) -> None:
    undo = {"type": "work", "io": {"input_inline": "${result.node}"}, "retry_policy": PATIENT}
    graph_of_saga = graph(
        node("a", undo=undo),
        node("b", after=["a"], undo={**undo, "type": "third_time"}),
        node("c", after=["b"], undo={"type": "wrong"}),
        node("d", "wrong", ["c"], undo=undo),
        **{"finally": [node("tidy", io=TIDY), node("end", after=["tidy"])]},
    )
    view = await cluster.run(graph_of_saga)
    assert (view.status, statuses(view)) == (
        "failed",
        {
            "failed": "d c~undo",
            "finished": "a b c tidy end a~undo b~undo",
            "skipped": "d~undo",
        },
    )
    error = "node 'd' failed: bad_input: ValueError: the input is wrong"
    assert view.nodes["tidy"].result["item"] == {"status": "failed", "error": error}
    assert view.nodes["a~undo"].result["item"] == "a"
    await cluster.client.retry(view.id)
    again = await cluster.client.wait(view.id)
    assert statuses(again) == statuses(view)
    if not cluster.faults.any:
        assert cluster.times_executed("a") == cluster.times_executed("a~undo") == 2


async def saga_of_maps(cluster: SimCluster) -> None:
    """Undo the children of two maps, between the undos of other nodes, in order of their ends. All
    run again after a retry.
    """
    seen = {"input_inline": {"made": "${result}", "number": "${n}", "index": "${index}"}}
    undo = {"type": "work", "io": seen, "retry_policy": PATIENT}
    spec = {"over": [1, 3, 5, 6, 7], "as": "n", "on_item_failure": "continue", "max_parallel": 3}
    graph_of_saga = graph(
        node("a", undo={"type": "third_time", "retry_policy": PATIENT}),
        node("m", "odd", map=spec, io={"input_inline": "${n}"}, undo=undo),
        subflow("s", graph(node("x")), map={"over": [0, 1]}, retry_policy=PATIENT)
        | {"undo": {"type": "work", "io": ITEM, "retry_policy": PATIENT}},
        node("end", "wrong", ["a", "m", "s"]),
        **{"finally": [node("tidy", io=TIDY)]},
    )
    view = await cluster.run(graph_of_saga)
    for _ in range(2):
        assert view.status == "failed"
        assert view.nodes["m~undo"].children == {"finished": 4, "skipped": 1}
        assert view.nodes["s~undo"].children == {"finished": 2}
        made = {"made": 7, "number": 7, "index": 4}
        assert view.nodes["m[4]~undo"].result["item"] == made
        assert view.nodes["m[3]~undo"].reason_code == "nothing_to_undo"
        await cluster.client.retry(view.id)
        view = await cluster.client.wait(view.id)
    if not cluster.faults.any:
        assert cluster.times_executed("m[0]") == cluster.times_executed("m[0]~undo") == 3


async def early_end(cluster: SimCluster) -> None:
    ends = call("end", "task.end", ["a"], status="failed", error="no rows", result=[])
    undo = {"type": "work", "retry_policy": PATIENT}
    view = await cluster.run(
        graph(
            node("a", undo=undo),
            node("b", "slow"),
            {**ends, "retry_policy": PATIENT},
            node("c", after=["end"]),
            **{"finally": [node("tidy", io=TIDY)]},
        )
    )
    assert (view.status, view.error, view.result) == ("failed", "no rows", [])
    assert view.nodes["c"].status == "cancelled"
    assert view.nodes["a~undo"].status == view.nodes["tidy"].status == "finished"
    assert view.nodes["tidy"].result["item"] == {"status": "failed", "error": "no rows"}


STATUSES = ("finished", "failed", "cancelled")


async def random_ends(cluster: SimCluster) -> None:
    """Run a random graph with nodes of all types, undos and ``finally``, and end it in a random
    way. Signals and decisions come early, late and twice.
    """
    pick, client, numbers = cluster.random.choice, cluster.client, count()
    task_id = await client.create_task(
        graph=random_graph(pick),
        params={"name": "go"},
        deadline_sec=pick([None, None, 5.0, 20.0]),
    )
    async with waits_served(cluster, task_id, numbers):
        for _ in range(3):
            await cluster.clock.sleep(pick([0.0, 0.05, 1.0, 10.0]))
            match pick(["cancel", "force", "pause", "nothing"]):
                case "cancel":
                    await client.cancel(task_id, "enough")
                case "force":
                    await client.cancel(task_id, "enough", force=True)
                case "pause":
                    await client.pause(task_id)
                    await cluster.clock.sleep(pick([0.1, 5.0]))
                    await client.resume(task_id)
        view = await client.wait(task_id)
    async with waits_served(cluster, task_id, numbers):
        if view.status != "finished":
            await client.retry(task_id)
            await client.wait(task_id)
        await retry_letters(cluster, task_id)
        view = await client.wait(task_id)
    assert_taken_once(view)


ROLES = ("work", "work", "work", "third_time", "wrong", "never", "slow")
TYPES = (*["worker"] * 6, "function", "sleep", "waiting", "waiting", "subflow", "subflow", "loop")


def random_graph(pick: Callable[[Sequence[Any]], Any]) -> dict[str, Any]:
    """Return a random graph with nodes of all types, undos and ``finally``."""

    def some(node_id: str, after: list[str], *, level: int = 0, **fields: Any) -> dict[str, Any]:
        match pick(TYPES):
            case "sleep":
                return sleep(node_id, after, for_sec=pick([0, 0.5, 40])) | fields
            case "waiting":
                # Only waits of the task itself are served.
                waits = waiting_or_working(pick, node_id, after, limited=level > 0)
                return waits | fields
            case "function":
                made = call(node_id, "vars.incr", after, key=node_id, by=1)
                return made | mapped_or_not(fields) | {"retry_policy": PATIENT}
            case "subflow" if level < 2:
                few = policy_of("never")
                fields = mapped_or_not(fields)
                return subflow(node_id, inner(level + 1), after, **{"retry_policy": few} | fields)
            case "loop" if level < 2:
                ends = pick([{"while_": "iteration < 2"}, {"until": "iteration == 1"}])
                limits = {"max_iterations": pick([1, 5]), "delay_sec": pick([0, 2])}
                few = {"retry_policy": policy_of("never")}
                return loop(node_id, inner(level + 1), after, **ends | limits | few | fields)
        role = pick(ROLES)
        return node(node_id, role, after, retry_policy=policy_of(role), **mapped_or_not(fields))

    def mapped_or_not(fields: dict[str, Any]) -> dict[str, Any]:
        if pick([False, False, False, True]):
            fields["map"] = {
                "over": [*range(pick([0, 1, 5]))],
                "max_parallel": pick([None, 2]),
                "on_item_failure": pick(["fail", "continue"]),
            }
        return fields

    def inner(level: int) -> dict[str, Any]:
        return graph(
            some("x", [], level=level, undo=undo()),
            some("y", ["x"], level=level),
            **{"finally": [some("z", [], level=level)][: pick([0, 1])]},
        )

    def undo() -> dict[str, Any]:
        role = pick(["work", "third_time", "never"])
        return {"type": role, "retry_policy": policy_of(role)}

    def policy_of(role: str) -> dict[str, Any]:
        return {"max": 1, "backoff_sec": 0.5} if role == "never" else PATIENT

    names = [f"n{number}" for number in range(6)]
    nodes = [
        some(
            name,
            [other for other in names[:place] if pick([True, False, False])],
            **({"undo": undo()} if pick([True, True, False]) else {}),
        )
        for place, name in enumerate(names)
    ]
    nodes.append(call("end", "task.end", [pick(names)], status=pick(STATUSES), result=1))
    final = [some("f", []), some("g", ["f"], fan_in="ended"), some("h", [])]
    return graph(
        *nodes[: pick([6, 6, 7])],
        **{"finally": final[: pick([0, 1, 3])]},
        on_node_failure=pick(["stop", "continue"]),
        max_parallel=pick([None, 2]),
        output=pick([None, None, "${results.n0}"]),
    )


async def few_at_a_time(cluster: SimCluster) -> None:
    names = [f"n{number}" for number in range(6)]
    view = await cluster.run(
        graph(
            *(node(name) for name in names),
            node("first", priority=9),
            call("count", "noop", ["first"]),
            node("end", after=[*names, "count"]),
            max_parallel=2,
        )
    )
    cluster.assert_finished(view)
    assert view.nodes["end"].result["from"] == ["count", *names]


async def few_streams_at_a_time(cluster: SimCluster) -> None:
    again = {**PATIENT, "permanent_on": []}
    view = await cluster.run(
        graph(
            *(node(f"p{number}", "produce_half_at_first", retry_policy=again) for number in "01"),
            *(
                node(
                    f"c{number}",
                    "consume",
                    [f"p{number}"],
                    io={
                        "start_when": "first_batch",
                        "input_inline": {"input_adapter": "pull.from_artifacts"},
                    },
                )
                for number in "01"
            ),
            max_parallel=random.choice([1, 2]),
        )
    )
    cluster.assert_finished(view)
    assert [view.nodes[name].metrics["sum"] for name in ("c0", "c1")] == [6, 6]


ITEM = {"input_inline": "${item}"}


async def map_over_a_result(cluster: SimCluster) -> None:
    size = random.choice([0, 1, 7, 20])
    view = await cluster.run(
        graph(
            node("list", io={"input_inline": list(range(size))}),
            node(
                "m",
                after=["list"],
                map={"over": "${results.list.item}", "max_parallel": random.choice([1, 3, 50])},
                io=ITEM,
            ),
            node("end", after=["m"]),
        )
    )
    cluster.assert_finished(view)
    found = [(child["node"], child["item"]) for child in view.nodes["m"].result]
    assert found == [(f"m[{number}]", number) for number in range(size)]


async def map_with_attempts(cluster: SimCluster) -> None:
    view = await cluster.run(
        graph(
            node("m", "third_time", map={"over": ["a", "b", "c"], "max_parallel": 2}),
            call("sum", "vars.incr", key="n", by="${item}") | {"map": {"over": [1, 2, 3]}},
        )
    )
    cluster.assert_finished(view)
    assert all(attempt >= 3 for attempt in view.nodes["m"].result)
    assert view.vars == {"n": 6}


async def map_that_continues(cluster: SimCluster) -> None:
    spec = {"over": [1, 2, 3, 4], "max_parallel": 2, "on_item_failure": "continue"}
    view = await cluster.run(graph(node("m", "odd", map=spec, io=ITEM)))
    cluster.assert_finished(view)
    for _ in range(2):
        assert view.nodes["m"].result == [1, None, 3, None]
        await retry_letters(cluster, view.id)  # the children run again, and fail again
        view = await cluster.client.wait(view.id)


async def map_that_is_retried(cluster: SimCluster) -> None:
    spec = {"over": [1, 3, 4, 5, 6, 7], "max_parallel": random.choice([1, 2, 9])}
    task_id = await cluster.client.create_task(
        graph=graph(
            node("m", "odd", map=spec, io=ITEM, routing={"on_failure": ["repair"]}),
            call("repair", "vars.set", kv={"repaired": True}),
            node("end", "never", ["repair"], retry_policy={"max": 0}),
        )
    )
    first = await cluster.client.wait(task_id)
    assert (first.status, first.nodes["m"].reason_code) == ("failed", "map_item_failed")
    await cluster.client.retry(task_id, from_nodes=["m"])
    second = await cluster.client.wait(task_id)
    assert second.nodes["m"].result == [1, 3, 4, 5, 6, 7]


async def map_that_is_cancelled(cluster: SimCluster) -> None:
    task_id = await cluster.client.create_task(
        graph=graph(node("m", "slow", map={"over": list(range(9)), "max_parallel": 3}))
    )
    await cluster.clock.sleep(random.choice([0.0, 1.0, 40.0]))
    await cluster.client.cancel(task_id)
    view = await cluster.client.wait(task_id)
    assert view.status in ("cancelled", "finished")
    assert all(one.status.terminal for one in view.nodes.values())
    if view.status == "cancelled":
        await cluster.client.retry(task_id)
        view = await cluster.client.wait(task_id)
        assert view.nodes["m"].result == ["done"] * 9


def over_artifacts(name: str, parent: str, role: str = "work", **spec: Any) -> dict[str, Any]:
    spec = {"over": {"artifacts": parent}, **spec}
    return node(name, role, [parent], map=spec, io={"input_inline": "${item['items'][0]}"})


async def map_over_artifacts(cluster: SimCluster) -> None:
    batches = random.choice([0, 1, 12, 70])
    view = await cluster.run(
        graph(
            node("produce", "produce", io={"input_inline": {"batches": batches}}),
            over_artifacts("m", "produce", max_parallel=random.choice([1, 3, 50])),
            over_artifacts("n", "produce", "odd", on_item_failure="continue"),
            node("end", after=["m"]),
        )
    )
    cluster.assert_finished(view)
    found = [(child["node"], child["item"]) for child in view.nodes["m"].result]
    assert [name for name, _ in found] == [f"m[{number}]" for number in range(batches)]
    # Batches are stored in this order, except by workers that are taken over from.
    assert sorted(item for _, item in found) == list(range(batches))
    odd = [item if item % 2 else None for _, item in found]
    assert view.nodes["n"].result == odd


async def map_over_artifacts_that_is_retried(cluster: SimCluster) -> None:
    task_id = await cluster.client.create_task(
        graph=graph(
            node("half", "produce_half_at_first"),
            over_artifacts("m", "half", random.choice(["work", "slow", "third_time"])),
            node("end", after=["m"]),
        )
    )
    view = await cluster.client.wait(task_id)
    while view.status == "failed":
        assert view.nodes["half"].status == "failed"
        await cluster.client.retry(task_id)
        view = await cluster.client.wait(task_id)
    cluster.assert_finished(view)
    assert len(view.nodes["m"].result) == 4


async def retry_letters(cluster: SimCluster, task_id: str) -> None:
    """Retry the dead letters of a task's nodes.

    If the store answers with old data, it may be that none can be retried.
    """
    letters = (await cluster.client.dead_letters(task_id=task_id, kind="node")).items
    await cluster.client.retry_dead_letters([letter.letter_id for letter in letters])


async def below_a_handled_failure(cluster: SimCluster) -> None:
    view = await cluster.run(
        graph(
            node("e", "wrong", routing={"on_success": ["a"], "on_failure": ["b"]}),
            node("a"),
            node("b"),
            node("f", after=["e"]),
            node("branches", after=["a", "b"]),
            node("both", after=["f", "b"]),
            node("below", after=["both", "b"]),
        )
    )
    cluster.assert_finished(view)
    for _ in range(2):
        assert statuses(view) == {
            "failed": "e",
            "finished": "b branches",
            "skipped": "a f both below",
        }
        assert view.nodes["branches"].result["from"] == ["b"]
        await retry_letters(cluster, view.id)  # the finished task runs again, and fails again
        view = await cluster.client.wait(view.id)


async def retry_below_a_failure(cluster: SimCluster) -> None:
    task_id = await cluster.client.create_task(
        graph=graph(
            node("e", "wrong_at_first"),
            node("d"),
            node("f", "wrong_at_first", ["e"], routing={"on_failure": ["b"]}),
            node("b"),
            node("g", after=["f", "d"]),
            node("w", after=["b", "d"]),
            node("end", after=["w"]),
            on_node_failure="continue",
        )
    )
    view = await cluster.client.wait(task_id)
    if view.status == "failed":  # else its first attempt was lost with its worker
        assert statuses(view) == {"failed": "e", "finished": "d w end", "skipped": "f b g"}
        await cluster.client.retry(task_id)
        view = await cluster.client.wait(task_id)
    cluster.assert_finished(view)
    handled = view.nodes["f"].status == "failed"
    assert view.nodes["w"].result["from"] == (["b", "d"] if handled else ["d"])
    assert handled or view.nodes["g"].result["from"] == ["d", "f"]


async def retry_of_a_reader(cluster: SimCluster) -> None:
    view = await cluster.run(
        graph(
            node("half", "produce_half_at_first"),
            node("other"),
            node("reader", "proposes", ["half", "other"], fan_in="any"),
            on_node_failure="continue",
        )
    )
    if view.status == "failed":  # else its first attempt was lost with its worker
        assert statuses(view) == {"failed": "half", "finished": "other reader"}
        await cluster.client.retry(view.id)
        view = await cluster.client.wait(view.id)
    cluster.assert_finished(view)
    assert view.nodes["reader"].metrics == {"items": 4, "sum": 6}


async def letter_of_a_race(cluster: SimCluster) -> None:
    """Retry the batch that one of two nodes gave up.

    The task has finished, because it needed one of the two.
    """
    view = await cluster.run(
        graph(
            node("batches", "skips_at_first", on_batch_failure="skip"),
            node("slow", "slow"),
            node("first", after=["batches", "slow"], fan_in="any", on_satisfied="cancel"),
        )
    )
    cluster.assert_finished(view)
    letters = (await cluster.client.dead_letters(task_id=view.id, kind="batch")).items
    outcomes = await cluster.client.retry_dead_letters([letter.letter_id for letter in letters])
    view = await cluster.client.wait(view.id)
    cluster.assert_finished(view)
    assert view.nodes["first"].result["from"]
    if any(
        outcome.done for outcome in outcomes
    ):  # if the store answers with old data, there may be none to retry
        batches = view.nodes["batches"]
        assert (batches.status, batches.metrics, batches.skipped_batches) == (
            "finished",
            {"items": 3},
            0,
        )


LONG_LIST = f"[{', '.join(map(str, range(50)))}]"
"""A nested loop over this list takes more steps than are evaluated at once."""


async def conditions(cluster: SimCluster) -> None:
    view = await cluster.run(
        graph(
            node("count", "plain", io={"input_inline": [1, 2]}),
            node("much", after=["count"], when="results.count.sum > 5"),
            node("little", after=["count"], when="results.count.sum <= 5"),
            node(
                "long",
                after=["count"],
                when=f"{LONG_LIST}.all(a, {LONG_LIST}.all(b, a * b <= results.count.sum * 1000))",
            ),
            node("end", after=["much", "little"]),
        )
    )
    cluster.assert_finished(view)
    expected = {"much": "skipped", "little": "finished", "long": "finished", "end": "finished"}
    assert {node_id: view.nodes[node_id].status for node_id in expected} == expected


async def expressions(cluster: SimCluster) -> None:
    view = await cluster.run(
        graph(
            node("count", "plain", io={"input_inline": ["${params.n}", 2]}),
            node("never", after=["count"], when="false"),
            call("note", "vars.set", ["count"], kv={"sum": "${results.count.sum + 0.5}"}),
            node("more", "plain", after=["note", "never"], io={"input_inline": MORE}),
            node("wrong", after=["more"], io={"input_inline": "${results.more.missing}"}),
            on_node_failure="continue",
        ),
        params={"n": 5},
    )
    found = {node_id: (one.status, one.result) for node_id, one in view.nodes.items()}
    assert found["count"] == ("finished", {"sum": 7})
    assert found["more"] == ("finished", {"sum": 7 + 7 + 49 * 25})
    assert view.nodes["wrong"].reason_code == "bad_expression"


SLOW = f"${{{LONG_LIST}.map(a, {LONG_LIST}.filter(b, a == b)[0]).filter(a, a > 48)[0] * 25}}"
"""An expression that takes more steps than are evaluated at once."""
MORE = ["${results.count.sum}", "${results.never == null ? int(vars.sum) : 0}", SLOW]


async def outputs(cluster: SimCluster) -> None:
    slow = cluster.random.choice([True, False])
    task_id = await cluster.client.create_task(
        graph=graph(
            node("a"),
            node("b", after=["a"]),
            call("set", "vars.incr", ["a"], key="n", by=25),
            output={"from": "${results.b.from}", "n": SLOW if slow else "${vars.n}"},
        )
    )
    view = await cluster.client.wait(task_id)
    cluster.assert_finished(view)
    assert view.result == {"from": ["a"], "n": 1225 if slow else 25}


async def retry_of_an_output(cluster: SimCluster) -> None:
    """A task whose output fails is retried, and stopped in between."""
    task_id = await cluster.client.create_task(
        graph=graph(node("a"), output=f"${{{SLOW[2:-1]} + vars.missing}}")
    )
    await cluster.clock.sleep(cluster.random.choice([0.0, 0.3, 2.0, 30.0]))
    await cluster.client.cancel(task_id, "enough")
    view = await cluster.client.wait(task_id)
    assert (view.status, view.result) in (("cancelled", None), ("failed", None))
    await cluster.client.retry(task_id)
    view = await cluster.client.wait(task_id)
    assert (view.status, view.result) == ("failed", None)
    assert "no such key 'missing'" in (view.error or "")


def sleep(node_id: str, after: list[str] | None = None, **io: Any) -> dict[str, Any]:
    return {"node_id": node_id, "type": "sleep", "depends_on": after or [], "io": io}


async def sleeping(cluster: SimCluster) -> None:
    seconds = [random.choice([0, 0.5, 40]) for _ in range(3)]
    view = await cluster.run(
        graph(
            sleep("nap", for_sec=seconds[0]),
            node("count", "plain", io={"input_inline": [seconds[1], 0]}),
            sleep("computed", ["count"], for_sec="${results.count.sum}"),
            sleep("after", ["nap"], for_sec=seconds[2]),
            sleep("wrong", ["nap"], for_sec="${params.missing}") | {"optional": True},
            node("end", after=["computed", "after", "wrong"]),
            max_parallel=1,
        )
    )
    cluster.assert_finished(view)
    assert view.nodes["wrong"].reason_code == "bad_expression"
    for node_id, for_sec in zip(("nap", "computed", "after"), seconds, strict=True):
        nap = view.nodes[node_id]
        assert nap.started_at is not None
        assert nap.finished_at is not None
        slept = (nap.finished_at - nap.started_at).total_seconds()
        assert slept >= for_sec - 0.001, (node_id, slept, for_sec)


async def cancelled_sleep(cluster: SimCluster) -> None:
    task_id = await cluster.client.create_task(
        graph=graph(node("a"), sleep("year", ["a"], for_sec=3e7), sleep("week", for_sec="${6e5}"))
    )
    await cluster.clock.sleep(cluster.random.choice([0.0, 1.0, 20.0]))
    await cluster.client.pause(task_id)
    await cluster.client.resume(task_id)
    await cluster.client.cancel(task_id)
    view = await cluster.client.wait(task_id)
    assert view.status == "cancelled"
    assert view.nodes["year"].status == view.nodes["week"].status == "cancelled"


KEY_CHOICES: Sequence[dict[str, Any]] = (
    {"concurrency": {"key": "k", "limit": 2}},
    {"concurrency_key": "l"},
    {"concurrency_key": "${'l'}"},
    {"concurrency": {"key": "l"}, "priority": 3},
    {"concurrency": {"key": "k", "limit": 2, "on_conflict": "skip"}},
    {"concurrency": {"key": "l", "on_conflict": "fail"}, "optional": True},
    {},
)


TASK_KEY_CHOICES: Sequence[dict[str, Any] | None] = (
    *(None, None, None),
    {"key": "t"},
    {"key": "${'t'}"},
    {"key": "t", "limit": 2},
    {"key": "t", "on_conflict": "skip"},
    {"key": "t", "on_conflict": "fail"},
    {"key": "t", "on_conflict": "cancel_running"},
)


def random_keyed_graph(pick: Callable[[Sequence[Any]], Any]) -> dict[str, Any]:
    """Return a graph of nodes with keys: handlers, a function, a map, and a sub-flow, whose graph
    and nodes have the same keys. With others, tasks might wait for each other.
    """
    key = pick([*KEY_CHOICES[:4], {}])
    whole = pick(TASK_KEY_CHOICES)
    inner = graph(
        node("x", **pick([key, {}])),
        node("y", "third_time", **key),
        concurrency=pick([whole, None]),
    )
    mapped = {"over": [1, 2, 3], "max_parallel": pick([None, 1, 2]), "on_item_failure": "continue"}
    limits = {"start_to_close_sec": 4.0, "schedule_to_start_sec": 4.0}
    limited = pick([{}, {"timeouts": limits, "retry_policy": {"max": 1}}])
    role = pick(["work", "slow", "third_time", *(["deaf"] if limited else [])])
    return graph(
        node("a", role, **limited, **pick(KEY_CHOICES)),
        node("b", pick(["work", "slow"]), after=pick([[], ["a"]]), **pick(KEY_CHOICES)),
        {**call("f", "noop", after=["a"]), "fan_in": "ended", **pick(KEY_CHOICES)},
        node("m", map=mapped, **pick(KEY_CHOICES[:5])),
        {"node_id": "s", "type": "subflow", "io": {"graph": inner}, **key},
        on_node_failure="continue",
        max_parallel=pick([None, None, 1, 2]),
        concurrency=whole,
    )


async def keys_of_many_tasks(cluster: SimCluster) -> None:
    """Run tasks that share keys. Pause, cancel and retry some of them, and settle some nodes."""
    await with_verbs(cluster, lambda: submit_random(cluster, random_keyed_graph), "abfms")


async def submit_random(
    cluster: SimCluster,
    random_graph: Callable[[Callable[[Sequence[Any]], Any]], dict[str, Any]],
) -> str:
    """Submit a graph, perhaps with a higher priority, and return the id of the task."""
    pick = cluster.random.choice
    return await cluster.client.create_task(graph=random_graph(pick), priority=pick([0, 0, 5]))


async def with_verbs(
    cluster: SimCluster,
    submit: Callable[[], Awaitable[str]],
    settled: str,
    change: Callable[[], Awaitable[Any]] | None = None,
) -> None:
    """Run four tasks. Pause, cancel and retry some of them, settle some of these nodes, and make
    a change of something that the tasks share.
    """
    pick, client = cluster.random.choice, cluster.client

    async def run() -> None:
        task_id = await submit()
        if pick([True, False, False]):
            await cluster.clock.sleep(pick([0.0, 1.0, 10.0]))
            await client.pause(task_id)
            await cluster.clock.sleep(pick([0.1, 5.0]))
            await client.resume(task_id)
        if pick([True, False, False]):
            await cluster.clock.sleep(pick([0.0, 1.0, 10.0]))
            await client.cancel(task_id)
        if change is not None and pick([True, False, False]):
            await cluster.clock.sleep(pick([0.0, 1.0, 10.0]))
            await change()
        if pick([True, False, False]):
            await cluster.clock.sleep(pick([0.0, 1.0, 10.0]))
            with suppress(TaskRefused):
                outcome = pick(["finished", "failed", "skipped"])
                await client.resolve_node(task_id, pick(settled), outcome, by="ann")
        view = await client.wait(task_id)
        if pick([True, False]) and view.status in ("failed", "cancelled"):
            await client.retry(task_id)
            await client.wait(task_id)

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(run)


RATE_CHOICES: Sequence[dict[str, Any]] = (
    {"rate_limit": {"key": "r", "limit": 2, "per_sec": 10}},
    {"rate_limit": {"key": "r", "limit": 2, "per_sec": 10}, "priority": 3},
    {"rate_limit": {"key": "q", "limit": 1, "per_sec": 3}},
    {"rate_limit": {"key": "q", "limit": 1, "per_sec": 3}, "concurrency_key": "k"},
    {},
)


def random_rated_graph(pick: Callable[[Sequence[Any]], Any]) -> dict[str, Any]:
    """Return a graph of nodes with rates, of which some are started late or fail."""
    limits = {"start_to_close_sec": 4.0, "schedule_to_start_sec": pick([4.0, 40.0])}
    limited = pick([{}, {"timeouts": limits, "retry_policy": {"max": 1}}])
    role = pick(["work", "slow", "third_time", *(["deaf"] if limited else [])])
    mapped = {"over": [1, 2, 3], "max_parallel": pick([None, 1, 2]), "on_item_failure": "continue"}
    return graph(
        node("a", role, **limited, **pick(RATE_CHOICES)),
        node("b", pick(["work", "slow"]), after=pick([[], ["a"]]), **pick(RATE_CHOICES)),
        node("c", "work", after=["a"], fan_in="ended", **pick(RATE_CHOICES)),
        node("m", map=mapped, **pick(RATE_CHOICES)),
        on_node_failure="continue",
        max_parallel=pick([None, None, 1, 2]),
    )


async def rates_of_many_tasks(cluster: SimCluster) -> None:
    """Run tasks that share rates. Pause, cancel and retry some of them, and settle some nodes."""
    await with_verbs(cluster, lambda: submit_random(cluster, random_rated_graph), "abcm")


def random_cached_graph(pick: Callable[[Sequence[Any]], Any]) -> dict[str, Any]:
    """Return a graph of nodes with caches: handlers, also with a concurrency key or a rate, a
    map, and sub-flows. The keys are few, so that tasks share results. Some tasks, and a sub-flow,
    hold the key that other nodes with the same caches wait for.
    """

    def cache() -> dict[str, Any]:
        key = pick(["x", "${params.name}"])
        return {"cache": {"key": key, "ttl_sec": pick([0.5, 10.0, 1_000.0])}}

    limits = {"start_to_close_sec": 4.0, "schedule_to_start_sec": 4.0}
    limited = pick([{}, {"timeouts": limits, "retry_policy": {"max": 1}}])
    role = pick(["work", "slow", "third_time", *(["deaf"] if limited else [])])
    mapped = {"over": [1, 2, 1], "max_parallel": pick([None, 1, 2]), "on_item_failure": "continue"}
    of_item = {"cache": {"key": "${item}", "ttl_sec": 100.0}}
    inner = graph(node("x", "third_time"))
    holds = {
        "node_id": "h",
        "type": "subflow",
        "io": {
            "graph": graph(node("y", pick(["work", "slow"]), **cache())),
            "params": {"name": "${params.name}"},
        },
        "concurrency_key": "k",
    }
    return graph(
        node("a", role, **limited, **cache(), **pick(RATE_CHOICES)),
        node("b", pick(["work", "slow"]), after=pick([[], ["a"]]), **cache(), **pick(KEY_CHOICES)),
        node("m", map=mapped, **of_item),
        {"node_id": "s", "type": "subflow", "io": {"graph": inner}, **cache()},
        *pick([[], [holds]]),
        on_node_failure="continue",
        max_parallel=pick([None, None, 1, 2]),
        concurrency=pick([None, None, {"key": "k"}]),
    )


async def caches_of_many_tasks(cluster: SimCluster) -> None:
    """Run tasks that share cached results. Pause, cancel and retry some of them, settle some nodes,
    and delete some results.
    """
    pick, client = cluster.random.choice, cluster.client

    async def submit() -> str:
        flow, name = random_cached_graph(pick), pick(["x", "y"])
        await cluster.clock.sleep(pick([0.0, 0.0, 3.0]))
        return await client.create_task(graph=flow, params={"name": name})

    async def delete() -> None:
        await client.delete_cached(pick(["work", "slow", "subflow"]), key=pick([None, "x"]))

    await with_verbs(cluster, submit, "abms", delete)


def wait(node_id: str, signal: str, after: list[str] | None = None, **io: Any) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "type": "wait_signal",
        "depends_on": after or [],
        "io": {"signal": signal, **io},
    }


async def signals(cluster: SimCluster) -> None:
    """Send signals before and after the nodes wait for them, each of them twice."""
    task_id = await cluster.client.create_task(
        graph=graph(
            node("a"),
            wait("first", "go"),
            wait("second", "go", ["a"]),
            wait("computed", "order-${params.n}", ["a"]),
            wait("never", "stop", ["a"], timeout_sec=1, on_timeout="skip"),
            node("end", after=["first", "second", "computed", "never"]),
        ),
        params={"n": 7},
    )

    async def send(name: str, payload: Any) -> None:
        await cluster.clock.sleep(cluster.random.choice([0.0, 0.5, 3.0, 20.0]))
        for _ in range(2):
            await cluster.client.signal(task_id, name, payload, signal_id=f"{name} {payload}")

    async with anyio.create_task_group() as group:
        for payload in (1, 2):
            group.start_soon(send, "go", payload)
        group.start_soon(send, "order-7", "x")
    view = await cluster.client.wait(task_id)
    cluster.assert_finished(view)
    assert {view.nodes["first"].result, view.nodes["second"].result} == {1, 2}
    assert view.nodes["computed"].result == "x"
    assert view.nodes["never"].reason_code == "signal_timeout"


async def decisions(cluster: SimCluster) -> None:
    """Several people decide about the same nodes: the first decision counts."""
    ask = {"prompt": "Ship ${params.n}?", "on_reject": "continue"}
    task_id = await cluster.client.create_task(
        graph=graph(
            node("a"),
            *(
                {"node_id": name, "type": "approval", "depends_on": after, "io": ask}
                for name, after in (("early", []), ("late", ["a"]))
            ),
            node("end", after=["early", "late"]),
        ),
        params={"n": 7},
    )
    made: dict[str, list[str]] = {"early": [], "late": []}

    async def decide(by: str) -> None:
        while not all(made.values()):
            for waiting in (await cluster.client.approvals(task_id=task_id)).items:
                try:
                    choice = cluster.random.choice(waiting.choices)
                    await cluster.client.decide(task_id, waiting.node_id, choice, by=by)
                    made[waiting.node_id].append(by)
                except AlreadyDecided:
                    cluster.log(f"{by} is too late")
            await cluster.clock.sleep(cluster.random.choice([0.5, 2.0]))

    async with anyio.create_task_group() as group:
        for by in ("ann", "bob"):
            group.start_soon(decide, by)
    view = await cluster.client.wait(task_id)
    cluster.assert_finished(view)
    for name, deciders in made.items():
        assert deciders == [view.nodes[name].result["by"]], (name, deciders)


async def random_waits(cluster: SimCluster) -> None:
    """Run a random graph that waits for signals and decisions, which come early, late and twice."""
    pick = cluster.random.choice
    names = [f"n{number}" for number in range(6)]
    task_id = await cluster.client.create_task(
        graph=graph(
            *(
                waiting_or_working(
                    pick, name, [other for other in names[:place] if pick([True, False, False])]
                )
                for place, name in enumerate(names)
            ),
            on_node_failure=pick(["stop", "continue"]),
        ),
        params={"name": "go"},
    )
    client, numbers = cluster.client, count()
    for is_retry in (False, True):
        async with waits_served(cluster, task_id, numbers):
            if pick([True, False, False]):
                await cluster.clock.sleep(pick([0.0, 1.0, 10.0]))
                await client.pause(task_id)
                await cluster.clock.sleep(pick([0.1, 5.0]))
                await client.resume(task_id)
            if pick([True, False, False, False, False]):
                await client.cancel(task_id)
            view = await client.wait(task_id)
        assert_taken_once(view)
        if is_retry or view.status == "finished":
            return
        await client.retry(task_id)


@asynccontextmanager
async def waits_served(
    cluster: SimCluster, task_id: str, numbers: Iterator[int]
) -> AsyncIterator[None]:
    """Send signals to a task and decide about its nodes until the block has ended."""
    async with anyio.create_task_group() as group:
        ended = anyio.Event()
        for _ in range(2):
            group.start_soon(send_signals, cluster, task_id, numbers, ended)
        for by in ("ann", "bob"):
            group.start_soon(decide_about_all, cluster, task_id, by, ended)
        yield
        ended.set()


def assert_taken_once(view: TaskView) -> None:
    """Assert that no two nodes of a task took one signal: each signal has its own payload."""
    taken = [
        one.result
        for one in view.nodes.values()
        if (one.type, one.status) == ("wait_signal", "finished")
    ]
    assert len(set(taken)) == len(taken), taken


def waiting_or_working(
    pick: Callable[[Sequence[Any]], Any], node_id: str, after: list[str], *, limited: bool = False
) -> dict[str, Any]:
    """Return a node that mostly waits for a signal or a decision; ``limited``, not for ever."""
    fields: dict[str, Any] = {"optional": pick([True, False])}
    if after:
        fields["fan_in"] = pick(["all", "ended", "any"])
    limit: dict[str, Any] = {"timeout_sec": pick([1, 20]), "on_timeout": pick(["fail", "skip"])}
    io = limit if limited or pick([True, False, False]) else {}
    name = "go" if limited else "${params.name}"
    match pick(["signal", "signal", "approval", "work"]):
        case "signal":
            return wait(node_id, pick(["go", "stop", name]), after, **io) | fields
        case "approval":
            io |= {"prompt": f"{name}?", "on_reject": pick(["fail", "continue"])}
            return {"node_id": node_id, "type": "approval", "depends_on": after, "io": io} | fields
    return node(node_id, after=after, **fields)


async def send_signals(
    cluster: SimCluster, task_id: str, numbers: Iterator[int], ended: anyio.Event
) -> None:
    """Send signals until a task has ended, some of them twice."""
    pick = cluster.random.choice
    while not ended.is_set():
        number, name = next(numbers), pick(["go", "stop"])
        for _ in range(pick([1, 2])):
            try:
                await cluster.client.signal(task_id, name, number, signal_id=f"s{number}")
            except SignalRefused:
                cluster.log(f"signal {number} is refused")
        await cluster.clock.sleep(pick([0.0, 0.5, 5.0, 30.0]))


async def decide_about_all(cluster: SimCluster, task_id: str, by: str, ended: anyio.Event) -> None:
    """Decide about every node of a task that waits for it until the task has ended.

    Approvals of other tasks are left alone: a fault of the simulation copies this task and
    damages the copy.
    """
    pick = cluster.random.choice
    while not ended.is_set():
        for waiting in (await cluster.client.approvals()).items:
            if waiting.task_id != task_id:
                continue
            try:
                choice = pick(waiting.choices)
                await cluster.client.decide(task_id, waiting.node_id, choice, by=by)
            except TaskRefused:
                cluster.log(f"{by} is too late")
        await cluster.clock.sleep(pick([0.5, 2.0, 10.0]))


def subflow(
    node_id: str, inner: dict[str, Any], after: list[str] | None = None, **fields: Any
) -> dict[str, Any]:
    io = {"graph": inner, **({"params": fields.pop("params")} if "params" in fields else {})}
    return {
        "node_id": node_id,
        "type": "subflow",
        "depends_on": after or [],
        "io": io,
        "retry_policy": PATIENT,
        **fields,
    }


async def subflows(cluster: SimCluster) -> None:
    """Sub-flows in sub-flows, with params, a failure that a retry repairs, and one that fails."""
    lowest = graph(
        node("x", "plain", io={"input_inline": ["${params.n}", 1]}), node("y", "third_time")
    )
    middle = graph(subflow("low", lowest, params={"n": "${params.n}"}), node("z", after=["low"]))
    bad = graph(node("x", "never", retry_policy={"max": 0}))
    view = await cluster.run(
        graph(
            node("a", "plain", io={"input_inline": [2, 3]}),
            subflow("s", middle, ["a"], params={"n": "${results.a.sum}"}),
            subflow("t", lowest, params={"n": 1}),
            subflow("bad", bad, retry_policy={"max": 1, "backoff_sec": 1}, optional=True),
            node("end", after=["s", "t", "bad"]),
        )
    )
    cluster.assert_finished(view)
    assert (view.nodes["bad"].reason_code, view.nodes["bad"].attempt) == ("subflow_failed", 2)
    child = await cluster.client.get_task(view.nodes["s"].child_task_id or "")
    assert (child.status, child.parent, child.params) == ("finished", view.id, {"n": 5})
    assert child.result == view.nodes["s"].result


def answering(value: Any) -> dict[str, Any]:
    """Return a graph whose result is a value, after a while."""
    return graph(node("a", io={"input_inline": value}), output="${results.a.item}")


async def registered_flows(cluster: SimCluster) -> None:
    """Two puts at once, at processes that die, and a task whose flows change while it runs."""
    client = cluster.client
    graphs = [answering(number) for number in range(3)]

    async def put(graph: dict[str, Any]) -> None:
        post = cluster.random.choice(cluster.coordinators)
        await cluster.filled(post)
        try:
            await cluster.within(post, lambda coordinator: coordinator.put_flow("leaf", graph))
        except ProcessDied:
            cluster.log("a coordinator died of a put")
        except (NotRunning, StoreUnavailable) as error:
            cluster.log(f"a put failed: {error!r}")
        found = await client.put_flow("leaf", graph)
        assert found.graph == graph

    async with anyio.create_task_group() as group:
        for one in graphs[:2]:
            group.start_soon(put, one)
    named = {"node_id": "s", "type": "subflow", "io": {"flow": "leaf"}, "retry_policy": PATIENT}
    await client.put_flow("middle", graph(named, output="${results.s}"))
    begun = await client.get_flow("leaf")
    task_id = await client.create_task(
        graph=graph(
            named,
            named | {"node_id": "m", "map": {"over": [1, 2]}},
            named | {"node_id": "t", "io": {"flow": "middle"}},
            node("l", "loop", io={"flow": "leaf", "version": 1, "until": "iteration == 1"}),
        )
    )
    await client.put_flow("middle", graphs[2])
    await put(graphs[2])
    view = await client.wait(task_id)
    cluster.assert_finished(view)
    latest, first = (
        one.graph["nodes"][0]["io"]["input_inline"]
        for one in (begun, await client.get_flow("leaf", 1))
    )
    found = {name: view.nodes[name].result for name in "smtl"}
    assert found == {"s": latest, "m": [latest] * 2, "t": latest, "l": first}
    stored = (await client.list_flows())[0]
    versions = [await client.get_flow("leaf", one + 1) for one in range(stored.version)]
    assert [one.version for one in versions] == list(range(1, stored.version + 1))
    assert all(one in [each.graph for each in versions] for one in graphs)


async def assert_children_ended(client: Client, view: TaskView) -> None:
    """Assert that the child tasks of an ended task have ended, unless they were not created."""
    for one in view.nodes.values():
        if one.child_task_id is not None and one.status != "queued":
            try:
                child = await client.get_task(one.child_task_id)
            except TaskNotFound:
                continue
            assert child.status in ("finished", "failed", "cancelled"), (one, child)


async def subflow_verbs(cluster: SimCluster) -> None:
    """Cancel, pause, resume, the deadline and retry of a task with sub-flows, of which some are
    paused alone.
    """
    inner = graph(node("x", "slow"), node("y", after=["x"]))
    flow = graph(
        subflow("s", graph(subflow("low", inner), node("z", after=["low"]))),
        subflow("t", inner, timeouts={"start_to_close_sec": 30.0}, retry_policy={"max": 0}),
        node("end", after=["s", "t"]),
    )
    client, chance = cluster.client, cluster.random
    task_id = await client.create_task(graph=flow, deadline_sec=chance.choice([None, 5.0]))
    for _ in range(2):
        await cluster.clock.sleep(chance.choice([0.0, 0.1, 2.0, 9.0]))
        whole = _without_copies((await client.list_tasks()).items)
        below = sorted(one.id for one in whole if one.parent is not None)
        await client.pause(chance.choice([task_id, *below]))
        await cluster.clock.sleep(chance.choice([0.0, 1.0]))
        await client.resume(task_id)
    if chance.random() < 0.6:
        await client.cancel(task_id)
    view = await client.wait(task_id)
    if view.status != "finished":
        await client.retry(task_id)
        await cluster.clock.sleep(chance.choice([0.0, 0.5, 4.0]))
        await client.cancel(task_id)
        view = await client.wait(task_id)
    await assert_children_ended(client, view)


async def mapped_subflows(cluster: SimCluster) -> None:
    """Mapped sub-flows with attempts, a mapped sub-flow inside, and children that fail."""
    lowest = graph(node("x", "plain", io={"input_inline": ["${params.n}", 1]}))
    inside = {"over": "${params.row}", "max_parallel": random.choice([1, 9])}
    middle = graph(
        subflow("low", lowest, params={"n": "${item}"}, map=inside),
        node("y", "third_time", ["low"]),
        output="${results.low}",
    )
    rows = {"over": [[1, 2], [], [3]], "as": "row", "max_parallel": random.choice([1, 2, 9])}
    some = {"over": [1, 2, 3], "on_item_failure": "continue"}
    few = {"max": 1, "backoff_sec": 1}
    odd = graph(node("x", "odd", io={"input_inline": "${params.n}"}))
    view = await cluster.run(
        graph(
            subflow("m", middle, params={"row": "${row}"}, map=rows),
            subflow("some", odd, params={"n": "${item}"}, map=some, retry_policy=few),
            node("end", after=["m", "some"]),
        )
    )
    cluster.assert_finished(view)
    sums = [[one["x"]["sum"] for one in row] for row in view.nodes["m"].result]
    assert sums == [[2, 3], [], [4]]
    assert view.nodes["some"].result == [{"x": 1}, None, {"x": 3}]
    failed = view.nodes["some[1]"]
    assert (failed.reason_code, failed.attempt) == ("subflow_failed", 2)
    child = await cluster.client.get_task(view.nodes["m[2]"].child_task_id or "")
    assert (child.parent, child.parent_node, child.params) == (view.id, "m[2]", {"row": [3]})


async def mapped_subflow_verbs(cluster: SimCluster) -> None:
    """Cancel, pause, resume and retry of a task with mapped sub-flows, one of which fails."""
    client, chance = cluster.client, cluster.random
    inner = graph(node("x", "odd", io={"input_inline": "${params.n}"}), node("y", "slow", ["x"]))
    spec = {
        "over": chance.choice([[1, 3, 5], [1, 2, 3, 5]]),
        "max_parallel": chance.choice([None, 2]),
        "on_item_failure": chance.choice(["fail", "continue"]),
    }
    flow = graph(
        subflow("m", inner, params={"n": "${item}"}, map=spec, retry_policy={"max": 0}),
        **{"finally": [subflow("f", graph(node("x")), map={"over": [1, 2]})]},
    )
    task_id = await client.create_task(graph=flow)
    await cluster.clock.sleep(chance.choice([0.0, 0.1, 2.0, 9.0]))
    await client.pause(task_id)
    await cluster.clock.sleep(chance.choice([0.0, 1.0]))
    await client.resume(task_id)
    await cluster.clock.sleep(chance.choice([0.0, 0.1, 9.0]))
    match chance.choice(["cancel", "force", "nothing"]):
        case "cancel":
            await client.cancel(task_id, "enough")
        case "force":
            await client.cancel(task_id, "enough", force=True)
    view = await client.wait(task_id)
    if view.status != "finished":
        known = [None, ["m"], *(["m[0]"] for one in view.nodes if one == "m[0]")]
        await client.retry(task_id, from_nodes=chance.choice(known))
        await cluster.clock.sleep(chance.choice([0.0, 0.5, 40.0]))
        await client.cancel(task_id)
        view = await client.wait(task_id)
    await assert_children_ended(client, view)


def loop(
    node_id: str, inner: dict[str, Any], after: list[str] | None = None, **fields: Any
) -> dict[str, Any]:
    """Return a loop. ``while_`` is the field ``while``."""
    names = ("params", "while_", "until", "max_iterations", "delay_sec")
    io = {name.rstrip("_"): fields.pop(name) for name in names if name in fields}
    given = subflow(node_id, inner, after, **fields)
    return given | {"type": "loop", "io": {"graph": inner, **io}}


async def loops(cluster: SimCluster) -> None:
    """Loops of all kinds: in a loop and in a sub-flow, with and without pauses, with a failure that
    a retry repairs, and without an end.
    """
    pick = cluster.random.choice
    adds = graph(
        node("x", "plain", io={"input_inline": ["${params.n}", 1]}),
        node("y", pick(["work", "third_time"]), after=["x"]),
        output="${results.x.sum}",
    )
    count = {"params": {"n": "${previous == null ? params.n : previous}"}}
    middle = graph(
        loop("in", adds, until="previous >= params.n + 2", delay_sec=pick([0, 30]), **count),
        output="${results['in']}",
    )
    first = {"params": {"n": "${previous == null ? 0 : previous}"}}
    view = await cluster.run(
        graph(
            loop("a", adds, while_="iteration < 3", delay_sec=pick([0, 5]), **first),
            loop("b", middle, ["a"], until="iteration == 1", params={"n": "${results.a}"}),
            subflow("s", graph(loop("l", adds, until="true", params={"n": 1}))),
            loop("none", adds, while_="false", params={"n": 1}),
            loop("endless", adds, until="false", max_iterations=2, optional=True, **first),
            node("end", after=["a", "b", "s", "none", "endless"]),
        )
    )
    cluster.assert_finished(view)
    ends = {name: view.nodes[name].result for name in ("a", "b", "s", "none")}
    assert ends == {"a": 3, "b": 5, "s": {"l": 2}, "none": None}
    assert view.nodes["endless"].reason_code == "loop_limit"
    rounds = {name: one.progress for name, one in view.nodes.items() if one.type == "loop"}
    assert rounds == {
        "a": {"rounds": 3},
        "b": {"rounds": 2},
        "none": None,
        "endless": {"rounds": 2},
    }


async def loop_verbs(cluster: SimCluster) -> None:
    """Cancel, pause, resume, the deadline and retry of a task with loops."""
    client, pick = cluster.client, cluster.random.choice
    inner = graph(node("x", pick(["slow", "work"])), node("y", after=["x"]))
    condition = pick([{"while_": "iteration < 4"}, {"until": "iteration == 3"}])
    flow = graph(
        loop("l", inner, delay_sec=pick([0, 3]), **condition),
        loop(
            "t",
            graph(loop("low", inner, until="iteration == 1", delay_sec=pick([0, 1]))),
            while_="iteration < 2",
            timeouts={"start_to_close_sec": 30.0},
            retry_policy=pick([{"max": 0}, {"max": 1, "backoff_sec": 1}]),
        ),
        node("end", after=["l", "t"]),
    )
    task_id = await client.create_task(graph=flow, deadline_sec=pick([None, 12.0]))
    for _ in range(2):
        await cluster.clock.sleep(pick([0.0, 0.1, 2.0, 9.0]))
        await client.pause(task_id)
        await cluster.clock.sleep(pick([0.0, 1.0, 5.0]))
        await client.resume(task_id)
    if pick([True, False]):
        await client.cancel(task_id)
    view = await client.wait(task_id)
    if view.status != "finished":
        await client.retry(task_id)
        await cluster.clock.sleep(pick([0.0, 0.5, 4.0, 60.0]))
        await client.cancel(task_id)
        view = await client.wait(task_id)
    if view.status == "finished":
        assert view.nodes["l"].progress == {"rounds": 4}
        assert view.nodes["t"].progress == {"rounds": 2}


async def functions(cluster: SimCluster) -> None:
    counts = [call(f"f{number}", "vars.incr", ["a"], key="count.of", by=2) for number in range(5)]
    view = await cluster.run(
        graph(
            node("a"),
            *counts,
            call(
                "sum",
                "merge.generic",
                [f"f{number}" for number in range(5)],
                from_nodes=["a"],
                target="all",
            ),
            node("b", after=["sum"]),
        )
    )
    cluster.assert_finished(view)
    assert view.vars["count"] == {"of": 10}


async def cancel(cluster: SimCluster) -> None:
    task_id = await cluster.client.create_task(
        graph=graph(node("a"), node("b", "slow", ["a"]), node("c", "deaf"), node("d", after=["b"]))
    )
    await cluster.clock.sleep(cluster.random.choice([0.0, 0.05, 1.0, 10.0]))
    await cluster.client.cancel(task_id, "enough")
    await cluster.client.cancel(task_id, "enough")
    view = await cluster.client.wait(task_id)
    assert view.status == "cancelled"
    begun = len(cluster.executions)
    await cluster.clock.sleep(1)
    for execution in cluster.executions[begun:]:
        cluster.log(f"executed after the end: {execution}")


async def pause_and_resume(cluster: SimCluster) -> None:
    task_id = await cluster.client.create_task(
        graph=graph(node("a"), node("b", after=["a"]), node("c", after=["b"]))
    )
    for _ in range(2):
        await cluster.clock.sleep(cluster.random.choice([0.0, 0.05, 1.0]))
        await cluster.client.pause(task_id)
        await cluster.clock.sleep(cluster.random.choice([0.1, 5.0]))
        await cluster.client.resume(task_id)
    cluster.assert_finished(await cluster.client.wait(task_id))


async def when_possible(verb: Callable[[], Awaitable[None]], cluster: SimCluster) -> None:
    """Repeat a verb on a node until the node is in a state for it."""
    while True:
        try:
            return await verb()
        except TaskRefused:
            await cluster.clock.sleep(1)


async def operators(cluster: SimCluster) -> None:
    """Operators end pauses that would last for a year."""
    client, year = cluster.client, {"max": 60, "backoff_sec": 3e7, "max_backoff_sec": 3e7}
    task_id = await client.create_task(
        graph=graph(
            node("late", "wrong_at_first", retry_policy={**year, "permanent_on": []}),
            sleep("year", for_sec=3e7),
            node("end", after=["late", "year"]),
        )
    )
    await when_possible(lambda: client.run_now(task_id, "year"), cluster)
    while not (late := (await client.get_task(task_id)).nodes["late"]).status.terminal:
        if late.next_retry_at is not None and late.status == "deferred":
            await when_possible(lambda: client.run_now(task_id, "late"), cluster)
        await cluster.clock.sleep(1)
    view = await client.wait(task_id)
    cluster.assert_finished(view)
    await client.cancel(await client.rerun(task_id))


async def resolutions(cluster: SimCluster) -> None:
    """An operator settles nodes of all kinds that would never end, at any time."""
    client, forever = cluster.client, {"graph": graph(sleep("year", for_sec=3e7))}
    kinds = {
        "run": node("run", "deaf"),
        "child": node("child", "subflow", io=forever, retry_policy={"max": 0}),
        "waits": wait("waits", "never"),
        "map": node("map", "slow", map={"over": [1, 2, 3], "max_parallel": 2}),
        "call": call("call", "vars.incr", key="calls"),
        "below": node("below", after=["run"]),
    }
    end = node("end", after=[*kinds], fan_in="ended")
    task_id = await client.create_task(graph=graph(*kinds.values(), end))
    chosen = {}
    for name in cluster.random.sample([*kinds], k=len(kinds)):
        await cluster.clock.sleep(cluster.random.choice([0.0, 0.05, 1.0, 8.0]))
        outcome = cluster.random.choice(["finished", "finished", "skipped"])
        result = {"of": name} if outcome == "finished" else None
        try:
            await client.resolve_node(task_id, name, outcome, by="ann", result=result)
        except TaskRefused as refusal:
            if "has ended" not in str(refusal):
                raise
        else:
            chosen[name] = (outcome, result)
    view = await client.wait(task_id)
    cluster.assert_finished(view)
    found = {name: (view.nodes[name].status, view.nodes[name].result) for name in chosen}
    assert found == chosen, (found, chosen)
    assert chosen.keys() >= {"child", "waits"}


async def retry_by_hand(cluster: SimCluster) -> None:
    task_id = await cluster.client.create_task(
        graph=graph(
            node("a"),
            node("b", "never", ["a"], retry_policy={"max": 0}),
            node("c", after=["a"]),
            node("d", after=["b", "c"]),
            on_node_failure="continue",
        )
    )
    first = await cluster.client.wait(task_id)
    assert first.status == "failed"
    await cluster.client.retry(task_id)
    second = await cluster.client.wait(task_id)
    assert second.status == "failed"
    await cluster.client.retry(task_id, from_nodes=["a"])
    third = await cluster.client.wait(task_id)
    assert (third.status, third.nodes["a"].status, third.nodes["b"].status) == (
        "failed",
        "finished",
        "failed",
    )
    await retry_letters(cluster, task_id)
    fourth = await cluster.client.wait(task_id)
    assert (fourth.status, fourth.nodes["a"], fourth.nodes["b"].status) == (
        "failed",
        third.nodes["a"],
        "failed",
    )
    assert cluster.times_executed("a") >= 2


async def deadline(cluster: SimCluster) -> None:
    view = await cluster.run(graph(node("a", "slow"), node("b", after=["a"])), deadline_sec=5)
    if clocks_are_right(cluster):
        assert view.status == "failed"
        assert "deadline" in (view.error or "")


async def time_limit(cluster: SimCluster) -> None:
    policy = {"max": 1, "backoff_sec": 0.1}
    view = await cluster.run(
        graph(node("a", "slow", timeouts={"start_to_close_sec": 4}, retry_policy=policy))
    )
    # An attempt may finish while its worker cannot be notified that its time is over: the first
    # success counts.
    if not cluster.faults.any:
        assert view.status == "failed"
        assert view.nodes["a"].attempt == 2


async def idempotency(cluster: SimCluster) -> None:
    found: list[str] = []

    async def submit() -> None:
        found.append(
            await cluster.client.create_task(graph=graph(node("a")), idempotency_key="once")
        )

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(submit)
    assert len(set(found)) == 1, found
    cluster.assert_finished(await cluster.client.wait(found[0]))
    listed = [view.id for view in (await cluster.client.list_tasks()).items]
    assert len([task_id for task_id in listed if task_id in cluster.client.promised]) == 1


async def many_tasks(cluster: SimCluster) -> None:
    views: list[TaskView] = []

    async def run(number: int) -> None:
        views.append(
            await cluster.run(graph(node("a", io={"input_inline": number}), node("b", after=["a"])))
        )

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(run, number)
    for view in views:
        cluster.assert_finished(view)


async def handing_back(cluster: SimCluster) -> None:
    own = [await cluster.add_worker(HANDLERS)]
    task_id = await cluster.client.create_task(
        graph=graph(*(node(f"n{number}", "slow", retry_policy={"max": 60}) for number in range(4)))
    )
    await cluster.clock.sleep(cluster.random.choice([0.1, 4.0, 20.0]))
    await cluster.stop_worker(own[0], cluster.random.choice([0.0, 2.0, None]))
    cluster.assert_finished(await cluster.client.wait(task_id))


async def few_slots(cluster: SimCluster) -> None:
    """Idle workers take over the runs that wait for the only slot of another worker."""
    key = {"concurrency_key": "k"}
    view = await cluster.run(
        graph(
            *(node(f"slow-{number}", "slow") for number in range(3)),
            *(node(f"work-{number}") for number in range(6)),
            *(node(f"keyed-{number}", **key) for number in range(2)),
        )
    )
    cluster.assert_finished(view)


async def streams_with_one_slot(cluster: SimCluster) -> None:
    """Nodes that wait for batches of others, or for their readers, leave the slot to them."""
    scenario = random.choice(
        [streaming, windows, parallel_batches, flow_control, shards, shards_that_are_retried]
    )
    await scenario(cluster)


async def put_for_a_minute(cluster: SimCluster, overlap: str) -> ScheduleView:
    jitter_sec = cluster.random.choice([0.0, 5.0])
    while True:
        schedule = Schedule(
            "s",
            graph=graph(node("a", io={"input_inline": "${params.at}"})),
            params={"at": "${schedule.at}"},
            every_sec=10,
            end_at=cluster.clock.now_dt() + timedelta(seconds=60),
            jitter_sec=jitter_sec,
            overlap=overlap,
            catch_up="all",
        )
        try:
            return await cluster.client.put_schedule(schedule)
        except ScheduleRefused:
            cluster.log("the clock has passed the end of the schedule")


async def schedules(cluster: SimCluster) -> None:
    """Each nominal time makes one task, or is skipped, and tasks do not overlap."""
    overlap = cluster.random.choice(["skip", "queue", "allow", "cancel_running"])
    running: set[str] = set()

    def no_overlap(before: TaskView | None, after: TaskView) -> None:
        if after.status.terminal:
            running.discard(after.id)
        elif before is None and after.schedule == "s":
            assert not running or overlap == "allow", f"{after.id} overlaps {running}"
            running.add(after.id)

    cluster.invariants.add(no_overlap)
    put = await put_for_a_minute(cluster, overlap)
    if cluster.random.random() < 0.3:
        await cluster.clock.sleep(cluster.random.choice([5.0, 21.0]))
        await cluster.client.pause_schedule("s")
        await cluster.clock.sleep(cluster.random.choice([1.0, 25.0]))
        await cluster.client.resume_schedule("s")
    if cluster.random.random() < 0.3:
        await cluster.clock.sleep(cluster.random.choice([1.0, 13.0, 80.0]))
        jitter_sec = cluster.random.choice([0.0, 2.0, 15.0])
        again = put.schedule.model_copy(update={"jitter_sec": jitter_sec})
        await cluster.client.put_schedule(again)
    times = next_times(put.schedule, put.created_at, 100)
    view = await cluster.client.get_schedule("s")
    while sum(one.count for one in view.history) < len(times):
        await cluster.clock.sleep(5)
        view = await cluster.client.get_schedule("s")
    assert sum(one.count for one in view.history) == len(times), view
    assert {one.kind for one in view.history} <= {"started", "skipped"}, view
    covered = [at for one in view.history for at in times if one.at <= at <= one.until]
    assert sorted(covered) == times, view
    started = [one for one in view.history if one.kind == "started"]
    made = (await cluster.client.list_tasks(limit=500)).items
    assert {one.id for one in made if one.id.startswith("s@")} == {
        one.task_id for one in started
    }, view
    for one in started:
        task = await cluster.client.wait(str(one.task_id))
        assert task.schedule_at == one.at
        if overlap != "cancel_running":
            cluster.assert_finished(task)


def _without_copies(tasks: Sequence[TaskView]) -> list[TaskView]:
    """Return the tasks without the damaged copies of tasks that the simulation adds."""
    return [one for one in tasks if not one.id.startswith("damaged-")]


async def triggers(cluster: SimCluster) -> None:
    """Each end of a task makes one task of the trigger, also that of a cancelled task."""
    after = graph(node("b", io={"input_inline": "${params.status}"}))
    params = {"id": "${event.value.id}", "status": "${event.value.status}"}

    async def made() -> list[TaskView]:
        page = await cluster.client.list_tasks(pipeline="after")
        return [one for one in _without_copies(page.items) if one.trigger == "t"]

    put = Trigger("t", source="task:etl", graph=after, params=params, pipeline="after")
    await cluster.client.put_trigger(put)
    ended = {}
    for _ in range(4):
        task_id = await cluster.client.create_task(graph=graph(node("a")), pipeline="etl")
        if cluster.random.random() < 0.3:
            await cluster.client.cancel(task_id)
        ended[task_id] = (await cluster.client.wait(task_id)).status
    if cluster.random.random() < 0.3:
        await cluster.client.pause_trigger("t")
        await cluster.clock.sleep(cluster.random.choice([1.0, 15.0]))
        await cluster.client.resume_trigger("t")
    while len(await made()) < len(ended):
        await cluster.clock.sleep(5)
    await cluster.clock.sleep(20)
    tasks = await made()
    found = sorted((one.params["id"], one.params["status"]) for one in tasks)
    assert found == sorted(ended.items())
    for one in tasks:
        cluster.assert_finished(await cluster.client.wait(one.id))


async def trigger_sources(cluster: SimCluster) -> None:
    """Each event of a source makes one task, however often it is delivered."""
    address = f"mem://{cluster.random.random()}"
    source = SOURCES.open[address] = SimulatedSource()
    put = Trigger(
        "t", source=address, graph=graph(node("a")), params={"n": "${event.value}"}, pipeline="read"
    )
    view = await cluster.client.put_trigger(put)

    async def made() -> list[TaskView]:
        page = await cluster.client.list_tasks(pipeline="read", limit=100)
        return [one for one in _without_copies(page.items) if one.trigger == "t"]

    numbers = list(range(12))
    for number in numbers:
        source.publish(b"%d" % number, timestamp=view.created_at.timestamp() + 60)
        await cluster.clock.sleep(cluster.random.choice([0.0, 0.1, 3.0]))
    if cluster.random.random() < 0.3:
        await cluster.client.pause_trigger("t")
        await cluster.clock.sleep(cluster.random.choice([1.0, 15.0]))
        await cluster.client.resume_trigger("t")
    while len(await made()) < len(numbers):
        source.expire()
        await cluster.clock.sleep(5)
    await cluster.clock.sleep(20)
    tasks = await made()
    assert sorted(one.params["n"] for one in tasks) == numbers
    for one in tasks:
        cluster.assert_finished(await cluster.client.wait(one.id))
    del SOURCES.open[address]


async def submitting_at_coordinators(cluster: SimCluster) -> None:
    task_ids: list[str] = []
    for number in range(4):
        posts = cluster.coordinators
        post = posts[number % len(posts)]
        await cluster.filled(post)

        async def submit(coordinator: Any) -> str:
            stored: str = await coordinator.create_task(
                graph=graph(node("a"), node("b", after=["a"]))
            )
            return stored

        try:
            task_ids.append(await cluster.within(post, submit))
        except ProcessDied:
            cluster.log("a coordinator died of a submission")
        except Exception as error:
            cluster.log(f"a submission failed: {error!r}")
    for task_id in task_ids:
        cluster.client.promised[task_id] = None
        cluster.assert_finished(await cluster.client.wait(task_id))


async def watching(cluster: SimCluster) -> None:
    task_id = await cluster.client.create_task(
        graph=graph(node("a"), node("b", "third_time", ["a"]))
    )
    events = [event async for event in cluster.client.watch(task_id)]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert (events[0].status, events[-1].status, events[-1].node_id) == ("queued", "finished", None)


async def log_lines(cluster: SimCluster) -> None:
    """No line is stored twice, and the lines of a run are in order. If its worker dies, the last
    lines of a run may be missing. Others are lost only with a power failure of the store, and are
    counted then.
    """
    io = {"input_inline": "fails"}
    task_id = await cluster.client.create_task(
        graph=graph(
            node("a", "talk"),
            node("b", "talk", io=io),
            node("c", "talk", ["a", "b"]),
            node("d", "talk", ["a"], map={"over": [1, 2, 3]}),
        )
    )
    followed = by_run([line async for line in cluster.client.logs(task_id, follow=True)])
    cluster.assert_finished(await cluster.client.get_task(task_id))
    await cluster.clock.sleep(cluster.quiet_after_sec + 60)
    stored = by_run([line async for line in cluster.client.logs(task_id)])
    for mark, lines in stored.items():
        numbers = [line.number for line in lines]
        dropped = sum(line.dropped for line in lines)
        assert numbers == sorted(set(numbers)), (mark, numbers)
        assert dropped == numbers[-1] - len(numbers), (mark, numbers, dropped)
        assert not dropped or cluster.injected["session_lost"], (mark, numbers)
    for mark, lines in followed.items():
        numbers = [line.number for line in lines]
        assert len(numbers) == len(set(numbers)), (mark, numbers)
        assert set(numbers) <= {line.number for line in stored[mark]}, (mark, numbers)
        # A write that was lost after its confirmation may be repeated by a late message.
        assert cluster.injected["session_lost"] or numbers == sorted(numbers), (mark, numbers)
    if not cluster.faults.any:
        assert [len(lines) for lines in stored.values()] == 7 * [TALK]
        assert stored == followed


def by_run(lines: Sequence[LogLine]) -> dict[str, list[LogLine]]:
    """Return the lines of the handler ``talk`` by the mark of their run."""
    found: dict[str, list[LogLine]] = {}
    for line in lines:
        if line.logger == "flowkit.run":
            mark, number = line.text.split()
            assert line.number == int(number) + 1
            found.setdefault(mark, []).append(line)
    return found


async def published_changes(cluster: SimCluster) -> None:
    """Tasks that end in several ways. The cluster checks what is in the topic of changes."""
    ids = [
        await cluster.client.create_task(graph=graph(*nodes))
        for nodes in (
            [node("a"), node("b", after=["a"])],
            [node("never", retry_policy={"max": 1, "backoff_sec": 0.5}, role="never")],
            [{"node_id": "for_ever", "type": "wait_signal", "io": {"signal": "go"}}],
            [node("slow", "slow")],
            [subflow("inner", graph(node("in")))],
        )
    ]
    _, failing, waiting, slow, _ = ids
    await cluster.client.cancel(waiting)
    await cluster.clock.sleep(cluster.random.uniform(0, 20))
    await cluster.client.cancel(slow)
    for task_id in ids:
        await cluster.client.wait(task_id)
    await cluster.client.retry(failing)
    await cluster.client.wait(failing)


async def refusals(cluster: SimCluster) -> None:
    view = await cluster.run(graph(node("a")))
    try:
        await cluster.client.retry(view.id)
    except TaskRefused:
        pass
    else:
        raise AssertionError("a finished task was retried")
    await cluster.client.cancel(view.id)
    assert (await cluster.client.get_task(view.id)).status == "finished"


# Log lines of failures would add writes to the store. Only one scenario keeps log lines.
WITHOUT_LOGS = WORKER.model_copy(update={"logs": LogConfig(max_lines=0)})
ONE_SLOT = WITHOUT_LOGS.model_copy(update={"max_concurrency": 1})


@dataclass(frozen=True)
class Standard:
    """A scenario and the settings of its cluster."""

    scenario: Callable[[SimCluster], Awaitable[object]]
    share: int = 1
    once: bool = True
    """If True, every node is executed once without faults, in its first attempt."""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.scenario.__name__

    def setup(self, faults: Any = "all", **more: Any) -> Setup:
        return setup_of(
            self.scenario,
            faults=faults,
            handlers=HANDLERS,
            **{
                "converge_sec": CONVERGE_SEC,
                "worker_config": WITHOUT_LOGS,
                **self.options,
                **more,
            },
        )


async def segments(cluster: SimCluster) -> None:
    """Chains of nodes that workers run in segments: each node has read the result of its parent
    that is stored. Beside that clients pause, cancel, resolve and retry.
    """
    names = ["a", "b", "c", "d", "e", "f", "g"]
    parents = dict(zip(names[1:], names, strict=False))
    pick = cluster.random.choice

    def reads_what_is_stored(before: TaskView | None, after: TaskView) -> None:
        for name, parent in parents.items():
            result, read = after.nodes[name].result, after.nodes[parent].result
            if result is not None and read is not None:
                assert result["before"] == [read["mark"]], f"{name!r} has read another result"

    def linked(name: str) -> dict[str, Any]:
        after = [parents[name]] if name in parents else []
        return node(name, "link", after, io={"input_inline": pick(["odd", None])})

    async def submit() -> str:
        mode = pick([None, None, "eager", "off"])
        return await cluster.client.create_task(graph=graph(*map(linked, names), segments=mode))

    cluster.invariants.add(reads_what_is_stored)
    await with_verbs(cluster, submit, "abcdefg")


STANDARD = {
    standard.name: standard
    for standard in (
        Standard(chain, 6),
        Standard(segments, 6, once=False),
        Standard(
            published_changes,
            2,
            once=False,
            options={
                "coordinator_config": COORDINATOR.model_copy(update={"publish_changes": True})
            },
        ),
        Standard(fan_out_and_in, 6),
        Standard(fan_in_of_some, 3),
        Standard(retries, 3, once=False),
        Standard(attempts_run_out, 3, once=False),
        Standard(streaming, 3),
        Standard(long_stream),
        Standard(windows, 3),
        Standard(parallel_batches, 3, once=False),
        Standard(flow_control, 3, once=False),
        Standard(shards, 4, once=False),
        Standard(shards_that_are_retried, 4, once=False),
        Standard(routing, 3),
        Standard(below_a_failure, 3),
        Standard(after_all_ends, 2),
        Standard(without_optional_data, 2, once=False),
        Standard(saga, 3, once=False),
        Standard(saga_of_maps, 2, once=False),
        Standard(random_ends, 5, once=False, options={"converge_sec": 2_000}),
        Standard(early_end, 2, once=False),
        Standard(few_at_a_time, 2),
        Standard(few_streams_at_a_time, 2, once=False),
        Standard(map_over_a_result, 4),
        Standard(map_with_attempts, 2, once=False),
        Standard(map_that_continues, 2, once=False),
        Standard(map_that_is_retried, 3, once=False),
        Standard(map_that_is_cancelled, 2, once=False),
        Standard(map_over_artifacts, 3),
        Standard(map_over_artifacts_that_is_retried, 2, once=False),
        Standard(below_a_handled_failure, 3, once=False),
        Standard(retry_below_a_failure, 3, once=False),
        Standard(retry_of_a_reader, 3, once=False),
        Standard(letter_of_a_race, 3, once=False),
        Standard(conditions, 3),
        Standard(expressions, 3),
        Standard(outputs, 2),
        Standard(retry_of_an_output, 2, once=False),
        Standard(functions, 3),
        Standard(sleeping, 2, once=False),
        Standard(subflows, 3, once=False),
        Standard(registered_flows, 2, once=False),
        Standard(subflow_verbs, 4, once=False),
        Standard(mapped_subflows, 2, once=False),
        Standard(mapped_subflow_verbs, 3, once=False),
        Standard(loops, 3, once=False, options={"converge_sec": 2_000}),
        Standard(loop_verbs, 4, once=False, options={"converge_sec": 2_000}),
        Standard(cancelled_sleep, 1),
        Standard(keys_of_many_tasks, 4, once=False),
        Standard(rates_of_many_tasks, 1, once=False, options={"converge_sec": 2_000}),
        Standard(caches_of_many_tasks, 1, once=False, options={"converge_sec": 2_000}),
        Standard(signals, 3, once=False),
        Standard(decisions, 2, once=False),
        Standard(random_waits, 4, once=False, options={"converge_sec": 2_000}),
        Standard(cancel, 6),
        Standard(pause_and_resume, 3),
        Standard(operators, 3, once=False),
        Standard(resolutions, 3, once=False),
        Standard(retry_by_hand, 3, once=False),
        Standard(deadline, 3),
        Standard(time_limit, 3, once=False),
        Standard(idempotency, 3),
        Standard(many_tasks, 3),
        Standard(handing_back, 3, once=False),
        Standard(few_slots, 3, options={"workers": 3, "worker_config": ONE_SLOT}),
        Standard(streams_with_one_slot, 3, once=False, options={"worker_config": ONE_SLOT}),
        Standard(schedules, 1, once=False),
        Standard(submitting_at_coordinators, 3),
        Standard(watching, 3, once=False),
        Standard(refusals),
        Standard(log_lines, 2, once=False, options={"worker_config": WORKER}),
        Standard(triggers, 1, once=False),
        Standard(trigger_sources, 1, once=False, options={"plugins": [SOURCES]}),
    )
}
ROUND = [name for name, standard in STANDARD.items() for _ in range(standard.share)]
"""The order in which seeds run the scenarios: seed n runs the one at place n, modulo the length."""


def of_seed(seed: int) -> Standard:
    return STANDARD[ROUND[seed % len(ROUND)]]
