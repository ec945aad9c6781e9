"""A client reads all artifacts of a task, or an error that names the missing one."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from flowkit.errors import NodeFailure, TaskNotFound
from flowkit.protocols import ArtifactRecord, Stream
from flowkit.worker import Batch, BatchResult, FinalizeResult, Handler, RunContext, handler
from flowkit_testing import Cluster, InMemoryArtifactStore, InMemoryStore
from flowkit_testing._cluster import DAY
from tests.builders import pages

Cursor = tuple[float, str]
Choose = Callable[[ArtifactRecord], bool]


class Lossy(InMemoryArtifactStore):
    """A store that hides some records from readers, and others from scans alone.

    This is how a server with replication lag behaves.
    """

    def __init__(
        self, *, lost: Choose = lambda record: False, late: Choose = lambda record: False
    ) -> None:
        super().__init__()
        self.lost, self.late = lost, late

    async def read(
        self, stream: Stream, *, after: int = 0, limit: int = 100, latest: bool = False
    ) -> Sequence[ArtifactRecord]:
        found = await super().read(stream, limit=10_000)
        return [record for record in found if record.position > after and not self.lost(record)][
            :limit
        ]

    async def scan(
        self, task_id: str, *, after: Cursor | None = None, limit: int = 100
    ) -> Sequence[tuple[Cursor, ArtifactRecord]]:
        found = await super().scan(task_id, after=after, limit=limit)
        return [
            (cursor, record)
            for cursor, record in found
            if not self.lost(record) and not self.late(record)
        ]


def store_with(artifacts: InMemoryArtifactStore) -> InMemoryStore:
    store = InMemoryStore()
    store.artifacts = artifacts
    return store


PAGES = {"nodes": [{"node_id": "pages", "type": "pages", "io": {"input_inline": 12}}]}

LOST: dict[str, tuple[Choose, str]] = {
    "the first": (lambda record: record.position == 1, "artifact 1 of the node is missing"),
    "one in the middle": (lambda record: record.position == 6, "artifact 6 of the node is missing"),
    "the last": (
        lambda record: record.position == 12,
        "it stored 12 batches, and only 11 exist",
    ),
    "all": (lambda record: True, "it stored 12 batches, and only 0 exist"),
}


@pytest.mark.parametrize("node_id", [None, "pages"])
@pytest.mark.parametrize(("lost", "sentence"), LOST.values(), ids=LOST)
async def test_a_lost_artifact_is_named(lost: Choose, sentence: str, node_id: str | None) -> None:
    async with Cluster(store=store_with(Lossy(lost=lost)), handlers=[pages]) as cluster:
        view = await cluster.run(PAGES)
        with pytest.raises(NodeFailure, match=sentence) as caught:
            [item async for item in cluster.client.artifacts(view.id, node_id)]
    assert caught.value.reason_code == "artifact_lost"


@pytest.mark.parametrize("late", [{3}, {11, 12}, set(range(1, 13))], ids=["one", "the last", "all"])
async def test_what_a_scan_misses_and_a_reader_finds_is_read(late: set[int]) -> None:
    async with Cluster(
        store=store_with(Lossy(late=lambda record: record.position in late)), handlers=[pages]
    ) as cluster:
        view = await cluster.run(PAGES)
        found = [item.meta["page"] async for item in cluster.client.artifacts(view.id)]
    assert sorted(found) == list(range(12))


async def test_a_node_that_runs_is_read_as_far_as_it_is() -> None:
    @handler("pages")
    async def slow(count: int, ctx: RunContext) -> Any:
        for number in range(count):
            yield {"page": number}
            await ctx.clock.sleep(10)

    async with Cluster(handlers=[slow]) as cluster:
        task_id = await cluster.client.create_task(graph=PAGES)
        await cluster.clock.sleep(35)
        assert 0 < len([item async for item in cluster.client.artifacts(task_id)]) < 12
        await cluster.client.wait(task_id, timeout=DAY)
        assert len([item async for item in cluster.client.artifacts(task_id)]) == 12


async def test_skipped_batches_earlier_runs_and_a_complete_artifact_are_no_gaps() -> None:
    runs: list[int] = []

    class Uneven(Handler):
        async def iter_batches(self, loaded: Any) -> Any:
            runs.append(1)
            for number in range(6):
                yield Batch(str(number), number)

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            if batch.payload == 2 and len(runs) == 1:
                return BatchResult(False, reason_code="bad_input", permanent=True, error="no")
            return BatchResult(
                True, artifacts_ref={"n": batch.payload} if batch.payload % 2 == 0 else None
            )

        async def finalize(self, ctx: RunContext) -> FinalizeResult:
            return FinalizeResult(artifacts_ref={"complete": len(runs)})

    @handler("fails")
    async def fails(item: Any) -> None:
        raise TypeError("no")

    graph = {
        "nodes": [
            {"node_id": "a", "type": "uneven", "on_batch_failure": "skip"},
            {"node_id": "b", "type": "fails", "depends_on": ["a"], "retry_policy": {"max": 0}},
        ]
    }
    async with Cluster(handlers={"uneven": Uneven, "fails": fails}) as cluster:
        view = await cluster.run(graph)
        first = [item.meta async for item in cluster.client.artifacts(view.id)]
        await cluster.client.retry(view.id, from_nodes=["a"])
        await cluster.client.wait(view.id, timeout=DAY)
        second = [item.meta async for item in cluster.client.artifacts(view.id)]
    assert first == [{"n": 0}, {"n": 4}, {"complete": 1}]
    assert second == [{"n": 0}, {"n": 2}, {"n": 4}, {"complete": 2}]


async def test_a_node_that_is_not_in_the_task_is_named() -> None:
    async with Cluster(handlers=[pages]) as cluster:
        view = await cluster.run(PAGES)
        for ask in (
            cluster.client.explain(view.id, "zz"),
            anext(cluster.client.artifacts(view.id, "zz")),
        ):
            with pytest.raises(TaskNotFound, match=f"task '{view.id}' has no node 'zz'"):
                await ask


SHARDED = {
    "nodes": [
        {"node_id": "pages", "type": "pages", "io": {"input_inline": 26}},
        {
            "node_id": "c",
            "type": "copy",
            "depends_on": ["pages"],
            "io": {"start_when": "first_batch", "shards": 12},
        },
    ]
}


class Copies(Handler):
    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return BatchResult(True, artifacts_ref=batch.payload["meta"])

    async def finalize(self, ctx: RunContext) -> FinalizeResult:
        return FinalizeResult(artifacts_ref={"complete": True})


def is_late(record: ArtifactRecord) -> bool:
    return record.stream.node_id == "c" and record.position > 5


@pytest.mark.parametrize("late", [lambda record: False, is_late], ids=["on time", "late"])
async def test_the_artifacts_of_a_shard_are_its_part_of_the_stream_of_its_node(
    late: Choose,
) -> None:
    handlers = {"pages": pages, "copy": Copies()}
    async with Cluster(store=store_with(Lossy(late=late)), handlers=handlers) as cluster:
        view = await cluster.run(SHARDED)
        assert view.status == "finished"
        of_shard = {}
        for shard in range(12):
            found = [item async for item in cluster.client.artifacts(view.id, f"c[{shard}]")]
            assert {item.node_id for item in found} == {"c"}
            of_shard[shard] = [(item.uid, item.meta["page"]) for item in found]
        of_node = [item.meta async for item in cluster.client.artifacts(view.id, "c")]
        of_task = [item.meta async for item in cluster.client.artifacts(view.id)]
    assert of_shard == {
        shard: [(f"{shard}/pages:{page}", page) for page in range(shard, 26, 12)]
        for shard in range(12)
    }
    assert (len(of_node), len(of_task)) == (26 + 1, 26 + 26 + 1)


async def test_a_lost_artifact_of_a_shard_is_named() -> None:
    lost = Lossy()
    handlers = {"pages": pages, "copy": Copies()}
    async with Cluster(store=store_with(lost), handlers=handlers) as cluster:
        view = await cluster.run(SHARDED)
        lost.lost = lambda record: record.uid.startswith("1/")
        with pytest.raises(NodeFailure, match="node 'c' of task") as caught:
            [item async for item in cluster.client.artifacts(view.id, "c[1]")]
    assert caught.value.reason_code == "artifact_lost"
