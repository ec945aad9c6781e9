"""A client withdraws commands, so that what no worker has begun ends without a coordinator."""

from flowkit import Client
from flowkit_testing import InMemoryBus, InMemoryStore
from tests.builders import graph, node

CHAIN = graph(node("a"), node("b", "work", "a"))


async def test_a_cancelled_chain_that_nothing_has_begun_ends_without_a_coordinator() -> None:
    async with (
        InMemoryBus() as bus,
        InMemoryStore() as store,
        Client(db=store, bus=bus) as client,
    ):
        task_id = await client.create_task(graph=CHAIN)
        await client.cancel(task_id)
        view = await client.get_task(task_id)
    assert view.status == "cancelled"
    assert [one.status for one in view.nodes.values()] == ["cancelled", "cancelled"]
