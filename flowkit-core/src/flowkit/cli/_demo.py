"""``flowkit demo``: a streaming flow whose worker is stopped halfway."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any

import anyio
import typer
from rich.text import Text

from flowkit.cli import _options as options
from flowkit.cli._connection import run_async
from flowkit.cli._embedded import interrupts, storage
from flowkit.cli._errors import TASK_FAILED, task_exit
from flowkit.cli._live_view import follow
from flowkit.cli._log_output import log_run
from flowkit.cli._output import console, print_end, print_json_line
from flowkit.cli._timeline import print_timeline
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.coordinator import Coordinator
from flowkit.graph import Graph
from flowkit.plugins import Plugins
from flowkit.task import TaskEvent, TaskView
from flowkit.worker import Batch, BatchResult, Handler, RunContext, Worker

UPTO = 240_000
BATCHES = 30
GRACE_SEC = 0.2
STOP_SEC = 5.0
"""Time that the demo may take to stop after a signal."""


class Split(Handler):
    """Handler that splits a range of numbers into batches at a fixed pace."""

    def __init__(self, pause_sec: float) -> None:
        self.pause_sec = pause_sec

    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        upto, batches = loaded["input_inline"]["upto"], loaded["input_inline"]["batches"]
        for number in range(batches):
            payload = {
                "number": number + 1,
                "of": batches,
                "begin": upto * number // batches,
                "end": upto * (number + 1) // batches,
            }
            yield Batch(str(number), payload)

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        await ctx.cancellable(ctx.clock.sleep(self.pause_sec))
        await ctx.heartbeat({"done": batch.payload["number"], "total": batch.payload["of"]})
        return BatchResult(
            success=True,
            artifacts_ref={"begin": batch.payload["begin"], "end": batch.payload["end"]},
        )


class Count(Handler):
    """Handler that counts the primes of each batch."""

    def __init__(self, pause_sec: float) -> None:
        self.pause_sec = pause_sec

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        await ctx.cancellable(ctx.clock.sleep(self.pause_sec))
        found = primes_between(batch.payload["meta"]["begin"], batch.payload["meta"]["end"])
        return BatchResult(success=True, metrics={"primes": found, "ranges": 1})


def primes_between(begin: int, end: int) -> int:
    """Return the number of primes from ``begin`` up to ``end``, which is excluded."""
    if end <= 2:
        return 0
    composite = bytearray(end)
    composite[:2] = b"\1\1"
    for number in range(2, int(end**0.5) + 1):
        if not composite[number]:
            composite[number * number :: number] = b"\1" * len(range(number * number, end, number))
    return composite.count(0, begin, end)


def flow() -> Graph:
    """Return the graph of the demo.

    ``count`` reads the batches of ``split`` while it still runs. ``total`` runs in the coordinator.
    """
    graph = Graph()
    split = graph.node("split", "split", input_inline={"upto": UPTO, "batches": BATCHES})
    count = graph.node(
        "count",
        "count",
        after=[split],
        start_when="first_batch",
        input_inline={"input_adapter": "pull.from_artifacts"},
    )
    graph.node(
        "total",
        "coordinator_fn",
        after=[count],
        fn="metrics.aggregate",
        fn_args={"node_id": "count", "mode": "sum"},
    )
    return graph


def demo(
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.5, help="Approximate duration.")
    ] = 5.0,
    as_json: options.Json = False,
) -> None:
    """Run a streaming flow whose worker is stopped halfway.

    The node `split` splits the numbers up to 240,000 into ranges, and `count` counts the primes in
    each range. `count` starts on the first range while `split` still runs. Halfway, its worker is
    stopped and another one takes over: no range is lost or counted twice.


    At the end, a timeline is printed. With --json, the events are printed instead, one per line.
    """
    with storage(None, Plugins()) as settings:
        view = run_async(lambda: _Demo(seconds, settings, as_json).run())
    if view is None:
        raise typer.Exit(TASK_FAILED)
    expected = primes_between(0, UPTO)
    metrics = view.nodes["count"].metrics
    if not as_json:
        out = console()
        verdict = (
            f"{metrics.get('ranges', 0):,} ranges counted, {metrics.get('primes', 0):,} primes"
            f" below {UPTO:,}"
        )
        out.print(
            Text(verdict)
            .append("; a sequential count gives ")
            .append(f"{expected:,}", style="bold")
        )
        print_end(out, view)
    task_exit(view.status if metrics.get("primes") == expected else "failed")


class _Demo:
    """Single run of the demo."""

    def __init__(self, seconds: float, settings: dict[str, Any], quiet: bool) -> None:
        self.pause_sec = seconds * 0.8 / BATCHES
        self.quiet = quiet
        self.out = console()
        self.settings = settings
        self.events: list[TaskEvent] = []
        self.counting = anyio.Event()

    async def run(self) -> TaskView | None:
        """Return the task at its end, or None if the demo was interrupted."""
        following = anyio.CancelScope()
        with interrupts(following.cancel, notice="stopping the demo", patience_sec=STOP_SEC):
            view = await self._follow_within(following)
        if view is not None and not self.quiet:
            self.out.print()
            print_timeline(self.out, self.events)
        return view

    async def _follow_within(self, following: anyio.CancelScope) -> TaskView | None:
        log_run()
        cfg = CoordinatorConfig(worker_types=["split", "count"], **self.settings)
        async with AsyncExitStack() as stack:
            coordinator = await stack.enter_async_context(Coordinator(cfg=cfg))
            await stack.enter_async_context(self._worker("ada", "split"))
            first = await stack.enter_async_context(self._worker("ben", "count"))
            second = self._worker("cleo", "count")
            stack.push_async_callback(second.stop)
            task_id = await coordinator.create_task(graph=flow())
            view = None
            with following:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._change_workers, first, second)
                    view = await follow(
                        coordinator, task_id, self.out, notice=self._notice, quiet=self.quiet
                    )
                    group.cancel_scope.cancel()
        return view

    def _worker(self, name: str, role: str) -> Worker:
        handlers = {"split": Split(self.pause_sec), "count": Count(self.pause_sec * 0.8)}
        cfg = WorkerConfig(worker_id=name, roles=[role], stop_grace_sec=GRACE_SEC, **self.settings)
        return Worker(cfg=cfg, handlers=handlers)

    async def _change_workers(self, first: Worker, second: Worker) -> None:
        """Halfway, start the second worker of ``count`` and stop the first."""
        await self.counting.wait()
        await anyio.sleep(self.pause_sec * BATCHES / 2)
        self._say("worker 'ben' is stopped in the middle of 'count', and worker 'cleo' starts")
        await second.start()
        await first.stop()

    def _notice(self, event: TaskEvent) -> None:
        self.events.append(event)
        if self.quiet:
            print_json_line(event)
        data = event.data if isinstance(event.data, dict) else {}
        if event.node_id == "count" and event.status == "running":
            if not self.counting.is_set():
                self._say("'count' starts on the first batch while 'split' still runs")
                self.counting.set()
            else:
                self._say(f"worker {data.get('worker_id')!r} takes over 'count'")
        elif "released_by" in data:
            self._say(
                f"worker {data['released_by']!r} hands back {event.node_id!r} and its results"
            )

    def _say(self, sentence: str) -> None:
        if not self.quiet:
            self.out.print(
                Text("» ", style="bold yellow").append(sentence, style="bold"), soft_wrap=True
            )
