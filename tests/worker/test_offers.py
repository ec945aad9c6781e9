"""Waiting runs: workers without a free slot offer them, and idle workers take them over."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowkit import WorkerConfig
from flowkit._records.letter_records import read_letters
from flowkit.errors import BusUnavailable
from flowkit.messages import (
    ADDRESSEE,
    RequestRuns,
    RunContextData,
    RunNode,
    RunsWaiting,
    decode,
    encode,
)
from flowkit.protocols import Message, Place
from flowkit.worker import Batch, BatchResult, Handler, RunContext, handler
from flowkit_testing import Cluster, InMemoryBus, InMemoryStore, ManualClock
from tests.builders import graph
from tests.worker.bench import Bench, Gate, open_bench

CONTROL = "flowkit.control"


def is_handed_over(message: Message) -> bool:
    return ADDRESSEE in message.headers and isinstance(decode(message.value), RunNode)


class RecordingBus(InMemoryBus):
    """A bus with one partition, which the worker that started first keeps. It records the messages
    of the control topic, and refuses some.
    """

    def __init__(self) -> None:
        super().__init__(partitions=1)
        self.control: list[Message] = []
        self.refuses: Callable[[Message], bool] = lambda message: False
        self.held: anyio.Event | None = None
        self.holds = anyio.Event()

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        if self.held is not None and any(map(is_handed_over, messages)):
            self.holds.set()
            await self.held.wait()
        if any(map(self.refuses, messages)):
            raise BusUnavailable("no broker")
        self.control += [message for message in messages if message.topic == CONTROL]
        return await super().publish(messages)

    def sent(self, kind: type[Any]) -> list[Any]:
        decoded = [decode(message.value) for message in self.control]
        return [message for message in decoded if isinstance(message, kind)]


@pytest.fixture
async def bus() -> AsyncIterator[RecordingBus]:
    async with RecordingBus() as bus:
        yield bus


@pytest.fixture
async def bench(
    bus: RecordingBus, flowkit_store: InMemoryStore, flowkit_clock: ManualClock
) -> AsyncIterator[Bench]:
    async with open_bench(bus, flowkit_store, flowkit_clock) as bench:
        yield bench


class Slow:
    """A handler whose runs take 5 s. It records where and when they began."""

    def __init__(self) -> None:
        self.begun: list[tuple[Any, str, float]] = []

    async def __call__(self, item: Any, ctx: RunContext) -> None:
        self.begun.append((item, ctx.worker_id, ctx.clock.now()))
        await ctx.clock.sleep(5)

    @property
    def items(self) -> list[Any]:
        return [item for item, _, _ in self.begun]


@asynccontextmanager
async def busy_and_idle(bench: Bench, slow: Any, **idle: Any) -> AsyncIterator[None]:
    """Run a worker that receives all commands, and one that receives none, with a slot each."""
    async with (
        bench.worker({"work": slow}, worker_id="busy", max_concurrency=1),
        bench.worker({"work": slow}, **{"worker_id": "idle", "max_concurrency": 1} | idle),
    ):
        await bench.clock.sleep(1)
        yield


async def test_an_idle_worker_takes_over_what_waits_on_a_busy_one(bench: Bench) -> None:
    slow = Slow()
    async with busy_and_idle(bench, slow):
        commands = [await bench.send(number) for number in range(2)]
        began = bench.clock.now()
        for command in commands:
            await bench.end(command)
        assert bench.clock.now() - began < 5.5
    assert [(item, worker) for item, worker, _ in slow.begun] == [(0, "busy"), (1, "idle")]
    assert bench.kinds(commands[1]) == ["node_started", "node_succeeded"]


async def test_a_worker_that_starts_takes_over_what_waited_before(
    bench: Bench, bus: RecordingBus
) -> None:
    slow = Slow()
    async with bench.worker({"work": slow}, worker_id="busy", max_concurrency=1):
        commands = [await bench.send(number) for number in range(100)]
        await bench.clock.sleep(301)
        assert len(slow.begun) == 61
        began = bench.clock.now()
        async with bench.worker({"work": slow}, worker_id="idle", max_concurrency=50):
            for command in commands:
                await bench.end(command)
        assert bench.clock.now() - began < 7
    assert sorted(slow.items) == list(range(100))
    given = Counter(command.token for command in bus.sent(RunNode))
    assert len(given) > 30
    assert set(given.values()) == {1}, "each command is given to one worker"


async def test_a_slot_that_is_free_later_is_used_for_an_offer_of_before(bench: Bench) -> None:
    slow = Slow()
    async with busy_and_idle(bench, slow):
        began = bench.clock.now()
        commands = [await bench.send(number) for number in range(10)]
        for command in commands:
            await bench.end(command)
        assert bench.clock.now() - began < 26.5, "two slots are in use all the time"


async def test_the_most_urgent_run_is_taken_over_first(bench: Bench) -> None:
    slow = Slow()
    async with busy_and_idle(bench, slow):
        for priority in (9, 1, 5):
            await bench.send(priority, priority=priority)
        await bench.clock.sleep(1)
        assert [(item, worker) for item, worker, _ in slow.begun] == [(9, "busy"), (5, "idle")]


async def test_workers_that_are_all_busy_send_few_offers(bench: Bench, bus: RecordingBus) -> None:
    gate = Gate()
    async with busy_and_idle(bench, gate):
        for number in range(40):
            await bench.send(number)
        await bench.clock.sleep(60)
        before = len(bus.control)
        await bench.clock.sleep(3600)
        assert len(bus.control) - before <= 121, "one in 30 s"
        gate.open.set()


async def test_a_worker_requests_runs_of_its_own_roles_only(
    bench: Bench, bus: RecordingBus
) -> None:
    gate = Gate()
    async with (
        bench.worker({"work": gate, "other": gate}, worker_id="busy", max_concurrency=1),
        bench.worker({"other": gate}, worker_id="idle"),
    ):
        for number in range(3):
            await bench.send(number)
        await bench.clock.sleep(10)
        assert {offer.worker_id for offer in bus.sent(RunsWaiting)} == {"busy"}
        assert [request.most for request in bus.sent(RequestRuns)] == [0, 0]
        await bench.send("other", role="other")
        await bench.until(lambda: gate.running == [0, "other"])
        gate.open.set()


async def test_slots_are_kept_for_a_worker_that_does_not_answer_for_a_second(
    bench: Bench, bus: RecordingBus
) -> None:
    """The worker asks for no more runs than it has slots, and then asks another worker."""
    async with bench.worker({"work": Gate()}, max_concurrency=2):
        for other in ("dead", "alive"):
            offer = RunsWaiting(worker_id=other, roles={"work": 2})
            await bench.bus.publish([Message(CONTROL, encode(offer))])
        await bench.clock.sleep(0.9)
        assert [request.most for request in bus.sent(RequestRuns)] == [0, 2]
        await bench.clock.sleep(0.5)
        asked = [(request.most, message) for request, message in requests(bus)]
    assert [(most, message.headers[ADDRESSEE]) for most, message in asked[1:]] == [
        (2, b"dead"),
        (2, b"alive"),
    ]


async def offered(bench: Bench, bus: RecordingBus, **roles: int) -> None:
    """Send an offer of a worker ``other``, whose runs are requested a moment later."""
    offer = RunsWaiting(worker_id="other", roles=roles)
    await bus.publish([Message(CONTROL, encode(offer))])
    await bench.clock.sleep(0.15)
    assert [request.most for request in bus.sent(RequestRuns)] == [0, 1]


async def test_a_requested_run_finds_its_slot_free(bench: Bench, bus: RecordingBus) -> None:
    gate = Gate()
    async with bench.worker({"work": gate}, max_concurrency=1):
        await offered(bench, bus, work=1)
        await bench.send("own")
        await bench.clock.sleep(0.5)
        assert gate.order == []
        data = RunContextData(io={"input_inline": "requested"}, params={}, vars={}, results={})
        command = RunNode(
            task_id="t", index=0, attempt=1, token="x", node_id="n", role="work", data=data
        )
        await bus.publish([Message(CONTROL, encode(command), "t", {ADDRESSEE: b"w"})])
        await bench.until(lambda: gate.order)
        gate.open.set()
        await bench.until(lambda: gate.order == ["requested", "own"])


async def test_a_slot_is_not_kept_for_a_run_that_another_worker_got(
    bench: Bench, bus: RecordingBus
) -> None:
    gate = Gate()
    async with bench.worker({"work": gate}, max_concurrency=1):
        await offered(bench, bus, work=1)
        await bench.send("own")
        await bench.clock.sleep(0.1)
        nothing = RunsWaiting(worker_id="other", roles={})
        await bus.publish([Message(CONTROL, encode(nothing), "other", {ADDRESSEE: b"w"})])
        await bench.clock.sleep(0.1)
        assert gate.order == ["own"]


async def test_a_slot_is_kept_for_a_second_if_the_answer_is_lost(
    bench: Bench, bus: RecordingBus
) -> None:
    gate = Gate()
    async with bench.worker({"work": gate}, max_concurrency=1):
        await offered(bench, bus, work=1)
        await bench.send("own")
        await bench.clock.sleep(0.8)
        assert gate.order == []
        await bench.clock.sleep(0.4)
        assert gate.order == ["own"]


async def test_a_worker_without_waiting_runs_says_so_to_those_that_request_some(
    bench: Bench, bus: RecordingBus
) -> None:
    async with bench.worker({"work": Gate()}):
        request = RequestRuns(worker_id="other", roles=("work",), most=2)
        await bus.publish([Message(CONTROL, encode(request), "other", {ADDRESSEE: b"w"})])
        await bench.clock.sleep(1)
    (answer,) = [one for one in bus.control if isinstance(decode(one.value), RunsWaiting)]
    assert answer.headers == {ADDRESSEE: b"other"}
    assert decode(answer.value).roles == {}


def requests(bus: RecordingBus) -> list[tuple[RequestRuns, Message]]:
    decoded = [(decode(message.value), message) for message in bus.control]
    return [(value, message) for value, message in decoded if isinstance(value, RequestRuns)]


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_run_that_is_cancelled_while_it_is_handed_over_never_starts(
    bench: Bench, bus: RecordingBus, arrives: bool
) -> None:
    slow = Slow()
    bus.held = anyio.Event()
    async with busy_and_idle(bench, slow):
        commands = [await bench.send(number) for number in range(2)]
        await bus.holds.wait()
        await bench.cancel(commands[1])
        await bench.clock.sleep(1)
        if not arrives:
            bus.refuses = is_handed_over
        bus.held.set()
        await bench.clock.sleep(20)
        assert await outstanding(bus) == (2, 2), "it is acknowledged"
    assert slow.items == [0]


async def outstanding(bus: RecordingBus) -> tuple[int, int]:
    found = await bus.outstanding("flowkit.cmd.work", "flowkit.workers")
    assert found is not None
    return found[0]


async def test_a_run_that_cannot_be_handed_over_starts_where_it_waits(
    bench: Bench, bus: RecordingBus
) -> None:
    slow = Slow()
    async with busy_and_idle(bench, slow):
        bus.refuses = is_handed_over
        commands = [await bench.send(number) for number in range(3)]
        for command in commands:
            await bench.end(command)
    assert sorted(slow.items) == [0, 1, 2]
    assert {worker for _, worker, _ in slow.begun} == {"busy"}


async def test_a_command_is_acknowledged_only_after_it_was_handed_over(
    bench: Bench, bus: RecordingBus
) -> None:
    gate = Gate()
    bus.held = anyio.Event()
    async with busy_and_idle(bench, gate):
        for number in range(2):
            await bench.send(number)
        await bus.holds.wait()
        await bench.clock.sleep(10)
        assert await outstanding(bus) == (1, 2)
        bus.held.set()
        await bench.until(lambda: sorted(gate.running) == [0, 1])
        await bench.clock.sleep(1)
        assert await outstanding(bus) == (2, 2)
        gate.open.set()


async def test_a_worker_that_stops_sends_back_what_was_handed_over_to_it(
    bench: Bench, bus: RecordingBus
) -> None:
    gate = Gate()
    command = RunNode(
        task_id="t", index=0, attempt=1, token="x", node_id="n", role="work", data=None
    )
    handed = Message(CONTROL, encode(command), "t", {ADDRESSEE: b"stops", "traceparent": b"x"})
    async with bench.worker(
        {"work": gate}, worker_id="stops", max_concurrency=1, stop_grace_sec=0, cancel_grace_sec=0
    ):
        await bench.send("runs")
        await bench.until(lambda: gate.running == ["runs"])
        await bus.publish([handed])
        await bench.clock.sleep(1)
    assert gate.order == ["runs"]
    sent_back: list[Message] = []
    async with bus.subscribe(["flowkit.cmd.work"], group="flowkit.workers") as subscription:
        sent_back += [one.message for one in await subscription.receive(max_messages=9)]
    assert [message.value for message in sent_back] == [handed.value]
    assert ADDRESSEE not in sent_back[0].headers


async def test_a_worker_reads_only_what_is_addressed_to_it(bench: Bench, bus: RecordingBus) -> None:
    gate = Gate()
    command = RunNode(task_id="t", index=0, attempt=1, token="x", node_id="n", role="work")
    async with bench.worker({"work": gate}):
        await bus.publish(
            [
                Message(CONTROL, b"garbage for another one", "t", {ADDRESSEE: b"another"}),
                Message(CONTROL, encode(command), "t", {ADDRESSEE: b"another"}),
                Message(CONTROL, encode(command), "t"),
            ]
        )
        await bench.clock.sleep(1)
    assert gate.order == []
    (letter,) = await read_letters(bench.store)
    assert "a run_node is not for the control topic" in letter.error


# ---------------------------------------------------------------- whole tasks

ONE_SLOT = WorkerConfig(max_concurrency=1)


class Produce(Handler):
    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        for number in range(5):
            yield Batch(str(number), {"number": number})

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        await ctx.clock.sleep(2)
        return BatchResult(success=True, artifacts_ref=batch.payload)


async def test_the_reader_of_a_stream_starts_while_its_producer_runs(bus: RecordingBus) -> None:
    @handler("read")
    async def read(item: Any) -> None: ...

    nodes = graph(
        {"node_id": "produce", "type": "produce"},
        {
            "node_id": "read",
            "type": "read",
            "depends_on": ["produce"],
            "io": {"start_when": "first_batch"},
        },
    )
    async with Cluster(
        bus=bus, workers=2, handlers={"produce": Produce(), "read": read}, worker_config=ONE_SLOT
    ) as cluster:
        view = await cluster.run(nodes)
    assert view.status == "finished"
    produced, reading = view.nodes["produce"], view.nodes["read"]
    assert produced.finished_at is not None
    assert reading.started_at is not None
    assert (produced.finished_at - reading.started_at).total_seconds() > 7


async def test_large_data_of_a_command_is_not_sent_to_all_workers(bus: RecordingBus) -> None:
    @handler("work")
    async def work(item: Any, ctx: RunContext) -> Any:
        await ctx.clock.sleep(5)
        return [ctx.worker_id, len(item["text"]), ctx.results]

    inline = {"text": "x" * 100_000}
    nodes = [
        {"node_id": name, "type": "work", "io": {"input_inline": inline}} for name in ("a", "b")
    ]
    async with Cluster(bus=bus, workers=2, handlers=[work], worker_config=ONE_SLOT) as cluster:
        view = await cluster.run(graph(*nodes))
    (handed,) = bus.sent(RunNode)
    assert handed.data is handed.sources is None
    workers = {view.nodes[name].result[0] for name in ("a", "b")}
    assert len(workers) == 2
    assert [view.nodes[name].result[1:] for name in ("a", "b")] == [[100_000, {}]] * 2
