"""The process that runs undos and ``finally`` is killed, and another one goes on."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowkit import Client, TaskView
from tests.builders import graph, node

pytestmark = pytest.mark.anyio

PATIENCE_SEC = 60.0
PATIENT = {"max": 20, "backoff_sec": 0.1}
UNDO = {"undo": {"type": "work", "retry_policy": PATIENT}}
SAGA = graph(
    node("a", **UNDO),
    node("b", "work", "a", **UNDO),
    node("c", "work", "b", io={"input_inline": "fail"}),
    **{"finally": [node("tidy", retry_policy=PATIENT)]},
)


@contextmanager
def process(path: Path, ledger: Path, hang: str) -> Iterator[None]:
    """Run a coordinator and a worker in a process, and kill it in the end."""
    command = [sys.executable, "-m", "tests.sqlite.saga_process", str(path), str(ledger), hang]
    with subprocess.Popen(command) as running:
        try:
            yield
        finally:
            running.kill()


async def executed(ledger: Path, name: str) -> None:
    with anyio.fail_after(PATIENCE_SEC):
        while name not in ledger.read_text().split():  # noqa: ASYNC240 - a few bytes
            await anyio.sleep(0.02)


MAPPED = graph(
    node("a", **UNDO),
    node("m", "work", "a", map={"over": [1, 2, 3], "max_parallel": 1}, **UNDO),
    node("c", "work", "m", io={"input_inline": "fail"}),
)


@pytest.mark.parametrize(
    ("saga", "hangs", "order"),
    [
        (SAGA, ("b~undo", "tidy"), "a b c b~undo b~undo a~undo tidy tidy"),
        (
            MAPPED,
            ("m[1]~undo", "m[0]~undo"),
            "a m[0] m[1] m[2] c m[2]~undo m[1]~undo m[1]~undo m[0]~undo m[0]~undo a~undo",
        ),
    ],
    ids=["nodes", "map"],
)
async def test_undos_and_finally_go_on_after_a_kill(
    anyio_backend: str,
    path: Path,
    tmp_path: Path,
    saga: dict[str, Any],
    hangs: tuple[str, ...],
    order: str,
) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    address = f"sqlite:///{path}"
    async with Client(db=address, bus=address) as client:
        task_id = await client.create_task(graph=saga)
        for hang in hangs:
            with process(path, ledger, hang):
                await executed(ledger, hang)
                assert (await client.get_task(task_id)).status == "cancelling"
        with process(path, ledger, "nothing"):
            view: TaskView = await client.wait(task_id, timeout=PATIENCE_SEC)
    assert view.status == "failed"
    assert {one.status for one in view.nodes.values() if one.phase != "main"} == {"finished"}
    assert ledger.read_text().split() == order.split()
