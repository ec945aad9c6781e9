"""A command is sent for what is stored, although the task in memory is ahead of it. The results of
many parents do not travel with it.
"""

from collections.abc import Sequence

from flowkit import CoordinatorConfig, Graph
from flowkit._engine import EngineSettings
from flowkit._tasks.cached_tasks import TaskUpdate
from flowkit.coordinator._command_watch import CommandWatch
from flowkit.coordinator._outbox import MANY_PARENTS, Outbox
from flowkit.messages import NodeReleased, NodeStarted, RunContextData, RunNode, decode
from flowkit.protocols import Message, Place
from flowkit.task import TaskSpec
from flowkit_testing import Cluster, InMemoryBus, InMemoryStore, ManualClock
from tests.builders import graph, node, work
from tests.coordinator.processors import processor_of


class Recording(InMemoryBus):
    def __init__(self) -> None:
        super().__init__()
        self.published: list[Message] = []

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        self.published += messages
        return await super().publish(messages)


async def tokens_sent(*, ahead: bool) -> tuple[list[str], TaskSpec]:
    """Carry out the effects of a new task, perhaps after its node was handed back in memory, and
    return the tokens of the commands on the bus.
    """
    bus, store, clock, config = Recording(), InMemoryStore(), ManualClock(), CoordinatorConfig()
    processor = processor_of(store, clock=clock)
    watch = CommandWatch(bus=bus, clock=clock, config=config, processor=processor)
    outbox = Outbox(
        bus=bus, store=store, clock=clock, config=config, processor=processor, commands=watch
    )
    document = Graph.parse(graph(node("n", "work")))
    spec = TaskSpec("t", document.plan, created_at=1.0, secret=b"key")
    await processor.create([processor.submit(spec, document.source, certainly_new=False)])
    (todo,) = (await processor.refresh(["t"])).effects
    if ahead:
        update = TaskUpdate(todo.cached, clock.now(), EngineSettings(sends=True))
        report = {"task_id": "t", "index": 0, "attempt": 1, "token": spec.token(0, 1, 0)}
        update.apply(NodeStarted(**report, worker_id="w", at=1.0))
        update.apply(NodeReleased(**report, worker_id="w", at=1.0))
        assert todo.cached.task.records[0].handovers == 1
    async with bus:
        await outbox.carry_out([todo])
    commands = [decode(message.value) for message in bus.published]
    return [one.token for one in commands if isinstance(one, RunNode)], spec


async def test_the_command_of_a_stored_issue_is_sent() -> None:
    sent, spec = await tokens_sent(ahead=False)
    assert sent == [spec.token(0, 1, 0)]


async def test_no_command_is_sent_for_an_issue_that_is_not_stored_yet() -> None:
    sent, _ = await tokens_sent(ahead=True)
    assert sent == []


async def test_the_results_of_many_parents_do_not_travel_with_the_command() -> None:
    names = [f"n{number}" for number in range(MANY_PARENTS + 1)]
    given = {"io": {"input_inline": {"x": 1}}}
    few, many = node("few", "work", *names[1:], **given), node("many", "work", *names, **given)
    bus = Recording()
    async with Cluster(bus=bus, handlers=[work]) as cluster:
        await cluster.run(graph(*map(node, names), few, many), params={"p": 1})
    sent = [decode(message.value) for message in bus.published]
    commands = {one.node_id: one for one in sent if isinstance(one, RunNode)}
    assert commands["few"].data is not None
    assert (len(commands["few"].data.results), commands["few"].data.results_apart) == (200, False)
    assert commands["many"].data == RunContextData(
        io={"input_inline": {"x": 1}}, params={"p": 1}, vars={}, results={}, results_apart=True
    )
