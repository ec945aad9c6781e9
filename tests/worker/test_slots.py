"""Slots of a worker, and runs that give theirs up while they wait for others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest

from flowkit.worker._slots import Slot, Slots
from tests.builders import until


class Script:
    """A run that does what its script says with its slot."""

    def __init__(self, script: Callable[[Slot], Awaitable[None]], priority: int = 0) -> None:
        self.script = script
        self.priority = priority
        self.slot: Slot | None = None
        self.ended = False

    async def execute(self, slot: Slot) -> None:
        self.slot = slot
        slot.work("main")
        try:
            await self.script(slot)
        finally:
            self.ended = True

    def cut_off(self) -> None: ...

    def broke(self, error: BaseException) -> None:
        raise error


class Waits(Script):
    """A run that waits for others until it may go on, and then works until it may end."""

    def __init__(self, priority: int = 0) -> None:
        super().__init__(self._wait, priority)
        self.may_go_on, self.may_end = anyio.Event(), anyio.Event()

    async def _wait(self, slot: Slot) -> None:
        slot.rest("main")
        await self.may_go_on.wait()
        slot.work("main")
        await slot.wait_held()
        await self.may_end.wait()


@pytest.fixture
async def slots() -> AsyncIterator[Slots]:
    async with Slots(1) as slots:
        yield slots


async def submitted(slots: Slots, *runs: Script) -> None:
    for run in runs:
        slots.submit(run)
    await until(lambda: all(run.slot is not None for run in runs))


async def waiting_beside_busy(slots: Slots) -> tuple[Waits, Waits]:
    """Return a run that waits for others, and one that has the slot."""
    waits, busy = Waits(), Waits()
    busy.may_go_on.set()
    await submitted(slots, waits, busy)
    await until(lambda: slots.running == 1)
    return waits, busy


async def test_any_number_of_runs_may_wait_for_others(slots: Slots) -> None:
    runs = [Waits() for _ in range(50)]
    await submitted(slots, *runs)
    assert (slots.running, slots.resting, slots.free, slots.excess) == (0, 50, 1, 0)


async def test_runs_that_go_on_keep_the_limit_and_do_so_by_priority(slots: Slots) -> None:
    runs = [Waits(priority) for priority in (1, 3, 2)]
    await submitted(slots, *runs)
    for run in runs:
        run.may_go_on.set()
    went_on = []
    while left := [run for run in runs if not run.ended]:
        await until(lambda: slots.running == 1)
        assert slots.free == 0
        (held,) = (run for run in left if run.slot is not None and run.slot.is_held)
        went_on.append(held.priority)
        held.may_end.set()
        await until(lambda held=held: held.ended)
    assert went_on == [1, 3, 2]


async def test_tasks_of_runs_that_waited_end_with_them(slots: Slots) -> None:
    runs = [Waits() for _ in range(20)]
    await submitted(slots, *runs)
    for run in runs:
        run.may_go_on.set()
        run.may_end.set()
    await until(lambda: slots.is_idle)
    names = [task.get_name() for task in asyncio.all_tasks()]
    assert names.count("flowkit slot") == 1


async def test_a_run_that_ends_while_it_wants_its_slot_back_leaves_no_place_in_the_line(
    slots: Slots,
) -> None:
    waits, _ = await waiting_beside_busy(slots)
    waits.may_go_on.set()
    await until(lambda: slots.excess == 1)
    slots.cut_off(waits)
    await until(lambda: waits.ended)
    assert (slots.running, slots.resting, slots.excess) == (1, 0, 0)


async def test_a_run_gives_its_slot_up_when_no_part_of_it_is_at_work(slots: Slots) -> None:
    seen: list[tuple[int, bool]] = []

    async def parts(slot: Slot) -> None:
        slot.work("batch")
        for act in (slot.rest, slot.work):
            for part in ("main", "batch"):
                act(part)
                seen.append((slots.running, slot.is_held))

    run = Script(parts)
    await submitted(slots, run)
    await until(lambda: run.ended)
    assert seen == [(1, True), (0, False), (1, True), (1, True)]


async def test_a_run_that_waits_for_others_again_gets_no_slot(slots: Slots) -> None:
    waits, busy = await waiting_beside_busy(slots)
    assert waits.slot is not None
    assert not waits.slot.work("batch")
    assert slots.excess == 1
    waits.slot.rest("batch")
    assert slots.excess == 0
    busy.may_end.set()
    await until(lambda: busy.ended)
    assert (slots.running, slots.resting) == (0, 1)


@pytest.mark.parametrize("pauses_first", [True, False])
async def test_a_run_that_goes_on_gets_the_slot_of_one_that_pauses(
    slots: Slots, pauses_first: bool
) -> None:
    waits, busy = await waiting_beside_busy(slots)
    assert waits.slot is not None
    assert busy.slot is not None
    if pauses_first:
        busy.slot.pause("main")
        assert busy.slot.is_held
        waits.slot.work("main")
    else:
        waits.slot.work("main")
        assert busy.slot.is_held
        busy.slot.pause("main")
    assert (waits.slot.is_held, busy.slot.is_held) == (True, False)
    assert (slots.running, slots.resting, slots.excess) == (1, 1, 0)
    busy.slot.work("main")
    assert (busy.slot.is_held, slots.excess) == (False, 1)
    waits.slot.pause("main")
    assert (waits.slot.is_held, busy.slot.is_held) == (False, True)


async def test_a_run_that_pauses_keeps_its_slot_from_what_has_not_started(slots: Slots) -> None:
    busy, other = Waits(), Waits()
    busy.may_go_on.set()
    await submitted(slots, busy)
    assert busy.slot is not None
    slots.submit(other)
    busy.slot.pause("main")
    assert busy.slot.is_held
    busy.slot.rest("main")
    assert not busy.slot.is_held
    await until(lambda: other.slot is not None)


async def test_a_run_that_pauses_keeps_its_slot_from_runs_of_a_lower_priority(slots: Slots) -> None:
    waits, busy = Waits(1), Waits(2)
    busy.may_go_on.set()
    await submitted(slots, waits)
    await submitted(slots, busy)
    assert waits.slot is not None
    assert busy.slot is not None
    busy.slot.pause("main")
    waits.slot.work("main")
    assert (waits.slot.is_held, busy.slot.is_held) == (False, True)
    busy.slot.rest("main")
    assert (waits.slot.is_held, busy.slot.is_held) == (True, False)


async def test_a_run_pauses_when_no_part_of_it_is_at_work(slots: Slots) -> None:
    waits, busy = await waiting_beside_busy(slots)
    assert waits.slot is not None
    assert busy.slot is not None
    busy.slot.work("batch")
    busy.slot.pause("main")
    waits.slot.work("main")
    assert (waits.slot.is_held, busy.slot.is_held) == (False, True)
    busy.slot.rest("batch")
    assert (waits.slot.is_held, busy.slot.is_held) == (True, False)


async def test_a_run_that_goes_on_after_a_pause_keeps_its_slot(slots: Slots) -> None:
    waits, busy = await waiting_beside_busy(slots)
    assert waits.slot is not None
    assert busy.slot is not None
    busy.slot.pause("main")
    assert busy.slot.work("main")
    waits.slot.work("main")
    assert (waits.slot.is_held, busy.slot.is_held) == (False, True)


async def test_an_abandoned_run_waits_for_no_slot(slots: Slots) -> None:
    waits, _ = await waiting_beside_busy(slots)
    waits.may_go_on.set()
    await until(lambda: slots.excess == 1)
    slots.abandon(waits)
    assert (slots.running, slots.resting, slots.excess, slots.capacity) == (1, 0, 0, 1)
    waits.may_end.set()
    await until(lambda: waits.ended)
    assert slots.running == 1
