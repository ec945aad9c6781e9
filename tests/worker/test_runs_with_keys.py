"""A worker reports the end of a run with a concurrency key when the handler has really ended."""

import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from flowkit._records.worker_sessions import session_of
from flowkit.messages import RunNode
from tests.worker.bench import Bench


class Stubborn:
    """Handlers that ignore their cancellation until :meth:`end`."""

    def __init__(self) -> None:
        self._gate = anyio.Event()
        self._thread_gate = threading.Event()
        self._begun = anyio.Event()

    @property
    def handlers(self) -> dict[str, Callable[..., Any]]:
        return {"task": self._in_task, "thread": self._in_thread}

    async def begun(self) -> None:
        await self._begun.wait()

    def end(self) -> None:
        self._gate.set()
        self._thread_gate.set()

    async def _in_task(self) -> str:
        self._begun.set()
        while not self._gate.is_set():
            with contextlib.suppress(BaseException):
                await self._gate.wait()
        return "late"

    def _in_thread(self) -> str:
        anyio.from_thread.run_sync(self._begun.set)
        self._thread_gate.wait(60)
        return "late"


@pytest.fixture
def stubborn() -> Any:
    handlers = Stubborn()
    yield handlers
    handlers.end()


@asynccontextmanager
async def cut_off(bench: Bench, stubborn: Stubborn, role: str) -> AsyncIterator[RunNode]:
    """Start a run with a key, and cancel it. Its worker has cut it off."""
    async with bench.worker(stubborn.handlers, cancel_grace_sec=0.05, max_concurrency=1):
        command = await bench.send(role=role, exclusive=True)
        await bench.started(command)
        await stubborn.begun()
        await bench.cancel(command)
        await bench.clock.sleep(10)
        yield command


@pytest.mark.parametrize("role", ["task", "thread"])
async def test_its_end_is_reported_once_it_has_really_ended(
    bench: Bench, stubborn: Stubborn, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with cut_off(bench, stubborn, role) as command:
        await bench.cancel(command)
        await bench.clock.sleep(10)
        assert bench.kinds(command) == ["node_started"]
        stubborn.end()
        end = await bench.end(command)
    assert end.kind == ("node_succeeded" if role == "task" else "node_stopped")
    assert bench.kinds(command) == ["node_started", end.kind]
    assert "unexpected error" not in caplog.text


async def test_it_leaves_its_slot_to_others(bench: Bench, stubborn: Stubborn) -> None:
    async with cut_off(bench, stubborn, "task") as command:
        other = await bench.send(role="task")
        await bench.started(other)
        stubborn.end()
        await bench.end(command)


@pytest.mark.parametrize("role", ["task", "thread"])
async def test_a_worker_that_stops_meanwhile_keeps_its_session_until_that_expires(
    bench: Bench, stubborn: Stubborn, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with cut_off(bench, stubborn, role) as command:
        pass
    assert bench.kinds(command) == ["node_started"]
    assert await session_of(bench.store, "w") is not None
    assert "runs with concurrency keys go on: end its process" in caplog.text


async def test_a_worker_whose_runs_have_ended_ends_its_session(
    bench: Bench, stubborn: Stubborn
) -> None:
    async with cut_off(bench, stubborn, "task") as command:
        stubborn.end()
        await bench.end(command)
    assert await session_of(bench.store, "w") is None
