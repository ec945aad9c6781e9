"""Ends of child tasks whose parents are in memory, too."""

from collections.abc import Sequence
from typing import Any

from flowkit._engine import ChildFailed, ChildFinished, child_node
from flowkit.coordinator._child_ends import end_in_memory
from flowkit.messages import ChildEnded
from flowkit.protocols import Message, Place
from flowkit.task import Task
from flowkit.worker import handler
from flowkit_testing import Cluster, InMemoryBus
from tests.builders import graph as document
from tests.builders import node
from tests.engine.drive import STEADY, Play, graph

INNER = {"nodes": [{"node_id": "x", "type": "work"}]}


def parent(**fields: Any) -> Play:
    return Play(graph("s -> b", s={"type": "subflow", "io": {"graph": INNER}, **fields}))


def child_of(play: Play) -> Play:
    """Return the child task of the node ``s`` as it is created."""
    node = child_node(play.task, 0, play.record("s"))
    child = Play(graph("x"), parent=node)
    child.task.parent_attempt = node.attempt
    return child


def finished(play: Play) -> Task:
    child = child_of(play)
    child.succeeds("x", "done")
    return child.task


def failed(play: Play) -> Task:
    child = child_of(play)
    child.breaks("x")
    return child.task


def test_the_end_of_a_child_task_is_read_from_memory() -> None:
    play = parent()
    assert end_in_memory(play.task, finished(play)) == ChildFinished(0, 1, {"x": "done"})
    event = end_in_memory(play.task, failed(play))
    assert isinstance(event, ChildFailed)
    assert (event.index, event.attempt, event.permanent) == (0, 1, False)
    assert event.error.endswith("failed: node 'x' failed: boom: it broke")


def test_a_child_task_that_finished_counts_for_every_attempt_and_one_that_failed_does_not() -> None:
    play = parent(retry_policy={"max": 1, **STEADY})
    good, bad = finished(play), failed(play)
    play.child_fails("s")
    play.later(10)
    assert end_in_memory(play.task, good) == ChildFinished(0, 2, {"x": "done"})
    assert end_in_memory(play.task, bad) == ChildEnded(task_id="t", index=0)


def test_a_notice_is_left_if_the_copy_of_the_parent_does_not_wait_for_the_child_task() -> None:
    play = parent()
    child = finished(play)
    play.child_finishes("s")
    assert end_in_memory(play.task, child) == ChildEnded(task_id="t", index=0)
    play.breaks("b")
    play.retry("s")
    assert play.record("s").generation == 1
    assert end_in_memory(play.task, child) == ChildEnded(task_id="t", index=0)


def test_a_notice_is_left_for_a_loop() -> None:
    play = Play(graph("s", s={"type": "loop", "io": {"graph": INNER, "until": "true"}}))
    assert end_in_memory(play.task, finished(play)) == ChildEnded(task_id="t", index=0)


def test_a_notice_is_left_if_results_are_in_the_archive_unless_the_child_task_has_an_output() -> (
    None
):
    play = parent()
    child = finished(play)
    child.records.clear()
    assert end_in_memory(play.task, child) == ChildEnded(task_id="t", index=0)
    skipping = Play(graph("x", x={"optional": True}), parent=child.spec.parent)
    skipping.breaks("x")
    skipping.task.records.clear()
    assert end_in_memory(play.task, skipping.task) == ChildFinished(0, 1, {})


# ---------------------------------------------------------------- coordinators


class Recorded(InMemoryBus):
    """A bus that keeps the messages that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Message] = []

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        self.messages += messages
        return await super().publish(messages)

    @property
    def notices(self) -> int:
        return sum(b'"child_ended"' in message.value for message in self.messages)


@handler("work")
async def work(item: Any) -> Any:
    return item


async def seconds_of(coordinators: int, bus: InMemoryBus) -> float:
    """Return how long sub-flows and loops take that have nothing to wait for."""
    inner = document(node("x"), node("y", "work", "x"))
    nodes = [
        node(f"{kind}{number}", kind, io={"graph": inner, **more})
        for number in range(10)
        for kind, more in {"subflow": {}, "loop": {"until": "iteration == 1"}}.items()
    ]
    async with Cluster(handlers=[work], coordinators=coordinators, bus=bus) as cluster:
        view = await cluster.run(document(*nodes), task_id="t")
    assert view.status == "finished"
    assert view.finished_at is not None
    return (view.finished_at - view.created_at).total_seconds()


async def test_a_parent_in_the_same_coordinator_is_notified_at_once_and_without_a_message() -> None:
    bus = Recorded()
    assert await seconds_of(1, bus) < 1
    assert bus.notices == 0


async def test_a_parent_in_another_coordinator_is_notified_at_once_by_a_message() -> None:
    bus = Recorded()
    assert await seconds_of(2, bus) < 1
    assert 0 < bus.notices < 30
