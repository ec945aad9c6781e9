"""Input adapters: their choice, the batches they yield, and their end."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest

from flowkit import Client
from flowkit.messages import RunContextData, Source, StreamMoved, encode
from flowkit.protocols import ArtifactRecord, Message, Stream
from flowkit.worker import Batch, BatchResult, Handler, InputRequest, RunContext
from flowkit_testing import InMemoryArtifactStore
from tests.builders import plugin
from tests.worker.bench import Bench

ENDED = (Source(node_id="up", ended=True),)


def pull(**args: Any) -> dict[str, Any]:
    return {"input_adapter": "pull.from_artifacts", "input_args": args}


def rechunk(**args: Any) -> dict[str, Any]:
    return {"input_adapter": "pull.from_artifacts.rechunk:size", "input_args": args}


async def put(
    bench: Bench,
    *metas: bytes | None,
    node: str = "up",
    task: str = "t",
    first: int = 0,
    partial: bool = True,
) -> None:
    await bench.store.artifacts.put(
        [
            ArtifactRecord(
                Stream(task, node), f"u{number}" if partial else "whole", partial, meta, b"{}", 0.0
            )
            for number, meta in enumerate(metas, first)
        ]
    )


async def task_of_reader(bench: Bench, *parents: str) -> str:
    """Store a task with a node "n" that reads these parents, and return its id."""
    reads = {"depends_on": parents, "io": {"start_when": "first_batch"}}
    nodes = [{"node_id": parent, "type": "a"} for parent in parents]
    async with Client(db=bench.store, bus=bench.bus) as client:
        graph = {"nodes": [*nodes, {"node_id": "n", "type": "work", **reads}]}
        return await client.create_task(graph=graph)


class Seeing(Handler):
    """A handler that records its batches."""

    def __init__(self) -> None:
        self.seen: list[Batch] = []
        self.changed = anyio.Event()

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        self.seen.append(batch)
        self.changed.set()
        return BatchResult(True, {"n": 1})

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed = anyio.Event()
            with anyio.fail_after(20):
                await self.changed.wait()


async def test_pulled_batches_carry_the_parents_artifacts_in_order(bench: Bench) -> None:
    await put(bench, b'{"a":1}', None, b'{"a":2}')
    await put(bench, b'{"all":1}', partial=False)
    seeing = Seeing()
    async with bench.worker({"work": seeing}):
        end = await bench.run(pull(from_node="up", poll_ms=100), task_id="t", sources=ENDED)
    assert [batch.payload for batch in seeing.seen] == [
        {"from_node": "up", "ref": "u0", "meta": {"a": 1}},
        {"from_node": "up", "ref": "u2", "meta": {"a": 2}},
        {"from_node": "up", "ref": "whole", "meta": {"all": 1}},
    ]
    assert end.metrics == {"n": 3}


async def test_without_names_all_parents_are_read(bench: Bench) -> None:
    sources = tuple(Source(node_id=f"up{number}", ended=True) for number in range(20))
    for source in sources:
        await put(bench, b'{"x":1}', b'{"x":2}', node=source.node_id)
    seeing = Seeing()
    async with bench.worker({"work": seeing}):
        await bench.run(pull(), task_id="t", sources=sources)
        assert {(batch.payload["from_node"], batch.payload["ref"]) for batch in seeing.seen} == {
            (f"up{number}", f"u{ref}") for number in range(20) for ref in range(2)
        }
        seeing.seen.clear()
        await bench.run(
            pull(from_nodes=["up3", "up7", "up3"]), task_id="t", node_id="other", sources=sources
        )
        assert len(seeing.seen) == 4


async def test_no_parent_starves_behind_long_ones(bench: Bench) -> None:
    names = [f"long{number}" for number in range(8)]
    for name in names:
        await put(bench, *[b'{"x":1}'] * 300, node=name)
    await put(bench, *[b'{"x":1}'] * 3, node="short")
    seeing = Seeing()
    sources = tuple(Source(node_id=name, ended=True) for name in [*names, "short"])
    async with bench.worker({"work": seeing}):
        assert (await bench.run(pull(), task_id="t", sources=sources)).batches == 2403
    assert (
        max(
            place
            for place, batch in enumerate(seeing.seen)
            if batch.payload["from_node"] == "short"
        )
        < 900
    )


async def test_a_parent_that_moves_is_read_before_the_long_rest_of_another_one(
    bench: Bench,
) -> None:
    await put(bench, *[b'{"x":1}'] * 300)

    class Telling(Seeing):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            if not self.seen:
                await put(bench, b'{"x":2}', node="other")
                await moved(bench, ended=True, node="other")
                await bench.clock.sleep(1)
            return await super().process_batch(batch, ctx)

    seeing = Telling()
    sources = (*ENDED, Source(node_id="other"))
    async with bench.worker({"work": seeing}):
        await bench.run(pull(), task_id="t", sources=sources)
    nodes = [batch.payload["from_node"] for batch in seeing.seen]
    assert (len(nodes), nodes.index("other") < 250) == (301, True)


async def test_what_is_stored_just_before_the_parent_ended_is_not_missed(bench: Bench) -> None:
    """It was stored, and the end reported, while an empty page was on its way."""

    class Late(InMemoryArtifactStore):
        done = False

        async def read(
            self, stream: Stream, *, after: int = 0, limit: int = 100, latest: bool = False
        ) -> Sequence[ArtifactRecord]:
            page = await super().read(stream, after=after, limit=limit, latest=latest)
            if not page and not self.done:
                self.done = True
                await put(bench, b'{"x":1}')
                await moved(bench, ended=True)
                await bench.clock.sleep(1)
            return page

    bench.store.artifacts = Late()
    async with bench.worker({"work": Seeing()}):
        end = await bench.run(pull(poll_ms=60_000), task_id="t", sources=(Source(node_id="up"),))
    assert end.batches == 1


async def test_the_last_artifacts_are_read_although_a_store_shows_them_late(bench: Bench) -> None:
    class Behind(InMemoryArtifactStore):
        async def read(
            self, stream: Stream, *, after: int = 0, limit: int = 100, latest: bool = False
        ) -> Sequence[ArtifactRecord]:
            page = await super().read(stream, after=after, limit=limit, latest=latest)
            return page if latest else page[:-1]

    bench.store.artifacts = Behind()
    await put(bench, b'{"a":1}', b'{"a":2}')
    async with bench.worker({"work": Seeing()}):
        end = await bench.run(pull(), task_id="t", sources=ENDED)
    assert (end.kind, end.batches) == ("node_succeeded", 2)


async def test_upstream_without_data_is_no_error(bench: Bench) -> None:
    async with bench.worker({"work": Seeing()}):
        end = await bench.run(pull(), task_id="t", sources=ENDED)
        assert (end.kind, end.batches) == ("node_succeeded", 0)


@pytest.mark.parametrize("inline", [pull(), rechunk(size=1)], ids=["pull", "rechunk"])
async def test_a_pull_without_parents_is_an_error(bench: Bench, inline: dict[str, Any]) -> None:
    async with bench.worker({"work": Seeing()}):
        end = await bench.run(inline, task_id="t", node_id="root", sources=())
    assert (end.reason_code, end.permanent) == ("bad_input_args", True)
    assert "node 'root' has no parents to pull from; add edges to it" in end.error


async def test_records_of_one_uid_are_read_once_with_a_warning(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A store holds no two, unless another program changed its content."""

    class Doubling(InMemoryArtifactStore):
        async def read(
            self, stream: Stream, *, after: int = 0, limit: int = 100, latest: bool = False
        ) -> Sequence[ArtifactRecord]:
            page = await super().read(stream, after=after, limit=limit, latest=latest)
            return (
                [replace(record, uid="u0") for record in page] if stream.node_id == "up" else page
            )

    bench.store.artifacts = Doubling()
    await put(bench, b'{"a":1}', b'{"a":2}')
    seeing = Seeing()
    async with bench.worker({"work": seeing}):
        end = await bench.run(pull(), task_id="t", sources=ENDED)
    assert (end.batches, [batch.payload["meta"] for batch in seeing.seen]) == (1, [{"a": 1}])
    assert "Batch 'up:u0' of node n came more than once in one run" in caplog.text


async def test_rechunked_batches_have_size_items_of_one_artifact(bench: Bench) -> None:
    await put(
        bench, b'{"rows":[1,2,3],"tags":["x"]}', b'{"rows":[],"tags":[]}', b'{"rows":[4],"tags":[]}'
    )
    seeing = Seeing()
    async with bench.worker({"work": seeing}):
        await bench.run(
            rechunk(from_nodes=["up"], size=2, meta_list_key="rows"), task_id="t", sources=ENDED
        )
    assert [batch.payload for batch in seeing.seen] == [
        {
            "from_node": "up",
            "items": [1, 2],
            "parent": {"ref": "u0", "list_key": "rows", "chunk": 0},
        },
        {"from_node": "up", "items": [3], "parent": {"ref": "u0", "list_key": "rows", "chunk": 1}},
        {"from_node": "up", "items": [4], "parent": {"ref": "u2", "list_key": "rows", "chunk": 0}},
    ]
    assert len({batch.batch_uid for batch in seeing.seen}) == 3


async def test_without_a_list_key_the_only_list_is_cut_else_the_artifact_is_the_item(
    bench: Bench,
) -> None:
    await put(bench, b'{"rows":[1,2],"n":2}', b'{"a":[1],"b":[2]}', b'{"n":1}')
    seeing = Seeing()
    async with bench.worker({"work": seeing}):
        await bench.run(rechunk(size=5), task_id="t", sources=ENDED)
    assert [batch.payload["items"] for batch in seeing.seen] == [
        [1, 2],
        [{"a": [1], "b": [2]}],
        [{"n": 1}],
    ]


async def test_a_function_is_called_with_the_meta_or_the_items_and_returns_the_batchs_artifact(
    bench: Bench,
) -> None:
    await put(bench, b'{"rows":[1,2,3]}')
    calls: list[Any] = []

    async def work(item: Any) -> dict[str, Any] | None:
        calls.append(item)
        return None if item == [3] else {"was": item}

    async with bench.worker({"work": work}):
        pulled = await bench.send(pull(), task_id="t", sources=ENDED)
        end = await bench.end(pulled)
        assert (end.result, end.batches) == (None, 1)
        cut = await bench.send(rechunk(size=2), task_id="t", node_id="m", sources=ENDED)
        await bench.end(cut)
    assert calls == [{"rows": [1, 2, 3]}, [1, 2], [3]]
    assert [record.meta for record in await bench.stored(pulled)] == [b'{"was":{"rows":[1,2,3]}}']
    assert [record.meta for record in await bench.stored(cut)] == [b'{"was":[1,2]}', None]


async def test_what_a_function_returns_for_a_batch_has_to_be_an_object(bench: Bench) -> None:
    await put(bench, b'{"x":1}')

    async def work(item: Any) -> int:
        return 5

    async with bench.worker({"work": work}):
        end = await bench.run(pull(), task_id="t", sources=ENDED)
    assert (end.reason_code, end.permanent) == ("bad_result", True)
    assert "must be a JSON object or None, not int" in end.error


async def test_a_generator_may_make_several_batches_of_a_pulled_one(bench: Bench) -> None:
    await put(bench, b'{"n":2}', b'{"n":1}')

    async def work(item: Any) -> AsyncIterator[dict[str, Any]]:
        for number in range(item["n"]):
            yield {"number": number}

    async with bench.worker({"work": work}):
        first = await bench.run(pull(), task_id="t", sources=ENDED)
        again = await bench.run(pull(), task_id="t", sources=ENDED, attempt=2)
    assert first.batches == again.batches == 3


async def test_a_retry_processes_only_what_is_not_stored(bench: Bench) -> None:
    await put(bench, *[b'{"x":1}'] * 250)
    seeing = Seeing()
    async with bench.worker({"work": seeing}):
        await bench.run(pull(), task_id="t", sources=ENDED)
        await put(bench, b'{"x":2}', first=250)
        seeing.seen.clear()
        end = await bench.run(pull(), task_id="t", sources=ENDED, attempt=2)
    assert (len(seeing.seen), end.batches, end.metrics) == (1, 251, {"n": 251})


async def test_uids_stay_short_down_a_long_chain(bench: Bench) -> None:
    async def work(item: Any) -> Any:
        return item

    node = "up"
    await put(bench, b'{"x":1}', b'{"x":2}')
    async with bench.worker({"work": work}):
        for number in range(8):
            name = f"{number}" * 100
            command = await bench.send(
                pull(), task_id="t", node_id=name, sources=(Source(node_id=node, ended=True),)
            )
            assert (await bench.end(command)).batches == 2
            node = name
    assert all(len(record.uid) <= 200 for record in await bench.stored(command))


async def test_node_ids_with_colons_do_not_clash(bench: Bench) -> None:
    for node, uid in (("a", "b:c"), ("a:b", "c")):
        await bench.store.artifacts.put(
            [ArtifactRecord(Stream("t", node), uid, True, b"{}", b"{}", 0.0)]
        )
    sources = (Source(node_id="a", ended=True), Source(node_id="a:b", ended=True))
    async with bench.worker({"work": Seeing()}):
        assert (await bench.run(pull(), task_id="t", sources=sources)).batches == 2


# ---------------------------------------------------------------- streaming


async def moved(bench: Bench, *, ended: bool = False, node: str = "up", task: str = "t") -> None:
    hint = StreamMoved(task_id=task, node_id=node, ended=ended)
    await bench.bus.publish([Message("flowkit.control", encode(hint), task)])


async def test_a_hint_wakes_the_reader_long_before_it_would_look(bench: Bench) -> None:
    seeing = Seeing()
    task_id = await task_of_reader(bench, "up")
    await put(bench, b'{"x":1}', task=task_id)
    async with bench.worker({"work": seeing}):
        command = await bench.send(
            pull(poll_ms=3_600_000), task_id=task_id, index=1, sources=(Source(node_id="up"),)
        )
        await seeing.until(lambda: len(seeing.seen) == 1)
        began = bench.clock.monotonic()
        await put(bench, b'{"x":2}', first=1, task=task_id)
        await moved(bench, task=task_id)
        await seeing.until(lambda: len(seeing.seen) == 2)
        await put(bench, b'{"x":3}', first=2, task=task_id)
        await moved(bench, ended=True, task=task_id)
        end = await bench.end(command)
    assert (end.batches, bench.clock.monotonic() - began < 60) == (3, True)


async def test_without_hints_the_stream_is_looked_at_every_poll(bench: Bench) -> None:
    seeing = Seeing()
    task_id = await task_of_reader(bench, "up")
    async with bench.worker({"work": seeing}):
        began = bench.clock.monotonic()
        command = await bench.send(
            pull(poll_ms=60_000), task_id=task_id, index=1, sources=(Source(node_id="up"),)
        )
        await bench.started(command)
        await put(bench, b'{"x":1}', task=task_id)
        await seeing.until(lambda: len(seeing.seen) == 1)
        assert 0 <= bench.clock.monotonic() - began <= 121
        await moved(bench, ended=True, task=task_id)
        assert (await bench.end(command)).batches == 1


async def test_a_parent_whose_hint_was_lost_is_read_beside_a_busy_one(bench: Bench) -> None:
    document = {
        "nodes": [
            {"node_id": "up", "type": "a"},
            {"node_id": "other", "type": "a"},
            {"node_id": "n", "type": "work", "depends_on": ["up", "other"]},
        ]
    }
    async with Client(db=bench.store, bus=bench.bus) as client:
        task_id = await client.create_task(graph=document)
    seeing = Seeing()
    sources = (Source(node_id="up"), Source(node_id="other"))
    async with bench.worker({"work": seeing}):
        command = await bench.send(pull(poll_ms=1000), task_id=task_id, index=2, sources=sources)
        await bench.started(command)
        await put(bench, b'{"x":0}', node="other", task=task_id)
        for number in range(30):
            await put(bench, b'{"x":1}', first=number, task=task_id)
            await moved(bench, task=task_id)
            await bench.clock.sleep(0.1)
        assert "other" in {batch.payload["from_node"] for batch in seeing.seen}
        await moved(bench, ended=True, task=task_id)
        await moved(bench, ended=True, node="other", task=task_id)
        assert (await bench.end(command)).batches == 31


async def test_a_parent_that_is_known_to_have_ended_ends_the_reader_without_a_hint(
    bench: Bench,
) -> None:
    """The task in the store has no such stream open any more."""
    graph = {
        "nodes": [
            {"node_id": "other", "type": "a"},
            {"node_id": "n", "type": "work", "depends_on": ["other"]},
        ]
    }
    async with Client(db=bench.store, bus=bench.bus) as client:
        task_id = await client.create_task(graph=graph)
    await put(bench, b'{"x":1}', task=task_id)
    async with bench.worker({"work": Seeing()}):
        end = await bench.run(
            pull(poll_ms=1000), task_id=task_id, index=1, sources=(Source(node_id="up"),)
        )
    assert (end.kind, end.batches) == ("node_succeeded", 1)


async def test_params_that_are_read_once_cost_later_children_no_report_of_their_own(
    bench: Bench,
) -> None:
    """A run that ends at once reports its start and its end in one message."""
    graph = {"nodes": [{"node_id": "n", "type": "other"}]}
    async with Client(db=bench.store, bus=bench.bus) as client:
        task_id = await client.create_task(graph=graph, params={"p": 1})

    async def echo(item: Any, ctx: RunContext) -> Any:
        return dict(ctx.params)

    data = RunContextData(io={}, params={}, vars={}, results={}, params_key="hash")
    async with bench.worker({"echo": echo}):
        for _ in range(2):
            command = await bench.send(role="echo", task_id=task_id, data=data)
            assert (await bench.end(command)).result == {"p": 1}
    assert bench.kinds(command) == ["node_succeeded"]


APART = RunContextData(io={"input_inline": 1}, params={}, vars={}, results={}, results_apart=True)


async def test_results_of_many_parents_are_not_read_for_a_function_without_context(
    bench: Bench,
) -> None:
    """The task is not in the store."""

    async def blind(item: Any) -> Any:
        return item

    async with bench.worker({"blind": blind}):
        assert (await bench.run(role="blind", data=APART)).result == 1


@pytest.mark.parametrize("hook", ["", "flowkit_around_attempt", "flowkit_around_batch"])
async def test_results_of_many_parents_are_read_for_all_that_see_the_context(
    bench: Bench, hook: str
) -> None:
    io = {"input_inline": [1, 2], "batching": {"size": 1}}
    async with Client(db=bench.store, bus=bench.bus) as client:
        task_id = await client.create_task(
            graph={"nodes": [{"node_id": "n", "type": "role", "io": io}]}, params={"p": 1}
        )
    seen: list[Any] = []

    def around(ctx: RunContext) -> None:
        seen.append(dict(ctx.params))

    async def blind(item: Any) -> None: ...
    async def sees(item: Any, ctx: RunContext) -> None:
        around(ctx)

    plugins = [plugin("spans", **{hook: around})] if hook else []
    async with bench.worker({"role": blind if hook else sees}, plugins=plugins):
        end = await bench.run(role="role", task_id=task_id, data=APART)
    assert (end.kind, seen) == ("node_succeeded", [{"p": 1}] * len(seen))
    assert seen


async def test_results_of_many_parents_are_read_for_an_input_adapter(bench: Bench) -> None:
    io = {"input_inline": {"input_adapter": "seen"}}
    async with Client(db=bench.store, bus=bench.bus) as client:
        task_id = await client.create_task(
            graph={"nodes": [{"node_id": "n", "type": "role", "io": io}]}, params={"p": 1}
        )

    async def adapter(request: InputRequest) -> AsyncIterator[Batch]:
        yield Batch("only", dict(request.context.params))

    def register(register: Callable[[str, Any], None]) -> None:
        register("seen", adapter)

    seen: list[Any] = []

    async def blind(item: Any) -> None:
        seen.append(item)

    adapters = plugin("adapters", flowkit_register_input_adapters=register)
    async with bench.worker({"role": blind}, plugins=[adapters]):
        await bench.run(role="role", task_id=task_id, data=APART.model_copy(update={"io": io}))
    assert seen == [{"p": 1}]


async def test_what_does_not_travel_is_read_from_the_store(bench: Bench) -> None:
    graph = {
        "nodes": [
            {"node_id": "up", "type": "a"},
            {
                "node_id": "n",
                "type": "work",
                "depends_on": ["up"],
                "io": {"input_inline": pull(from_node="missing")},
            },
            {
                "node_id": "m",
                "type": "echo",
                "depends_on": ["up"],
                "io": {"input_inline": {"x": 1}},
            },
        ]
    }
    graph["nodes"][1]["io"]["input_inline"]["input_args"] = {}  # type: ignore[index]
    async with Client(db=bench.store, bus=bench.bus) as client:
        task_id = await client.create_task(graph=graph, params={"p": 1})

    async def echo(item: Any, ctx: RunContext) -> Any:
        return [item, dict(ctx.params)]

    async with bench.worker({"work": Seeing(), "echo": echo}):
        end = await bench.run(role="echo", task_id=task_id, index=2, data=None)
        assert end.result == [{"x": 1}, {"p": 1}]
        command = await bench.send(task_id=task_id, index=1, data=None, sources=None)
        await bench.started(command)
        await moved(bench, ended=True, task=task_id)
        assert (await bench.end(command)).batches == 0


async def test_a_streamed_node_tells_its_readers_at_once_and_then_in_measured_steps(
    bench: Bench,
) -> None:
    hints: list[Any] = []
    gate = anyio.Event()

    async def work(item: Any, ctx: RunContext) -> AsyncIterator[dict[str, Any]]:
        yield {"first": True}
        await gate.wait()
        for number in range(200):
            await ctx.clock.sleep(0.001)
            yield {"number": number}

    async with (
        bench.bus.subscribe(["flowkit.control"], group=None) as control,
        bench.worker({"work": work}),
    ):
        await control.receive(max_messages=1)  # the worker asks for waiting runs
        command = await bench.send(streamed=True)
        (delivery,) = await control.receive(max_messages=1)
        hints.append(delivery.message)
        assert bench.kinds(command) in ([], ["node_started"], ["node_started", "batch_stored"])
        gate.set()
        await bench.end(command)
        await bench.clock.sleep(1)
        hints += [delivery.message for delivery in await control.receive(max_messages=1000)]
    assert 2 <= len(hints) < 20
    assert {message.key for message in hints} == {command.task_id}


async def test_a_node_without_streaming_readers_sends_no_hints(bench: Bench) -> None:
    async def work() -> AsyncIterator[dict[str, Any]]:
        yield {"first": True}

    async with (
        bench.bus.subscribe(["flowkit.control"], group=None) as control,
        bench.worker({"work": work}),
    ):
        await control.receive(max_messages=1)  # the worker asks for waiting runs
        await bench.run(streamed=False)
        await bench.clock.sleep(1)
        with anyio.move_on_after(0.01) as scope:
            await control.receive(max_messages=1)
        assert scope.cancelled_caught


async def test_a_stream_is_read_in_constant_memory(bench: Bench) -> None:
    class Counted(InMemoryArtifactStore):
        largest = 0

        async def read(
            self, stream: Stream, *, after: int = 0, limit: int = 100, latest: bool = False
        ) -> Sequence[ArtifactRecord]:
            page = await super().read(stream, after=after, limit=limit, latest=latest)
            Counted.largest = max(Counted.largest, len(page))
            return page

    bench.store.artifacts = Counted()
    await put(bench, *[b'{"x":1}'] * 2000)
    async with bench.worker({"work": Seeing()}):
        assert (await bench.run(pull(), task_id="t", sources=ENDED)).batches == 2000
    assert Counted.largest == 100


# ---------------------------------------------------------------- the route


@pytest.mark.parametrize("name", ["pull.from_artefacts", "", 5, ["pull.from_artifacts"]])
async def test_an_unknown_adapter_fails_for_good(bench: Bench, name: Any) -> None:
    async def function(item: Any) -> None: ...

    async with bench.worker({"work": Seeing(), "function": function}):
        for role in ("work", "function"):
            end = await bench.run({"input_adapter": name}, role=role, sources=ENDED)
            assert (end.reason_code, end.permanent) == ("bad_input_adapter", True)
            assert "pull.from_artifacts" in end.error


@pytest.mark.parametrize(
    ("inline", "message"),
    [
        (pull(from_node="up", from_nodes=["up"]), "not both"),
        (pull(from_node="stranger"), "'stranger': not among the parents"),
        (pull(from_nodes=["up", "stranger"]), "'stranger': not among the parents"),
        (pull(from_nodes="up"), "from_nodes a list of node ids"),
        (pull(from_node=5), "from_node must be a node id"),
        (pull(from_nodes=[5]), "from_nodes a list of node ids"),
        (
            pull(from_nodes=[]),
            "from_nodes is empty; name parents of the node, or leave it out to read all of them",
        ),
        (pull(poll_ms=0), "poll_ms must be at least 1"),
        (pull(poll_ms="fast"), "poll_ms must be of type int, not 'fast'"),
        (pull(poll_ms=True), "poll_ms must be of type int"),
        (pull(limit=3, colour="red"), "there is no argument 'colour', 'limit'"),
        (pull() | {"input_args": [1]}, "input_args must be an object"),
        (rechunk(), "size is missing"),
        (rechunk(size=0), "size must be at least 1"),
        (rechunk(size=1.5), "size must be of type int"),
        (rechunk(size=1, meta_list_key=5), "meta_list_key must be of type str"),
        (
            rechunk(size=1, meta_list_key="rows"),
            "'rows' is not a list in artifact 'u0' of node 'up'",
        ),
    ],
)
async def test_bad_arguments_fail_for_good(
    bench: Bench, inline: dict[str, Any], message: str
) -> None:
    await put(bench, b'{"rows":5}')
    async with bench.worker({"work": Seeing()}):
        end = await bench.run(inline, task_id="t", sources=ENDED)
    assert (end.reason_code, end.permanent) == ("bad_input_args", True)
    assert message in end.error


async def test_arguments_may_be_left_out(bench: Bench) -> None:
    async with bench.worker({"work": Seeing()}):
        end = await bench.run({"input_adapter": "pull.from_artifacts"}, sources=ENDED)
    assert end.kind == "node_succeeded"


class Proposing(Seeing):
    async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
        return {
            "input_adapter": (input_inline or {}).get("propose", "pull.from_artifacts"),
            "input_args": {"from_node": "up"},
        }

    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        yield Batch("own", "own")


async def test_the_adapter_the_node_names_wins_over_the_one_load_input_proposes(
    bench: Bench,
) -> None:
    await put(bench, b'{"rows":[1,2]}')
    proposing = Proposing()
    async with bench.worker({"work": proposing}):
        await bench.run(rechunk(size=1), task_id="t", sources=ENDED)
        await bench.run(task_id="t", node_id="m", sources=ENDED)
        await bench.run({"propose": "unheard.of"}, task_id="t", node_id="l", sources=ENDED)
    assert [batch.payload for batch in proposing.seen] == [
        {"from_node": "up", "items": [1], "parent": {"ref": "u0", "list_key": "rows", "chunk": 0}},
        {"from_node": "up", "items": [2], "parent": {"ref": "u0", "list_key": "rows", "chunk": 1}},
        {"from_node": "up", "ref": "u0", "meta": {"rows": [1, 2]}},
        "own",
    ]


async def test_strictly_an_unknown_adapter_that_is_proposed_fails(bench: Bench) -> None:
    async with bench.worker({"work": Proposing()}, strict_input_adapters=True):
        end = await bench.run({"propose": "unheard.of"}, sources=ENDED)
    assert (end.reason_code, end.permanent) == ("bad_input_adapter", True)


async def test_plugins_bring_adapters(bench: Bench) -> None:
    async def letters(request: InputRequest) -> AsyncGenerator[Batch | Sequence[Batch], None]:
        text = request.take("text", str)
        request.no_other_arguments()
        yield Batch("first", text[0])
        yield [Batch(str(place), letter) for place, letter in enumerate(text[1:])]

    class Single:
        async def __call__(self, request: InputRequest) -> AsyncGenerator[Batch, None]:
            yield Batch("only", "d")

    class Plugin:
        __name__ = "letters"

        def flowkit_register_input_adapters(self, register: Callable[[str, Any], None]) -> None:
            register("letters", letters)
            register("single", Single())

    calls: list[Any] = []

    async def work(item: Any) -> None:
        calls.append(item)

    async with bench.worker({"work": work}, plugins=[Plugin()]):
        assert (
            await bench.run({"input_adapter": "letters", "input_args": {"text": "abc"}})
        ).batches == 3
        assert (await bench.run({"input_adapter": "single"})).batches == 1
    assert calls == ["a", "b", "c", "d"]


async def test_a_handler_reads_its_parents_artifacts(bench: Bench) -> None:
    await put(bench, b'{"x":1}', None, b'{"x":2}')

    async def work(item: Any, ctx: RunContext) -> Any:
        return [meta async for meta in ctx.artifacts.read(item)]

    async with bench.worker({"work": work}):
        assert (await bench.run("up", task_id="t", sources=ENDED)).result == [{"x": 1}, {"x": 2}]
        assert (await bench.run("n", task_id="t", sources=ENDED)).result == []
        end = await bench.run("stranger", task_id="t", sources=ENDED)
    assert (end.reason_code, "'stranger' is not one of them" in end.error) == ("bad_input", True)


async def test_a_late_hint_of_a_stream_that_is_read_does_not_keep_its_reader_busy(
    bench: Bench,
) -> None:
    """The reader waits for the open stream, and the clock continues."""
    seeing = Seeing()
    task_id = await task_of_reader(bench, "one", "two")
    await put(bench, b'{"a":1}', node="one", task=task_id)
    sources = (Source(node_id="one", ended=True), Source(node_id="two"))
    async with bench.worker({"work": seeing}):
        command = await bench.send(pull(poll_ms=1000), task_id=task_id, index=2, sources=sources)
        await seeing.until(lambda: len(seeing.seen) == 1)
        await moved(bench, ended=True, node="one", task=task_id)
        await put(bench, b'{"b":1}', node="two", task=task_id)
        await moved(bench, ended=True, node="two", task=task_id)
        end = await bench.end(command)
    assert (end.kind, len(seeing.seen)) == ("node_succeeded", 2)
