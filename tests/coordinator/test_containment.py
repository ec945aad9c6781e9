"""Functions, plugins and conditions that raise other errors than ``Exception``.

The coordinator survives them all.
"""

import asyncio
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from flowkit import Coordinator
from flowkit._codecs.bus_codec import Payloads, SealedBus
from flowkit._user_code.containment import MOST_OF_A_TRACEBACK
from flowkit.cli import main
from flowkit.errors import CorruptRecord, PayloadError, TaskRefused
from flowkit.plugins import Plugins
from flowkit.protocols import Message, TopicSpec
from flowkit.worker import Worker, handler
from flowkit_testing import Cluster, InMemoryBus
from tests.builders import TWO, work
from tests.foreign_code import KINDS, misbehave

EVERYTHING = [*KINDS, "cancels itself"]


async def function(ctx: Any, /, kind: str | None) -> str:
    misbehave(kind)
    await asyncio.sleep(0)
    return "done"


def function_in_a_thread(ctx: Any, /, kind: str | None) -> str:
    misbehave(kind)
    return "done"


class Lazy(dict[str, Any]):
    """A value that runs its author's code when it is converted."""

    def __init__(self, kind: str) -> None:
        super().__init__(a=1)
        self.kind = kind

    def values(self) -> Any:
        misbehave(self.kind)
        return super().values()

    items = values


async def lazy(ctx: Any, /, kind: str | None) -> Any:
    return "done" if kind is None else Lazy(kind)


class Functions:
    def flowkit_register_functions(self, register: Any) -> None:
        register("lazy", lazy)
        register("function", function)
        register("thread", function_in_a_thread)


def call(name: str, kind: str | None) -> dict[str, Any]:
    io = {"fn": name, "fn_args": {"kind": kind}}
    return {
        "nodes": [{"node_id": "a", "type": "coordinator_fn", "io": io, "retry_policy": {"max": 0}}]
    }


CALLS = [
    (name, kind)
    for name in ("function", "thread", "lazy")
    for kind in (KINDS if name == "thread" else EVERYTHING)
]


@pytest.mark.parametrize(("name", "kind"), CALLS)
async def test_a_function_that_raises_any_error_fails_its_node_and_the_coordinator_continues(
    name: str, kind: str
) -> None:
    async with Cluster(plugins=[Functions()]) as cluster:
        view = await cluster.run(call(name, kind))
        assert (view.status, view.nodes["a"].status) == ("failed", "failed")
        assert (await cluster.run(call(name, None))).nodes["a"].result == "done"


@pytest.mark.parametrize("kind", EVERYTHING)
async def test_tasks_continue_after_any_error_of_an_observer(kind: str) -> None:
    class Observer:
        calls = 0

        def flowkit_task_changed(self, before: Any, after: Any) -> None:
            self.calls += 1
            if asyncio.current_task() is not mine:
                misbehave(kind)

        def flowkit_node_changed(self, task: Any, before: Any, after: Any) -> None:
            self.calls += 1
            misbehave(kind)

    observer, mine = Observer(), asyncio.current_task()
    async with Cluster(handlers=[work], plugins=[observer]) as cluster:
        for _ in range(2):
            assert (await cluster.run(TWO)).status == "finished"
    assert observer.calls > 8


class Canceller:
    """A plugin that cancels the task that calls it, in one of its hooks."""

    def __init__(self, hook: str) -> None:
        self.calls = 0

        def cancel(**arguments: Any) -> None:
            self.calls += 1
            misbehave("cancels itself")

        setattr(self, hook, HOOKS[hook](cancel))


HOOKS: dict[str, Callable[[Callable[..., None]], Callable[..., Any]]] = {
    "flowkit_task_changed": lambda cancel: lambda after: cancel(),
    "flowkit_node_changed": lambda cancel: lambda after: cancel(),
    "flowkit_before_submit": lambda cancel: lambda task: cancel(),
}


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_that_cancels_the_task_which_calls_it_cancels_nothing(
    hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    canceller = Canceller(hook)
    async with Cluster(handlers=[work], plugins=[canceller]) as cluster:
        task_id = await cluster.client.create_task(graph=TWO)
        await asyncio.sleep(0)  # a pending cancellation would be delivered here
        assert (await cluster.client.wait(task_id, timeout=60)).status == "finished"
        stopped = await cluster.client.create_task(graph=TWO)
        await cluster.client.cancel(stopped)
        await asyncio.sleep(0)
        assert (await cluster.client.wait(stopped, timeout=60)).status in ("cancelled", "finished")
    assert canceller.calls >= 2
    assert "loop broke" not in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("kind", KINDS)
async def test_any_error_of_a_plugin_before_a_submission_refuses_it(kind: str) -> None:
    class Plugin:
        def flowkit_before_submit(self, task: Any) -> None:
            misbehave(kind)

    async with Cluster(plugins=[Plugin()]) as cluster:
        with pytest.raises(TaskRefused, match="plugin .*Plugin': flowkit_before_submit failed"):
            await cluster.client.create_task(graph=TWO)


class Codec:
    """A codec that misbehaves while ``kind`` is set."""

    encodes: str | None = None
    decodes: str | None = None

    def flowkit_encode_payload(self, data: bytes, context: str) -> bytes:
        misbehave(self.encodes)
        return data

    def flowkit_decode_payload(self, data: bytes) -> bytes:
        misbehave(self.decodes)
        return data


@pytest.mark.parametrize("kind", KINDS)
async def test_any_error_of_a_codec_refuses_one_payload_and_the_others_continue(kind: str) -> None:
    codec = Codec()
    async with Cluster(handlers=[work], plugins=[codec]) as cluster:
        codec.encodes = kind
        with pytest.raises(PayloadError, match="Codec' cannot encode "):
            await cluster.client.create_task(graph=TWO)
        codec.encodes = None
        task_id = await cluster.client.create_task(graph=TWO)
        codec.decodes = kind
        with pytest.raises(CorruptRecord, match="Codec' cannot decode "):
            await cluster.client.get_task(task_id)
        codec.decodes = None
        assert (await cluster.run(TWO)).status == "finished"


class CancellingCodec:
    """A codec that cancels the task that calls it, in the hooks that ``cancels`` names."""

    def __init__(self, *, cancels: str) -> None:
        self.cancels = cancels
        self.calls = {"encode": 0, "decode": 0}

    def flowkit_encode_payload(self, data: bytes, context: str) -> bytes:
        return self._called("encode", data)

    def flowkit_decode_payload(self, data: bytes, context: str) -> bytes:
        return self._called("decode", data)

    def _called(self, verb: str, data: bytes) -> bytes:
        self.calls[verb] += 1
        if verb in self.cancels:
            misbehave("cancels itself")
        return data


@handler("produce")
async def produce(item: Any) -> Any:
    for number in range(3):
        yield {"number": number}


@handler("read")
async def read(item: Any) -> Any:
    return item


@handler("fail")
async def fail(item: Any) -> Any:
    raise ValueError("no")


READING = {
    "nodes": [
        {"node_id": "a", "type": "produce"},
        {
            "node_id": "b",
            "type": "read",
            "depends_on": ["a"],
            "io": {"input_inline": {"input_adapter": "pull.from_artifacts"}},
        },
        {"node_id": "c", "type": "fail", "depends_on": ["b"], "retry_policy": {"max": 0}},
        {"node_id": "d", "type": "coordinator_fn", "depends_on": ["b"], "io": {"fn": "noop"}},
    ]
}


@pytest.mark.parametrize("cancels", ["encode", "decode", "encode decode"])
async def test_a_codec_that_cancels_the_task_which_calls_it_cancels_nothing(
    cancels: str, caplog: pytest.LogCaptureFixture
) -> None:
    codec = CancellingCodec(cancels=cancels)
    async with Cluster(handlers=[produce, read, fail], plugins=[codec]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=READING)
        assert [event async for event in client.watch(task_id)][-1].status == "failed"
        view = await client.wait(task_id, timeout=60)
        assert {name: str(node.status) for name, node in view.nodes.items()} == {
            "a": "finished",
            "b": "finished",
            "c": "failed",
            "d": "finished",
        }
        assert len([artifact async for artifact in client.artifacts(task_id, "a")]) == 3
        assert [letter.node_id for letter in (await client.dead_letters()).items] == ["c"]
        assert [view.id for view in (await client.list_tasks()).items] == [task_id]
        await client.retry(task_id, from_nodes=["b"])
        await asyncio.sleep(0)  # a pending cancellation would be delivered here
        assert (await client.wait(task_id, timeout=60)).status == "failed"
    assert min(codec.calls.values()) > 20
    assert "loop broke" not in caplog.text
    assert "Traceback" not in caplog.text.replace("ValueError: no", "")


async def test_a_receive_that_its_owner_cancels_while_a_codec_does_loses_no_message() -> None:
    class Owned(CancellingCodec):
        def _called(self, verb: str, data: bytes) -> bytes:
            asyncio.get_running_loop().call_soon(receiving.cancel)
            return super()._called(verb, data)

    plugins, received = Plugins([Owned(cancels="decode")]), []

    async def receive() -> None:
        received.extend(await subscription.receive(max_messages=10))
        await asyncio.sleep(60)

    async with InMemoryBus() as bus:
        sealed = SealedBus(bus, [Payloads(plugins)])
        await bus.ensure_topics([TopicSpec("t")])
        async with sealed.subscribe(["t"], group="g") as subscription:
            await bus.publish([Message("t", b"1", "k")])
            receiving = asyncio.create_task(receive())
            with pytest.raises(asyncio.CancelledError):
                await receiving
    assert [delivery.message.value for delivery in received] == [b"1"]


# ---------------------------------------------------------------- code that ends the process


def tasks_of(name: str) -> "list[asyncio.Task[Any]]":
    return [task for task in asyncio.all_tasks() if name in f"{task.get_name()} {task.get_coro()}"]


async def test_a_loop_of_a_coordinator_or_worker_that_is_cancelled_by_others_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Cluster(handlers=[work]) as cluster:
        for name in ("coordinator's ", "worker's "):
            loops = tasks_of(name)
            assert len(loops) > 5
            for loop in loops:
                loop.cancel()
        assert (await cluster.run(TWO)).status == "finished"
    assert "loop broke and is restarted" in caplog.text


@pytest.mark.parametrize("kind", ["Coordinator._serve", "WorkerService._run"])
async def test_a_service_whose_task_is_cancelled_by_others_ends_its_run_with_an_error(
    kind: str,
) -> None:
    address = f"memory://{kind}"
    service = (
        Coordinator(db=address)
        if kind == "Coordinator._serve"
        else Worker(db=address, handlers=[work])
    )
    with anyio.fail_after(20):
        running = asyncio.create_task(service.run())
        while not tasks_of(kind):
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        (serving,) = tasks_of(kind)
        serving.cancel()
        with pytest.raises(RuntimeError, match="cancelled by other code"):
            await running


PROGRAM = """
import asyncio, logging, sys, threading, time
from flowkit.cli import run_process

class CancelsTheCoordinator(logging.Handler):
    def emit(self, record):
        if getattr(record, "action", None) == "coordinator_ready":
            asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)

threading.Thread(target=time.sleep, args=(3600,)).start()
logging.getLogger("flowkit.coordinator").addHandler(CancelsTheCoordinator())
sys.argv[1:] = ["coordinator", "--db", "memory://ends"]
run_process()
"""


def test_a_program_that_calls_the_command_line_goes_on_after_it() -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert "flowkit end" not in [thread.name for thread in threading.enumerate()]


def test_the_process_of_a_broken_service_ends_with_an_error_status_while_threads_run() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "cancelled by other code" in done.stderr


async def test_an_error_whose_text_is_long_is_logged_in_part(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Talkative:
        def flowkit_node_changed(self, task: Any, before: Any, after: Any) -> None:
            raise ValueError("long " * 1_000_000)

    async with Cluster(handlers=[work], plugins=[Talkative()]) as cluster:
        assert (await cluster.run(TWO)).status == "finished"
    records = [record for record in caplog.records if record.getMessage().startswith("Plugin")]
    assert records
    for record in records:
        shown = logging.Formatter().format(record)
        assert "flowkit_node_changed failed: ValueError: long" in shown
        assert "characters are left out" in shown
        assert len(shown) < 2 * MOST_OF_A_TRACEBACK


VARIABLE: ContextVar[str] = ContextVar("variable", default="as it was")


async def test_what_foreign_code_sets_in_its_context_is_not_seen_by_other_foreign_code() -> None:
    seen = []

    def remember() -> None:
        seen.append(VARIABLE.get())
        VARIABLE.set("changed")

    async def function(ctx: Any) -> None:
        remember()

    class Plugin:
        def flowkit_node_changed(self, task: Any, before: Any, after: Any) -> None:
            remember()

        def flowkit_before_submit(self, task: Any) -> None:
            remember()

        def flowkit_register_functions(self, register: Any) -> None:
            register("function", function)
            register("thread", lambda ctx: remember())

    async with Cluster(handlers=[work], plugins=[Plugin()]) as cluster:
        nodes = [
            {"node_id": "a", "type": "work"},
            {
                "node_id": "b",
                "type": "coordinator_fn",
                "io": {"fn": "function"},
                "depends_on": ["a"],
            },
            {"node_id": "c", "type": "coordinator_fn", "io": {"fn": "thread"}, "depends_on": ["b"]},
        ]
        for _ in range(2):
            assert (await cluster.run({"nodes": nodes})).status == "finished"
    assert len(seen) > 10
    assert set(seen) == {"as it was"}


@pytest.mark.parametrize("status", [0, 3])
async def test_a_task_that_an_observer_starts_cannot_end_the_process(status: int) -> None:
    class Observer:
        def __init__(self) -> None:
            self.started: list[asyncio.Task[None]] = []

        def flowkit_node_changed(self, task: Any, before: Any, after: Any) -> None:
            self.started.append(asyncio.get_running_loop().create_task(leave()))

    async def leave() -> None:
        sys.exit(status)

    observer = Observer()
    async with Cluster(handlers=[work], plugins=[observer]) as cluster:
        for _ in range(2):
            assert (await cluster.run(TWO)).status == "finished"
    ends = await asyncio.gather(*observer.started, return_exceptions=True)
    assert {str(end) for end in ends} == {f"SystemExit: {status}"}


EXITS = """
import asyncio, logging, sys
from flowkit import Coordinator

logging.basicConfig(format="%(message)s", stream=sys.stdout)

class Observer:
    def flowkit_task_changed(self, before, after):
        loop = asyncio.get_running_loop()
        {what}

async def main():
    coordinator = Coordinator(db="memory://exits", plugins=[Observer()])
    running = asyncio.create_task(coordinator.run())
    while True:
        await asyncio.sleep(0.01)
        try:
            await coordinator.list_tasks()
            break
        except Exception as error:
            assert "start" in str(error), error
    await asyncio.sleep(0.01)  # the start has ended
    node = {{"node_id": "a", "type": "coordinator_fn", "io": {{"fn": "noop"}}}}
    await coordinator.create_task(graph={{"nodes": [node]}})
    {then}

with asyncio.Runner(loop_factory={loop}) as runner:
    runner.run(main())
"""
SERVICE_LOOP = "__import__('flowkit._runtime.service_loop', fromlist='*').ServiceLoop"
"""The event loop of the services of the command line, where uvloop is installed."""
ENDED = "The event loop is ended by SystemExit(0) of a handler, function or plugin"
TWO_INTERRUPTS = (
    "await asyncio.wait([running]); import signal; asyncio.get_running_loop().call_soon(lambda:"
    " [signal.raise_signal(signal.SIGINT) for _ in range(2)]); await asyncio.sleep(60)"
)
CANCELLED = "ends: other code has cancelled the tasks of its event loop"


@pytest.mark.parametrize(
    ("what", "then", "status", "line"),
    [
        ("before or loop.call_soon(sys.exit, 0)", "await running", 1, ENDED),
        (
            "before or loop.call_later(0.01, sys.exit)",
            "await running",
            1,
            ENDED.replace("(0)", "()"),
        ),
        ("[task.cancel() for task in asyncio.all_tasks()]", "await running", 1, CANCELLED),
        ("pass", "running.cancel(); sys.exit(0)", 0, None),
        ("pass", f"running.cancel(); {TWO_INTERRUPTS}", -signal.SIGINT, None),
    ],
    ids=[
        "an exit",
        "a late exit",
        "a cancellation of all tasks",
        "the program's own exit",
        "two interrupts",
    ],
)
@pytest.mark.parametrize(
    "loop",
    [
        pytest.param("None", id="asyncio"),
        pytest.param(
            SERVICE_LOOP,
            id="uvloop",
            marks=pytest.mark.skipif(not find_spec("uvloop"), reason="uvloop is not installed"),
        ),
    ],
)
def test_foreign_code_that_ends_the_event_loop_is_logged_and_the_status_is_not_0(
    what: str, then: str, status: int, line: str | None, loop: str
) -> None:
    code = EXITS.format(what=what, then=then, loop=loop)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stderr
    assert (line or "") in done.stdout
    assert line is not None or "event loop" not in done.stdout
