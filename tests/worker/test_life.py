"""The start, life and stop of workers."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import anyio
import pytest

from flowkit._records.worker_sessions import sessions_of
from flowkit.config import WorkerConfig
from flowkit.errors import BusError, BusUnavailable, ConfigError, StoreUnavailable
from flowkit.protocols import ArtifactRecord, RecordChange, TopicSpec
from flowkit.worker import Batch, BatchResult, Handler, RunContext, Worker
from flowkit_testing import InMemoryArtifactStore, InMemoryBus, InMemoryStore, ManualClock
from tests.builders import echo, until
from tests.hooked_store import HookedStore
from tests.worker.bench import Bench, Gate


async def test_entered_means_ready(bench: Bench) -> None:
    async with bench.worker({"work": echo, "other": echo}) as worker:
        (session,) = await sessions_of(bench.store)
        assert (session.worker_id, session.roles, session.beat) == ("w", ("work", "other"), 1)
        assert session.info["running"] == "0"
        for topic in (
            "flowkit.cmd.work",
            "flowkit.cmd.other",
            "flowkit.events",
            "flowkit.control",
            "flowkit.dlq",
        ):
            assert topic in bench.bus.broker.topics
        assert worker.roles == ("work", "other")
        await worker.start()
        assert (await bench.run(1)).result == 1
    assert await sessions_of(bench.store) == []


async def test_it_may_be_started_and_stopped_several_times_and_from_different_tasks(
    bench: Bench,
) -> None:
    worker = bench.worker({"work": echo})
    for number in range(3):
        async with anyio.create_task_group() as group:
            group.start_soon(worker.start)
        assert (await bench.run(number)).result == number
        async with anyio.create_task_group() as group:
            group.start_soon(worker.stop)
        await worker.stop()


async def test_the_session_is_renewed_while_runs_go_on(bench: Bench) -> None:
    gate = Gate()
    async with bench.worker({"work": gate}, hb_interval_sec=3):
        await bench.started(await bench.send("x"))
        await bench.clock.sleep(31)
        (session,) = await sessions_of(bench.store)
        assert (session.beat, session.info["running"]) == (11, "1")
        gate.open.set()


async def test_a_beat_that_is_missed_is_made_good(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away(HookedStore):
        missing = False

        async def before_change(self, change: RecordChange) -> None:
            if self.missing or change.delete:
                raise StoreUnavailable("away")

    async with (
        Away() as store,
        Worker(bus=bench.bus, store=store, clock=bench.clock, handlers={"work": echo}),
    ):
        store.missing = True
        await bench.clock.sleep(10)
        store.missing = False
        await bench.clock.sleep(4)
        (session,) = await sessions_of(store)
        assert session.beat >= 4


async def test_what_was_given_stays_open_and_what_was_opened_is_closed(
    flowkit_clock: ManualClock,
) -> None:
    class Recorded:
        __name__ = "recorded"

        def __init__(self) -> None:
            self.log: list[str] = []

        def flowkit_open_bus(self, address: str) -> Any:
            return self.made("bus", InMemoryBus) if address == "test://bus" else None

        def flowkit_open_store(self, source: Any) -> Any:
            return self.made("store", InMemoryStore) if source == "test://store" else None

        def made(self, name: str, base: Any) -> Any:
            log = self.log

            class Made(base):  # type: ignore[misc]
                async def __aenter__(self) -> Any:
                    log.append(f"{name} opened")
                    return await super().__aenter__()

                async def __aexit__(self, *exc: object) -> None:
                    log.append(f"{name} closed")
                    await super().__aexit__(*exc)

            return Made()

    plugin = Recorded()
    cfg = WorkerConfig(bus="test://bus")
    async with Worker(
        db="test://store", cfg=cfg, handlers={"work": echo}, clock=flowkit_clock, plugins=[plugin]
    ):
        assert plugin.log == ["store opened", "bus opened"]
    assert plugin.log == ["store opened", "bus opened", "bus closed", "store closed"]
    plugin.log.clear()
    async with plugin.made("bus", InMemoryBus) as bus, plugin.made("store", InMemoryStore) as store:
        async with Worker(
            db="test://store",
            cfg=cfg,
            handlers={"work": echo},
            bus=bus,
            store=store,
            clock=flowkit_clock,
            plugins=[plugin],
        ):
            pass
        assert plugin.log == ["bus opened", "store opened"]


async def test_addresses_in_memory_are_enough(flowkit_clock: ManualClock) -> None:
    async with Worker(
        db="memory://worker-life", handlers={"work": echo}, clock=flowkit_clock
    ) as worker:
        assert worker.worker_id
    async with Worker(
        cfg=WorkerConfig(db="memory://worker-life"), handlers={"work": echo}, clock=flowkit_clock
    ):
        pass


async def test_a_bus_without_its_topics_fails_the_start(bench: Bench) -> None:
    async with InMemoryBus(create_topics=False, auto_create=False) as bus:
        worker = Worker(bus=bus, store=bench.store, clock=bench.clock, handlers={"work": echo})
        with pytest.raises(BusError, match=r"flowkit\.cmd\.work"):
            await worker.start()
        await worker.stop()


async def test_a_bus_that_cannot_be_listened_to_fails_the_start(bench: Bench) -> None:
    class Deaf(InMemoryBus):
        def subscribe(
            self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
        ) -> Any:
            raise BusUnavailable("no broker")

        async def ensure_topics(self, topics: Sequence[TopicSpec]) -> None: ...

    async with Deaf() as bus:
        with pytest.raises(BusUnavailable, match="no broker"):
            async with Worker(
                bus=bus, store=bench.store, clock=bench.clock, handlers={"work": echo}
            ):
                pass


def test_a_role_without_a_handler_is_named(flowkit_clock: ManualClock) -> None:
    with pytest.raises(
        ConfigError, match="no handler for role 'resize'; there are handlers for 'work'"
    ):
        Worker(db="memory://x", cfg=WorkerConfig(roles=["work", "resize"]), handlers={"work": echo})


def test_a_worker_needs_a_store() -> None:
    with pytest.raises(ConfigError, match="a worker needs a store"):
        Worker(handlers={"work": echo})


async def test_only_the_roles_of_the_configuration_are_served_and_plugins_fill_them(
    bench: Bench,
) -> None:
    class Plugin:
        __name__ = "offering"

        def flowkit_register_handlers(self, register: Callable[[str, Any], None]) -> None:
            register("offered", echo)
            register("work", Handler())

    async with bench.worker(
        {"work": echo, "spare": echo}, plugins=[Plugin()], roles=["work", "offered"]
    ) as worker:
        assert worker.roles == ("work", "offered")
        assert (await bench.run(1)).result == 1
        assert (await bench.run(2, role="offered")).result == 2


async def test_the_namespace_is_in_all_names(bench: Bench) -> None:
    async with bench.worker({"work": echo}, namespace="mine"):
        assert {"mine.cmd.work", "mine.events", "mine.control", "mine.dlq"} <= set(
            bench.bus.broker.topics
        )


# ---------------------------------------------------------------- stopping


async def test_a_stop_lets_runs_finish_while_heartbeats_go_on(bench: Bench) -> None:
    async def work(item: Any, ctx: RunContext) -> Any:
        await ctx.clock.sleep(20)
        return item

    worker = bench.worker({"work": work}, stop_grace_sec=60, hb_interval_sec=3)
    await worker.start()
    command = await bench.send("done")
    await bench.started(command)
    beats: list[int] = []

    async def look() -> None:
        await bench.clock.sleep(15)
        beats.extend(session.beat for session in await sessions_of(bench.store))

    began = bench.clock.monotonic()
    async with anyio.create_task_group() as group:
        group.start_soon(look)
        await worker.stop()
    assert (await bench.end(command)).result == "done"
    assert 15 <= bench.clock.monotonic() - began < 25
    assert beats
    assert beats[0] >= 5


async def test_what_does_not_finish_within_the_grace_is_handed_back(bench: Bench) -> None:
    async def work(item: Any, ctx: RunContext) -> None:
        ctx.on_cleanup(lambda: reasons.append(ctx.cancel_reason))
        ctx.heartbeat({"done": 5})
        await anyio.sleep_forever()

    reasons: list[str | None] = []
    worker = bench.worker({"work": work})
    await worker.start()
    command = await bench.send()
    await bench.started(command)
    began = bench.clock.monotonic()
    await worker.stop(grace=30)
    end = await bench.end(command)
    assert (end.kind, end.progress) == ("node_released", {"done": 5})
    assert 30 <= bench.clock.monotonic() - began < 35
    assert reasons == ["the worker stops"]


async def test_a_handed_back_run_that_had_succeeded_after_all_says_so(bench: Bench) -> None:
    async def work(item: Any, ctx: RunContext) -> str:
        with contextlib.suppress(BaseException):
            await anyio.sleep_forever()
        return "saved"

    worker = bench.worker({"work": work})
    await worker.start()
    command = await bench.send()
    await bench.started(command)
    await worker.stop(grace=0)
    assert (await bench.end(command)).result == "saved"


async def test_a_stop_that_is_repeated_with_a_shorter_grace_hurries(bench: Bench) -> None:
    gate = Gate()
    worker = bench.worker({"work": gate})
    await worker.start()
    command = await bench.send("x")
    await bench.started(command)
    began = bench.clock.monotonic()
    async with anyio.create_task_group() as group:
        group.start_soon(worker.stop, 10_000)
        await bench.clock.sleep(1)
        await worker.stop(0)
    assert (await bench.end(command)).kind == "node_released"
    assert bench.clock.monotonic() - began < 10


async def test_commands_that_did_not_begin_go_to_another_worker(bench: Bench) -> None:
    gate = Gate()
    commands = [await bench.send(number, task_id="t") for number in range(6)]
    worker = bench.worker({"work": gate}, max_concurrency=1)
    await worker.start()
    await bench.started(commands[0])
    await worker.stop(grace=0)
    assert (await bench.end(commands[0])).kind == "node_released"
    async with bench.worker({"work": echo}):
        for command in commands[1:]:
            assert (await bench.end(command)).kind == "node_succeeded"


async def test_a_run_that_was_being_cancelled_is_reported_as_stopped(bench: Bench) -> None:
    gate = Gate()
    worker = bench.worker({"work": gate}, cancel_grace_sec=100)
    await worker.start()
    command = await bench.send("x")
    await bench.started(command)
    await bench.cancel(command)
    await bench.clock.sleep(1)
    await worker.stop(0)
    assert (await bench.end(command)).kind == "node_stopped"


async def test_a_worker_that_cannot_tell_its_end_leaves_all_the_same(
    flowkit_store: InMemoryStore, flowkit_clock: ManualClock
) -> None:
    from tests.worker.bench import FailingBus, open_bench

    gate = Gate()
    async with FailingBus() as bus, open_bench(bus, flowkit_store, flowkit_clock) as bench:
        worker = bench.worker({"work": gate})
        await worker.start()
        command = await bench.send("x")
        await bench.started(command)
        bus.refused = ["flowkit.events"]
        await worker.stop(0)
        assert bench.kinds(command) == ["node_started"]


async def test_a_run_that_swallows_every_cancel_is_left_behind(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    enough = anyio.Event()

    async def work() -> str:
        while not enough.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await enough.wait()
        return "at last"

    worker = bench.worker({"work": work}, cancel_grace_sec=1)
    await worker.start()
    command = await bench.send()
    await bench.started(command)
    await worker.stop(0)
    assert "1 runs ignore their cancellation" in caplog.text
    assert (await bench.end(command)).kind == "node_released"
    enough.set()
    await anyio.wait_all_tasks_blocked()
    assert bench.kinds(command) == ["node_started", "node_released"]


async def test_run_works_until_it_is_cancelled_and_hands_back(bench: Bench) -> None:
    gate = Gate()
    worker = bench.worker({"work": gate})
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        command = await bench.send("x")
        await bench.started(command)
        group.cancel_scope.cancel()
    assert (await bench.end(command)).kind == "node_released"
    assert await sessions_of(bench.store) == []


@pytest.mark.usefixtures("survived_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_drains_and_the_second_stops_at_once(
    bench: Bench, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    worker = bench.worker({"work": gate}, stop_grace_sec=1_000_000)
    with caplog.at_level(logging.INFO):
        async with anyio.create_task_group() as group:
            group.start_soon(worker.run)
            command = await bench.send("x")
            await bench.started(command)
            os.kill(os.getpid(), number)
            await until(lambda: "got SIG" in caplog.text)
            assert bench.kinds(command) == ["node_started"]
            os.kill(os.getpid(), number)
    assert (await bench.end(command)).kind == "node_released"


@pytest.mark.usefixtures("survived_signals")
async def test_one_signal_lets_runs_finish(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    worker = bench.worker({"work": gate}, stop_grace_sec=1_000_000)
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        command = await bench.send("x")
        await bench.started(command)
        with caplog.at_level(logging.INFO):
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: "got SIG" in caplog.text)
        gate.open.set()
    assert (await bench.end(command)).kind == "node_succeeded"


# ---------------------------------------------------------------- internal errors


async def test_a_store_that_is_away_costs_time_only(bench: Bench) -> None:
    class Away(InMemoryArtifactStore):
        failures = 3

        async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
            answer = await super().put(records)
            self.failures -= 1
            if self.failures >= 0:
                raise StoreUnavailable("the answer was lost")
            return answer

    async def work() -> Any:
        for number in range(3):
            yield {"number": number}

    bench.store.artifacts = Away()
    async with bench.worker({"work": work}):
        assert (await bench.run()).batches == 3


async def test_a_loop_that_dies_lives_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    class Shaky(InMemoryBus):
        fail = False

        def subscribe(
            self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
        ) -> Any:
            from contextlib import asynccontextmanager

            subscription = super().subscribe(topics, group=group, max_unacked=max_unacked)

            @asynccontextmanager
            async def shaky() -> Any:
                async with subscription as real:
                    receive = real.receive

                    async def receive_or_fail(*, max_messages: int) -> Any:
                        found = await receive(max_messages=max_messages)
                        if self.fail:
                            self.fail = False
                            raise RuntimeError("a bug in the driver")
                        return found

                    real.receive = receive_or_fail  # type: ignore[method-assign]
                    yield real

            return shaky()

    async with Shaky() as bus:
        inner = Bench(bus, bench.store, bench.clock)
        async with anyio.create_task_group() as group:
            group.start_soon(
                inner.listen,
                "flowkit.events",
                "tests",
                inner.reports,
                lambda message: _decoded(message.value),
            )
            async with Worker(
                bus=bus,
                store=bench.store,
                clock=bench.clock,
                handlers={"work": echo},
                cfg=WorkerConfig(worker_id="w"),
            ):
                bus.fail = True
                commands = [await inner.send(number) for number in range(3)]
                for command in commands:
                    assert (await inner.end(command)).kind == "node_succeeded"
            group.cancel_scope.cancel()
    assert "loop broke and is restarted" in caplog.text


def _decoded(value: bytes) -> Any:
    from flowkit.messages import decode

    return decode(value)


@pytest.mark.parametrize("kind", ["function", "generator", "class"])
async def test_the_memory_of_a_run_is_free_without_a_collection_of_garbage(
    bench: Bench, kind: str
) -> None:
    contexts: list[weakref.ref[RunContext]] = []

    def note(ctx: RunContext) -> None:
        ctx.log.info("noted")
        contexts.append(weakref.ref(ctx))

    async def function(item: Any, ctx: RunContext) -> None:
        note(ctx)

    async def generator(item: Any, ctx: RunContext) -> AsyncIterator[dict[str, int]]:
        note(ctx)
        yield {"x": 1}

    class Batches(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            note(ctx)
            return BatchResult(success=True, artifacts_ref={"x": 1})

    handlers = {"function": function, "generator": generator, "class": Batches()}
    async with bench.worker({"work": handlers[kind], "next": echo}):
        gc.disable()
        try:
            await bench.run()
            await bench.run(role="next")  # the slot has left the first run
            assert [context() for context in contexts] == [None]
        finally:
            gc.enable()
