"""Tasks, flows and schedules move from a file to MongoDB and back."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from flowkit import Client, Coordinator, CoordinatorConfig, Schedule, WorkerConfig
from flowkit._records.letter_records import park_letters
from flowkit.config import CommonConfig
from flowkit.errors import StoreUnavailable
from flowkit.task import DeadLetter
from flowkit.worker import Worker
from flowkit_testing import InMemoryStore
from tests.cli.installations import FAILING, SKIPPING, STREAM, batches, fail, picky, work
from tests.exports.stores import Failing, add_ended, contents, exported, import_into, opened
from tests.services.support import Installation, events_of, fan
from tests.store_records import NOON, change

pytestmark = pytest.mark.services

WITHIN_SEC = 60


async def test_tasks_look_the_same_in_mongodb_and_back_in_a_file(
    installation: Installation, tmp_path: Path
) -> None:
    first, last = (f"sqlite:///{tmp_path / name}" for name in ("first.db", "last.db"))
    async with (
        Coordinator(cfg=CoordinatorConfig(db=first)) as coordinator,
        Worker(cfg=WorkerConfig(db=first), handlers=[work, fail, batches, picky]),
    ):
        ids = [
            await coordinator.create_task(graph=flow, labels={"a.b": "$c"}, pipeline="p")
            for flow in (FAILING, STREAM, SKIPPING, fan(260))
        ]
        with anyio.fail_after(WITHIN_SEC):
            for task_id in ids:
                await coordinator.wait(task_id)
    async with opened(first) as source, opened(installation.db, installation.config) as target:
        await add_ended(source, "t/$1", idempotency_key="k")
        await add_definitions(first)
        await park_letters(
            source, [DeadLetter("message-l", NOON, "message", "bad", "no", topic="x", key="\udcff")]
        )
        expected = await contents(source)
        for skipped in (0, 9):
            done, reports = await import_into(target, await exported(source))
            assert (done.skipped, reports) == (skipped, [])
        assert await contents(target) == expected
        async with opened(last) as back:
            await import_into(back, await exported(target))
            assert await contents(back) == expected
    assert await shown(CommonConfig(db=first), ids) == await shown(installation.config, ids)


async def add_definitions(db: str) -> None:
    """Register a flow with three versions, and put a schedule of it."""
    async with Client(db=db) as client:
        for flow in (FAILING, STREAM, FAILING):
            await client.put_flow("$f@1", flow)
        await client.put_schedule(Schedule("s.$1", flow="$f@1", every_sec=3600, paused=True))


async def shown(cfg: CommonConfig, ids: list[str]) -> list[Any]:
    """Return what users see of tasks."""
    async with Client(cfg=cfg) as client:
        return [
            (
                await client.get_task(task_id),
                await events_of(client, task_id),
                [artifact async for artifact in client.artifacts(task_id)],
                await client.dead_letters(task_id=task_id),
            )
            for task_id in ids
        ] + [await client.get_flow("$f@1", 2), await client.get_schedule("s.$1")]


async def test_an_interrupted_import_into_mongodb_is_completed_or_replaced(
    installation: Installation,
) -> None:
    source = InMemoryStore()
    await add_ended(source, "t1", archived=5)
    async with opened(installation.db, installation.config) as target:
        for calls in range(1, 5):
            with pytest.raises(StoreUnavailable):
                await import_into(Failing(target, calls), await exported(source))
            if calls == 3:
                await source.commit(
                    [change("t1", 2, op_id="later", status="failed", finished_at=NOON + 99)]
                )
        await import_into(target, await exported(source))
        assert await contents(target) == await contents(source)
