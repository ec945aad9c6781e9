"""Promises beyond a correct result: flows end soon, and no work is done twice."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import anyio

from flowkit import WorkerConfig
from flowkit.errors import TaskRefused
from flowkit.task import NodeView, TaskView
from flowkit.worker import Batch, BatchResult, Handler, RunContext, handler
from flowkit_testing.simulation import Faults, Setup, SimCluster, setup_of
from flowkit_testing.simulation._process import Process, current_process
from tests.builders import graph
from tests.simulation.scenarios import HANDLERS, ONE_SLOT, WITHOUT_LOGS, node, subflow

SOON_SEC = 4.0
STEADY = Faults(write_unconfirmed=0.2, publish_unconfirmed=0.1, period_sec=600, period_min_sec=600)
"""Faults that lose answers of the store and the bus, and nothing else."""

DEAF_BUS = Faults(publish_refused=0.7, period_sec=600, period_min_sec=600)
"""Faults that refuse most publish requests."""

DEATHS = Faults(
    crash=0.5, kills_per_run=3.0, duplicate=0.1, delay=0.1, write_unconfirmed=0.1, conflict=0.1
)
"""Faults that kill processes and confuse messages. No process that goes on counts as lost."""


@handler("at_once")
async def at_once(item: Any) -> str:
    return "done"


@handler("second_time")
async def second_time(item: Any, ctx: RunContext) -> int:
    if ctx.attempt < 2:
        raise RuntimeError("not yet")
    return ctx.attempt


@handler("stubborn")
async def stubborn(item: Any, ctx: RunContext) -> None:
    with anyio.CancelScope(shield=True):
        await ctx.clock.sleep(30)


class Runs:
    """Runs of a handler that are in progress in live processes, and the most at a time."""

    def __init__(self) -> None:
        self._running: dict[object, Process] = {}
        self.most = self.begun = 0

    @property
    def now(self) -> int:
        return sum(process.alive for process in self._running.values())

    @contextmanager
    def one(self) -> Iterator[None]:
        run, process = object(), current_process()
        assert process is not None
        self._running[run] = process
        self.begun += 1
        self.most = max(self.most, self.now)
        try:
            yield
        finally:
            del self._running[run]


@handler("alone")
async def alone(item: Any, ctx: RunContext) -> None:
    """Run for a while, sometimes longer than a cancelled run has time to end."""
    assert RUNS is not None
    seconds = random.choice([0.1, 3.0, 3.0, 25.0])
    with RUNS.one(), anyio.CancelScope(shield=random.random() < 0.5):
        await ctx.clock.sleep(seconds)


RUNS: Runs | None = None


class Steps:
    """Attempts that began, and the tasks of which nodes ran when ``finally`` began."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.begun: Counter[tuple[str, str, int]] = Counter()
        self.overlaps: list[str] = []


@handler("step")
async def step(item: Any, ctx: RunContext) -> None:
    assert STEPS is not None
    STEPS.begun[ctx.task_id, ctx.node_id, ctx.attempt] += 1
    STEPS.running[ctx.task_id] += 1
    try:
        await ctx.clock.sleep(random.choice([0.0, 0.001, 0.02]))
    finally:
        STEPS.running[ctx.task_id] -= 1


@handler("closing")
async def closing(item: Any, ctx: RunContext) -> None:
    assert STEPS is not None
    if STEPS.running[ctx.task_id]:
        STEPS.overlaps.append(ctx.task_id)


STEPS: Steps | None = None


class Drip(Handler):
    """A handler of forty batches."""

    async def iter_batches(self, loaded: Any) -> Any:
        for number in range(40):
            yield Batch(str(number), number)

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        await ctx.clock.sleep(0.5)
        return BatchResult(True, {"n": 1})


ALL_HANDLERS = {
    **HANDLERS,
    "at_once": at_once,
    "second_time": second_time,
    "stubborn": stubborn,
    "drip": Drip,
    "alone": alone,
    "step": step,
    "closing": closing,
}
CHAIN = graph(
    node("a", "at_once"),
    node("b", "second_time", ["a"], retry_policy={"max": 1, "backoff_sec": 0.5}),
    node("c", "at_once", ["b"], when="results.b == 2"),
    {
        "node_id": "d",
        "type": "coordinator_fn",
        "depends_on": ["c"],
        "io": {"fn": "vars.incr", "fn_args": {"key": "k"}},
    },
    node("e", "at_once", ["d"]),
)


async def soon(cluster: SimCluster) -> None:
    """No step waits for a sweep."""
    began = cluster.clock.monotonic()
    cluster.assert_finished(await cluster.run(CHAIN))
    took = cluster.clock.monotonic() - began
    assert took < SOON_SEC, f"it took {took:.1f} s"


async def segments_go_on_at_once(cluster: SimCluster) -> None:
    """No node of a segment waits for the repetition of a report."""
    names = "abcdef"
    linked = [node(one, "at_once", [before]) for before, one in pairwise(names)]
    began = cluster.clock.monotonic()
    for mode in ("safe", "eager"):
        flow = graph(node("a", "at_once"), *linked, segments=mode)
        cluster.assert_finished(await cluster.run(flow))
    took = cluster.clock.monotonic() - began
    assert took < SOON_SEC, f"it took {took:.1f} s"


async def stops_wait_for_what_began(cluster: SimCluster) -> None:
    """Nodes of ``finally`` begin after all nodes that a worker began in a segment have ended, and
    no attempt of a node begins twice.
    """
    global STEPS
    STEPS = Steps()
    pick, names = cluster.random.choice, "abcdefghij"
    linked = [node(one, "step", [before]) for before, one in pairwise(names)]
    last = {"finally": [node("z", "closing")]}

    async def run() -> None:
        flow = graph(node("a", "step"), *linked, segments=pick(["safe", "eager"])) | last
        task_id = await cluster.client.create_task(graph=flow)
        await cluster.clock.sleep(pick([0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1]))
        match pick(["cancel", "pause", "resolve", "resolve"]):
            case "pause":
                await cluster.client.pause(task_id)
                await cluster.clock.sleep(pick([0.0, 0.01, 0.05]))
            case "resolve":
                with suppress(TaskRefused):
                    outcome = pick(["finished", "skipped", "failed"])
                    await cluster.client.resolve_node(task_id, pick(names), outcome, by="ann")
                await cluster.clock.sleep(pick([0.0, 0.01, 0.05, 1.0]))
        await cluster.client.cancel(task_id)
        if (await cluster.client.wait(task_id)).status == "cancelled":
            await cluster.client.retry(task_id)
            await cluster.client.wait(task_id)

    for _ in range(12):
        await run()
    assert not STEPS.overlaps, f"finally ran beside nodes of the tasks {STEPS.overlaps}"
    again = [begun for begun, times in STEPS.begun.items() if times > 1]
    assert not again, f"these attempts began twice: {again}"


async def lost_answers_cost_little(cluster: SimCluster) -> None:
    """No step waits for a sweep, although answers of the store and the bus get lost."""
    began = cluster.clock.monotonic()
    for _ in range(5):
        cluster.assert_finished(await cluster.run(CHAIN))
    took = cluster.clock.monotonic() - began
    assert took < 5 * SOON_SEC, f"it took {took:.1f} s"


async def long_runs_are_left_alone(cluster: SimCluster) -> None:
    """A live worker keeps its node, even if the node runs long."""
    cluster.assert_finished(await cluster.run(graph(node("a", "slow"), node("b", "slow", ["a"]))))
    cluster.assert_executed("a", times=1)
    cluster.assert_executed("b", times=1)


async def what_cannot_start_ends_at_once(cluster: SimCluster) -> None:
    """A node whose fan-in has become impossible ends without waiting for the other parents."""
    view = await cluster.run(
        graph(
            node("a", "wrong"),
            node("b", "slow"),
            node("c", "at_once", ["a", "b"]),
            node("d", "at_once", ["c"]),
            on_node_failure="continue",
        )
    )
    a, c = view.nodes["a"], view.nodes["c"]
    assert c.status == "skipped", view
    assert ended(c) - ended(a) < SOON_SEC, f"it ended {ended(c) - ended(a):.1f} s later"


def ended(view: NodeView) -> float:
    assert view.finished_at is not None
    return view.finished_at.timestamp()


async def the_dead_are_cancelled(cluster: SimCluster) -> None:
    """A cancellation ends after its grace period, even if no worker is left to obey it."""
    (worker,) = cluster.workers
    task_id = await cluster.client.create_task(graph=graph(node("a", "slow")))
    await cluster.clock.sleep(2)
    worker.wanted = False
    await cluster.crash(worker)
    began = cluster.clock.monotonic()
    await cluster.client.cancel(task_id)
    view: TaskView = await cluster.client.wait(task_id)
    assert view.status == "cancelled"
    assert cluster.clock.monotonic() - began < 30


async def child_tasks_stop_with_their_node(cluster: SimCluster) -> None:
    """A cancellation stops the child tasks too, at all depths."""
    low = graph(node("x", "slow"), node("y", "slow", ["x"]), node("z", "slow", ["y"]))
    task_id = await cluster.client.create_task(graph=graph(subflow("s", graph(subflow("t", low)))))
    await cluster.clock.sleep(2)
    await cluster.client.cancel(task_id)
    assert (await cluster.client.wait(task_id)).status == "cancelled"
    tasks = (await cluster.client.list_tasks()).items
    assert [one.status for one in tasks] == 3 * ["cancelled"]


async def handing_back_is_no_attempt(cluster: SimCluster) -> None:
    """Work that a stopping worker hands back runs elsewhere, and the attempt does not count."""
    task_id = await cluster.client.create_task(
        graph=graph(*(node(f"n{number}", "slow") for number in range(6)))
    )
    await cluster.clock.sleep(4)
    await cluster.stop_worker(cluster.workers[0], 0.0)
    view = await cluster.client.wait(task_id)
    cluster.assert_finished(view)
    assert {one.attempt for one in view.nodes.values()} == {1}


async def idle_workers_take_over(cluster: SimCluster) -> None:
    """No slot is free for long while runs wait for another worker's slot."""
    await cluster.clock.sleep(1)  # workers that have just started ask for waiting runs
    began = cluster.clock.monotonic()
    nodes = (node(f"n{number}", "slow") for number in range(9))
    cluster.assert_finished(await cluster.run(graph(*nodes)))
    took = cluster.clock.monotonic() - began
    assert took < 3 * 30 + SOON_SEC, f"three rounds of 30 s took {took:.1f} s"


async def batches_are_done_once(cluster: SimCluster) -> None:
    """A worker that continues a node does not process stored batches again."""
    task_id = await cluster.client.create_task(graph=graph(node("a", "drip")))
    await cluster.clock.sleep(10)
    begun = next(run.process for run in cluster.executions)
    (worker,) = (
        post for post in cluster.workers if post.process is not None and post.process.name == begun
    )
    await cluster.stop_worker(worker, 0.0)
    view = await cluster.client.wait(task_id)
    cluster.assert_finished(view)
    assert view.nodes["a"].metrics == {"n": 40}
    executed = sum(run.batch_uid is not None for run in cluster.executions)
    assert executed <= 42, f"40 batches were processed {executed} times"


async def a_dead_worker_is_missed(cluster: SimCluster) -> None:
    """The node of a dead worker runs elsewhere."""
    task_id = await cluster.client.create_task(graph=graph(node("a", "slow")))
    await cluster.clock.sleep(2)
    begun = next(run.process for run in cluster.executions)
    (worker,) = (
        post for post in cluster.workers if post.process is not None and post.process.name == begun
    )
    worker.wanted = False
    await cluster.crash(worker)
    began = cluster.clock.monotonic()
    cluster.assert_finished(await cluster.client.wait(task_id))
    assert cluster.clock.monotonic() - began < 90


async def the_first_success_counts(cluster: SimCluster) -> None:
    """The first success counts, even from a worker that was paused until its node ran elsewhere."""
    task_id = await cluster.client.create_task(graph=graph(node("a", "stubborn")))
    await cluster.clock.sleep(28)
    (process,) = (
        post.process
        for post in cluster.workers
        if post.process and post.process.name == cluster.executions[0].process
    )
    process.pause()
    await cluster.clock.sleep(25)
    process.resume()
    view = await cluster.client.wait(task_id)
    cluster.assert_finished(view)
    assert view.nodes["a"].worker_id == process.name, view


async def commands_get_through(cluster: SimCluster) -> None:
    """Commands are sent although the bus refuses most requests."""
    for _ in range(4):
        cluster.assert_finished(await cluster.run(CHAIN))


async def a_key_excludes_runs(cluster: SimCluster) -> None:
    """Handlers of nodes with a key never run at the same time, although processes die."""
    global RUNS
    RUNS = Runs()
    once, limited = {"retry_policy": {"max": 1}}, {"timeouts": {"start_to_close_sec": 4.0}}

    async def run(number: int) -> None:
        await cluster.clock.sleep(cluster.random.choice([0.0, 1.0, 5.0]))
        more = cluster.random.choice([{}, limited])
        nodes = [node(name, "alone", concurrency_key="k", **once, **more) for name in ("a", "b")]
        inner = node("s", "subflow", io={"graph": graph(node("x", "alone"))}, concurrency_key="k")
        task_id = await cluster.client.create_task(graph=graph(*nodes, inner))
        await cluster.clock.sleep(cluster.random.choice([1.0, 10.0, 60.0]))
        if number % 3:
            await cluster.client.cancel(task_id)
        await cluster.client.wait(task_id)

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(run, number)
    assert RUNS.most == 1, f"{RUNS.most} of {RUNS.begun} runs were in progress at once"


def setups() -> dict[str, Setup]:
    """Return the setup of each promise, each in its own cluster."""

    def setup(
        scenario: Callable[[SimCluster], Any],
        faults: Faults | str = "none",
        config: WorkerConfig = WITHOUT_LOGS,
        **options: Any,
    ) -> tuple[str, Setup]:
        return scenario.__name__, setup_of(
            scenario,
            faults=faults,
            handlers=ALL_HANDLERS,
            worker_config=config,
            converge_sec=300,
            **options,
        )

    return dict(
        [
            setup(soon),
            setup(segments_go_on_at_once),
            setup(stops_wait_for_what_began),
            setup(lost_answers_cost_little, STEADY),
            setup(long_runs_are_left_alone),
            setup(what_cannot_start_ends_at_once),
            setup(the_dead_are_cancelled, workers=1),
            setup(child_tasks_stop_with_their_node),
            setup(handing_back_is_no_attempt),
            setup(idle_workers_take_over, workers=3, config=ONE_SLOT),
            setup(batches_are_done_once),
            setup(a_dead_worker_is_missed),
            setup(the_first_success_counts),
            setup(commands_get_through, DEAF_BUS),
            setup(a_key_excludes_runs, DEATHS),
        ]
    )
