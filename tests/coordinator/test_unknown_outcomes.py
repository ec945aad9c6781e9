"""A store or bus without answers costs time, but no data, and no action happens twice."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from flowkit import Coordinator, CoordinatorConfig
from flowkit._records.letter_records import read_letters
from flowkit.errors import BusUnavailable, StoreUnavailable
from flowkit.messages import NodeSucceeded, TaskTouched, encode
from flowkit.protocols import Commit, Message, Place, TaskRecord
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster, InMemoryBus, InMemoryStore
from tests.builders import DAY

DIAMOND = {
    "nodes": [
        {"node_id": "a", "type": "step"},
        {"node_id": "b", "type": "step", "depends_on": ["a"]},
        {"node_id": "c", "type": "step", "depends_on": ["a"]},
        {"node_id": "d", "type": "step", "depends_on": ["b", "c"]},
        {
            "node_id": "count",
            "type": "coordinator_fn",
            "depends_on": ["d"],
            "io": {"fn": "vars.incr", "fn_args": {"key": "n"}},
        },
    ]
}


class Executions:
    """Handlers that count the runs of each node."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.handlers = [self.step()]

    def step(self) -> Any:
        @handler("step")
        async def step(item: Any, ctx: RunContext) -> None:
            key = f"{ctx.task_id}.{ctx.node_id}"
            self.counts[key] = self.counts.get(key, 0) + 1

        return step


class UnsureStore(InMemoryStore):
    """A store that now and then applies a commit or not, and raises StoreUnavailable either way."""

    def __init__(self, *, every: int, applied: bool) -> None:
        super().__init__()
        self._every, self._applied = every, applied
        self._calls = 0
        self.failures = 0

    async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
        self._calls += 1
        if self._calls % self._every:
            return await super().commit(commits)
        self.failures += 1
        if self._applied:
            await super().commit(commits)
        raise StoreUnavailable("no answer")


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "not applied"])
@pytest.mark.parametrize("every", [2, 3, 5])
async def test_commits_of_unknown_outcome_are_settled(every: int, applied: bool) -> None:
    executions = Executions()
    store = UnsureStore(every=every, applied=applied)
    async with Cluster(store=store, handlers=executions.handlers) as cluster:
        views = []
        for _ in range(4):
            ids = [await cluster.client.create_task(graph=DIAMOND) for _ in range(5)]
            views += [await cluster.client.wait(task_id, timeout=DAY) for task_id in ids]
    # Each of the four rounds needs four commits at least, however many tasks share them.
    assert store.failures >= 3
    assert {str(view.status) for view in views} == {"finished"}
    assert [view.vars for view in views] == [{"n": 1}] * 20
    # The decision is known to be stored, so it is carried out at once and not found by the sweep.
    assert (
        max(
            (view.finished_at - view.created_at).total_seconds()
            for view in views
            if view.finished_at
        )
        < 5
    )
    assert set(executions.counts.values()) == {1}


class ForgetfulCreate(InMemoryStore):
    """A store that stores a task, and raises StoreUnavailable the first time."""

    def __init__(self) -> None:
        super().__init__()
        self._told = False

    async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
        stored = await super().create(records)
        if not self._told:
            self._told = True
            raise StoreUnavailable("no answer")
        return stored


async def test_a_submission_whose_outcome_is_unknown_is_stored_once() -> None:
    async with Cluster(store=ForgetfulCreate(), handlers=Executions().handlers) as cluster:
        task_id = await cluster.client.create_task(graph=DIAMOND)
        assert (await cluster.client.wait(task_id, timeout=DAY)).status == "finished"
        assert len((await cluster.client.list_tasks()).items) == 1


class GoneStore(InMemoryStore):
    async def load(self, task_ids: Any) -> Any:
        raise StoreUnavailable("gone")

    async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
        raise StoreUnavailable("gone")


async def test_a_client_gives_up_on_a_store_that_stays_away(flowkit_clock: Any) -> None:
    from flowkit import Client

    async with (
        InMemoryBus() as bus,
        Client(bus=bus, store=GoneStore(), clock=flowkit_clock) as client,
    ):
        with pytest.raises(StoreUnavailable, match="gone"):
            await client.create_task(graph=DIAMOND)
        with pytest.raises(StoreUnavailable, match="gone"):
            await client.cancel("any")


class ShakyBus(InMemoryBus):
    """A bus that fails every third publish request, after it has sent the messages or not."""

    calls = 0

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        self.calls += 1
        if self.calls % 3:
            return await super().publish(messages)
        if self.calls % 2:
            await super().publish(messages)
        raise BusUnavailable("no answer")


async def test_commands_that_were_not_confirmed_are_sent_again() -> None:
    executions = Executions()
    async with Cluster(bus=ShakyBus(), handlers=executions.handlers) as cluster:
        ids = [await cluster.client.create_task(graph=DIAMOND) for _ in range(10)]
        views = [await cluster.client.wait(task_id, timeout=10 * DAY) for task_id in ids]
    assert {str(view.status) for view in views} == {"finished"}
    # The same worker gets the copies and recognizes them.
    assert set(executions.counts.values()) == {1}


async def test_what_cannot_be_read_is_parked_and_the_rest_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rubbish = [
        b"\xff\x00",
        b"{}",
        b'{"kind":"node_succeeded","v":2,"task_id":"t"}',
        b'{"kind":"cancel_run","v":1}',
    ]
    foreign = encode(
        NodeSucceeded(
            task_id="missing",
            index=0,
            attempt=1,
            token="0" * 24,
            worker_id="w",
            started_at=0.0,
            at=0.0,
        )
    )
    with caplog.at_level(logging.ERROR):
        async with (
            Cluster(handlers=Executions().handlers) as cluster,
            cluster.bus.subscribe(["flowkit.dlq"], group="look") as letters,
        ):
            await cluster.bus.publish(
                [Message("flowkit.events", value, key="k") for value in [*rubbish, foreign]]
            )
            await cluster.bus.publish(
                [Message("flowkit.events", encode(TaskTouched(task_id="missing")), key="k")]
            )
            task_id = await cluster.client.create_task(graph=DIAMOND)
            assert (await cluster.client.wait(task_id, timeout=DAY)).status == "finished"
            parked: list[bytes] = []
            while len(parked) < len(rubbish):
                parked += [one.message.value for one in await letters.receive(max_messages=9)]
    assert sorted(parked) == sorted(rubbish)


async def test_a_task_that_breaks_the_engine_is_quarantined_and_the_others_go_on() -> None:
    async with Cluster(coordinators=0, handlers=Executions().handlers) as cluster:
        broken, whole = [await cluster.client.create_task(graph=DIAMOND) for _ in range(2)]
        # A record that no version of FlowKit wrote.
        row = (await cluster.store.load([broken]))[broken]
        await cluster.store.commit(
            [
                Commit(
                    task_id=broken,
                    expected_version=row.version,
                    op_id="x",
                    status="queued",
                    wake_at=row.header.wake_at,
                    finished_at=None,
                    put={"state": b'{"marks":"?!"}'},
                )
            ]
        )
        await cluster.add_coordinator()
        assert (await cluster.client.wait(whole, timeout=DAY)).status == "finished"
        letters = await read_letters(cluster.store, task_id=broken)
    assert letters
    assert letters[0].kind == "task"
    assert "CorruptRecord" in letters[0].error


async def test_verbs_of_a_coordinator_that_is_not_started_say_so() -> None:
    coordinator = Coordinator(db="memory://", cfg=CoordinatorConfig())
    with pytest.raises(RuntimeError, match="not started"):
        await coordinator.create_task(graph=DIAMOND)
