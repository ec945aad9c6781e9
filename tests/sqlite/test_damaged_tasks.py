"""Coordinators set damaged tasks aside and go on with the others."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowkit import Client, Coordinator, CoordinatorConfig, WorkerConfig
from flowkit._records.letter_records import read_letters
from flowkit.errors import CorruptRecord
from flowkit.worker import RunContext, Worker, handler
from flowkit_sqlite import SqliteStore
from flowkit_testing import InMemoryBus
from tests.builders import chain
from tests.conformance.sqlite_openers import open_store
from tests.sqlite.damage import Case, cases, damage, unchecked

pytestmark = pytest.mark.anyio

CANARIES = ["canary-0", "canary-1"]
EVERY = 4
"""One damaged task for this many cases. They include each column and each value."""
CONFIG = CoordinatorConfig(scheduler_tick_sec=0.2, command_check_sec=0.2, lease_ttl_sec=600.0)
PATIENCE_SEC = 60.0


class Installation:
    """A coordinator and a worker, whose nodes run until the gate is opened."""

    def __init__(self, store: SqliteStore, path: Path) -> None:
        self.store, self.path, self.bus = store, path, InMemoryBus()
        self.client = Client(bus=self.bus, store=store, cfg=CONFIG)
        self.victims = dict(list(cases("tasks", "parts", but=("task_id", "name")).items())[::EVERY])
        self.gate = anyio.Event()
        self.running: set[str] = set()

    def members(self) -> tuple[Coordinator, Worker]:
        @handler("hold")
        async def hold(item: Any, ctx: RunContext) -> None:
            self.running.add(ctx.task_id)
            await self.gate.wait()

        worker = Worker(
            bus=self.bus, store=self.store, cfg=WorkerConfig(max_concurrency=200), handlers=[hold]
        )
        return Coordinator(bus=self.bus, store=self.store, cfg=CONFIG), worker

    async def submit(self) -> None:
        for name in [*self.victims, *CANARIES]:
            await self.client.create_task(
                graph=chain("hold", "hold"),
                task_id=name,
                idempotency_key=name,
                labels={"team": "a"},
                deadline_sec=3600.0,
            )

    def damage(self) -> None:
        with unchecked(self.path) as connection:
            for name, case in self.victims.items():
                damage(connection, case, *_rows_of(name, case))

    async def end(self) -> None:
        """Check that the canaries finish, and that each victim finishes or is set aside."""
        self.gate.set()
        with anyio.fail_after(PATIENCE_SEC):
            for name in CANARIES:
                assert (await self.client.wait(name)).status == "finished"
            for name in self.victims:
                while not await self._is_settled(name):
                    await anyio.sleep(0.05)

    async def _is_settled(self, name: str) -> bool:
        if await read_letters(self.store, task_id=name, kind="task"):
            return True
        try:
            return (await self.client.get_task(name)).status == "finished"
        except CorruptRecord:
            # A task with a damaged wake-up time or status may be in no query. The search shows it.
            found = await self.store.damaged_records(limit=10_000)
            return name in {record.task_id for record in found}


def _rows_of(name: str, case: Case) -> tuple[str, str]:
    if case.table == "tasks":
        return "task_id = ?", name
    return "name = 'state' AND task = (SELECT id FROM tasks WHERE task_id = ?)", name


@pytest.fixture
async def installation(anyio_backend: str, path: Path) -> AsyncIterator[Installation]:
    async with open_store(f"sqlite:///{path}") as store:
        installation = Installation(store, path)
        async with installation.bus, installation.client:
            yield installation


async def test_damaged_tasks_that_a_coordinator_meets_first_stop_no_other(
    installation: Installation,
) -> None:
    await installation.submit()
    installation.damage()
    coordinator, worker = installation.members()
    async with coordinator, worker:
        await installation.end()


async def test_tasks_that_are_damaged_while_a_coordinator_holds_them_stop_no_other(
    installation: Installation,
) -> None:
    await installation.submit()
    coordinator, worker = installation.members()
    async with coordinator, worker:
        with anyio.fail_after(PATIENCE_SEC):
            while len(installation.running) < len(installation.victims) + len(CANARIES):
                await anyio.sleep(0.02)
        installation.damage()
        await installation.end()


async def test_damage_that_a_coordinator_replaces_ends_a_wait_and_not_the_task(
    installation: Installation,
) -> None:
    client = installation.client
    await client.create_task(graph=chain("hold", "hold"), task_id="t")
    coordinator, worker = installation.members()
    async with coordinator, worker:
        with anyio.fail_after(PATIENCE_SEC):
            while "t" not in installation.running:
                await anyio.sleep(0.02)
        with unchecked(installation.path) as connection:
            connection.execute("UPDATE parts SET data = CAST('{' AS BLOB) WHERE name = 'state'")
        with pytest.raises(CorruptRecord, match="task 't' cannot be read"):
            await client.wait("t", PATIENCE_SEC)
        installation.gate.set()
        with anyio.fail_after(PATIENCE_SEC):
            while (await client.list_tasks(status="finished")).items == []:
                await anyio.sleep(0.02)
        assert (await client.wait("t")).status == "finished"
