"""Segments: a worker runs a chain of nodes in one slot, and ends it where that is not safe."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any

import anyio
import pytest

from flowkit._records.claims import CLAIMS_GENERATION
from flowkit.errors import MessageTooLarge, RunCancelled
from flowkit.messages import (
    EndSegments,
    ExpressionData,
    NodeFailed,
    NodeStarted,
    NodeSucceeded,
    RunContextData,
    RunNode,
    Segment,
    SegmentNode,
    encode,
)
from flowkit.protocols import Message, Place, Stream
from flowkit.worker import RunContext, handler
from flowkit.worker._segments import LONGEST_WAIT_SEC, SEGMENT_SEC
from flowkit_testing import InMemoryBus, InMemoryStore, ManualClock
from tests.builders import until
from tests.worker.bench import Bench, Gate, open_bench

Make = Callable[..., Segment]


def segment(*roles: str, eager: bool = False, **fields: Any) -> Segment:
    """Return a segment of nodes with these roles, after the node ``n``."""
    nodes = [
        SegmentNode(
            index=number,
            token=f"next-{number}",
            node_id=f"n{number}",
            role=role,
            **{"io": {}} | fields,
        )
        for number, role in enumerate(roles, 1)
    ]
    return Segment(nodes=tuple(nodes), eager=eager, expressions=ExpressionData(created_at=1.0))


def node_of(command: RunNode, number: int) -> RunNode:
    """Return a stand-in for the command of a node of the segment, to find its reports."""
    return command.model_copy(
        update={"index": number, "token": f"next-{number}", "node_id": f"n{number}"}
    )


class HeldBus(InMemoryBus):
    """A bus that acknowledges no success before its gate opens, and may refuse some."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = anyio.Event()
        self.held = 0
        self.too_large: str | None = None

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        values = [message.value for message in messages]
        if self.too_large is not None and any(self.too_large.encode() in one for one in values):
            raise MessageTooLarge("too large, with its headers")
        places = await super().publish(messages)
        if any(b'"node_succeeded"' in one for one in values):
            self.held += 1
            await self.gate.wait()
        return places


@pytest.fixture
async def held() -> AsyncIterator[tuple[Bench, HeldBus]]:
    async with (
        HeldBus() as bus,
        InMemoryStore() as store,
        open_bench(bus, store, ManualClock()) as bench,
    ):
        yield bench, bus


@handler("work")
async def work(item: Any, ctx: RunContext) -> str:
    return f"{ctx.node_id} after {ctx.results}"


async def test_a_chain_runs_in_one_slot_and_each_node_reads_the_result_before(bench: Bench) -> None:
    async with bench.worker([work], max_concurrency=1):
        command = await bench.send(segment=segment("work", "work"))
        end = await bench.end(node_of(command, 2))
    assert end.result == "n2 after {'n1': \"n1 after {'n': 'n after {}'}\"}"
    first, second = await bench.end(command), await bench.end(node_of(command, 1))
    assert [one.next and one.next.token for one in (first, second, end)] == [
        "next-1",
        "next-2",
        None,
    ]
    assert bench.kinds(node_of(command, 1)) == ["node_succeeded"]


async def test_the_claim_of_the_first_node_is_the_only_one(bench: Bench) -> None:
    async with bench.worker([work]):
        command = await bench.send(segment=segment("work", "work"))
        await bench.end(node_of(command, 2))
    claims = [Stream(command.task_id, name, CLAIMS_GENERATION) for name in ("n", "n1", "n2")]
    found = [len(await bench.store.artifacts.read(one, limit=9)) for one in claims]
    assert found == [1, 0, 0]


async def test_each_node_has_params_vars_and_results_of_its_own(bench: Bench) -> None:
    seen: list[Any] = []

    @handler("spoil")
    async def spoil(item: Any, ctx: RunContext) -> dict[str, Any]:
        seen.append(deepcopy((dict(ctx.params), ctx.vars, ctx.results)))
        ctx.vars["list"] = None
        for result in ctx.results.values():
            result["n"] = None
        return {"n": ctx.node_id}

    async with bench.worker([spoil]):
        command = await bench.send(
            role="spoil",
            segment=segment("spoil", "spoil", reads=("n",)),
            params={"p": 1},
            vars={"list": [1]},
        )
        await bench.end(node_of(command, 2))
    assert seen == [
        ({"p": 1}, {"list": [1]}, {}),
        ({"p": 1}, {"list": [1]}, {"n": {"n": "n"}}),
        ({"p": 1}, {"list": [1]}, {"n1": {"n": "n1"}, "n": {"n": "n"}}),
    ]


async def test_expressions_read_earlier_nodes_of_the_segment(bench: Bench) -> None:
    @handler("echo")
    async def echo(item: Any) -> Any:
        return item

    io = {"input_inline": {"sum": "${results.n.x + params.y}"}}
    async with bench.worker([echo]):
        command = await bench.send(
            {"x": 1}, role="echo", segment=segment("echo", io=io, reads=("n",)), params={"y": 2}
        )
        assert (await bench.end(node_of(command, 1))).result == {"sum": 3}


async def test_a_node_begins_when_the_bus_has_acknowledged_the_result_before(
    held: tuple[Bench, HeldBus],
) -> None:
    bench, bus = held
    gate = Gate()
    gate.open.set()
    async with bench.worker({"work": gate}):
        command = await bench.send("first", segment=segment("work", io={"input_inline": "second"}))
        await until(lambda: bus.held == 1)
        await bench.end(command)
        assert gate.order == ["first"]
        bus.gate.set()
        await bench.end(node_of(command, 1))
    assert gate.order == ["first", "second"]


async def test_an_eager_node_does_not_wait_for_the_bus(held: tuple[Bench, HeldBus]) -> None:
    bench, bus = held
    gate = Gate()
    gate.open.set()
    async with bench.worker({"work": gate}):
        io = {"input_inline": "second"}
        await bench.send("first", segment=segment("work", eager=True, io=io))
        await until(lambda: gate.order == ["first", "second"])
        bus.gate.set()


async def test_reports_of_an_eager_segment_that_are_due_together_are_sent_together() -> None:
    class Counting(InMemoryBus):
        def __init__(self) -> None:
            super().__init__()
            self.successes: list[int] = []

        async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
            values = [message.value for message in messages]
            self.successes.append(sum(b'"node_succeeded"' in one for one in values))
            return await super().publish(messages)

    async with (
        Counting() as bus,
        InMemoryStore() as store,
        open_bench(bus, store, ManualClock()) as bench,
        bench.worker([work]),
    ):
        command = await bench.send(segment=segment(*["work"] * 9, eager=True))
        await bench.end(node_of(command, 9))
        assert sum(bus.successes) == 10
        assert max(bus.successes) >= 5


# ---------------------------------------------------------------- where a segment ends


async def ends_after_first(bench: Bench, command: RunNode) -> None:
    """Check that the segment ends with its first node."""
    end = await bench.end(command)
    assert isinstance(end, NodeSucceeded)
    assert end.next is None
    await bench.run()
    assert bench.of(node_of(command, 1)) == []


async def test_a_segment_ends_before_a_role_that_the_worker_does_not_serve(bench: Bench) -> None:
    async with bench.worker([work]):
        await ends_after_first(bench, await bench.send(segment=segment("other")))


async def test_a_segment_ends_after_a_failure(bench: Bench) -> None:
    @handler("work")
    async def fails(item: Any) -> None:
        if item == "fails":
            raise RuntimeError

    async with bench.worker([fails]):
        command = await bench.send("fails", segment=segment("work"))
        assert isinstance(await bench.end(command), NodeFailed)
        await bench.run()
    assert bench.of(node_of(command, 1)) == []


@pytest.fixture
def gate() -> Gate:
    return Gate()


async def begun(bench: Bench, gate: Gate, **fields: Any) -> RunNode:
    """Send a command with a segment, and return it when its handler waits at the gate."""
    command = await bench.send("first", segment=segment("work"), **fields)
    await bench.started(command)
    await until(lambda: gate.order == ["first"])
    return command


async def test_a_segment_ends_after_a_cancel(bench: Bench) -> None:
    @handler("work")
    async def succeeds_when_cancelled(item: Any, ctx: RunContext) -> None:
        if item == "first":
            with suppress(RunCancelled):
                await ctx.cancellable(anyio.sleep_forever())

    async with bench.worker([succeeds_when_cancelled]):
        command = await bench.send("first", segment=segment("work"))
        await bench.started(command)
        await bench.cancel(command)
        await ends_after_first(bench, command)


async def test_a_segment_ends_when_its_task_is_paused(bench: Bench, gate: Gate) -> None:
    async with bench.worker({"work": gate}):
        command = await begun(bench, gate)
        await end_segments(bench, command.task_id)
        gate.open.set()
        await ends_after_first(bench, command)


async def end_segments(bench: Bench, task_id: str) -> None:
    order = EndSegments(task_id=task_id)
    await bench.bus.publish([Message("flowkit.control", encode(order), task_id)])
    await anyio.wait_all_tasks_blocked()


async def ends_of_segments(bench: Bench, command: RunNode) -> list[bool]:
    """Return whether each report of the start says that the segment has ended."""
    await anyio.wait_all_tasks_blocked()
    return [one.ends_segment for one in bench.of(command) if isinstance(one, NodeStarted)]


async def test_a_worker_reports_that_it_begins_no_other_node_of_a_segment(
    bench: Bench, gate: Gate
) -> None:
    async with bench.worker({"work": gate}):
        command = await begun(bench, gate)
        other = await bench.send(segment=segment("work"))
        await bench.started(other)
        await end_segments(bench, command.task_id)
        assert await ends_of_segments(bench, command) == [False, True]
        assert await ends_of_segments(bench, other) == [False]
        gate.open.set()


async def test_a_node_that_has_begun_in_an_eager_segment_reports_its_end(
    bench: Bench, gate: Gate
) -> None:
    async with bench.worker({"gate": gate, "work": work}):
        command = await bench.send(segment=segment("gate", "work", eager=True))
        await until(lambda: len(gate.order) == 1)
        await end_segments(bench, command.task_id)
        assert await ends_of_segments(bench, node_of(command, 1)) == [True]
        gate.open.set()
        assert (await bench.end(node_of(command, 1))).next is None


async def test_a_command_that_comes_after_the_end_of_its_segments_runs_alone(bench: Bench) -> None:
    async with bench.worker([work]):
        await end_segments(bench, "t1")
        command = await bench.send(segment=segment("work"))
        await ends_after_first(bench, command)


async def test_a_run_that_waits_for_a_slot_reports_the_end_of_its_segment_with_its_start(
    bench: Bench, gate: Gate
) -> None:
    other = Gate()
    async with bench.worker({"gate": gate, "other": other, "work": work}, max_concurrency=1):
        await bench.started(await bench.send(role="other"))
        command = await bench.send(role="gate", segment=segment("work"))
        await anyio.wait_all_tasks_blocked()
        await end_segments(bench, command.task_id)
        other.open.set()
        await until(lambda: len(gate.order) == 1)
        assert await ends_of_segments(bench, command) == [True]
        gate.open.set()
        await ends_after_first(bench, command)


async def test_a_segment_ends_when_the_worker_stops(bench: Bench, gate: Gate) -> None:
    worker = bench.worker({"work": gate})
    await worker.start()
    command = await begun(bench, gate)
    async with anyio.create_task_group() as group:
        group.start_soon(worker.stop)
        await until(lambda: worker._service is not None and worker._service._stop.asked.is_set())
        gate.open.set()
    end = await bench.end(command)
    assert (end.kind, end.next) == ("node_succeeded", None)


async def test_a_segment_ends_after_a_second(bench: Bench, gate: Gate) -> None:
    async with bench.worker({"work": gate}):
        command = await begun(bench, gate)
        await bench.clock.advance(SEGMENT_SEC)
        gate.open.set()
        await ends_after_first(bench, command)


async def test_the_time_in_which_a_command_waits_for_a_slot_is_not_of_its_segment(
    bench: Bench, gate: Gate
) -> None:
    async with bench.worker({"work": gate}, max_concurrency=1):
        first, second = [
            RunNode(
                task_id=name,
                index=0,
                attempt=1,
                token=name,
                node_id="n",
                role="work",
                data=RunContextData(io={}, params={}, vars={}, results={}),
                segment=segment("work"),
            )
            for name in ("t1", "t2")
        ]
        await bench.bus.publish(
            [Message("flowkit.cmd.work", encode(one), one.task_id) for one in (first, second)]
        )
        await until(lambda: len(gate.running) == 1)
        await bench.clock.advance(SEGMENT_SEC)
        gate.open.set()
        starts = [(await bench.end(one)).next for one in (first, second)]
    assert sorted(start is None for start in starts) == [False, True]


async def test_a_segment_ends_when_a_command_of_higher_priority_waits(
    bench: Bench, gate: Gate
) -> None:
    async with bench.worker({"work": gate}, max_concurrency=2):
        command = await begun(bench, gate)
        others = [
            command.model_copy(
                update={"task_id": name, "token": name, "priority": priority, "segment": None}
            )
            for name, priority in (("running", 2), ("waiting", 1))
        ]
        await bench.bus.publish(
            [Message("flowkit.cmd.work", encode(one), one.task_id) for one in others]
        )
        await until(lambda: len(gate.running) == 2)
        gate.open.set()
        assert (await bench.end(command)).next is None
        await bench.end(others[1])


# ---------------------------------------------------------------- after the report of a start


async def waiting(bench: Bench, bus: HeldBus) -> RunNode:
    """Return the command of a node whose success, with the next start, has no answer yet."""
    command = await bench.send(segment=segment("work"))
    await until(lambda: bus.held == 1)
    await bench.end(command)
    return command


async def test_a_start_that_waits_for_the_bus_is_handed_back_if_its_result_is_cancelled(
    held: tuple[Bench, HeldBus],
) -> None:
    bench, bus = held
    async with bench.worker([work]):
        command = await waiting(bench, bus)
        await bench.cancel(command)
        await anyio.wait_all_tasks_blocked()
        bus.gate.set()
        assert (await bench.end(node_of(command, 1))).kind == "node_released"


async def test_a_start_that_waits_for_the_bus_is_handed_back_if_its_segment_ends(
    held: tuple[Bench, HeldBus],
) -> None:
    bench, bus = held
    async with bench.worker([work]):
        command = await waiting(bench, bus)
        await end_segments(bench, command.task_id)
        bus.gate.set()
        assert (await bench.end(node_of(command, 1))).kind == "node_released"


async def test_a_start_that_is_cancelled_while_it_waits_for_the_bus_never_runs(
    held: tuple[Bench, HeldBus],
) -> None:
    bench, bus = held
    async with bench.worker([work]):
        command = await waiting(bench, bus)
        await bench.cancel(node_of(command, 1))
        await anyio.wait_all_tasks_blocked()
        bus.gate.set()
        assert (await bench.end(node_of(command, 1))).kind == "node_stopped"


async def test_a_start_that_waits_for_the_bus_is_handed_back_by_a_worker_that_stops(
    held: tuple[Bench, HeldBus],
) -> None:
    bench, bus = held
    worker = bench.worker([work])
    await worker.start()
    command = await waiting(bench, bus)
    async with anyio.create_task_group() as group:
        group.start_soon(worker.stop, 0)
        await anyio.wait_all_tasks_blocked()
        bus.gate.set()
    assert (await bench.end(node_of(command, 1))).kind == "node_released"


async def test_a_start_that_the_bus_acknowledges_late_is_handed_back(
    held: tuple[Bench, HeldBus],
) -> None:
    bench, bus = held
    async with bench.worker([work]):
        command = await waiting(bench, bus)
        await bench.clock.advance(SEGMENT_SEC + LONGEST_WAIT_SEC)
        bus.gate.set()
        assert (await bench.end(node_of(command, 1))).kind == "node_released"


async def test_a_start_after_a_result_that_the_bus_refuses_never_runs(
    held: tuple[Bench, HeldBus],
) -> None:
    bench, bus = held
    bus.too_large = "n after {}"
    bus.gate.set()
    async with bench.worker([work]):
        command = await bench.send(segment=segment("work"))
        assert (await bench.end(command)).reason_code == "result_too_large"
        assert (await bench.end(node_of(command, 1))).kind == "node_stopped"


async def test_a_repeated_command_repeats_the_ends_of_the_whole_segment(bench: Bench) -> None:
    async with bench.worker([work]):
        command = await bench.send(segment=segment("work", "work"))
        await bench.end(node_of(command, 2))
        await bench.run()
        bench.reports.clear()
        await bench.publish(command)
        await bench.end(node_of(command, 2))
    assert [report.token for report in bench.reports] == [command.token, "next-1", "next-2"]
