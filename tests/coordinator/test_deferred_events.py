"""Events that are stored with the next commit of their task."""

from flowkit._engine import (
    CommandsSent,
    CommandWaiting,
    PauseRequested,
    SentCommand,
    Woke,
)
from flowkit._records.queries import load_task
from flowkit._tasks.event_processor import EventProcessor
from flowkit.graph import Graph
from flowkit.task import NodeRecord, TaskSpec
from flowkit_testing import InMemoryStore
from tests.coordinator.processors import processor_of

SENT = SentCommand(0, 1, 0, (2, 7))


async def submitted(processor: EventProcessor) -> None:
    graph = Graph.parse({"nodes": [{"node_id": "a", "type": "w"}]})
    spec = TaskSpec("t", graph.plan, created_at=1.0, secret=b"key")
    await processor.create([processor.submit(spec, graph.source, certainly_new=True)])


async def node_in(store: InMemoryStore) -> NodeRecord:
    return (await load_task(store, "t")).records[0]


async def test_a_sent_command_is_stored_with_the_next_commit_and_by_none_of_its_own() -> None:
    store = InMemoryStore()
    processor = processor_of(store)
    await submitted(processor)
    (cached,) = processor.find_cached(["t"])
    processor.apply_deferred(cached, CommandsSent([SENT]))
    assert (cached.task.records[0].sent, cached.deferred) == (True, [CommandsSent([SENT])])
    assert not (await node_in(store)).sent
    await processor.apply({"t": [PauseRequested()]})
    stored = await node_in(store)
    assert (stored.sent, stored.place, cached.deferred) == (True, (2, 7), [])


async def test_a_sent_command_is_remembered_when_the_task_is_loaded_again() -> None:
    store = InMemoryStore()
    processor, other = processor_of(store), processor_of(store)
    await submitted(processor)
    (cached,) = processor.find_cached(["t"])
    processor.apply_deferred(cached, CommandsSent([SENT]))
    await other.apply({"t": [PauseRequested()]})
    outcome = await processor.refresh(["t"])
    assert [todo.effects for todo in outcome.effects] == [[]]
    (loaded,) = processor.find_cached(["t"])
    assert loaded is not cached
    assert (loaded.task.paused, loaded.task.records[0].place) == (True, (2, 7))
    await processor.apply({"t": [Woke()]})
    assert (await node_in(store)).sent


async def test_a_command_that_is_sent_during_a_commit_is_stored_with_the_commit_after_it() -> None:
    class Slow(InMemoryStore):
        async def commit(self, commits):
            results = await super().commit(commits)
            (cached,) = processor.find_cached(["t"])
            processor.apply_deferred(cached, CommandsSent([SENT]))
            return results

    store = Slow()
    processor = processor_of(store)
    await submitted(processor)
    await processor.apply({"t": [PauseRequested()]})
    assert not (await node_in(store)).sent
    await processor.apply({"t": [Woke()]})
    assert (await node_in(store)).place == (2, 7)


async def test_an_event_that_changes_nothing_is_not_remembered() -> None:
    processor = processor_of(InMemoryStore())
    await submitted(processor)
    (cached,) = processor.find_cached(["t"])
    processor.apply_deferred(cached, CommandWaiting(SENT))
    assert cached.deferred == []
