"""Dead letters of nodes without retries left, and their retries."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

import flowkit
from flowkit._dead_letters.letters import MAX_LETTER_BYTES
from flowkit._records.letter_records import park_letters
from flowkit.errors import StoreUnavailable
from flowkit.protocols import Commit, RecordChange
from flowkit.task import DeadLetter
from flowkit.worker import handler
from flowkit_testing import Cluster, InMemoryStore
from tests.builders import ended
from tests.hooked_store import HookedStore, parks

ONCE = {"max": 0}
FIRST: dict[str, dict[str, Any]] = {
    "handler": {
        "node_id": "a",
        "type": "work",
        "io": {"input_inline": {"page": 1}},
        "retry_policy": {"max": 1},
    },
    "function": {
        "node_id": "a",
        "type": "coordinator_fn",
        "io": {"fn": "work", "fn_args": {"page": 1}},
        "retry_policy": {"max": 1},
    },
}


class Work:
    """A function handler and a coordinator function that fail while ``broken``."""

    def __init__(self) -> None:
        self.broken = True

    def cluster(self, store: InMemoryStore | None = None) -> Cluster:
        @handler("work")
        async def work(item: Any) -> str:
            return self.do()

        return Cluster(handlers=[work], plugins=[self], store=store)

    @flowkit.hookimpl
    def flowkit_register_functions(self, register: Callable[..., None]) -> None:
        async def work(ctx: Any, page: int) -> str:
            return self.do()

        register("work", work)

    def do(self) -> str:
        if self.broken:
            raise RuntimeError("no such page")
        return "found"


def graph(first: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a graph of ``a`` and of ``z`` below it."""
    return {
        "nodes": [
            first,
            {"node_id": "z", "type": "coordinator_fn", "io": {"fn": "noop"}, "depends_on": ["a"]},
        ],
        **fields,
    }


async def letters(cluster: Cluster) -> list[DeadLetter]:
    return (await cluster.client.dead_letters()).items


@pytest.mark.parametrize("kind", FIRST)
async def test_a_node_without_retries_left_leaves_a_letter_that_runs_it_and_all_below_again(
    kind: str,
) -> None:
    work = Work()
    async with work.cluster() as cluster:
        view = await cluster.run(graph(FIRST[kind]))
        (letter,) = await letters(cluster)
        assert (letter.kind, letter.task_id, letter.node_id, letter.attempt, letter.uid) == (
            "node",
            view.id,
            "a",
            2,
            None,
        )
        assert (letter.reason_code, letter.error) == (
            view.nodes["a"].reason_code,
            view.nodes["a"].error,
        )
        assert b'{"page":1}' in letter.data
        work.broken = False
        (outcome,) = await cluster.client.retry_dead_letters([letter.letter_id])
        assert outcome.done
        view = await ended(cluster, view.id)
        assert (view.status, view.nodes["a"].result, view.nodes["z"].status) == (
            "finished",
            "found",
            "finished",
        )
        assert await letters(cluster) == []


@pytest.mark.parametrize("kind", FIRST)
async def test_a_retry_of_the_task_drops_the_letter_when_the_node_succeeds_and_not_before(
    kind: str,
) -> None:
    work = Work()
    async with work.cluster() as cluster:
        view = await cluster.run(graph(FIRST[kind]))
        (first,) = await letters(cluster)
        await cluster.client.retry(view.id)
        assert (await ended(cluster, view.id)).status == "failed"
        (second,) = await letters(cluster)
        assert (first.attempt, second.attempt) == (2, 4)
        work.broken = False
        await cluster.client.retry(view.id)
        assert (await ended(cluster, view.id)).status == "finished"
        assert await letters(cluster) == []


async def test_a_letter_of_a_handled_failure_reruns_its_node_in_the_finished_task() -> None:
    work = Work()
    first = {**FIRST["handler"], "routing": {"on_success": ["well"], "on_failure": ["badly"]}}
    branches = [
        {"node_id": name, "type": "coordinator_fn", "io": {"fn": "noop"}}
        for name in ("well", "badly")
    ]
    async with work.cluster() as cluster:
        view = await cluster.run({"nodes": [first, *branches]})
        assert (view.status, view.nodes["badly"].status, view.nodes["well"].status) == (
            "finished",
            "finished",
            "skipped",
        )
        work.broken = False
        (letter,) = await letters(cluster)
        await cluster.client.retry_dead_letters([letter.letter_id])
        view = await ended(cluster, view.id)
        assert (view.status, view.nodes["badly"].status, view.nodes["well"].status) == (
            "finished",
            "skipped",
            "finished",
        )
        assert await letters(cluster) == []


async def test_every_failed_node_has_its_letter_and_cancelled_and_skipped_ones_have_none() -> None:
    async with Work().cluster() as cluster:
        nodes = [
            *({**FIRST["handler"], "node_id": f"a{number}"} for number in range(3)),
            {
                "node_id": "late",
                "type": "missing",
                "timeouts": {"schedule_to_start_sec": 5},
                "retry_policy": ONCE,
            },
            {"node_id": "below", "type": "work", "depends_on": ["late"]},
        ]
        view = await cluster.run({"nodes": nodes, "on_node_failure": "continue"})
        assert view.nodes["below"].status == "skipped"
        found = {letter.node_id: letter.reason_code for letter in await letters(cluster)}
        assert found == {
            node.node_id: node.reason_code
            for node in view.nodes.values()
            if node.status == "failed"
        }
        assert found["late"] == "schedule_to_start_timeout"


async def test_an_input_above_the_limit_is_not_in_the_letter() -> None:
    async with Work().cluster() as cluster:
        await cluster.run(
            graph({**FIRST["handler"], "io": {"input_inline": "x" * MAX_LETTER_BYTES}})
        )
        (letter,) = await letters(cluster)
        assert (letter.data, letter.size > MAX_LETTER_BYTES) == (b"", True)


async def test_a_store_that_fails_between_the_letter_and_the_commit_gets_one_letter() -> None:
    class Failing(HookedStore):
        """A store that fails the first commit after it stored a letter."""

        parked = failed = 0

        async def before_change(self, change: RecordChange) -> None:
            self.parked += parks(change)

        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            if self.parked == 1 and not self.failed:
                self.failed = 1
                raise StoreUnavailable("away")
            return await super().commit(commits)

    store = Failing()
    async with Work().cluster(store) as cluster:
        view = await cluster.run(graph(FIRST["handler"]))
        assert (view.status, store.failed, store.parked) == ("failed", 1, 2)
        (letter,) = await letters(cluster)
        assert letter.node_id == "a"


async def test_a_letter_of_a_node_that_has_finished_since_is_outdated() -> None:
    work = Work()
    async with work.cluster() as cluster:
        view = await cluster.run(graph(FIRST["handler"]))
        (letter,) = await letters(cluster)
        work.broken = False
        await cluster.client.retry(view.id)
        before = await ended(cluster, view.id)
        await park_letters(cluster.store, [letter])
        (outcome,) = await cluster.client.retry_dead_letters([letter.letter_id])
        assert (outcome.done, outcome.detail) == (
            False,
            "the node did not fail in this attempt, or has run again since then",
        )
        assert await cluster.client.get_task(view.id) == before
