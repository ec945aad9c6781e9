"""Context managers of plugins around attempts."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from flowkit.errors import NodeFailure, PluginError
from flowkit.graph import NodeSpec
from flowkit.plugins import Plugins
from flowkit.worker import Batch, BatchResult, Handler, RunContext, handler
from flowkit_testing import Cluster
from tests.builders import ONE, graph, node, plugin, work

current: ContextVar[str] = ContextVar("current", default="nothing")


def surrounding(name: str, seen: list[str]) -> Any:
    """Return a plugin whose context managers note when they are entered and left."""

    @contextmanager
    def around(ctx: RunContext) -> Iterator[None]:
        seen.append(f"{name} enters {ctx.node_id} {ctx.attempt}")
        try:
            yield
        except BaseException as error:
            seen.append(f"{name} leaves with {type(error).__name__}")
            raise
        else:
            seen.append(f"{name} leaves")

    return plugin(name, flowkit_around_attempt=around)


async def ran(*plugins: Any, role: Any = work, flow: Any = ONE) -> Any:
    async with Cluster(handlers=[role], plugins=plugins) as cluster:
        return (await cluster.run(flow)).nodes["a"]


async def test_the_managers_of_all_plugins_are_nested_around_the_handler() -> None:
    seen: list[str] = []

    @handler("work")
    async def note(item: Any) -> None:
        seen.append("handler")

    await ran(surrounding("inner", seen), surrounding("outer", seen), role=note)
    assert seen == [
        "outer enters a 1",
        "inner enters a 1",
        "handler",
        "inner leaves",
        "outer leaves",
    ]


async def test_each_attempt_of_a_class_handler_has_its_own_manager_and_the_error() -> None:
    seen: list[str] = []

    class Clumsy(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            if ctx.attempt == 1:
                raise OSError("once")
            return BatchResult(success=True)

    flow = graph(node("a", retry_policy={"max": 1}))
    async with Cluster(handlers={"work": Clumsy}, plugins=[surrounding("spans", seen)]) as cluster:
        assert (await cluster.run(flow)).status == "finished"
    assert seen == [
        "spans enters a 1",
        "spans leaves with BatchFailed",
        "spans enters a 2",
        "spans leaves",
    ]


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_handler_sees_the_context_variables_that_a_manager_sets(in_thread: bool) -> None:
    @contextmanager
    def around() -> Iterator[None]:
        current.set("the span")
        yield
        assert current.get() == "changed by the handler"
        current.set("left")

    def change() -> list[Any]:
        found = current.get()
        current.set("changed by the handler")
        return [found, threading.current_thread() is threading.main_thread()]

    async def change_in_loop() -> list[Any]:
        return change()

    role = handler("work")(change if in_thread else change_in_loop)
    seen = await ran(plugin("spans", flowkit_around_attempt=around), role=role)
    assert seen.result == ["the span", not in_thread]
    assert current.get() == "nothing"


async def test_a_manager_gets_the_node_and_the_context_of_the_handler() -> None:
    seen: list[Any] = []

    def around(node: NodeSpec, ctx: RunContext) -> None:
        seen.append((node.node_id, node.type, node.io.input_inline, ctx))

    @handler("work")
    async def note(item: Any, ctx: RunContext) -> None:
        seen.append(ctx)

    flow = graph(node("a", io={"input_inline": {"size": 3}}))
    await ran(plugin("spans", flowkit_around_attempt=around), role=note, flow=flow)
    (node_id, role, inline, context), handed = seen
    assert (node_id, role, inline) == ("a", "work", {"size": 3})
    assert context is handed


class Failing(AbstractContextManager[None]):
    def __init__(self, *, entering: Any = None, leaving: Any = None) -> None:
        self.entering, self.leaving = entering, leaving

    def __enter__(self) -> None:
        if self.entering:
            raise self.entering

    def __exit__(self, *error: object) -> None:
        if self.leaving:
            raise self.leaving


@pytest.mark.parametrize("at", ["entering", "leaving"])
@pytest.mark.parametrize("error", [OSError("no room"), SystemExit("no room")])
async def test_an_error_of_a_manager_fails_the_attempt_and_names_the_plugin(
    at: str, error: BaseException
) -> None:
    seen: list[str] = []
    node = await ran(
        plugin("spans", flowkit_around_attempt=lambda: Failing(**{at: error})),
        surrounding("outer", seen),
    )
    assert node.status == "failed"
    assert "plugin 'spans': flowkit_around_attempt failed" in node.error
    assert "no room" in node.error
    assert seen[-1] == "outer leaves with PluginError"


async def test_the_handlers_error_stands_though_a_manager_fails_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @handler("work")
    async def fail(item: Any) -> None:
        raise NodeFailure("my own", reason_code="mine", permanent=True)

    plugins = [
        plugin("clumsy", flowkit_around_attempt=lambda: Failing(leaving=OSError("no room"))),
        surrounding("outer", seen := []),
    ]
    assert (await ran(*plugins, role=fail)).reason_code == "mine"
    assert "Plugin clumsy raised in flowkit_around_attempt" in caplog.text
    assert seen[-1] == "outer leaves with NodeFailure"


async def test_a_manager_cannot_suppress_the_error_of_a_handler() -> None:
    class Suppressing(Failing):
        def __exit__(self, *error: object) -> bool:  # type: ignore[override]
            return True

    @handler("work")
    async def fail(item: Any) -> None:
        raise ValueError("wrong")

    node = await ran(plugin("quiet", flowkit_around_attempt=lambda: Suppressing()), role=fail)
    assert (node.status, node.reason_code) == ("failed", "bad_input")


async def test_the_error_of_an_earlier_manager_reaches_no_later_plugin() -> None:
    seen: list[str] = []
    failing = plugin("first", flowkit_around_attempt=lambda: Failing(entering=OSError("no")))
    assert (await ran(surrounding("later", seen), failing)).status == "failed"
    assert seen == []


async def test_a_manager_is_left_when_the_run_is_cancelled() -> None:
    seen: list[str] = []

    @handler("work")
    async def wait(item: Any, ctx: RunContext) -> None:
        await ctx.cancellable(ctx.clock.sleep(3600))

    async with Cluster(handlers=[wait], plugins=[surrounding("spans", seen)]) as cluster:
        task_id = await cluster.client.create_task(graph=ONE)
        async for change in cluster.client.watch(task_id):
            if change.status == "running" and change.node_id == "a":
                await cluster.client.cancel(task_id)
        assert (await cluster.client.wait(task_id)).nodes["a"].status == "cancelled"
    assert seen[-1] == "spans leaves with RunCancelled"


async def test_an_object_that_is_no_context_manager_fails_the_attempt() -> None:
    @asynccontextmanager
    async def resource() -> Any:
        yield

    node = await ran(plugin("wrong", flowkit_around_attempt=lambda: resource()))
    assert "plugin 'wrong': it returned an object of the type" in node.error
    assert "which are not async" in node.error


def test_a_generator_that_is_no_context_manager_is_refused_at_start() -> None:
    def around() -> Iterator[None]:
        yield

    with pytest.raises(PluginError, match=r"decorate it with contextlib\.contextmanager"):
        Plugins([plugin("wrong", flowkit_around_attempt=around)])


def test_an_async_context_manager_is_refused_at_start() -> None:
    @asynccontextmanager
    async def around() -> Any:
        yield

    with pytest.raises(PluginError, match="flowkit_around_attempt is async"):
        Plugins([plugin("wrong", flowkit_around_attempt=around)])


# ---------------------------------------------------------------- batches


def around_batches(seen: list[str]) -> Any:
    """Return a plugin whose context managers note the batches that they surround."""

    @contextmanager
    def around(batch: Batch, ctx: RunContext) -> Iterator[None]:
        seen.append(f"{batch.batch_uid} {ctx.attempt} enters")
        current.set("a batch")
        try:
            yield
        except BaseException as error:
            seen.append(f"leaves with {type(error).__name__}")
            raise
        finally:
            current.set("nothing")

    return plugin("batches", flowkit_around_batch=around)


async def test_each_try_of_a_batch_has_its_own_manager_and_the_error_inside_the_attempts() -> None:
    seen: list[str] = []

    class Clumsy(Handler):
        async def iter_batches(self, loaded: Any) -> Any:
            for uid in ("first", "second"):
                yield Batch(batch_uid=uid, payload={})

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            seen.append(current.get())
            if (batch.batch_uid, ctx.attempt) == ("second", 1):
                raise OSError("once")
            return BatchResult(success=True)

    flow = graph(node("a", retry_policy={"max": 1}))
    plugins = [around_batches(seen), surrounding("attempts", seen)]
    async with Cluster(handlers={"work": Clumsy}, plugins=plugins) as cluster:
        assert (await cluster.run(flow)).status == "finished"
    assert seen == [
        "attempts enters a 1",
        "first 1 enters",
        "a batch",
        "second 1 enters",
        "a batch",
        "leaves with OSError",
        "second 2 enters",
        "a batch",
        "attempts leaves",
    ]


async def test_a_function_that_is_called_once_has_no_batches() -> None:
    seen: list[str] = []
    assert (await ran(around_batches(seen))).status == "finished"
    assert seen == []


async def test_an_error_of_a_manager_around_a_batch_counts_as_one_of_the_batch() -> None:
    def around(batch: Batch) -> AbstractContextManager[None]:
        raise OSError("broken")

    class Fine(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(success=True)

    failing = plugin("failing", flowkit_around_batch=around)
    async with Cluster(handlers={"work": Fine}, plugins=[failing]) as cluster:
        failed = (await cluster.run(graph(node("a", retry_policy={"max": 0})))).nodes["a"]
    assert failed.status == "failed"
    assert "plugin 'failing': flowkit_around_batch failed: OSError: broken" in failed.error
