"""An attempt is executed once: it starts only after its claim is stored."""

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from flowkit import WorkerConfig
from flowkit._records.claims import Claim, claim_record
from flowkit.errors import StoreUnavailable
from flowkit.messages import NodeStarted, RunNode
from flowkit.protocols import ArtifactRecord
from flowkit.worker import Worker
from flowkit_testing._artifacts import InMemoryArtifactStore
from tests.worker.bench import Bench


class Calls:
    """A handler that counts its calls."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    async def __call__(self, item: Any) -> Any:
        self.items.append(item)
        return item


class Gated(InMemoryArtifactStore):
    """A store that writes claims when its gate opens; ``puts`` has the size of each write."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived, self.open = anyio.Event(), anyio.Event()
        self.puts: list[int] = []

    async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
        self.puts.append(len(records))
        self.arrived.set()
        await self.open.wait()
        return await super().put(records)


def another(bench: Bench, handler: Any, **cfg: Any) -> Worker:
    return Worker(
        bus=bench.bus,
        store=bench.store,
        clock=bench.clock,
        handlers={"work": handler},
        cfg=WorkerConfig(worker_id="another", **cfg),
    )


async def claimed(bench: Bench, command: RunNode, owner: str) -> None:
    await bench.store.artifacts.put(
        [claim_record(command.task_id, command.node_id, command.token, Claim(owner, 5.0, "mark"))]
    )


async def test_no_user_code_runs_before_the_claim_is_stored(bench: Bench) -> None:
    store = bench.store.artifacts = Gated()
    calls = Calls()
    async with bench.worker({"work": calls}):
        command = await bench.send("x")
        await store.arrived.wait()
        await bench.clock.sleep(60)
        assert (calls.items, bench.reports) == ([], [])
        store.open.set()
        assert (await bench.end(command)).kind == "node_succeeded"
    assert calls.items == ["x"]


async def test_a_second_worker_does_not_run_what_the_first_claimed_and_reports_the_first(
    bench: Bench,
) -> None:
    calls = Calls()
    command = await bench.send("x", task_id="t", token="token")
    await claimed(bench, command, "killed")
    async with another(bench, calls):
        assert (await bench.run("y")).kind == "node_succeeded"
        assert calls.items == ["y"]
        await bench.started(command)
    assert bench.of(command) == [
        NodeStarted(task_id="t", index=0, attempt=1, token="token", worker_id="killed", at=5.0),
    ]


async def test_each_copy_of_a_command_that_another_worker_claimed_is_answered(bench: Bench) -> None:
    calls = Calls()
    command = await bench.send("x")
    await claimed(bench, command, "killed")
    async with bench.worker({"work": calls}):
        await bench.started(command)
        await bench.publish(command)
        await bench.until(lambda: bench.kinds(command) == ["node_started"] * 2)
    assert calls.items == []


async def test_a_command_that_reaches_two_workers_at_once_runs_on_one_of_them(bench: Bench) -> None:
    store = bench.store.artifacts = Gated()
    calls = Calls()
    async with bench.worker({"work": calls}), another(bench, calls):
        commands = [await bench.send(number) for number in range(20)]
        for command in commands:
            await bench.publish(command.model_copy(update={"task_id": command.task_id}))
        await bench.clock.sleep(1)
        store.open.set()
        for command in commands:
            await bench.end(command)
    assert sorted(calls.items) == list(range(20))


async def test_a_claim_that_was_not_confirmed_is_found_to_be_the_worker_s_own(bench: Bench) -> None:
    class Unconfirmed(InMemoryArtifactStore):
        fails = True

        async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
            answer = await super().put(records)
            if self.fails:
                self.fails = False
                raise StoreUnavailable("not confirmed")
            return answer

    bench.store.artifacts = Unconfirmed()
    calls = Calls()
    async with bench.worker({"work": calls}):
        assert (await bench.run("x")).kind == "node_succeeded"
    assert calls.items == ["x"]


async def test_claims_that_wait_for_the_store_are_written_together(bench: Bench) -> None:
    store = bench.store.artifacts = Gated()
    async with bench.worker({"work": Calls()}, max_concurrency=50):
        commands = [await bench.send(number) for number in range(50)]
        await store.arrived.wait()
        await bench.clock.sleep(1)
        store.open.set()
        for command in commands:
            await bench.end(command)
    assert len(store.puts) <= 3
    assert sum(store.puts) == 50


async def test_commands_that_arrive_together_are_claimed_in_one_write(bench: Bench) -> None:
    store = bench.store.artifacts = Gated()
    store.open.set()
    commands = [await bench.send(number) for number in range(30)]
    async with bench.worker({"work": Calls()}, max_concurrency=30):
        for command in commands:
            await bench.end(command)
    assert store.puts == [30]


async def test_runs_go_on_while_others_wait_for_their_claims(bench: Bench) -> None:
    store = Gated()
    store.open.set()
    bench.store.artifacts = store
    done = anyio.Event()

    async def work(item: Any) -> Any:
        if item == "first":
            await done.wait()
        return item

    async with bench.worker({"work": work}):
        first = await bench.send("first")
        await bench.started(first)
        store.open, store.arrived = anyio.Event(), anyio.Event()
        second = await bench.send("second")
        await store.arrived.wait()
        done.set()
        assert (await bench.end(first)).result == "first"
        assert bench.reports[-1].task_id == first.task_id
        store.open.set()
        await bench.end(second)


@pytest.mark.parametrize(
    "stored", [False, True], ids=["before its claim is stored", "as its claim is stored"]
)
async def test_a_run_that_is_cancelled_while_it_waits_for_its_claim_runs_no_user_code(
    bench: Bench, stored: bool
) -> None:
    store = bench.store.artifacts = Gated()
    calls = Calls()
    async with bench.worker({"work": calls}, cancel_grace_sec=5):
        command = await bench.send("x")
        await store.arrived.wait()
        await bench.cancel(command)
        await bench.clock.sleep(1 if stored else 10)
        store.open.set()
        assert (await bench.end(command)).kind == "node_stopped"
    assert calls.items == []


async def test_what_a_stopping_worker_did_not_claim_yet_runs_elsewhere_at_once(
    bench: Bench,
) -> None:
    store = bench.store.artifacts = Gated()
    calls = Calls()
    worker = bench.worker({"work": calls}, cancel_grace_sec=1)
    await worker.start()
    command = await bench.send("x")
    await store.arrived.wait()
    await worker.stop(0)
    assert (calls.items, bench.of(command)) == ([], [])
    store.open.set()
    async with another(bench, calls):
        assert (await bench.end(command)).kind == "node_succeeded"
    assert calls.items == ["x"]
