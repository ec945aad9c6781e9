"""Worker processes end on signals under any handler, and their child processes are normal ones."""

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio.from_thread
import pytest

from flowkit._runtime.process_exit import FINAL_LOG_SEC
from flowkit._runtime.signal_watchdog import ANSWER_SEC, LINGER_SEC
from flowkit._runtime.signals import RETURN_SEC
from flowkit._user_code.child_processes import child_processes
from flowkit.coordinator._coordinator import STOP_SEC
from flowkit.worker import RunContext
from flowkit_testing import InMemoryStore, ManualClock
from tests.worker.bench import Bench, FailingBus, open_bench

PATIENCE_SEC = 60.0
LONG = "stop_grace_sec=3600, cancel_grace_sec=3600"
SHORT = "stop_grace_sec=0.2, cancel_grace_sec=0.2"

PROGRAM = """
import asyncio, ctypes, logging, multiprocessing, sys, threading, time
from concurrent.futures import ProcessPoolExecutor
from flowkit import Coordinator
from flowkit.config import WorkerConfig
from flowkit.worker import Worker, handler

logging.basicConfig(format="%(message)s", stream=sys.stdout)

{handler}

async def main():
    async with Coordinator(db="memory://ending") as coordinator:
        node = {{"node_id": "a", "type": "work", "retry_policy": {{"max": 0}}}}
        await coordinator.create_task(graph={{"nodes": [node]}})
        await Worker(db="memory://ending", cfg=WorkerConfig({graces}), handlers=[work]).run()

with asyncio.Runner(loop_factory={loop}) as runner:
    runner.run(main())
    print("the worker stopped", flush=True)
"""

ASYNCIO = "None"
UVLOOP = "__import__('uvloop').new_event_loop"
SERVICE_LOOP = "__import__('flowkit._runtime.service_loop', fromlist='*').ServiceLoop"
"""The event loop of the services of the command line, where uvloop is installed. After uvloop's own
has ended, a signal can be missed while the main thread is in native code or waits.
"""
needs_uvloop = pytest.mark.skipif(not find_spec("uvloop"), reason="uvloop is not installed")
on_each_loop = pytest.mark.parametrize(
    "loop",
    [
        pytest.param(ASYNCIO, id="asyncio"),
        pytest.param(SERVICE_LOOP, id="uvloop", marks=needs_uvloop),
    ],
)

BLOCKS_THE_LOOP = """
@handler("work")
async def work(item):
    print("begun", flush=True)
    time.sleep(3600)
"""
IN_NATIVE_CODE = """
@handler("work")
async def work(item):
    native, semaphore = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    native.sem_init(semaphore, 0, 0)
    print("begun", flush=True)
    native.sem_wait(semaphore)
"""
IN_A_THREAD = """
@handler("work")
def work(item):
    print("begun", flush=True)
    time.sleep(3600)
"""


@contextmanager
def running(handler: str, graces: str, *, loop: str = ASYNCIO) -> Iterator["subprocess.Popen[str]"]:
    """Start a process with a worker whose handler has begun."""
    code = PROGRAM.format(handler=textwrap.dedent(handler), graces=graces, loop=loop)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            yield process
        finally:
            process.kill()


def ended(process: "subprocess.Popen[str]", *signals: signal.Signals) -> tuple[int, str]:
    """Send signals. Return the exit status and the output."""
    for number in signals:
        process.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE_SEC)
    return process.returncode, output


@on_each_loop
def test_a_process_whose_event_loop_is_blocked_ends_after_the_graces(loop: str) -> None:
    with running(BLOCKS_THE_LOOP, SHORT, loop=loop) as process:
        status, output = ended(process, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    assert "does not end by itself: it is ended with status 143" in output


HAS_A_CHILD = """
@handler("work")
async def work(item):
    import subprocess
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    print("begun", flush=True)
    print(child.pid, flush=True)
    time.sleep(3600)
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere only children of multiprocessing are known"
)
def test_a_first_signal_is_answered_by_a_blocked_event_loop_and_the_end_names_the_children() -> (
    None
):
    with running(HAS_A_CHILD, LONG) as process:
        assert process.stdout is not None
        child = process.stdout.readline().strip()
        process.send_signal(signal.SIGINT)
        answer = process.stdout.readline()
        assert (
            f"The event loop of process {process.pid} is blocked and has not seen SIGINT" in answer
        )
        assert "the process is ended in 7200 s; a second signal ends it at once" in answer
        status, output = ended(process, signal.SIGINT)
    assert status == 128 + signal.SIGINT
    assert re.search(
        rf"Child processes of process {process.pid} still run: \S+ \({child}\)", output
    )


@pytest.mark.skipif(sys.platform != "linux", reason="calls the C library of Linux")
@on_each_loop
def test_a_second_signal_ends_a_process_whose_main_thread_is_in_native_code(loop: str) -> None:
    with running(IN_NATIVE_CODE, LONG, loop=loop) as process:
        # Two equal signals would count as one if the process had not handled the first yet.
        assert ended(process, signal.SIGTERM, signal.SIGINT)[0] in (
            128 + signal.SIGTERM,
            128 + signal.SIGINT,
        )


def test_a_function_in_a_thread_does_not_keep_a_process_from_ending() -> None:
    with running(IN_A_THREAD, SHORT) as process:
        status, output = ended(process, signal.SIGTERM)
    assert status == 0
    assert "1 functions still run in threads" in output
    assert output.endswith("the worker stopped\n")


IN_AN_EXECUTOR = """
@handler("work")
async def work(item):
    print("begun", flush=True)
    await asyncio.to_thread(time.sleep, 3600)
"""
LEAVES_A_THREAD = """
@handler("work")
async def work(item):
    threading.Thread(target=time.sleep, args=(3600,)).start()
    print("begun", flush=True)
    await asyncio.sleep(3600)
"""
SWALLOWS_CANCELLATIONS = """
@handler("work")
async def work(item):
    print("begun", flush=True)
    while True:
        try:
            await asyncio.sleep(3600)
        except BaseException:
            pass
"""
KEEP_A_PROGRAM = {
    "an executor": IN_AN_EXECUTOR,
    "a thread": LEAVES_A_THREAD,
    "a task": SWALLOWS_CANCELLATIONS,
}


@pytest.mark.parametrize("what", KEEP_A_PROGRAM)
@on_each_loop
def test_a_second_signal_ends_a_program_that_something_keeps_from_ending(
    what: str, loop: str
) -> None:
    with running(KEEP_A_PROGRAM[what], LONG, loop=loop) as process:
        status, output = ended(process, signal.SIGTERM, signal.SIGINT)
    assert status in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert f"it is ended with status {status}" in output


@pytest.mark.parametrize("what", ["an executor", "a thread"])
@on_each_loop
def test_a_second_signal_ends_a_program_whose_run_has_returned_already(
    what: str, loop: str
) -> None:
    graces = "stop_grace_sec=0, cancel_grace_sec=3600"
    with running(KEEP_A_PROGRAM[what], graces, loop=loop) as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "the worker stopped\n"
        status, output = ended(process, signal.SIGINT)
    assert status == 128 + signal.SIGINT
    assert "got SIGINT again: it is ended with status 130" in output


@pytest.mark.parametrize(
    ("what", "loop"),
    [
        pytest.param("an executor", ASYNCIO, id="an executor"),
        pytest.param("a thread", ASYNCIO, id="a thread"),
        pytest.param("an executor", SERVICE_LOOP, id="an executor on uvloop", marks=needs_uvloop),
    ],
)
def test_a_program_that_got_one_signal_is_ended_also_when_its_run_has_returned(
    what: str, loop: str
) -> None:
    with running(KEEP_A_PROGRAM[what], SHORT, loop=loop) as process:
        status, output = ended(process, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    assert output.index("the worker stopped") < output.index(
        "does not end by itself: it is ended with status 143"
    )


CHILDREN = """
def of_process():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode

def of_pool():
    pool = multiprocessing.get_context("fork").Pool(2)
    children = multiprocessing.active_children()
    pool.apply(len, ([],))
    pool.terminate()
    pool.join()
    return all(child.exitcode in (0, -15) for child in children)

def of_executor():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
        return executor.submit(divmod, 7, 2).result()

@handler("work")
def work(item):
    print("begun", flush=True)
    for made in (of_process, of_pool, of_executor):
        print(made.__name__, made(), flush=True)
    print("done", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_children_have_the_signals_of_any_process_and_the_worker_hears_none_of_theirs() -> (
    None
):
    with running(CHILDREN, LONG) as process:
        assert process.stdout is not None
        lines = []
        while (line := process.stdout.readline()) not in ("done\n", ""):
            lines.append(line.strip())
        assert lines == ["of_process -15", "of_pool True", "of_executor (3, 1)"]
        assert process.poll() is None
        status, output = ended(process, signal.SIGTERM)
    assert status == 0
    assert output.endswith("the worker stopped\n")
    assert "Child processes" not in output


async def test_children_that_outlive_their_worker_are_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    children: list[subprocess.Popen[bytes]] = []

    async def work() -> None:
        children.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))  # noqa: ASYNC220 - as handlers do

    try:
        async with bench.worker({"work": work}):
            await bench.run()
            assert children[0].pid in child_processes()
        assert "Child processes of worker w still run" in caplog.text
        assert f"({children[0].pid})" in caplog.text
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert children[0].pid not in child_processes()


async def test_children_are_logged_also_where_a_worker_breaks(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    children: list[subprocess.Popen[bytes]] = []

    async def work() -> None:
        children.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))  # noqa: ASYNC220 - as handlers do

    worker = bench.worker({"work": work})
    try:
        await worker.start()
        await bench.run()
        for task in asyncio.all_tasks():
            if task.get_name() == "flowkit worker w":
                task.cancel()
        await worker.stop()
        assert f"({children[0].pid})" in caplog.text
    finally:
        for child in children:
            child.kill()
            child.communicate()


# ---------------------------------------------------------------- how long it may take


async def test_a_stop_with_long_graces_takes_no_longer_than_the_process_may(
    flowkit_store: InMemoryStore, flowkit_clock: ManualClock
) -> None:
    begun, enough, gate = anyio.Event(), anyio.Event(), threading.Event()

    def in_a_thread() -> None:
        anyio.from_thread.run_sync(begun.set)
        gate.wait()

    async def without_end() -> None:
        while not enough.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await enough.wait()

    graces = {"stop_grace_sec": 50.0, "cancel_grace_sec": 100.0}
    async with FailingBus() as bus, open_bench(bus, flowkit_store, flowkit_clock) as bench:
        worker = bench.worker({"thread": in_a_thread, "work": without_end}, **graces)
        await worker.start()
        try:
            abandoned = await bench.send(role="thread")
            await begun.wait()
            await bench.cancel(abandoned)
            await bench.clock.advance(graces["cancel_grace_sec"] + 1)
            await bench.end(abandoned)
            await bench.started(await bench.send())
            bus.refused = ["flowkit.events"]
            before = bench.clock.monotonic()
            await worker.stop()
            assert bench.clock.monotonic() - before <= sum(graces.values()) + LINGER_SEC
        finally:
            gate.set()
            enough.set()


def test_the_page_on_deployment_says_how_long_a_process_may_take_to_end() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "deploy.md").read_text("utf-8")
    beyond = re.search(
        r"`stop_grace_sec \+ cancel_grace_sec \+ (\d+)` seconds after the first signal \(a"
        r" coordinator (\d+) s",
        page,
    )
    assert beyond is not None
    worker, coordinator = map(int, beyond.groups())
    assert worker >= LINGER_SEC + ANSWER_SEC + RETURN_SEC + FINAL_LOG_SEC
    assert coordinator >= STOP_SEC + LINGER_SEC + ANSWER_SEC + RETURN_SEC + FINAL_LOG_SEC


# ---------------------------------------------------------------- threads


async def test_a_function_in_a_thread_may_call_back_into_the_event_loop(bench: Bench) -> None:
    def work(item: Any, ctx: RunContext) -> Any:
        async def ask() -> str:
            return ctx.node_id

        anyio.from_thread.check_cancelled()
        return [anyio.from_thread.run(ask), anyio.from_thread.run_sync(lambda: ctx.attempt)]

    async with bench.worker({"work": work}):
        assert (await bench.run()).result == ["n", 1]


async def test_a_generator_stays_on_one_thread(bench: Bench) -> None:
    def work() -> Iterator[dict[str, int]]:
        for _ in range(5):
            yield {"thread": threading.get_ident()}

    async with bench.worker({"work": work}):
        command = await bench.send()
        assert (await bench.end(command)).batches == 5
        assert len({record.meta for record in await bench.stored(command)}) == 1


AT_THE_LAST_MOMENT = """
import asyncio, os, signal, sys
from flowkit._runtime.signals import signals_received

async def main():
    sys.setswitchinterval(0.2)  # the watchdog can only run while this thread waits
    with signals_received(lambda number: None, patience_sec=3600, abort_sec=3600):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    with signals_received(lambda number: None, patience_sec=3600):
        print("went on", flush=True)

asyncio.run(main())
"""


def test_the_patience_of_a_service_holds_for_signals_that_come_just_before_it_ends() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", AT_THE_LAST_MOMENT],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SEC,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "went on\n"), ended.stderr


IN_ANOTHER_LOOP = """
import asyncio, os, signal
from flowkit._runtime.signals import signals_received

def descriptor():
    current = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(current, warn_on_full_buffer=False)
    return current

async def first():
    with signals_received(lambda number: None, patience_sec=3600):
        os.kill(os.getpid(), signal.SIGTERM)

async def second():
    of_loop = descriptor()
    with signals_received(lambda number: None, patience_sec=3600):
        assert descriptor() != of_loop
    assert descriptor() == of_loop > 0

for main in (first, second):
    with asyncio.Runner(loop_factory={loop}) as runner:
        runner.run(main())
print("done")
"""

IN_TWO_STEPS = """
import asyncio, os, signal
from flowkit._runtime.signals import signals_received

async def serve(received):
    with signals_received(received.put_nowait, patience_sec=3600):
        await asyncio.sleep(3600)

async def stop():
    os.kill(os.getpid(), signal.SIGTERM)
    print((await received.get()).name)
    serving.cancel()
    await asyncio.wait([serving])

loop, received = {loop}(), asyncio.Queue()
serving = loop.create_task(serve(received))
loop.run_until_complete(asyncio.sleep(0))
pipes = [os.pipe() for _ in range(4)]  # they get the descriptors that the loop has closed
loop.run_until_complete(stop())
loop.close()
for reader, writer in pipes:
    os.close(writer)
    print(os.read(reader, 1))
"""


@needs_uvloop
@pytest.mark.parametrize(
    ("code", "said"),
    [(IN_ANOTHER_LOOP, ["done"]), (IN_TWO_STEPS, ["SIGTERM", *4 * ["b''"]])],
    ids=["another event loop", "an event loop that runs in two steps"],
)
def test_the_descriptors_of_event_loops_are_kept_and_not_used_when_they_are_closed(
    code: str, said: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code.format(loop=UVLOOP)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SEC,
        check=False,
    )
    assert done.stdout.split() == said, done.stderr
