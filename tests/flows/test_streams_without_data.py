"""A reader fails if it cannot read its whole stream: it never returns a shorter result."""

from collections.abc import Callable
from typing import Any

import pytest

from flowkit.protocols import ArtifactRecord, Stream
from flowkit.worker import Batch, BatchResult, FinalizeResult, Handler, RunContext, handler
from flowkit_testing import Cluster, InMemoryStore
from tests.builders import node, pages

PULL: dict[str, Any] = {"input_inline": {"input_adapter": "pull.from_artifacts"}}
RECHUNK: dict[str, Any] = {
    "input_inline": {"input_adapter": "pull.from_artifacts.rechunk:size", "input_args": {"size": 1}}
}
EARLY: dict[str, Any] = {"start_when": "first_batch"}


def single(node_id: str, role: str, *after: str, **fields: Any) -> dict[str, Any]:
    """Return a node that is attempted once."""
    return node(node_id, role, *after, **{"retry_policy": {"max": 0}, **fields})


@handler("result")
async def result(item: Any) -> list[int]:
    return [1, 2, 3]


@handler("nothing")
async def nothing(item: Any) -> None:
    pass


@handler("number")
async def number(item: Any) -> Any:
    return {"seen": item["page"]}


class Total(Handler):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        self.seen.append(batch.payload["meta"]["page"])
        return BatchResult(True, {"pages": 1})


class Chunks(Handler):
    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return BatchResult(True, {"pages": len(batch.payload["items"])})


# ---------------------------------------------------------------- lost records


class Lossy(InMemoryStore):
    """A store that loses records of the stream of node ``pages``, or the content of one field."""

    def __init__(self, damage: Callable[[list[ArtifactRecord]], list[ArtifactRecord]]) -> None:
        super().__init__()
        inner = self.artifacts.read

        async def read(
            stream: Stream, *, after: int = 0, limit: int = 100, latest: bool = False
        ) -> list[ArtifactRecord]:
            if stream.node_id != "pages":
                return list(await inner(stream, after=after, limit=limit, latest=latest))
            whole = damage(list(await inner(stream, after=0, limit=10_000, latest=latest)))
            return [record for record in whole if record.position > after][:limit]

        self.artifacts.read = read  # type: ignore[method-assign]


DAMAGES: dict[str, tuple[Callable[[list[ArtifactRecord]], list[ArtifactRecord]], str]] = {
    "the first": (lambda records: records[1:], "artifact 1 of the node is missing"),
    "one in the middle": (
        lambda records: records[:14] + records[15:],
        "artifact 15 of the node is missing",
    ),
    "the last": (lambda records: records[:-1], "it stored 30 batches, and only 29 exist"),
    "all": (lambda records: [], "it stored 30 batches, and only 0 exist"),
}


@pytest.mark.parametrize("io", [PULL, RECHUNK], ids=["pull", "rechunk"])
@pytest.mark.parametrize("start", [{}, EARLY], ids=["after the end", "from the first batch"])
@pytest.mark.parametrize(("damage", "sentence"), DAMAGES.values(), ids=DAMAGES)
async def test_a_lost_artifact_fails_the_reader_and_is_named(
    io: Any, start: Any, damage: Any, sentence: str
) -> None:
    graph = {
        "nodes": [
            single("pages", "pages", io={"input_inline": 30}),
            single("total", "total", "pages", io={**io, **start}),
        ]
    }
    handlers = {"pages": pages, "total": Chunks() if io is RECHUNK else Total()}
    async with Cluster(store=Lossy(damage), handlers=handlers) as cluster:
        view = await cluster.run(graph)
    assert (view.status, view.nodes["total"].reason_code) == ("failed", "artifact_lost")
    assert f"node 'pages' of task '{view.id}': {sentence}" in (view.nodes["total"].error or "")


@handler("reads")
async def reads(item: Any, ctx: RunContext) -> int:
    return len([meta async for meta in ctx.artifacts.read("pages")])


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES.values(), ids=DAMAGES)
async def test_a_lost_artifact_fails_a_handler_that_reads_them_itself(
    damage: Any, sentence: str
) -> None:
    graph = {
        "nodes": [
            single("pages", "pages", io={"input_inline": 30}),
            single("total", "reads", "pages"),
        ]
    }
    async with Cluster(store=Lossy(damage), handlers=[pages, reads]) as cluster:
        view = await cluster.run(graph)
    assert (view.status, view.nodes["total"].reason_code) == ("failed", "artifact_lost")
    assert f"node 'pages' of task '{view.id}': {sentence}" in (view.nodes["total"].error or "")


@pytest.mark.parametrize(
    "at_the_end", [False, True], ids=["while the parent runs", "after the parent has ended"]
)
async def test_a_handler_that_began_before_its_parent_ended_reads_what_is_stored_or_fails(
    at_the_end: bool,
) -> None:
    seen: list[int] = []

    @handler("pages")
    async def slow(count: int, ctx: RunContext) -> Any:
        for number in range(count):
            yield {"page": number}
            await ctx.clock.sleep(10)

    @handler("reads")
    async def early(item: Any, ctx: RunContext) -> None:
        await ctx.clock.sleep(3600 if at_the_end else 15)
        seen.append(len([meta async for meta in ctx.artifacts.read("pages")]))

    graph = {
        "nodes": [
            single("first", "nothing"),
            single("pages", "pages", io={"input_inline": 30}),
            single("total", "reads", "first", "pages", fan_in="any"),
        ]
    }
    async with Cluster(
        store=Lossy(lambda records: records[:1]), handlers=[slow, early, nothing]
    ) as cluster:
        view = await cluster.run(graph)
    assert (view.nodes["total"].reason_code, seen) == (
        ("artifact_lost", []) if at_the_end else (None, [1])
    )


async def test_metrics_are_not_aggregated_over_a_gap() -> None:
    aggregate = single(
        "sum",
        "coordinator_fn",
        "pages",
        io={"fn": "metrics.aggregate", "fn_args": {"node_id": "pages"}},
    )
    graph = {"nodes": [single("pages", "pages", io={"input_inline": 30}), aggregate]}
    for damage, sentence in DAMAGES.values():
        async with Cluster(store=Lossy(damage), handlers={"pages": pages}) as cluster:
            view = await cluster.run(graph)
        assert (view.status, view.nodes["sum"].reason_code) == ("failed", "artifact_lost")
        assert sentence in (view.nodes["sum"].error or "")


# ---------------------------------------------------------------- nothing to pull


@pytest.mark.parametrize("io", [PULL, RECHUNK], ids=["pull", "rechunk"])
@pytest.mark.parametrize("start", [{}, EARLY], ids=["after the end", "from the first batch"])
async def test_pulling_from_a_node_that_only_has_a_result_is_an_error_that_says_so(
    io: Any, start: Any
) -> None:
    graph = {"nodes": [single("a", "result"), single("b", "number", "a", io={**io, **start})]}
    async with Cluster(handlers=[result, number]) as cluster:
        view = await cluster.run(graph)
    assert (view.nodes["b"].status, view.nodes["b"].reason_code) == ("failed", "bad_input_args")
    assert "node 'a' finished with a result and stored no artifacts" in (
        view.nodes["b"].error or ""
    )


async def test_pulling_from_a_node_without_result_and_artifacts_gives_zero_batches() -> None:
    graph = {"nodes": [single("a", "nothing"), single("b", "number", "a", io=PULL)]}
    async with Cluster(handlers=[nothing, number]) as cluster:
        view = await cluster.run(graph)
    assert (view.status, view.nodes["b"].result) == ("finished", None)


async def test_pulling_from_a_node_in_batches_that_had_nothing_to_do_gives_zero_batches() -> None:
    class Rows(Handler):
        async def iter_batches(self, loaded: Any) -> Any:
            for row in loaded["input_inline"]:
                yield Batch(str(row), row)

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(True, artifacts_ref={"page": batch.payload})

        async def finalize(self, ctx: RunContext) -> FinalizeResult:
            return FinalizeResult(result={"done": True})

    for rows in ([], [1, 2]):
        graph = {
            "nodes": [
                single("a", "rows", io={"input_inline": rows}),
                single("b", "total", "a", io=PULL),
            ]
        }
        total = Total()
        async with Cluster(handlers={"rows": Rows(), "total": total}) as cluster:
            view = await cluster.run(graph)
        assert (view.status, total.seen) == ("finished", rows)


async def test_pulling_past_a_parent_that_failed_is_no_error_of_the_reader() -> None:
    @handler("broken")
    async def broken(item: Any) -> Any:
        yield {"page": 0}
        raise OSError("no more pages")

    graph = {
        "nodes": [
            single("a", "broken"),
            single("c", "pages", io={"input_inline": 2}),
            single("b", "total", "a", "c", fan_in="any", io=PULL),
        ]
    }
    total = Total()
    async with Cluster(handlers={"broken": broken, "pages": pages, "total": total}) as cluster:
        view = await cluster.run({**graph, "on_node_failure": "continue"})
    assert view.nodes["b"].status == "finished"
    assert sorted(total.seen) == [0, 0, 1]


# ---------------------------------------------------------------- an edge that streams


STREAMING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "start_when": ({"io": EARLY}, {}),
    "a trigger": ({}, {"edges": [{"from": "pages", "to": "total", "trigger": "on_batch"}]}),
    "an asynchronous edge": ({}, {"edges": [{"from": "pages", "to": "total", "mode": "async"}]}),
}


@pytest.mark.parametrize(("fields", "edges"), STREAMING.values(), ids=STREAMING)
@pytest.mark.parametrize("kind", ["a function", "a class", "a class that proposes nothing"])
async def test_an_edge_that_streams_pulls_without_an_adapter(
    fields: Any, edges: Any, kind: str
) -> None:
    class Proposing(Total):
        async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
            return {"elsewhere": True}

    total = Proposing() if kind.endswith("nothing") else Total()
    after = () if edges else ("pages",)
    graph = {
        "nodes": [
            single("pages", "pages", io={"input_inline": 5}),
            single("total", "total", *after, **fields),
        ],
        **edges,
    }
    async with Cluster(
        handlers={"pages": pages, "total": number if kind == "a function" else total}
    ) as cluster:
        view = await cluster.run(graph)
        found = [artifact.meta async for artifact in cluster.client.artifacts(view.id, "total")]
    assert view.status == "finished"
    if kind == "a function":
        assert found == [{"seen": page} for page in range(5)]
    else:
        assert total.seen == list(range(5))
        assert view.nodes["total"].metrics == {"pages": 5}


async def test_an_adapter_that_load_input_proposes_is_used_on_an_edge_that_streams() -> None:
    class Proposing(Handler):
        async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
            return {"input_adapter": "pull.from_artifacts.rechunk:size", "input_args": {"size": 1}}

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(True, {"chunks": len(batch.payload["items"])})

    graph = {
        "nodes": [
            single("pages", "pages", io={"input_inline": 3}),
            single("total", "total", "pages", io=EARLY),
        ]
    }
    async with Cluster(handlers={"pages": pages, "total": Proposing()}) as cluster:
        view = await cluster.run(graph)
    assert view.nodes["total"].metrics == {"chunks": 3}
