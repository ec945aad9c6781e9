"""Commits that must survive a power failure before anything follows from them."""

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from flowkit import hookimpl
from flowkit.protocols import Commit, RecordChange
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster, InMemoryStore
from tests.builders import DAY, chain, graph, node, work
from tests.hooked_store import HookedStore


class Recording(InMemoryStore):
    """A store that remembers which commits must be durable."""

    def __init__(self) -> None:
        super().__init__()
        self.durable: list[bool] = []

    async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
        self.durable += [commit.durable for commit in commits]
        return await super().commit(commits)


class Watching:
    """A plugin that learns of each change of a node."""

    @hookimpl
    def flowkit_node_changed(self, before: Any, after: Any) -> None:
        pass


async def durable_commits(document: dict[str, Any], *plugins: object) -> list[bool]:
    store = Recording()
    async with Cluster(store=store, handlers=[work], plugins=plugins) as cluster:
        task_id = await cluster.client.create_task(graph=document)
        await cluster.client.wait(task_id, timeout=DAY)
    return store.durable


async def test_commits_that_only_lead_to_commands_need_not_be_durable_but_the_last_does() -> None:
    *earlier, last = await durable_commits(chain("work", "work", "work") | {"segments": "off"})
    assert (set(earlier), last) == ({False}, True)


async def test_a_commit_with_a_start_in_a_segment_is_durable_because_that_node_makes_no_claim() -> (
    None
):
    assert all(await durable_commits(chain("work", "work", "work") | {"segments": "safe"}))


async def test_commits_that_plugins_learn_of_are_durable() -> None:
    assert all(await durable_commits(chain("work", "work", "work"), Watching()))


async def test_a_commit_that_calls_a_coordinator_function_is_durable() -> None:
    call = node("f", "coordinator_fn", "a", io={"fn": "vars.incr", "fn_args": {"key": "n"}})
    document = graph(node("a"), call, node("b", "work", "f"))
    assert (await durable_commits(document)).count(True) == 2


@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_a_commit_that_a_client_waits_for_is_durable(verb: str) -> None:
    store = Recording()

    @handler("slow")
    async def slow(item: Any, ctx: RunContext) -> None:
        await anyio.sleep_forever()

    async with Cluster(store=store, handlers=[slow]) as cluster:
        task_id = await cluster.client.create_task(graph=graph(node("a", "slow")))
        await cluster.clock.sleep(1)
        assert not any(store.durable)
        await getattr(cluster.client, verb)(task_id)
        assert any(store.durable)


async def test_changes_of_keys_are_durable_because_a_lost_grant_would_be_given_twice() -> None:
    durable: dict[str, set[bool]] = {}

    class RecordingChanges(HookedStore):
        async def before_change(self, change: RecordChange) -> None:
            for kind in {one.kind for one in change.put} | {one.kind for one in change.delete}:
                durable.setdefault(kind, set()).add(change.durable)

    async with Cluster(store=RecordingChanges(), handlers=[work]) as cluster:
        nodes = [node(name, "work", concurrency_key="k") for name in "abc"]
        task_id = await cluster.client.create_task(graph=graph(*nodes))
        await cluster.client.wait(task_id, timeout=DAY)
    assert (durable["key"], durable["key_queue"]) == ({True}, {True})
