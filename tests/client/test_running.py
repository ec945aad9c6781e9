"""Verbs work only between start and stop, and verbs that read need only the store."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

import anyio
import pytest

from flowkit import Client, Coordinator, NotRunning, TaskRefused
from flowkit._records.letter_records import park_letters
from flowkit.errors import BusUnavailable
from flowkit.protocols import TopicSpec
from flowkit.task import DeadLetter
from flowkit_testing import Cluster, InMemoryBus, InMemoryStore
from tests.builders import DAY, ONE


async def _first(items: Any) -> Any:
    return await anext(items)


VERBS: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "create_task": lambda client: client.create_task(graph=ONE),
    "get_task": lambda client: client.get_task("t"),
    "wait": lambda client: client.wait("t"),
    "watch": lambda client: _first(client.watch("t")),
    "list_tasks": lambda client: client.list_tasks(),
    "artifacts": lambda client: _first(client.artifacts("t")),
    "explain": lambda client: client.explain("t", "a"),
    "cancel": lambda client: client.cancel("t"),
    "pause": lambda client: client.pause("t"),
    "resume": lambda client: client.resume("t"),
    "retry": lambda client: client.retry("t"),
    "dead_letters": lambda client: client.dead_letters(),
    "retry_dead_letters": lambda client: client.retry_dead_letters(["x"]),
    "drop_dead_letters": lambda client: client.drop_dead_letters(["x"]),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
@pytest.mark.parametrize("kind", [Client, Coordinator])
async def test_a_verb_outside_of_start_and_stop_says_so_and_does_nothing(
    verb: Any, kind: type[Client]
) -> None:
    async with InMemoryBus() as bus, InMemoryStore() as store:
        one = kind(bus=bus, store=store)
        with pytest.raises(NotRunning, match=f"the {kind.__name__} is not started"):
            await verb(one)
        await one.start()
        await one.stop()
        with pytest.raises(NotRunning, match=f"the {kind.__name__} is stopped"):
            await verb(one)
        async with kind(bus=bus, store=store) as other:
            assert (await other.list_tasks()).items == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_documented_on_clients_and_coordinators_alike(verb: str) -> None:
    documented = inspect.getdoc(getattr(Client, verb))
    assert documented
    assert documented == inspect.getdoc(getattr(Coordinator, verb))


async def test_a_verb_that_waits_is_refused_once_its_client_is_stopped() -> None:
    refused: list[NotRunning] = []

    async def wait() -> None:
        with pytest.raises(NotRunning, match="the Client is stopped") as raised:
            await client.wait(task_id)
        refused.append(raised.value)

    async with Cluster(coordinators=0, workers=0) as cluster:
        client = Client(bus=cluster.bus, store=cluster.store, clock=cluster.clock)
        async with anyio.create_task_group() as group, client:
            task_id = await client.create_task(graph=ONE)
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
        assert len(refused) == 1


async def test_a_verb_is_refused_while_its_coordinator_still_starts() -> None:
    class Late(InMemoryBus):
        """A bus that tries a verb when the coordinator creates its topics."""

        async def ensure_topics(self, topics: Sequence[TopicSpec]) -> None:
            try:
                await coordinator.create_task(graph=ONE)
            except NotRunning as error:
                refused.append(str(error))
            await super().ensure_topics(topics)

    refused: list[str] = []
    async with Late() as bus, InMemoryStore() as store:
        coordinator = Coordinator(bus=bus, store=store)
        async with coordinator:
            assert set(refused) == {
                "the Coordinator is not started: enter it with 'async with', or await its start()"
            }
            assert await coordinator.create_task(graph=ONE)


async def test_a_coordinator_that_is_started_again_works() -> None:
    async with InMemoryBus() as bus, InMemoryStore() as store:
        coordinator = Coordinator(bus=bus, store=store)
        for _ in range(2):
            async with coordinator:
                assert await coordinator.create_task(graph=ONE)
        async with coordinator:
            assert len((await coordinator.list_tasks()).items) == 2


# ---------------------------------------------------------------- without the bus


class Away(InMemoryBus):
    """A bus that cannot be opened while it is away."""

    def __init__(self) -> None:
        super().__init__()
        self.away = True
        self.tries = 0

    async def __aenter__(self) -> Self:
        self.tries += 1
        if self.away:
            raise BusUnavailable("no broker answers")
        return await super().__aenter__()


class Opener:
    """A plugin that opens this bus at ``away://``."""

    def __init__(self, bus: InMemoryBus) -> None:
        self.bus = bus

    def flowkit_open_bus(self, address: str) -> InMemoryBus | None:
        return self.bus if address == "away://" else None


async def test_reading_verbs_work_while_the_bus_is_away_and_submitting_does_too() -> None:
    async with Cluster(handlers={"work": lambda item: item}) as cluster:
        bus = Away()
        async with Client(
            store=cluster.store, bus="away://", plugins=[Opener(bus)], clock=cluster.clock
        ) as client:
            assert (await client.list_tasks()).items == []
            assert bus.tries == 0
            task_id = await client.create_task(graph=ONE)
            assert (await client.get_task(task_id)).id == task_id
            assert (await client.wait(task_id, timeout=10 * DAY)).status == "finished"
            assert await client.explain(task_id, "a")
            seqs = [event.seq async for event in client.watch(task_id)]
            assert seqs == list(range(1, len(seqs) + 1))
            assert (await client.dead_letters()).items == []
            assert bus.tries == 1


async def test_a_bus_that_came_back_is_used_again_and_is_not_tried_with_every_verb() -> None:
    async with Cluster(coordinators=0, workers=0) as cluster:
        bus = Away()
        async with Client(
            store=cluster.store, bus="away://", plugins=[Opener(bus)], clock=cluster.clock
        ) as client:
            for _ in range(3):
                await client.create_task(graph=ONE)
            assert bus.tries == 1
            bus.away = False
            await cluster.clock.advance(11)
            await client.create_task(graph=ONE)
            await client.create_task(graph=ONE)
            assert bus.tries == 2
            assert bus.broker.topics


async def test_a_message_that_cannot_be_sent_stays_a_dead_letter_while_the_bus_is_away() -> None:
    bus = Away()
    async with (
        InMemoryStore() as store,
        Client(store=store, bus="away://", plugins=[Opener(bus)]) as client,
    ):
        await park_letters(
            store,
            [
                DeadLetter(
                    "message-m",
                    0.0,
                    "message",
                    "refused",
                    "no",
                    data=b"{}",
                    size=2,
                    topic="flowkit.events",
                    key="k",
                )
            ],
        )
        (outcome,) = await client.retry_dead_letters(["message-m"])
        assert (outcome.done, outcome.detail) == (False, "no broker answers")


# ---------------------------------------------------------------- the same id again


async def test_the_same_submission_again_is_the_first_task() -> None:
    async with Cluster(coordinators=0) as cluster:
        graph = {
            "nodes": [{"node_id": "a", "type": "work", "io": {"input_inline": {"x": 1, "y": 2}}}]
        }
        again = {
            "nodes": [{"io": {"input_inline": {"y": 2, "x": 1}}, "type": "work", "node_id": "a"}]
        }
        first = await cluster.client.create_task(
            graph=graph, params={"p": 1, "q": 2}, idempotency_key="k"
        )
        assert (
            await cluster.client.create_task(
                graph=again, params={"q": 2, "p": 1}, idempotency_key="k"
            )
            == first
        )
        assert await cluster.client.create_task(graph=graph, task_id="t") == "t"
        assert await cluster.client.create_task(graph=again, task_id="t") == "t"


@pytest.mark.parametrize("identity", [{"task_id": "t"}, {"idempotency_key": "t"}])
@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"graph": {"nodes": [{"node_id": "b", "type": "work"}]}}, "another graph"),
        ({"graph": {"nodes": [{"node_id": "a", "type": "work", "priority": 1}]}}, "another graph"),
        ({"params": {"x": 2}}, "other params"),
        ({"params": {"x": True}}, "other params"),
        ({"params": None}, "other params"),
    ],
)
async def test_another_submission_under_a_taken_id_is_refused(
    identity: dict[str, Any], changed: dict[str, Any], difference: str
) -> None:
    async with Cluster(coordinators=0) as cluster:
        submitted = {"graph": ONE, "params": {"x": 1}, **identity}
        first = await cluster.client.create_task(**submitted)
        with pytest.raises(
            TaskRefused,
            match=(
                f"(task_id|idempotency_key) 't' is taken: task '{first}' was submitted with"
                f" {difference}"
            ),
        ):
            await cluster.client.create_task(**{**submitted, **changed})
        assert len((await cluster.client.list_tasks()).items) == 1


async def test_observers_hear_of_a_task_once_though_it_is_submitted_twice() -> None:
    seen: list[str] = []

    class Observer:
        def flowkit_task_changed(self, before: Any, after: Any) -> None:
            seen.append(after.id)

    async with Cluster(coordinators=0, plugins=[Observer()]) as cluster:
        for _ in range(2):
            await cluster.client.create_task(graph=ONE, task_id="t")
    assert seen == ["t"]


# ---------------------------------------------------------------- time-outs


@pytest.mark.parametrize("timeout", [float("nan"), "5", True, [1]])
async def test_a_timeout_that_is_no_number_is_an_error(timeout: Any) -> None:
    async with Cluster(coordinators=0) as cluster:
        task_id = await cluster.client.create_task(graph=ONE)
        with pytest.raises(ValueError, match="timeout is a number of seconds"):
            await cluster.client.wait(task_id, timeout=timeout)


async def test_a_timeout_of_more_than_a_lifetime_is_no_limit() -> None:
    async with Cluster(handlers={"work": lambda item: item}) as cluster:
        for timeout in (float("inf"), 10**400, 1e300):
            task_id = await cluster.client.create_task(graph=ONE)
            assert (await cluster.client.wait(task_id, timeout=timeout)).status == "finished"


@pytest.mark.parametrize("timeout", [0, -1, float("-inf"), 3.5])
async def test_a_wait_ends_with_its_timeout(timeout: float) -> None:
    async with Cluster(coordinators=0) as cluster:
        task_id = await cluster.client.create_task(graph=ONE)
        with pytest.raises(TimeoutError):
            await cluster.client.wait(task_id, timeout=timeout)
