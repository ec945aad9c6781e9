"""Patterns of data and streams."""

from pathlib import Path
from typing import Any

import pytest

from flowkit import GraphError, TaskView
from flowkit.worker import RunContext
from flowkit_testing import Cluster
from tests.patterns.support import play, shows, starts


async def stored(cluster: Cluster, view: TaskView, node_id: str) -> list[Any]:
    """Return the artifacts of a node."""
    return [one.meta async for one in cluster.client.artifacts(view.id, node_id)]


@shows("streaming_pipeline")
async def test_the_stages_run_at_the_same_time(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow)
    assert starts(view) == {"pages": 0, "parse": 0.1, "index": 0.1}
    assert await stored(flowkit_cluster, view, "index") == [{"page": n} for n in range(3)]


@shows("tee")
async def test_two_readers_get_every_page(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow)
    for reader in ("archive", "search"):
        assert await stored(flowkit_cluster, view, reader) == [{"page": n} for n in range(3)]


@shows("merged_streams")
async def test_one_reader_gets_the_pages_of_two_producers(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow)
    pages = [one["page"] for one in await stored(flowkit_cluster, view, "parse")]
    assert sorted(pages) == [0, 0, 1, 1, 2]
    assert starts(view)["parse"] == 0.1


@shows("batches_of_a_list")
async def test_a_list_is_loaded_a_hundred_rows_at_a_time(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, {"rows": list(range(250))})
    assert await stored(flowkit_cluster, view, "load") == [{"rows": n} for n in (100, 100, 50)]


@shows("batches_of_a_stream")
async def test_the_files_of_a_list_are_loaded_two_at_a_time(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow)
    assert await stored(flowkit_cluster, view, "load") == [{"rows": n} for n in (2, 2, 1)]


@shows("batch_window")
async def test_pages_are_loaded_together_when_there_are_five_or_time_is_over(
    flow: Path, flowkit_cluster: Cluster
):
    view = await play(flowkit_cluster, flow)
    found = [one["rows"] for one in await stored(flowkit_cluster, view, "load")]
    assert (sum(found), max(found) <= 5, len(found)) == (12, True, 3)


@shows("batched_pipeline")
async def test_five_texts_at_a_time_are_embedded_while_documents_come(
    flow: Path, flowkit_cluster: Cluster
):
    view = await play(flowkit_cluster, flow)
    windows = await stored(flowkit_cluster, view, "embed")
    assert [len(one["vectors"]) for one in windows] == [5, 5, 2]
    assert starts(view) == {"documents": 0, "extract_text": 0.1, "embed": 0.1, "count_vectors": 1.2}
    assert view.result == 12


@shows("shared_counter")
async def test_both_nodes_add_to_one_number(flow: Path, flowkit_cluster: Cluster):
    assert (await play(flowkit_cluster, flow)).result == {"copied": 7}


@shows("claim_check")
async def test_the_reference_goes_on_and_not_the_video(flow: Path, flowkit_cluster: Cluster):
    seen = []

    async def copy(item: Any, ctx: RunContext) -> None:
        seen.append(item)

    await play(flowkit_cluster, flow, audio=copy)
    assert seen == [{"ref": "s3://videos/7"}]


@shows("pages_of_an_api")
async def test_each_page_is_loaded_when_it_has_arrived(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow)
    assert await stored(flowkit_cluster, view, "load") == [{"loaded": 2}, {"loaded": 1}]


@shows("checked_params_and_output")
async def test_params_are_checked_and_the_output_has_the_total(
    flow: Path, flowkit_cluster: Cluster
):
    assert (await play(flowkit_cluster, flow, {"items": 2})).result == {"items": 2, "total": 9.0}
    with pytest.raises(GraphError, match=r"items: 0 .*params\.shipping"):
        await play(flowkit_cluster, flow, {"items": 0, "shipping": "never"})
