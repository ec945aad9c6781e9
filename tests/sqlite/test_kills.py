"""Processes on one file are killed while tasks run: nothing is lost or recorded twice.

``FLOWKIT_TEST_SQLITE_KILLS`` sets the number of kills, ``FLOWKIT_TEST_SQLITE_SEED`` repeats the
moments and victims of a seed.
"""

import os
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from flowkit import Client
from flowkit.config import CommonConfig
from flowkit.task import TaskView
from tests.chaos.checker import check, describe
from tests.chaos.clients import CLIENTS
from tests.chaos.evidence import Evidence, gather
from tests.chaos.ledger import read_ledgers
from tests.sqlite.members import Members

KILLS = int(os.environ.get("FLOWKIT_TEST_SQLITE_KILLS", 20))
SEED = int(os.environ.get("FLOWKIT_TEST_SQLITE_SEED", random.randrange(2**32)))
PAUSE_SEC = (0.05, 0.4)
NODES_PER_SEC = 40.0
PATIENCE_SEC = 60.0

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the members are forked"),
    pytest.mark.timeout(2 * KILLS + 240),
]


def wait_for_line(members: Members, what: str, pid: int | None = None) -> None:
    """Return when a client has written such a line to its ledger."""
    until = time.monotonic() + PATIENCE_SEC
    while not any(
        line["what"] == what and pid in (None, line["pid"])
        for line in read_ledgers(members.ledgers, CLIENTS)
    ):
        assert time.monotonic() < until, f"no client noted {what!r}\n{members.logged()[-5000:]}"
        time.sleep(0.05)


def check_integrity(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def evidence_of(members: Members) -> Evidence:
    async with Client(cfg=CommonConfig(**members.common)) as client:
        return await gather(client, members.ledgers)


def test_nothing_is_lost_or_recorded_twice_when_processes_are_killed(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    with Members(tmp_path, seed=SEED, nodes_per_sec=NODES_PER_SEC) as members:
        kinds = ["coordinator", "worker", "worker", "client"]
        pids = [members.start(kind) for kind in kinds]
        wait_for_line(members, "outcome")
        for _ in range(KILLS):
            time.sleep(chance.uniform(*PAUSE_SEC))
            victim = chance.randrange(len(pids))
            members.kill(pids[victim])
            check_integrity(members.path)
            pids[victim] = members.start(kinds[victim])
        client = pids.pop()
        wait_for_line(members, "listening", client)
        assert members.end(client) == 0, members.logged()[-5000:]
        for pid in pids:
            members.kill(pid)
        check_integrity(members.path)
        evidence = anyio.run(evidence_of, members)
    found = [describe(violation, evidence, []) for violation in check(evidence)]
    assert not found, "\n".join([f"seed {SEED}", *found[:5]])
    assert any(stored.view.status == "finished" for stored in evidence.stored)


SUBFLOW_KILLS = 8
SUBFLOWS = 12


def nested(levels: int) -> dict[str, object]:
    """Return a graph of a node and, below it, a sub-flow with such a graph, and so on."""
    item = {"seconds": 0.05, "value": 1}
    nodes: list[dict[str, object]] = [
        {"node_id": "x", "type": "work", "io": {"input_inline": item}, "retry_policy": {"max": 60}}
    ]
    if levels:
        nodes.append(
            {
                "node_id": "s",
                "type": "subflow",
                "depends_on": ["x"],
                "io": {"graph": nested(levels - 1)},
            }
        )
    return {"nodes": nodes}


def looped() -> dict[str, object]:
    """Return a graph with a loop of three rounds, the second of which begins after a pause."""
    io = {"graph": nested(0), "until": "iteration == 2", "delay_sec": "${0.2 * iteration}"}
    return {"nodes": [{"node_id": "s", "type": "loop", "io": io}]}


async def run_tasks(members: Members, graph: dict[str, object]) -> list[TaskView]:
    """Submit tasks while coordinators and workers are killed; return all tasks."""
    chance = random.Random(SEED)
    kinds = ["coordinator", "worker", "coordinator"]
    pids = [members.start(kind) for kind in kinds]
    tasks = list[str]()
    async with Client(cfg=CommonConfig(**members.common)) as client:
        for number in range(SUBFLOWS):
            tasks.append(await client.create_task(graph=graph, task_id=f"t{number}"))
        for _ in range(SUBFLOW_KILLS):
            await anyio.sleep(chance.uniform(*PAUSE_SEC))
            victim = chance.randrange(len(pids))
            members.kill(pids[victim])
            pids[victim] = members.start(kinds[victim])
        for task_id in tasks:
            await client.wait(task_id, timeout=PATIENCE_SEC)
        return (await client.list_tasks(limit=1_000)).items


@pytest.mark.parametrize(("graph", "tasks"), [(nested(2), 3), (looped(), 4)])
def test_each_child_task_exists_once_and_its_end_reaches_the_parent(
    tmp_path: Path, graph: dict[str, object], tasks: int
) -> None:
    with Members(tmp_path, seed=SEED, nodes_per_sec=NODES_PER_SEC) as members:
        views = {view.id: view for view in anyio.run(run_tasks, members, graph)}
        check_integrity(members.path)
    assert {view.status for view in views.values()} == {"finished"}, f"seed {SEED}"
    assert len(views) == tasks * SUBFLOWS, f"seed {SEED}"
    for view in views.values():
        if (node := view.nodes.get("s")) is not None:
            child = views[str(node.child_task_id)]
            assert (child.parent, child.result) == (view.id, node.result)
