"""A codec that refuses a payload affects only the task of that payload."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from flowkit import hookimpl
from flowkit.worker import handler
from flowkit_testing import Cluster
from flowkit_testing._cluster import DAY, HOUR
from tests.builders import work


class Fussy:
    """A codec that refuses some results and commands.

    It also registers a function that returns such a result.
    """

    @hookimpl
    def flowkit_encode_payload(self, data: bytes, context: str) -> bytes:
        if b"BAD-RESULT" in data or (b"BAD-COMMAND" in data and ".cmd." in context):
            raise RuntimeError("not this one")
        return b"Z" + data

    @hookimpl
    def flowkit_decode_payload(self, data: bytes) -> bytes:
        return data[1:]

    @hookimpl
    def flowkit_register_functions(self, register: Any) -> None:
        async def bad(ctx: Any) -> str:
            return "BAD-" + "RESULT"

        register("bad", bad)


class Swelling:
    """A codec that makes some messages of a marked task too large, or empty."""

    def __init__(self, kind: bytes, made: bytes) -> None:
        self.kind = kind
        self.made = made
        self.marked = b"there is no such task"

    @hookimpl
    def flowkit_encode_payload(self, data: bytes, context: str) -> bytes:
        swells = context.startswith("message/") and self.kind in data and self.marked in data
        return self.made if swells else data

    @hookimpl
    def flowkit_decode_payload(self, data: bytes) -> bytes:
        return data


@handler("wait")
async def wait(item: Any) -> None:
    await anyio.Event().wait()


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster(handlers=[work], plugins=[Fussy()]) as cluster:
        yield cluster


async def others_go_on(cluster: Cluster) -> bool:
    return (
        await cluster.run({"nodes": [{"node_id": "a", "type": "work", "io": {"input_inline": 1}}]})
    ).status == "finished"


async def test_a_result_that_cannot_be_encoded_fails_its_function(cluster: Cluster) -> None:
    view = await cluster.run(
        {"nodes": [{"node_id": "f", "type": "coordinator_fn", "io": {"fn": "bad"}}]}
    )
    assert (view.status, view.nodes["f"].reason_code) == ("failed", "result_not_encoded")
    assert await others_go_on(cluster)


async def test_a_command_that_cannot_be_encoded_quarantines_its_task_and_the_others_begin(
    cluster: Cluster,
) -> None:
    wide = {
        "nodes": [
            {"node_id": f"n{i}", "type": "work", "io": {"input_inline": i}} for i in range(20)
        ]
    }
    wide["nodes"][7]["io"]["input_inline"] = "BAD-COMMAND"
    task_id = await cluster.client.create_task(graph=wide)
    assert await others_go_on(cluster)
    await cluster.clock.sleep(HOUR)
    view = await cluster.client.get_task(task_id)
    letters = (await cluster.client.dead_letters(task_id=task_id)).items
    assert {node.node_id for node in view.nodes.values() if node.status != "finished"} == {"n7"}
    assert [letter.kind for letter in letters] == ["task"]
    assert "PayloadError" in letters[0].error


@pytest.mark.parametrize("made", [b"x" * 2_000_000, b""], ids=["too large", "empty"])
@pytest.mark.parametrize("coordinators", [0, 1], ids=["restored", "submitted"])
async def test_a_command_that_a_codec_makes_unsendable_quarantines_its_task_and_the_others_begin(
    made: bytes, coordinators: int
) -> None:
    codec = Swelling(b'"run_node"', made)
    async with Cluster(handlers=[work], plugins=[codec], coordinators=coordinators) as cluster:
        codec.marked = b"SWELLS"
        graphs = [
            {"nodes": [{"node_id": "a", "type": "work", "io": {"input_inline": value}}]}
            for value in (1, "SWELLS", 2)
        ]
        first, bad, last = [await cluster.client.create_task(graph=graph) for graph in graphs]
        if not coordinators:
            await cluster.add_coordinator()
        assert [
            (await cluster.client.wait(task_id, timeout=HOUR)).status for task_id in (first, last)
        ] == ["finished"] * 2
        await cluster.clock.sleep(HOUR)
        letters = (await cluster.client.dead_letters()).items
    assert [(letter.kind, letter.task_id) for letter in letters] == [("task", bad)]


@pytest.mark.parametrize("made", [b"x" * 2_000_000, b""], ids=["too large", "empty"])
async def test_a_cancellation_that_a_codec_makes_unsendable_quarantines_its_task_alone(
    made: bytes,
) -> None:
    codec = Swelling(b'"cancel_run"', made)
    async with Cluster(handlers=[wait], plugins=[codec]) as cluster:
        graph = {"nodes": [{"node_id": "a", "type": "wait"}], "deadline_sec": 60}
        tasks = [await cluster.client.create_task(graph=graph) for _ in range(3)]
        codec.marked = tasks[1].encode()
        await cluster.clock.sleep(HOUR)
        views = [await cluster.client.get_task(task_id) for task_id in tasks]
        letters = (await cluster.client.dead_letters(task_id=tasks[1])).items
    assert [view.status for view in (views[0], views[2])] == ["failed"] * 2
    assert "task" in {letter.kind for letter in letters}


@pytest.mark.parametrize("made", [b"x" * 2_000_000, b""], ids=["too large", "empty"])
async def test_a_hint_that_a_codec_makes_unsendable_stops_no_submission(made: bytes) -> None:
    codec = Swelling(b'"task_touched"', made)
    codec.marked = b"marked"
    async with Cluster(handlers=[work], plugins=[codec]) as cluster:
        await cluster.client.create_task(
            graph={"nodes": [{"node_id": "a", "type": "work"}]}, task_id="marked"
        )
        assert (await cluster.client.wait("marked", timeout=7 * DAY)).status == "finished"
