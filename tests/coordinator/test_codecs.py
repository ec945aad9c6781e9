"""What a codec does not take is one task's affair."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from flowkit import hookimpl
from flowkit.worker import handler
from flowkit_testing import Cluster

HOUR = 3600


class Fussy:
    """A codec that does not take every result, nor every command, with a function whose result is such."""

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


@handler("work")
async def work(item: Any) -> Any:
    return item


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster(handlers=[work], plugins=[Fussy()]) as cluster:
        yield cluster


async def others_go_on(cluster: Cluster) -> bool:
    return (await cluster.run({"nodes": [{"node_id": "a", "type": "work", "io": {"input_inline": 1}}]})).status == "finished"


async def test_a_result_that_cannot_be_encoded_fails_its_function(cluster: Cluster) -> None:
    view = await cluster.run({"nodes": [{"node_id": "f", "type": "coordinator_fn", "io": {"fn": "bad"}}]})
    assert (view.status, view.nodes["f"].reason_code) == ("failed", "result_not_encoded")
    assert await others_go_on(cluster)


async def test_a_command_that_cannot_be_encoded_puts_its_task_aside_and_the_others_of_its_time_begin(cluster: Cluster) -> None:
    wide = {"nodes": [{"node_id": f"n{i}", "type": "work", "io": {"input_inline": i}} for i in range(20)]}
    wide["nodes"][7]["io"]["input_inline"] = "BAD-COMMAND"
    task_id = await cluster.client.create_task(graph=wide)
    assert await others_go_on(cluster)
    await cluster.clock.sleep(HOUR)
    view = await cluster.client.get_task(task_id)
    letters = (await cluster.client.dead_letters(task_id=task_id)).items
    assert {node.node_id for node in view.nodes.values() if node.status != "finished"} == {"n7"}
    assert [letter.kind for letter in letters] == ["task"]
    assert "PayloadError" in letters[0].error
