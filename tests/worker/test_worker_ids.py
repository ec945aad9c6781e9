"""A worker_id belongs to one live worker."""

import asyncio
import os

import anyio
import pytest

from flowkit import WorkerConfig
from flowkit._records.worker_sessions import WorkerSession, sessions_of
from flowkit.errors import WorkerIdTaken
from flowkit.worker import Worker
from tests.builders import echo
from tests.store_records import put_session
from tests.worker.bench import Bench, Gate

HEARTBEAT_SEC = 3.0


async def killed(worker: Worker) -> None:
    """End a worker without a report: its session stays."""
    assert worker._service is not None
    worker._service.host.cancel()
    await asyncio.wait([worker._service.host])


def session(started_at: float, beat: int = 1, incarnation: str = "other") -> WorkerSession:
    info = {
        "incarnation": incarnation,
        "host": "elsewhere",
        "pid": "7",
        "hb_interval_sec": str(HEARTBEAT_SEC),
    }
    return WorkerSession("w", ("work",), beat, started_at, info)


async def test_a_second_worker_of_a_configured_name_is_refused_and_the_first_goes_on(
    bench: Bench,
) -> None:
    gate = Gate()
    async with bench.worker({"work": gate}):
        command = await bench.send("x")
        await bench.started(command)
        with pytest.raises(
            WorkerIdTaken,
            match=f"worker_id 'w' is in use by process {os.getpid()} on .*: give each worker",
        ):
            await bench.worker({"work": gate}).start()
        await bench.clock.sleep(60)
        gate.open.set()
        assert (await bench.end(command)).kind == "node_succeeded"
        assert len(await sessions_of(bench.store)) == 1
    assert gate.order == ["x"]


async def test_a_worker_that_was_killed_is_replaced_under_its_name_within_seconds(
    bench: Bench,
) -> None:
    first = bench.worker({"work": echo}, hb_interval_sec=HEARTBEAT_SEC)
    await first.start()
    await killed(first)
    began = bench.clock.monotonic()
    async with bench.worker({"work": echo}):
        assert bench.clock.monotonic() - began <= 2 * HEARTBEAT_SEC + 2
        assert (await bench.run(1)).result == 1


async def test_a_worker_that_was_stopped_is_replaced_under_its_name_at_once(bench: Bench) -> None:
    async with bench.worker({"work": echo}):
        pass
    began = bench.clock.monotonic()
    async with bench.worker({"work": echo}):
        assert bench.clock.monotonic() == began


@pytest.mark.parametrize("ahead", [0.0, 3600.0], ids=["in step", "an hour ahead"])
async def test_the_clock_of_a_killed_worker_does_not_keep_its_name(
    bench: Bench, ahead: float
) -> None:
    await put_session(bench.store, session(bench.clock.now() + ahead))
    async with bench.worker({"work": echo}):
        await bench.clock.sleep(10)
        assert (await bench.run(1)).result == 1


@pytest.mark.parametrize(
    ("interval", "within"), [("nan", 8), ("inf", 8), ("-5", 8), ("0", 8), ("soon", 8), ("1e9", 125)]
)
async def test_a_damaged_heartbeat_interval_delays_a_start_for_a_bounded_time(
    bench: Bench, interval: str, within: float
) -> None:
    await put_session(
        bench.store, WorkerSession("w", ("work",), 1, 0.0, {"hb_interval_sec": interval})
    )
    began = bench.clock.monotonic()
    async with bench.worker({"work": echo}):
        assert bench.clock.monotonic() - began <= within


async def test_a_name_that_was_made_up_is_replaced_by_another(bench: Bench) -> None:
    def made_up() -> Worker:
        return Worker(
            bus=bench.bus,
            store=bench.store,
            clock=bench.clock,
            handlers={"work": echo},
            cfg=WorkerConfig(),
        )

    first, second = made_up(), made_up()
    second.worker_id = first.worker_id  # as in a process that was forked after the worker was made
    async with first, second:
        assert first.worker_id != second.worker_id
        assert {found.worker_id for found in await sessions_of(bench.store)} == {
            first.worker_id,
            second.worker_id,
        }
        assert (await bench.run(1)).result == 1


async def test_a_worker_whose_name_was_taken_hands_back_its_runs_and_ends_with_an_error(
    bench: Bench,
) -> None:
    """A network partition has this effect, if another worker started with the same name."""
    gate = Gate()
    worker = bench.worker({"work": gate}, cancel_grace_sec=1)
    await worker.start()
    command = await bench.send("x")
    await bench.started(command)
    await put_session(bench.store, session(bench.clock.now() + 1))
    assert (await bench.end(command)).kind == "node_released"
    with pytest.raises(WorkerIdTaken, match="in use by process 7 on elsewhere"):
        await worker.stop()
    (left,) = await sessions_of(bench.store)
    assert left.worker_id == "w"
    await worker.stop()


async def test_a_process_whose_worker_s_name_was_taken_ends_with_the_error(bench: Bench) -> None:
    worker = bench.worker({"work": echo})

    async def take() -> None:
        while not await sessions_of(bench.store):
            await bench.clock.sleep(0.1)
        await put_session(bench.store, session(bench.clock.now() + 1))

    async with anyio.create_task_group() as group:
        group.start_soon(take)
        with pytest.raises(WorkerIdTaken):
            await worker.run()


async def test_a_worker_that_started_later_keeps_the_name(bench: Bench) -> None:
    """The other worker finds this session when it comes back, and stops."""
    async with bench.worker({"work": echo}, hb_interval_sec=HEARTBEAT_SEC):
        await put_session(bench.store, session(bench.clock.now() - 60, beat=900))
        await bench.clock.sleep(10)
        assert (await bench.run(1)).result == 1
        (found,) = await sessions_of(bench.store)
        assert found.info["incarnation"] != "other"


async def test_of_two_workers_that_start_at_once_under_one_name_one_remains(bench: Bench) -> None:
    gate = Gate()
    workers = [bench.worker({"work": gate}, cancel_grace_sec=1) for _ in range(2)]
    errors: list[WorkerIdTaken] = []

    async def start(worker: Worker) -> None:
        try:
            await worker.start()
        except WorkerIdTaken as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for worker in workers:
            group.start_soon(start, worker)
    await bench.clock.sleep(10)
    for worker in workers:
        if worker._service is not None and worker._service.host.done():
            with pytest.raises(WorkerIdTaken):
                await worker.stop()
            errors.append(WorkerIdTaken())
    assert len(errors) == 1
    command = await bench.send("x")
    await bench.started(command)
    await bench.clock.sleep(60)
    gate.open.set()
    assert (await bench.end(command)).kind == "node_succeeded"
    assert gate.order == ["x"]
    for worker in workers:
        await worker.stop()
