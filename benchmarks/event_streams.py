"""Many clients that follow the events of running tasks, on a real ``flowkit web`` and SQLite.

    python -m benchmarks.event_streams                 200 clients for ten minutes
    python -m benchmarks.event_streams --minutes 3     for a shorter time

The server is a process of its own. Coordinator, worker and clients are in this one. Each client
follows a task to its end, and then the next one. It prints a JSON object for each half minute:
``resident_mb`` is the memory of the server, ``processor`` the share of a core that it uses,
``open_files`` its files and connections, and ``late_ms`` the time from the commit of a change of a
node until a client has received it: median, 99 %, most. All share the machine.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
from asyncio import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import anyio

from benchmarks.embedded import say
from benchmarks.processes import open_files, processor_seconds, resident_mb
from flowkit import Coordinator, CoordinatorConfig, NodeView, TaskView, WorkerConfig
from flowkit.worker import Worker, handler

LANES = 10
"""Tasks that run at the same time."""
LENGTH = 20
NODE_SEC = 0.5
WINDOW_SEC = 30


@handler("short")
async def short(item: Any) -> None:
    await anyio.sleep(NODE_SEC)


class Commits:
    """Plugin that notes when a change of a node was stored."""

    def __init__(self) -> None:
        self.at: dict[tuple[str, str, str], float] = {}

    def flowkit_node_changed(self, task: TaskView, before: NodeView, after: NodeView) -> None:
        self.at[task.id, after.node_id, after.status.value] = monotonic()


class Lane:
    """One task after the other, of which all clients of the lane follow the current one."""

    def __init__(self, coordinator: Coordinator, number: int) -> None:
        self._coordinator = coordinator
        self._number = number
        self.current: str | None = None
        self.has_next = anyio.Event()

    async def run(self) -> None:
        nodes = [
            {"node_id": f"n{i}", "type": "short", "depends_on": [f"n{i - 1}"] if i else []}
            for i in range(LENGTH)
        ]
        for number in range(sys.maxsize):
            task_id = f"{self._number}-{number}"
            await self._coordinator.create_task(graph={"nodes": nodes}, task_id=task_id)
            self.current, has_next, self.has_next = task_id, self.has_next, anyio.Event()
            has_next.set()
            await self._coordinator.wait(task_id)


class Follower:
    """Client that follows the tasks of a lane."""

    def __init__(self, port: int, lane: Lane, commits: Commits, late_sec: list[float]) -> None:
        self._port = port
        self._lane = lane
        self._commits = commits
        self._late_sec = late_sec

    async def run(self) -> None:
        seen = None
        while True:
            while (task_id := self._lane.current) is None or task_id == seen:
                await self._lane.has_next.wait()
            await self._follow(task_id)
            seen = task_id

    async def _follow(self, task_id: str) -> None:
        async with await anyio.connect_tcp("127.0.0.1", self._port) as connection:
            request = f"GET /api/v1/tasks/{task_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
            await connection.send(request.encode())
            rest, since = "", None
            while "event: end" not in rest:
                *lines, rest = (rest + (await connection.receive()).decode()).split("\n\n")
                now = monotonic()
                since = since or now
                for line in lines:
                    if line.rpartition("\n")[2].startswith("event: "):
                        raise RuntimeError(f"the stream ended early: {line}")
                    self._take(line, now, since)
                    if "event: end" in line:
                        return

    def _take(self, line: str, now: float, since: float) -> None:
        """Note how late a change is that was stored after the first part of the stream came."""
        _, found, data = line.partition("data: ")
        if not found or not data.startswith('{"seq"'):
            return
        event = json.loads(data)
        change = event["task_id"], event["node_id"], event["status"]
        if (stored_at := self._commits.at.get(change, 0)) > since:
            self._late_sec.append(now - stored_at)


@asynccontextmanager
async def server(db: str) -> AsyncIterator[tuple[int, int]]:
    """Start ``flowkit web``, and yield its process id and port."""
    command = [sys.executable, "-m", "flowkit.cli", "web", "--db", db, "--port", "0"]
    process = await subprocess.create_subprocess_exec(*command, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        port = None
        while port is None:
            line = (await process.stderr.readline()).decode()
            if not line:
                raise RuntimeError("flowkit web has ended")
            port = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        yield process.pid, int(port[1])
    finally:
        process.terminate()
        await process.wait()


async def report(pid: int, late_sec: list[float], windows: int) -> None:
    spent, at = processor_seconds([pid]), monotonic()
    for number in range(1, windows + 1):
        await anyio.sleep(WINDOW_SEC)
        late = sorted(one * 1_000 for one in late_sec)
        late_sec.clear()
        now_spent, now = processor_seconds([pid]), monotonic()
        say(
            f"{number * WINDOW_SEC} s",
            resident_mb=resident_mb(pid),
            processor=(now_spent - spent) / (now - at),
            open_files=open_files(pid),
            events_a_sec=len(late) / (now - at),
            late_ms=[
                round(one, 1)
                for one in (statistics.median(late), late[len(late) * 99 // 100], late[-1])
            ],
        )
        spent, at = now_spent, now


async def main(clients: int, minutes: float) -> None:
    commits, late_sec = Commits(), list[float]()
    with tempfile.TemporaryDirectory(prefix="flowkit-events-") as folder:
        db = f"sqlite:///{Path(folder).as_posix()}/events.db"
        cfg = CoordinatorConfig(bus=db, worker_types=["short"])
        working = WorkerConfig(bus=db, max_concurrency=LANES)
        async with (
            Coordinator(db=db, cfg=cfg, plugins=[commits]) as coordinator,
            Worker(db=db, cfg=working, handlers=[short]),
            server(db) as (pid, port),
            anyio.create_task_group() as group,
        ):
            say("before the clients", resident_mb=resident_mb(pid))
            lanes = [Lane(coordinator, number) for number in range(LANES)]
            for lane in lanes:
                group.start_soon(lane.run)
            for number in range(clients):
                lane = lanes[number % LANES]
                group.start_soon(Follower(port, lane, commits, late_sec).run)
            await report(pid, late_sec, max(1, round(minutes * 60 / WINDOW_SEC)))
            group.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=10)
    arguments = parser.parse_args()
    anyio.run(main, arguments.clients, arguments.minutes)
