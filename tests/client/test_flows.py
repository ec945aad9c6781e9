"""Registered flows: their versions, and tasks that run them."""

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from flowkit import Client, FlowNotFound, GraphError, TaskRefused, flow
from flowkit._records.flow_records import HEADS, VERSIONS
from flowkit.errors import CorruptRecord, RecordTooLarge, StoreUnavailable
from flowkit.protocols import KeyedRecord, RecordChange
from flowkit.task import NewTask
from flowkit.worker import handler
from flowkit_testing import Cluster, InMemoryStore
from tests.builders import ONE, TWO, ended, graph, node, plugin
from tests.hooked_store import HookedStore

THREE = graph(node("a"), node("b"), node("c"))
NUMBERED = graph(node("a", io={"input_inline": "${params.n}"}), params={"required": ["n"]})


def client_of(store: InMemoryStore | None = None, **options: Any) -> Cluster:
    return Cluster(coordinators=0, store=store, **options)


async def graphs_of(cluster: Cluster, name: str) -> list[Any]:
    """Return the graphs of a flow, in the order of their versions."""
    latest = (await cluster.client.get_flow(name)).version
    numbers = range(1, latest + 1)
    return [(await cluster.client.get_flow(name, number)).graph for number in numbers]


# ---------------------------------------------------------------- versions


async def test_each_other_graph_is_the_next_version_and_the_same_one_is_not() -> None:
    async with client_of() as cluster:
        first = await cluster.client.put_flow("etl", ONE, description="one node")
        assert (first.name, first.version, first.graph) == ("etl", 1, ONE)
        reordered = {"nodes": [dict(reversed(ONE["nodes"][0].items()))]}
        again = await cluster.client.put_flow("etl", reordered, description="one node")
        assert again == first
        second = await cluster.client.put_flow("etl", TWO, description="two nodes")
        third = await cluster.client.put_flow("etl", ONE)
        assert (second.version, third.version) == (2, 3)
        assert await cluster.client.get_flow("etl") == third
        assert await cluster.client.get_flow("etl", 1) == first
        assert await cluster.client.get_flow("etl", 2) == second


async def test_another_description_of_the_same_graph_replaces_that_of_the_latest_version() -> None:
    async with client_of() as cluster:
        first = await cluster.client.put_flow("etl", ONE, description="before")
        await cluster.client.put_flow("etl", TWO, description="before")
        said = await cluster.client.put_flow("etl", TWO, description="after")
        assert (said.version, said.description) == (2, "after")
        assert await cluster.client.get_flow("etl") == said
        assert [one.description for one in await cluster.client.list_flows()] == ["after"]
        assert await cluster.client.get_flow("etl", 1) == first


async def test_flows_are_listed_by_name_with_their_latest_versions() -> None:
    names = ["etl@1", "b", "etl", "ä"]
    async with client_of() as cluster:
        for name in names:
            await cluster.client.put_flow(name, ONE)
        latest = await cluster.client.put_flow("etl", TWO, description="two")
        found = await cluster.client.list_flows()
        assert [one.name for one in found] == ["b", "etl", "etl@1", "ä"]
        assert [one.version for one in found] == [1, 2, 1, 1]
        assert found[1].created_at == latest.created_at
        assert found[1].description == "two"


class Racing(HookedStore):
    """Store that lets others put flows before the first change of a put."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0
        self.both = anyio.Event()

    async def before_change(self, change: RecordChange) -> None:
        self.changes += 1
        if self.changes == 2:
            self.both.set()
        if self.changes in (1, 2):
            await self.both.wait()


@pytest.mark.parametrize("start", [None, THREE], ids=["a new flow", "a known flow"])
async def test_two_puts_at_once_never_make_one_number_for_two_graphs(start: Any) -> None:
    store = Racing()
    async with client_of(store) as cluster:
        store.changes = -1 if start else 0
        if start:
            await cluster.client.put_flow("etl", start)
        async with anyio.create_task_group() as group:
            for one in (ONE, TWO):
                group.start_soon(cluster.client.put_flow, "etl", one)
        stored = await graphs_of(cluster, "etl")
        assert len(stored) == (3 if start else 2)
        assert ONE in stored
        assert TWO in stored


async def test_two_puts_of_one_graph_at_once_make_one_version() -> None:
    store = Racing()
    async with client_of(store) as cluster:
        found = []

        async def put() -> None:
            found.append(await cluster.client.put_flow("etl", ONE))

        async with anyio.create_task_group() as group:
            group.start_soon(put)
            group.start_soon(put)
        assert [one.version for one in found] == [1, 1]
        assert found[0] == found[1]


class AnswersLost(InMemoryStore):
    """Store that applies the first change and answers that it is unavailable."""

    others: Client
    """The client that puts the graphs of ``then`` before the answer is lost."""

    def __init__(self, then: Sequence[Any] = ()) -> None:
        super().__init__()
        self.then = list(then)
        self.lost = False

    async def __aenter__(self) -> "AnswersLost":
        records, change = self.records, self.records.change

        async def lost(changes: Sequence[RecordChange]) -> Sequence[bool]:
            answer = await change(changes)
            if not self.lost:
                self.lost = True
                for following in self.then:
                    await self.others.put_flow("etl", following)
                raise StoreUnavailable("the answer is lost")
            return answer

        records.change = lost  # type: ignore[method-assign]
        await super().__aenter__()
        return self


async def test_a_put_whose_answer_is_lost_makes_one_version() -> None:
    store = AnswersLost(then=[TWO])
    async with client_of(store) as cluster:
        store.others = cluster.client
        found = await cluster.client.put_flow("etl", ONE)
        assert found.version == 1
        assert await graphs_of(cluster, "etl") == [ONE, TWO]


async def test_a_flow_or_version_that_does_not_exist_is_not_found() -> None:
    async with client_of() as cluster:
        await cluster.client.put_flow("etl", ONE)
        with pytest.raises(FlowNotFound, match=r"^there is no flow 'load'$"):
            await cluster.client.get_flow("load")
        with pytest.raises(FlowNotFound, match=r"^there is no flow 'load'$"):
            await cluster.client.get_flow("load", 2)
        with pytest.raises(FlowNotFound, match=r"^flow 'etl' has no version 2$"):
            await cluster.client.get_flow("etl", 2)
        with pytest.raises(FlowNotFound):
            await cluster.client.create_task(flow="etl", version=2)


async def test_a_graph_with_faults_is_not_registered() -> None:
    async with client_of() as cluster:
        with pytest.raises(GraphError) as caught:
            await cluster.client.put_flow(
                "etl", graph(node("a", "work", "b"), node("c", "coordinator_fn", io={"fn": "odd"}))
            )
        assert len(caught.value.faults) == 2
        with pytest.raises(GraphError, match="topic"):
            await cluster.client.put_flow("etl", graph(node("a", "ä" * 200)))
        assert await cluster.client.list_flows() == []


@pytest.mark.parametrize(
    ("name", "description", "sentence"),
    [
        ("", "", "name must not be empty"),
        ("a\nb", "", "name: it contains characters that cannot be printed"),
        (".", "", "name: '.' and '..' cannot be parts of a URL"),
        ("x" * 201, "", "name must have at most 200 characters"),
        ("etl", 7, "description must be a string, not 7"),
        ("etl", "x" * 10_001, "description must have at most 10000 characters"),
    ],
)
async def test_a_name_or_description_with_a_fault_is_refused(
    name: Any, description: Any, sentence: str
) -> None:
    async with client_of() as cluster:
        with pytest.raises(GraphError, match=sentence):
            await cluster.client.put_flow(name, ONE, description=description)
        assert await cluster.client.list_flows() == []


async def test_a_graph_that_is_too_large_for_a_record_says_so() -> None:
    async with client_of(InMemoryStore(max_record_bytes=1_000)) as cluster:
        large = graph(node("a", io={"input_inline": "x" * 2_000}))
        with pytest.raises(RecordTooLarge, match=r"the graph of flow 'etl' has 2\d\d\d bytes"):
            await cluster.client.put_flow("etl", large)
        assert await cluster.client.list_flows() == []


class Damaged(HookedStore):
    """Store in which records of a kind are damaged."""

    kind = ""

    def seen(self, record: KeyedRecord) -> KeyedRecord:
        if record.kind == self.kind:
            return KeyedRecord(record.kind, record.key, b"{}", record.revision)
        return record


async def test_a_damaged_flow_is_listed_with_its_fault_and_hides_no_other() -> None:
    store = Damaged()
    async with client_of(store) as cluster:
        await cluster.client.put_flow("etl", ONE)
        store.kind = HEADS
        (found,) = await cluster.client.list_flows()
        assert (found.name, found.version) == ("etl", 0)
        assert "the record of flow 'etl' cannot be read" in (found.fault or "")
        for verb in (
            cluster.client.put_flow("etl", TWO),
            cluster.client.get_flow("etl"),
            cluster.client.create_task(flow="etl"),
        ):
            with pytest.raises(CorruptRecord, match="the record of flow 'etl' cannot be read"):
                await verb
        assert (await cluster.client.get_flow("etl", 1)).graph == ONE


async def test_a_damaged_version_is_replaced_by_a_later_one() -> None:
    store = Damaged()
    async with client_of(store) as cluster:
        await cluster.client.put_flow("etl", ONE)
        store.kind = VERSIONS
        with pytest.raises(CorruptRecord, match="the record of version 1 of flow 'etl'"):
            await cluster.client.get_flow("etl")
        assert (await cluster.client.put_flow("etl", ONE)).version == 2
        store.kind = ""
        assert await graphs_of(cluster, "etl") == [ONE, ONE]


# ---------------------------------------------------------------- tasks


@handler("work")
def number(item: Any) -> Any:
    return item


@flow
def numbered(n: int):
    return number(n)


async def test_a_task_runs_the_latest_version_and_says_which_one() -> None:
    async with Cluster(handlers=[number]) as cluster:
        await cluster.client.put_flow("etl", TWO)
        await cluster.client.put_flow("etl", numbered)
        view = await cluster.run(flow="etl", params={"n": 7})
        assert (view.result, view.flow, view.version, view.pipeline) == (7, "etl", 2, "etl")
        (listed,) = (await cluster.client.list_tasks(pipeline="etl")).items
        assert (listed.flow, listed.version) == ("etl", 2)


async def test_a_task_runs_the_version_that_it_names_under_a_pipeline_of_its_own() -> None:
    async with Cluster(handlers=[number]) as cluster:
        await cluster.client.put_flow("etl", TWO)
        await cluster.client.put_flow("etl", ONE)
        view = await cluster.run(flow="etl", version=1, pipeline="night")
        assert (view.flow, view.version, view.pipeline) == ("etl", 1, "night")
        assert list(view.nodes) == ["a", "b"]


async def test_a_task_keeps_the_graph_with_which_it_began() -> None:
    async with client_of() as cluster:
        await cluster.client.put_flow("etl", ONE)
        task_id = await cluster.client.create_task(flow="etl")
        await cluster.client.put_flow("etl", TWO)
        await cluster.add_coordinator()
        await cluster.add_worker([number])
        view = await ended(cluster, task_id)
        assert (list(view.nodes), view.version) == (["a"], 1)


async def test_the_params_of_a_flow_are_checked_by_its_schema() -> None:
    async with client_of() as cluster:
        await cluster.client.put_flow("etl", numbered)
        with pytest.raises(GraphError, match="n"):
            await cluster.client.create_task(flow="etl", params={"m": 1})
        assert (await cluster.client.list_tasks()).items == []


@pytest.mark.parametrize("version", [None, 1])
async def test_a_repeated_submission_of_a_flow_returns_the_first_task(version: int | None) -> None:
    async with client_of() as cluster:
        await cluster.client.put_flow("etl", ONE)
        asked = {"flow": "etl", "version": version, "idempotency_key": "k", "params": {"n": 1}}
        first = await cluster.client.create_task(**asked)
        await cluster.client.put_flow("etl", TWO)
        assert await cluster.client.create_task(**asked) == first
        assert (await cluster.client.get_task(first)).version == 1


@pytest.mark.parametrize(
    ("second", "difference"),
    [
        ({"flow": "etl", "version": 1}, "flow 'etl', the latest version"),
        ({"flow": "other"}, "flow 'etl', the latest version"),
        ({"graph": ONE}, "flow 'etl'"),
        ({"flow": "etl", "params": {"n": 2}}, "other params"),
    ],
)
async def test_another_submission_under_the_same_key_is_refused(
    second: dict[str, Any], difference: str
) -> None:
    async with client_of() as cluster:
        await cluster.client.put_flow("etl", ONE)
        await cluster.client.put_flow("other", ONE)
        await cluster.client.create_task(flow="etl", idempotency_key="k")
        with pytest.raises(TaskRefused, match=f"was submitted with {difference};"):
            await cluster.client.create_task(**second, idempotency_key="k")


async def test_a_flow_under_the_key_of_a_graph_is_refused() -> None:
    async with client_of() as cluster:
        await cluster.client.put_flow("etl", ONE)
        await cluster.client.create_task(graph=ONE, idempotency_key="k")
        with pytest.raises(TaskRefused, match="was submitted with a graph of its own;"):
            await cluster.client.create_task(flow="etl", idempotency_key="k")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({}, "a task needs exactly one of graph and flow"),
        ({"graph": ONE, "flow": "etl"}, "a task needs exactly one of graph and flow"),
        ({"graph": ONE, "version": 1}, "version has no effect without flow; remove it"),
        ({"flow": "etl", "version": 0}, "version must be at least 1, not 0"),
        ({"flow": "etl", "version": "1"}, "version must be a whole number, not '1'"),
        ({"flow": 7}, "flow must be a string, not 7"),
    ],
)
async def test_a_submission_names_one_graph(asked: dict[str, Any], sentence: str) -> None:
    async with client_of() as cluster:
        await cluster.client.put_flow("etl", ONE)
        with pytest.raises(GraphError, match=sentence):
            await cluster.client.create_task(**asked)
        assert (await cluster.client.list_tasks()).items == []


async def test_plugins_that_check_submissions_see_the_flow() -> None:
    seen: list[NewTask] = []

    def submitted(task: NewTask) -> None:
        seen.append(task)

    plugins = [plugin("watcher", flowkit_before_submit=submitted)]
    async with client_of(plugins=plugins) as cluster:
        await cluster.client.put_flow("etl", ONE)
        await cluster.client.create_task(flow="etl")
        assert [(task.flow, task.version, task.pipeline) for task in seen] == [("etl", 1, "etl")]
