"""Effects that another process has stored with a task, and leaves to the coordinators."""

from collections.abc import Sequence

from flowkit._engine import Effect, NodeResolved, SendCommand
from flowkit._tasks.event_processor import Outcome
from flowkit.graph import Graph
from flowkit.messages import NodeStarted
from flowkit.task import Resolution, TaskSpec
from flowkit_testing import InMemoryStore
from tests.builders import graph, node
from tests.coordinator.processors import processor_of


def effects_of(outcome: Outcome) -> Sequence[Effect]:
    return [effect for todo in outcome.effects for effect in todo.effects]


async def test_the_hint_of_a_change_starts_its_nodes_also_if_a_report_was_read_before_it() -> None:
    store = InMemoryStore()
    coordinator, client = processor_of(store, sends=True), processor_of(store, sends=False)
    sleeps = node("a", "sleep", io={"for_sec": 60})
    parsed = Graph.parse(graph(sleeps, node("b", "w", "a"), node("c")))
    spec = TaskSpec("t", parsed.plan, created_at=1.0, secret=b"key")
    await coordinator.create([coordinator.submit(spec, parsed.source, certainly_new=True)])
    await client.apply({"t": [NodeResolved(0, Resolution("finished", "me", "", None))]})
    about_c = {"task_id": "t", "index": 2, "attempt": 1, "token": spec.token(2, 1, 0)}
    await coordinator.apply({"t": [NodeStarted(**about_c, worker_id="w", at=2.0)]})
    assert effects_of(await coordinator.refresh(["t"])) == [SendCommand(1, 1, 0)]
    assert effects_of(await coordinator.refresh(["t"])) == []
