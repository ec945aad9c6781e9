"""Receiving commands: their number and order, duplicates, and unreadable messages."""

import itertools
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowkit._records.letter_records import read_letters
from flowkit.messages import NodeStarted, encode
from flowkit.protocols import Delivery, Message
from flowkit.worker import RunContext
from flowkit_testing import InMemoryBus, InMemoryStore, ManualClock
from tests.worker.bench import Bench, FailingBus, Gate, open_bench


async def test_never_more_than_max_concurrency_run_at_a_time(bench: Bench) -> None:
    gate = Gate()
    commands = [await bench.send(number) for number in range(30)]
    async with bench.worker({"work": gate}, max_concurrency=4):
        await bench.until(lambda: len(bench.reports) >= 4)
        await bench.clock.sleep(10)
        assert len(gate.running) == 4
        gate.open.set()
        for command in commands:
            await bench.end(command)
    assert (gate.most, sorted(gate.order)) == (4, list(range(30)))


async def test_short_work_is_done_one_after_the_other_without_a_limit_on_how_many(
    bench: Bench,
) -> None:
    async def work(item: Any) -> Any:
        return item

    async with bench.worker({"work": work}, max_concurrency=3):
        commands = [await bench.send(number) for number in range(200)]
        assert [(await bench.end(command)).result for command in commands] == list(range(200))


async def test_of_the_commands_taken_the_most_urgent_begins_first(bench: Bench) -> None:
    gate = Gate()
    gate.open.set()
    for number, priority in enumerate((0, 5, -1, 5, 9)):
        last = await bench.send(
            (priority, number), priority=priority, task_id="t", node_id=str(number)
        )
    async with bench.worker({"work": gate}, max_concurrency=1):
        await bench.until(lambda: len(gate.order) == 5)
        await bench.end(last)
    assert gate.order == [[9, 4], [5, 1], [5, 3], [0, 0], [-1, 2]]


class WatchedBus(InMemoryBus):
    """A bus that records the receive requests of its group subscriptions."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[int] = []
        self.released: list[Delivery] = []

    def subscribe(
        self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
    ) -> Any:
        return self._watched(super().subscribe(topics, group=group, max_unacked=max_unacked), group)

    @asynccontextmanager
    async def _watched(self, entering: Any, group: str | None) -> AsyncIterator[Any]:
        async with entering as subscription:
            receive, release = subscription.receive, subscription.release

            async def watched_receive(*, max_messages: int) -> Any:
                self.asked.append(max_messages)
                return await receive(max_messages=max_messages)

            async def watched_release(deliveries: Collection[Delivery]) -> None:
                self.released += deliveries
                await release(deliveries)

            if group == "flowkit.workers":
                subscription.receive, subscription.release = watched_receive, watched_release
            yield subscription


async def test_commands_that_find_no_free_slot_are_given_back(
    flowkit_store: InMemoryStore, flowkit_clock: ManualClock
) -> None:
    """Other workers receive them from a bus without key affinity, and no more are taken until there
    is a slot.
    """
    gate = Gate()
    async with (
        WatchedBus(key_affinity=False) as bus,
        open_bench(bus, flowkit_store, flowkit_clock) as bench,
    ):
        commands = [await bench.send(number) for number in range(20)]
        async with bench.worker({"work": gate}, max_concurrency=2):
            await bench.clock.sleep(60)
            assert bus.asked == [2 + 8]
            assert len(bus.released) == 8
            async with bench.worker({"work": gate}, worker_id="another"):
                await bench.until(lambda: len(gate.running) > 2)
                gate.open.set()
                for command in commands:
                    assert (await bench.end(command)).kind == "node_succeeded"
    assert sorted(gate.order) == list(range(20))


async def test_a_command_is_taken_at_once_while_there_are_free_slots(bench: Bench) -> None:
    gate = Gate()
    async with bench.worker({"work": gate}, max_concurrency=8):
        first = [await bench.send(number) for number in range(3)]
        for command in first:
            await bench.started(command)
        sent_at = bench.clock.now()
        await bench.started(await bench.send("next"))
        assert bench.clock.now() == sent_at
        gate.open.set()


async def test_a_command_that_waits_for_a_slot_can_be_cancelled_while_it_is_given_back(
    flowkit_store: InMemoryStore, flowkit_clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    giving_back, cancelled = anyio.Event(), anyio.Event()

    class SlowBus(WatchedBus):
        @asynccontextmanager
        async def _watched(self, entering: Any, group: str | None) -> AsyncIterator[Any]:
            async with entering as subscription:
                release = subscription.release

                async def release_slowly(deliveries: Collection[Delivery]) -> None:
                    giving_back.set()
                    await cancelled.wait()
                    await release(deliveries)

                if group == "flowkit.workers":
                    subscription.release = release_slowly
                yield subscription

    async with (
        SlowBus(key_affinity=False) as bus,
        open_bench(bus, flowkit_store, flowkit_clock) as bench,
    ):
        commands = [await bench.send(number) for number in range(3)]
        async with bench.worker({"work": gate}, max_concurrency=1, stop_grace_sec=0):
            await giving_back.wait()
            (running,) = gate.running
            for number, command in enumerate(commands):
                if number != running:
                    await bench.cancel(command)
            await bench.clock.sleep(1)
            cancelled.set()
            gate.open.set()
            await bench.end(commands[running])
            assert (await bench.run("the worker lives")).kind == "node_succeeded"
    assert "broke" not in caplog.text


async def test_a_command_that_is_delivered_again_runs_once(bench: Bench) -> None:
    gate = Gate()
    async with bench.worker({"work": gate}):
        command = await bench.send("once")
        await bench.publish(command)
        await bench.started(command)
        await bench.publish(command)
        gate.open.set()
        await bench.end(command)
        await bench.publish(command)
        await bench.run("next")
    assert gate.order == ["once", "next"]
    assert bench.kinds(command) == ["node_started", "node_succeeded", "node_succeeded"], (
        "the copy may be there because the end was lost"
    )


async def test_the_same_node_with_another_token_runs_again(bench: Bench) -> None:
    gate = Gate()
    gate.open.set()
    async with bench.worker({"work": gate}):
        await bench.run("x", task_id="t", token="one")
        await bench.run("x", task_id="t", token="two")
    assert gate.order == ["x", "x"]


async def test_what_is_no_command_is_parked_and_the_others_go_on(bench: Bench) -> None:
    async def work(item: Any) -> Any:
        return item

    foreign = encode(NodeStarted(task_id="t", index=0, attempt=1, token="x", worker_id="w", at=0))
    poison = [b"garbage", b"{}", b'{"kind":"run_node","v":2}', foreign]
    async with bench.worker({"work": work}):
        await bench.bus.publish([Message("flowkit.cmd.work", value, "t") for value in poison])
        assert (await bench.run("after", task_id="t")).result == "after"
        await bench.until(lambda: len(bench.parked) == len(poison))
    assert [message.value for message in bench.parked] == poison
    assert b"not a command" in bench.parked[3].headers["flowkit-reason"]
    assert bench.parked[0].headers["flowkit-topic"] == b"flowkit.cmd.work"


async def test_a_command_of_a_role_that_is_not_served_is_parked(bench: Bench) -> None:
    async def work() -> None: ...

    async with bench.worker({"work": work}):
        command = await bench.send(role="work")
        await bench.end(command)
        other = command.model_copy(update={"role": "other", "token": "y"})
        await bench.bus.publish([Message("flowkit.cmd.work", encode(other), "t")])
        await bench.until(lambda: bench.parked)
    assert b"'other'" in bench.parked[0].headers["flowkit-reason"]


async def test_what_is_no_control_message_becomes_one_dead_letter_in_the_store(
    bench: Bench,
) -> None:
    gate = Gate()
    async with bench.worker({"work": gate}, cancel_grace_sec=0):
        command = await bench.send("x")
        await bench.started(command)
        foreign = encode(
            NodeStarted(task_id="t", index=0, attempt=1, token="x", worker_id="w", at=0)
        )
        await bench.bus.publish(
            [Message("flowkit.control", value) for value in (b"garbage", foreign)]
        )
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"
    letters = await read_letters(bench.store)
    assert sorted(letter.data for letter in letters) == sorted([b"garbage", foreign])
    assert {letter.topic for letter in letters} == {"flowkit.control"}
    assert not bench.parked


async def test_a_command_is_acknowledged_only_after_its_start_was_confirmed(
    flowkit_store: InMemoryStore, flowkit_clock: ManualClock
) -> None:
    gate = Gate()
    async with FailingBus() as bus, open_bench(bus, flowkit_store, flowkit_clock) as bench:
        bus.refused = ["flowkit.events"]
        command = await bench.send("x")
        async with bench.worker({"work": gate}):
            await bench.clock.sleep(60)
            assert gate.running == ["x"]
            assert bench.of(command) == []
            async with bus.subscribe(["flowkit.cmd.work"], group="flowkit.workers"):
                await bench.clock.sleep(1)
            await bench.clock.sleep(1)
            assert gate.order == ["x"], "it came again, and was known"
            bus.refused = ()
            await bench.started(command)
            gate.open.set()
            assert (await bench.end(command)).kind == "node_succeeded"
        async with bench.worker({"work": gate}):
            await bench.run("next")
    assert gate.order == ["x", "next"]


async def test_any_error_of_the_bus_costs_time_and_no_report(
    flowkit_store: InMemoryStore, flowkit_clock: ManualClock
) -> None:
    gate = Gate()
    async with (
        FailingBus() as bus,
        open_bench(bus, flowkit_store, flowkit_clock) as bench,
        bench.worker({"work": gate}),
    ):
        bus.refused, bus.error = ["flowkit.events"], RuntimeError("a bug in the driver")
        commands = [await bench.send(number) for number in range(5)]
        await bench.clock.sleep(60)
        gate.open.set()
        await bench.clock.sleep(60)
        bus.refused = ()
        for command in commands:
            assert (await bench.end(command)).kind == "node_succeeded"
        await bench.clock.sleep(60)
        assert bench.kinds(commands[0]) == ["node_started", "node_succeeded"]
        assert [bench.kinds(command).count("node_succeeded") for command in commands] == [1] * 5


async def test_a_hint_that_cannot_be_sent_is_dropped(
    flowkit_store: InMemoryStore, flowkit_clock: ManualClock
) -> None:
    async def work() -> Any:
        yield {"x": 1}

    async with (
        FailingBus() as bus,
        open_bench(bus, flowkit_store, flowkit_clock) as bench,
        bench.worker({"work": work}),
    ):
        bus.refused = ["flowkit.control"]
        assert (await bench.run(streamed=True)).batches == 1


async def test_work_that_ends_at_once_is_reported_in_one_message(bench: Bench) -> None:
    async def work(item: Any, ctx: RunContext) -> None: ...

    async with bench.worker({"work": work}):
        command = await bench.send()
        end = await bench.end(command)
    assert bench.kinds(command) == ["node_succeeded"]
    assert 0 < end.started_at <= end.at
    assert (end.worker_id, end.index, end.attempt, end.token) == ("w", 0, 1, command.token)


async def test_progress_goes_at_once_then_the_latest_in_measured_steps(bench: Bench) -> None:
    gate = anyio.Event()

    async def work(item: Any, ctx: RunContext) -> Any:
        ctx.heartbeat({"n": -1})
        for number in range(100):
            await ctx.heartbeat({"n": number})
            await ctx.clock.sleep(0.01)
        await gate.wait()
        return ctx.progress

    async with bench.worker({"work": work}):
        command = await bench.send(progress={"before": 1})
        await bench.started(command)
        await bench.until(
            lambda: any(
                report.kind == "node_progressed" and report.progress == {"n": 99}
                for report in bench.of(command)
            )
        )
        gate.set()
        end = await bench.end(command)
    steps = [report for report in bench.of(command) if report.kind == "node_progressed"]
    assert end.result == {"before": 1}
    assert 3 <= len(steps) <= 8
    assert all(later.at - earlier.at >= 0.15 for earlier, later in itertools.pairwise(steps))


async def test_progress_reported_just_before_the_end_is_sent_before_it(bench: Bench) -> None:
    async def work(item: Any, ctx: RunContext) -> None:
        ctx.heartbeat(1)
        ctx.heartbeat(2)
        raise RuntimeError

    async with bench.worker({"work": work}):
        command = await bench.send()
        await bench.end(command)
    assert bench.kinds(command) == ["node_started", "node_progressed", "node_failed"]
    assert bench.of(command)[1].progress == 2


async def test_progress_is_taken_as_it_is_at_the_moment(bench: Bench) -> None:
    gate = anyio.Event()

    async def work(item: Any, ctx: RunContext) -> None:
        progress = {"n": 1}
        ctx.heartbeat(progress)
        progress["n"] = 2
        await gate.wait()

    async with bench.worker({"work": work}):
        command = await bench.send()
        await bench.until(lambda: "node_progressed" in bench.kinds(command))
        gate.set()
        await bench.end(command)
    assert bench.of(command)[1].progress == {"n": 1}


async def test_progress_that_is_no_json_is_refused_and_too_large_a_one_dropped(
    bench: Bench,
) -> None:
    async def work(item: Any, ctx: RunContext) -> str:
        ctx.heartbeat(object() if item == "object" else "x" * bench.bus.max_message_bytes)
        return "well"

    async with bench.worker({"work": work}):
        assert (await bench.run("object")).reason_code == "bad_result"
        assert (await bench.run("large")).result == "well"


class PickyCodec:
    """A codec that cannot encode a payload with one of these words."""

    def __init__(self, *words: bytes) -> None:
        self.words = words

    def flowkit_encode_payload(self, data: bytes) -> bytes:
        if any(word in data for word in self.words):
            raise RuntimeError("no key for this")
        return data

    def flowkit_decode_payload(self, data: bytes) -> bytes:
        return data


async def test_a_result_that_the_codec_cannot_encode_fails_its_own_run_only(bench: Bench) -> None:
    async def work(item: Any, ctx: RunContext) -> Any:
        ctx.heartbeat(item)
        return item

    async with bench.worker({"work": work}, plugins=[PickyCodec(b"odd")]):
        commands = [await bench.send(item) for item in ("one", "odd", "two")]
        ends = [await bench.end(command) for command in commands]
    assert [end.kind for end in ends] == ["node_succeeded", "node_failed", "node_succeeded"]
    assert (ends[1].reason_code, ends[1].permanent) == ("result_not_encoded", False)
    assert "cannot encode" in ends[1].error
    assert bench.kinds(commands[1]) == ["node_started", "node_failed"]


async def test_an_error_that_the_codec_cannot_encode_leaves_a_failure_without_it(
    bench: Bench,
) -> None:
    async def work(item: Any) -> Any:
        raise RuntimeError(item)

    async with bench.worker({"work": work}, plugins=[PickyCodec(b"odd")]):
        end = await bench.run("odd")
    assert (end.kind, end.reason_code, end.error) == (
        "node_failed",
        "unexpected_error",
        "the error cannot be sent",
    )


async def test_a_run_whose_reports_cannot_be_encoded_delays_no_other(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(item: Any) -> Any:
        return item

    codec = PickyCodec(b"mute")
    async with bench.worker({"work": work}, plugins=[codec]):
        mute = await bench.send("a", task_id="mute")
        assert (await bench.run("b")).result == "b"
        assert bench.of(mute) == []
        assert "of task mute cannot be sent and is dropped" in caplog.text
        codec.words = ()
        await bench.publish(mute)
        assert (await bench.end(mute)).result == "a", "the outcome is known if a coordinator asks"
