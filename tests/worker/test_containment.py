"""Handlers that raise other errors than ``Exception``: each run ends, and the worker lives."""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.from_thread
import pytest

from flowkit._records.letter_records import read_letters
from flowkit.worker import Batch, BatchResult, Handler, InputRequest, RunContext, per_run
from tests.foreign_code import KINDS, Panic, misbehave
from tests.worker.bench import Bench


async def function(item: Any) -> Any:
    misbehave(item)
    await asyncio.sleep(0)
    return "done"


async def last_breath(item: Any) -> Any:
    misbehave(item)
    return "done"


def thread(item: Any) -> Any:
    misbehave(item)
    return "done"


async def async_generator(item: Any) -> AsyncIterator[Any]:
    yield {"n": 1}
    misbehave(item)
    await asyncio.sleep(0)
    yield {"n": 2}


def generator(item: Any) -> Iterator[Any]:
    yield {"n": 1}
    misbehave(item)


class Methods(Handler):
    """A handler that misbehaves in one of its methods."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.kind: Any = None

    async def _at(self, place: str) -> None:
        if place == self.place:
            misbehave(self.kind)
            await asyncio.sleep(0)

    async def init(self, run_info: dict[str, Any]) -> None:
        self.kind = run_info["io"].get("input_inline")
        await self._at("init")

    async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
        await self._at("load_input")
        return input_inline

    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        yield Batch("0")
        await self._at("iter_batches")
        yield Batch("1")

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        if batch.batch_uid == "1":
            await self._at("process_batch")
            if self.place == "classify_error" and self.kind is not None:
                raise RuntimeError("to be classified")
        return BatchResult(True)

    async def finalize(self, ctx: RunContext) -> None:
        await self._at("finalize")

    def classify_error(self, exc: BaseException) -> tuple[str, bool]:
        if self.place == "classify_error":
            misbehave(self.kind)
        return super().classify_error(exc)


METHODS = ("init", "load_input", "iter_batches", "process_batch", "finalize", "classify_error")


class Made(Handler):
    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return BatchResult(True)


class MakesBadly:
    """A factory that misbehaves at every call but the last."""

    kind: Any = None

    def __call__(self) -> Handler:
        misbehave(self.kind)
        return Made()


HANDLERS: dict[str, Any] = {
    "function": function,
    "last breath": last_breath,
    "thread": thread,
    "async generator": async_generator,
    "generator": generator,
    **{name: per_run(lambda name=name: Methods(name)) for name in METHODS},
}
CANCELS_ITSELF = ["function", "last breath", "async generator", *METHODS]
EVERYTHING = [(place, kind) for place in HANDLERS for kind in KINDS] + [
    (place, "cancels itself") for place in CANCELS_ITSELF
]


@pytest.mark.parametrize(("place", "kind"), EVERYTHING)
async def test_a_handler_that_raises_any_error_fails_its_run_and_the_worker_continues(
    bench: Bench, place: str, kind: str
) -> None:
    async with bench.worker({"work": HANDLERS[place]}, max_concurrency=1):
        end = await bench.run(kind)
        assert end.kind == "node_failed"
        assert end.error
        assert (await bench.run(None)).kind == "node_succeeded"


@pytest.mark.parametrize("kind", [*KINDS, "cancels itself"])
async def test_any_error_while_a_handler_is_made_fails_the_run(bench: Bench, kind: str) -> None:
    make = MakesBadly()
    async with bench.worker({"work": per_run(make)}):
        make.kind = kind
        assert (await bench.run()).kind == "node_failed"
        make.kind = None
        assert (await bench.run()).kind == "node_succeeded"


@pytest.mark.parametrize("kind", [*KINDS, "cancels itself"])
async def test_any_error_of_an_input_adapter_fails_the_run(bench: Bench, kind: str) -> None:
    async def adapter(request: InputRequest) -> AsyncIterator[Batch]:
        yield Batch("0")
        misbehave(request.take("kind", str, None))
        await asyncio.sleep(0)
        yield Batch("1")

    class Plugin:
        def flowkit_register_input_adapters(self, register: Any) -> None:
            register("bad", adapter)

    async with bench.worker({"work": Made()}, plugins=[Plugin()]):
        assert (
            await bench.run({"input_adapter": "bad", "input_args": {"kind": kind}})
        ).kind == "node_failed"
        assert (await bench.run({"input_adapter": "bad"})).batches == 2


@pytest.mark.parametrize("kind", [*KINDS, "cancels itself"])
async def test_any_error_of_a_classifying_plugin_fails_the_run(bench: Bench, kind: str) -> None:
    class Plugin:
        def flowkit_classify_error(self, error: BaseException) -> Any:
            misbehave(kind)

    async def fail() -> None:
        raise ValueError("bad")

    async with bench.worker({"work": fail}, plugins=[Plugin()]):
        for _ in range(2):
            end = await bench.run()
            assert (end.kind, end.reason_code) == ("node_failed", "bad_input")


@pytest.mark.parametrize("kind", [*KINDS, "cancels itself"])
async def test_any_error_of_a_cleanup_is_logged_and_the_end_of_the_run_does_not_change(
    bench: Bench, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    cleaned: list[str] = []

    async def work(item: Any, ctx: RunContext) -> str:
        async def clean_up() -> None:
            misbehave(kind)
            await asyncio.sleep(0)

        ctx.on_cleanup(lambda: cleaned.append("the first"))
        ctx.on_cleanup(clean_up)
        return "done"

    async with bench.worker({"work": work}, max_concurrency=1):
        for _ in range(2):
            end = await bench.run()
            assert (end.kind, end.result) == ("node_succeeded", "done")
    assert cleaned == ["the first"] * 2
    assert caplog.text.count("A cleanup of node n failed") == 2


async def sooner_or_later(kind: str) -> None:
    await asyncio.sleep(0)
    misbehave(kind)


def in_a_group(kind: str) -> Any:
    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(sooner_or_later(kind))

    return run()


CHILDREN: dict[str, Callable[[str], Any]] = {
    "gather": lambda kind: asyncio.gather(sooner_or_later(kind), asyncio.sleep(3600)),
    "wait_for": lambda kind: asyncio.wait_for(sooner_or_later(kind), 3600),
    "task group": in_a_group,
}


@pytest.mark.parametrize("kind", ["system exit", "keyboard interrupt", "panic", "cancels itself"])
@pytest.mark.parametrize("children", CHILDREN)
async def test_a_worker_continues_after_any_error_in_a_task_of_a_handler(
    bench: Bench, children: str, kind: str
) -> None:
    async def work(item: Any) -> None:
        if item is not None:
            await CHILDREN[children](item)
            await asyncio.sleep(0)

    async with bench.worker({"work": work}):
        end = await bench.run(kind)
        # A task of a group that ends as cancelled does not fail the group.
        harmless = (children, kind) == ("task group", "cancels itself")
        assert end.kind == ("node_succeeded" if harmless else "node_failed")
        assert (await bench.run(None)).kind == "node_succeeded"


async def stop_a_helper(helper: "asyncio.Task[None]") -> None:
    helper.cancel()
    await helper


async def test_a_cleanup_may_await_what_it_cancelled(bench: Bench) -> None:
    async def work(item: Any, ctx: RunContext) -> str:
        helper = asyncio.create_task(asyncio.sleep(3600))
        ctx.on_cleanup(lambda: stop_a_helper(helper))
        return "done"

    async with bench.worker({"work": work}):
        assert (await bench.run()).result == "done"


async def test_so_may_the_cleanup_of_a_run_that_is_cut_off(bench: Bench) -> None:
    async def work(item: Any, ctx: RunContext) -> None:
        helper = asyncio.create_task(asyncio.sleep(3600))
        ctx.on_cleanup(lambda: stop_a_helper(helper))
        await anyio.sleep_forever()

    async with bench.worker({"work": work}, cancel_grace_sec=1):
        command = await bench.send()
        await bench.started(command)
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"


async def test_an_end_that_was_reached_stands_though_its_cleanup_is_cut_off(bench: Bench) -> None:
    cleaning = anyio.Event()

    async def work(item: Any, ctx: RunContext) -> str:
        async def clean_up() -> None:
            cleaning.set()
            await anyio.sleep_forever()

        ctx.on_cleanup(clean_up)
        return "done"

    async with bench.worker({"work": work}, cancel_grace_sec=1):
        command = await bench.send()
        await cleaning.wait()
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_succeeded"


@pytest.mark.parametrize("kind", [*KINDS, "cancels itself"])
async def test_a_batch_that_raises_any_error_is_handled_as_a_failed_batch(
    bench: Bench, kind: str
) -> None:
    async def work(items: Any) -> dict[str, Any]:
        if items == [2]:
            misbehave(kind)
            await asyncio.sleep(0)
        return {"items": items}

    async with bench.worker({"work": work}):
        end = await bench.run(
            [1, 2, 3],
            io={"input_inline": [1, 2, 3], "batching": {"size": 1}},
            on_batch_failure="skip",
        )
        assert (end.kind, end.batches, end.skipped) == ("node_succeeded", 2, 1)
        letters = await read_letters(bench.store, task_id=end.task_id, kind="batch", limit=10)
        assert [letter.uid for letter in letters] == ["1"]


async def test_the_error_of_a_panic_has_its_type_and_text_and_its_traceback_is_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.worker({"work": function}):
        assert (await bench.run("panic")).error == "Panic: native code panicked"
        assert "in misbehave" in caplog.text
        assert (
            await bench.run("unreadable")
        ).error == "Unreadable: (the error has no text: writing it failed)"


async def test_a_run_that_is_cancelled_while_it_panics_is_stopped(bench: Bench) -> None:
    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise Panic("while it is cut off")

    async with bench.worker({"work": work}, cancel_grace_sec=1):
        command = await bench.send()
        await bench.started(command)
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"
        assert bench.kinds(command).count("node_stopped") == 1


# ---------------------------------------------------------------- context variables

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="as it was")


async def remember(item: Any) -> Any:
    before = VARIABLE.get()
    VARIABLE.set("changed by a run")
    await asyncio.sleep(0)
    return [before, VARIABLE.get()]


def remember_in_a_thread(item: Any) -> Any:
    before = VARIABLE.get()
    VARIABLE.set("changed by a run")
    return [before, VARIABLE.get()]


class Remembers(Handler):
    async def init(self, run_info: dict[str, Any]) -> None:
        self.before = VARIABLE.get()
        VARIABLE.set("changed by a run")

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return BatchResult(True, artifacts_ref={"seen": [self.before, VARIABLE.get()]})


@pytest.mark.parametrize("work", [remember, remember_in_a_thread])
async def test_each_run_starts_in_a_fresh_copy_of_the_context_of_the_worker(
    bench: Bench, work: Any
) -> None:
    VARIABLE.set("the worker's")
    async with bench.worker({"work": work}, max_concurrency=1):
        for _ in range(3):
            assert (await bench.run()).result == ["the worker's", "changed by a run"]
    assert VARIABLE.get() == "the worker's"


async def test_what_a_run_sets_is_seen_by_its_later_methods_and_cleanups_alone(
    bench: Bench,
) -> None:
    async with bench.worker({"work": Remembers}, max_concurrency=1):
        for _ in range(2):
            command = await bench.send()
            await bench.end(command)
            (record,) = await bench.stored(command)
            assert record.meta == b'{"seen":["as it was","changed by a run"]}'


async def test_a_variable_that_a_run_set_can_be_reset_in_its_cleanup(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(item: Any, ctx: RunContext) -> None:
        token = VARIABLE.set("changed by a run")
        ctx.on_cleanup(lambda: VARIABLE.reset(token))
        await asyncio.sleep(0)

    with caplog.at_level(logging.WARNING):
        async with bench.worker({"work": work}):
            assert (await bench.run()).kind == "node_succeeded"
    assert "cleanup" not in caplog.text
