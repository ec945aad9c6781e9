"""Processes that are killed while they publish and receive."""

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from flowkit import CoordinatorConfig
from flowkit.protocols import TopicSpec
from flowkit_sqlite import SqliteBus

pytestmark = pytest.mark.anyio
KILLS = int(os.environ.get("FLOWKIT_TEST_SQLITE_KILLS", "4"))
"""Processes that are killed, half of them publishers."""
PATIENCE_SEC = 60


async def run_and_kill(*arguments: object, lines: int) -> list[str]:
    """Start a process, kill it after some lines, and return the whole lines that it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.sqlite.other_process",
        *map(str, arguments),
        stdout=subprocess.PIPE,
    )
    try:
        printed = [await process.stdout.readline() for _ in range(lines)]
    finally:
        process.kill()
    rest = (await process.stdout.read()).split(b"\n")[:-1]
    await process.wait()
    assert process.returncode == -9
    return [line.decode().strip() for line in [*printed, *rest]]


async def test_killed_publishers_and_members_lose_no_confirmed_message(path):
    chance = random.Random(4)
    confirmed, received = set(), set()
    config = CoordinatorConfig(options={"sqlite": {"lease_sec": 1}})
    async with SqliteBus(f"sqlite:///{path}", config) as bus:
        await bus.ensure_topics([TopicSpec("t")])
        for number in range(KILLS // 2):
            async with asyncio.timeout(PATIENCE_SEC), asyncio.TaskGroup() as tasks:
                publisher = tasks.create_task(
                    run_and_kill("publish", path, number, lines=chance.randrange(20, 300))
                )
                member = tasks.create_task(
                    run_and_kill("consume", path, lines=chance.randrange(1, 20))
                )
            confirmed |= set(publisher.result())
            received |= set(member.result())
            with closing(sqlite3.connect(path)) as db:
                assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        async with bus.subscribe(["t"], group="g") as subscription, asyncio.timeout(PATIENCE_SEC):
            while not confirmed <= received:
                got = await subscription.receive(max_messages=100)
                received |= {each.message.value.decode() for each in got}
                await subscription.ack(got)
    assert len(confirmed) >= 20 * (KILLS // 2)
