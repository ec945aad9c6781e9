"""Patterns in which a graph runs in rounds."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from flowkit.worker import RunContext
from flowkit_testing import Cluster
from tests.patterns.support import Step, ends, play, shows, start, starts


def answers(results: Iterable[Any], seen: list[Any] | None = None) -> Step:
    """Return a step that returns one of these results in each run, and notes its inputs."""
    left = list(results)

    async def step(item: Any, ctx: RunContext) -> Any:
        if seen is not None:
            seen.append(item)
        result = left.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    return step


@shows("poll_until_ready")
async def test_an_order_is_fetched_when_it_is_ready(flow: Path, flowkit_cluster: Cluster):
    waits = [{"status": "running"}] * 7
    check = answers([*waits, {"status": "ready", "url": "x"}])
    view = await play(flowkit_cluster, flow, check=check)
    assert view.result == {"fetch": "x"}
    assert starts(view)["fetch"] == 5 * 10 + 2 * 60


@shows("poll_until_ready")
async def test_an_order_that_is_never_ready_fails_the_flow(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, check=answers([{"status": "running"}] * 30))
    assert (view.status, view.nodes["ready"].reason_code) == ("failed", "loop_limit")


@shows("pages_until_the_last")
async def test_the_rows_of_all_pages_are_loaded(flow: Path, flowkit_cluster: Cluster):
    asked: list[Any] = []
    pages = [{"rows": [1, 2], "next": 2}, {"rows": [3], "next": 3}, {"rows": [], "next": None}]
    view = await play(flowkit_cluster, flow, fetch=answers(pages, asked))
    assert asked == [{"page": 1}, {"page": 2}, {"page": 3}]
    assert view.result == {"load": {"rows": 3}}


@shows("ever_smaller_tries")
@pytest.mark.parametrize(("bad", "result"), [(0, 1000), (2, 10), (4, None)])
async def test_smaller_portions_are_tried_until_they_fit(
    flow: Path, bad: int, result: int | None, flowkit_cluster: Cluster
):
    async def load(item: Any, ctx: RunContext) -> Any:
        if item["rows_at_once"] > 1000 / 10**bad:
            raise ValueError("too many rows at once")
        return "written"

    view = await play(flowkit_cluster, flow, load=load)
    if result is None:
        assert view.nodes["write"].reason_code == "loop_limit"
    else:
        assert view.result == {"write": {"at_once": result, "done": True}}


@shows("refine_until_good")
@pytest.mark.parametrize("good", [True, False])
async def test_a_draft_is_written_again_with_the_advice_of_its_review(
    flow: Path, good: bool, flowkit_cluster: Cluster
):
    written: list[Any] = []
    reviews = [
        {"score": 0.2, "advice": "shorter"},
        {"score": 0.5, "advice": "clearer"},
        {"score": 1.0 if good else 0.8, "advice": "none"},
    ]
    draft = answers(["first", "second", "third"], written)
    run = await start(flowkit_cluster, flow, draft=draft, review=answers(reviews))
    await run.after(5)
    assert written == ["write it", "shorter", "clearer"]
    if not good:
        assert await run.prompts() == ["Three drafts were not good enough. Go on by hand?"]
        await run.decide("human", "approve", by="ann")
    view = await run.end()
    chosen = {"publish": "finished", "human": "skipped"}
    assert ends(view)["publish"] == (chosen["publish"] if good else "skipped")
    assert ends(view)["human"] == (chosen["human"] if good else "finished")


@shows("drain_a_queue")
async def test_a_queue_is_handled_until_it_is_empty(flow: Path, flowkit_cluster: Cluster):
    handled: list[Any] = []

    async def write(item: Any, ctx: RunContext) -> None:
        handled.append(item)

    read = answers([[1, 2, 3], [4], []])
    view = await play(flowkit_cluster, flow, read=read, each=write)
    assert (view.result, sorted(handled)) == ({"queue": 0}, [1, 2, 3, 4])
    assert view.nodes["queue"].progress == {"rounds": 3}
