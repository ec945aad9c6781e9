"""Context variables of runs with functions in threads: each run has one context."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.from_thread
import pytest

from flowkit._user_code.threads import counted, in_thread
from flowkit.worker import RunContext
from tests.worker.bench import Bench

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="as it was")


async def test_a_cleanup_sees_and_resets_what_a_synchronous_function_has_set(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    def work(item: Any, ctx: RunContext) -> None:
        token = VARIABLE.set("set by the function")

        def clean_up() -> None:
            seen.append(VARIABLE.get())
            VARIABLE.reset(token)
            seen.append(VARIABLE.get())

        ctx.on_cleanup(clean_up)

    with caplog.at_level(logging.WARNING):
        async with bench.worker({"work": work}, max_concurrency=1):
            for _ in range(2):
                assert (await bench.run()).kind == "node_succeeded"
    assert seen == ["set by the function", "as it was"] * 2
    assert "leanup" not in caplog.text
    assert VARIABLE.get() == "as it was"


async def test_a_synchronous_generator_sees_after_each_yield_what_it_has_set(bench: Bench) -> None:
    def work() -> Iterator[dict[str, str]]:
        token = VARIABLE.set("0")
        for number in range(1, 4):
            yield {"seen": VARIABLE.get()}
            VARIABLE.set(str(number))
        VARIABLE.reset(token)
        yield {"seen": VARIABLE.get()}

    async with bench.worker({"work": work}, max_concurrency=1):
        for _ in range(2):
            command = await bench.send()
            assert (await bench.end(command)).kind == "node_succeeded"
            seen = [record.meta for record in await bench.stored(command)]
            assert seen == [
                b'{"seen":"0"}',
                b'{"seen":"1"}',
                b'{"seen":"2"}',
                b'{"seen":"as it was"}',
            ]


async def test_each_batch_of_a_function_sees_what_the_batch_before_has_set(bench: Bench) -> None:
    def work(items: Any) -> dict[str, str]:
        before = VARIABLE.get()
        VARIABLE.set(str(items[0]))
        return {"before": before}

    async with bench.worker({"work": work}):
        command = await bench.send(io={"input_inline": [1, 2], "batching": {"size": 1}})
        assert (await bench.end(command)).kind == "node_succeeded"
        assert [record.meta for record in await bench.stored(command)] == [
            b'{"before":"as it was"}',
            b'{"before":"1"}',
        ]


async def test_a_generator_that_is_ended_early_is_closed_in_its_thread_and_context(
    bench: Bench,
) -> None:
    closed: list[Any] = []

    def work() -> Iterator[Any]:
        VARIABLE.set("set by the generator")
        try:
            yield {"thread": threading.get_ident()}
            yield None
        finally:
            closed.append((VARIABLE.get(), threading.current_thread() is threading.main_thread()))

    async with bench.worker({"work": work}):
        assert (await bench.run()).reason_code == "bad_result"
        assert closed == [("set by the generator", False)]


async def test_the_cleanup_of_a_run_whose_function_goes_on_in_its_thread_has_a_copy_of_its_context(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on, went_on = anyio.Event(), threading.Event(), threading.Event()
    seen: list[str] = []

    def work(item: Any, ctx: RunContext) -> None:
        VARIABLE.set("set by the function")
        ctx.on_cleanup(lambda: VARIABLE.set("set by the cleanup"))
        ctx.on_cleanup(lambda: seen.append(VARIABLE.get()))
        anyio.from_thread.run_sync(begun.set)
        go_on.wait()
        seen.append(VARIABLE.get())
        went_on.set()

    try:
        async with bench.worker({"work": work}, cancel_grace_sec=1):
            command = await bench.send()
            await begun.wait()
            await bench.cancel(command)
            assert (await bench.end(command)).kind == "node_stopped"
            go_on.set()
            await anyio.to_thread.run_sync(went_on.wait)
    finally:
        go_on.set()
    assert seen == ["set by the function", "set by the function"]
    assert "A run broke" not in caplog.text


async def test_a_call_that_is_cancelled_before_its_thread_has_it_is_not_made() -> None:
    called: list[int] = []
    with counted() as calls:
        first = asyncio.create_task(in_thread(called.append, 1))
        while not calls.names:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait({first})
        assert calls.names == []
        await in_thread(called.append, 2)
    assert called == [2]


def test_the_private_names_of_anyio_that_threads_use_are_there() -> None:
    from anyio._core import _eventloop

    missing = [
        name
        for name in ("claim_worker_thread", "get_async_backend", "threadlocals")
        if not hasattr(_eventloop, name)
    ]
    assert not missing, (
        f"this version of anyio has no {missing}: adapt flowkit._user_code.threads, and its bound"
        " in flowkit-core's pyproject.toml"
    )
