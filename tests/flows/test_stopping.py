"""Effects of signals on running coordinators and workers."""

import os
import secrets
import signal
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from flowkit import Client, Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.config import CommonConfig
from flowkit.worker import Worker, handler
from tests.builders import until


class Gate:
    """A handler that waits until its gate opens."""

    def __init__(self) -> None:
        self.begun, self.open = anyio.Event(), anyio.Event()

    def handlers(self) -> list[Any]:
        @handler("work")
        async def work(item: Any) -> None:
            self.begun.set()
            await self.open.wait()

        return [work]


@pytest.fixture
def address() -> str:
    return f"memory://{secrets.token_hex(6)}"


def tell(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.usefixtures("survived_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_coordinator_and_a_worker_side_by_side_both_obey_a_signal(
    address: str, number: int
) -> None:
    gate = Gate()
    with anyio.fail_after(20):
        async with (
            anyio.create_task_group() as group,
            Client(cfg=CommonConfig(db=address)) as client,
        ):
            group.start_soon(Coordinator(cfg=CoordinatorConfig(db=address)).run)
            group.start_soon(Worker(cfg=WorkerConfig(db=address), handlers=gate.handlers()).run)
            await client.create_task(graph={"nodes": [{"node_id": "a", "type": "work"}]})
            await gate.begun.wait()
            tell(number)
            gate.open.set()


@pytest.mark.usefixtures("survived_signals")
async def test_a_signal_that_comes_before_the_start_is_done_ends_it(address: str) -> None:
    class Hangs(Coordinator):
        begun = False

        async def _serve(self, ready: Callable[[], None], stopping: anyio.Event) -> None:
            self.begun = True
            await anyio.sleep_forever()

    coordinator = Hangs(cfg=CoordinatorConfig(db=address))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(coordinator.run)
            await until(lambda: coordinator.begun)
            tell()


@pytest.mark.usefixtures("survived_signals")
async def test_a_second_signal_cuts_the_stopping_of_a_coordinator_short(address: str) -> None:
    class Lingers(Coordinator):
        lingering = False

        async def _serve(self, ready: Callable[[], None], stopping: anyio.Event) -> None:
            ready()
            await stopping.wait()
            self.lingering = True
            await anyio.sleep_forever()

    coordinator = Lingers(cfg=CoordinatorConfig(db=address))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(coordinator.run)
            await anyio.wait_all_tasks_blocked()
            tell()
            await until(lambda: coordinator.lingering)
            tell()


async def test_a_coordinator_that_breaks_ends_its_run_with_the_error(address: str) -> None:
    class Breaks(Coordinator):
        async def _serve(self, ready: Callable[[], None], stopping: anyio.Event) -> None:
            ready()
            raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"), anyio.fail_after(60):
        await Breaks(cfg=CoordinatorConfig(db=address)).run()


async def test_the_handlers_of_signals_are_those_of_before_afterwards(address: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with anyio.move_on_after(0.2):
        await Coordinator(cfg=CoordinatorConfig(db=address)).run()
    assert signal.getsignal(signal.SIGTERM) == before


def test_in_another_thread_a_coordinator_runs_until_it_is_cancelled(address: str) -> None:
    outcome: list[object] = []

    async def main() -> None:
        with anyio.move_on_after(0.2) as scope:
            await Coordinator(cfg=CoordinatorConfig(db=address)).run()
        outcome.append(scope.cancelled_caught)

    thread = threading.Thread(target=anyio.run, args=[main])
    thread.start()
    thread.join(20)
    assert outcome == [True]
