"""Patterns of failure and repair."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from flowkit.cli._loader import load_flow
from flowkit.plugins import Plugins
from flowkit.worker import RunContext
from flowkit_testing import Cluster
from tests.patterns.support import (
    DAY,
    HOUR,
    ends,
    fails,
    gives,
    play,
    ran,
    shows,
    start,
    starts,
    takes,
    took,
)


@shows("retry_with_backoff")
async def test_the_pauses_between_attempts_double(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, fetch=fails(times=4))
    assert (view.nodes["fetch"].attempt, starts(view)["store"]) == (5, 2 + 4 + 8 + 16)


@shows("no_retry_of_permanent_errors")
async def test_a_taken_seat_is_not_asked_for_again(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, {"seat": "1A"})
    assert (view.status, view.nodes["book"].attempt) == ("failed", 1)
    view = await play(flowkit_cluster, flow, {"seat": "7C"}, book=fails(times=3))
    assert (view.status, view.nodes["book"].attempt) == ("finished", 4)


@shows("fallback")
async def test_a_slow_source_is_replaced_by_the_cache(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, live=gives("live"), cached=gives("cached"))
    assert (view.result, ran(view)) == ({"show": "live"}, ["live", "show"])
    view = await play(flowkit_cluster, flow, live=takes(9), cached=gives("cached"))
    assert (view.status, view.result, starts(view)["show"]) == ("finished", {"show": "cached"}, 5)


@shows("chain_of_fallbacks")
async def test_the_first_source_that_answers_is_used(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, first=fails(), second=gives("second"))
    assert (view.status, ran(view)) == ("finished", ["first", "second", "use"])
    assert view.result == {"use": "second"}


@shows("retry_with_changed_input")
async def test_a_load_that_failed_is_tried_with_fewer_rows(flow: Path, flowkit_cluster: Cluster):
    async def load(item: Any, ctx: RunContext) -> int:
        if item["rows_at_once"] > 100:
            raise MemoryError("out of memory")
        return item["rows_at_once"]

    view = await play(flowkit_cluster, flow, load=load, smaller=load)
    assert (view.status, ran(view)) == ("finished", ["load", "smaller", "done"])
    assert view.nodes["smaller"].result == 10


@shows("human_repair")
async def test_a_person_gives_the_address_with_which_the_parcel_is_sent_again(
    flow: Path, flowkit_cluster: Cluster
):
    run = await start(
        flowkit_cluster,
        flow,
        {"address": "Oslo 1"},
        ship=fails("no such street"),
        ship_again=takes(1),
    )
    await run.after(HOUR)
    assert await run.prompts() == ["Oslo 1: OSError: no such street. What is the right address?"]
    await run.decide("repair", "approve", by="ann", address="Oslo 2")
    view = await run.end()
    assert (view.status, view.result) == ("finished", {"ship_again": "Oslo 2"})


@shows("saga")
async def test_bookings_are_undone_in_reverse_when_a_later_one_fails(
    flow: Path, flowkit_cluster: Cluster
):
    undos = {"hotel~undo": takes(1), "flight~undo": takes(1)}
    view = await play(flowkit_cluster, flow, car=fails("no car"), **undos)
    assert view.status == "failed"
    assert ran(view) == ["flight", "hotel", "car", "hotel~undo", "flight~undo"]
    view = await play(flowkit_cluster, flow)
    assert (view.status, ran(view)) == ("finished", ["flight", "hotel", "car"])


@shows("saga_over_a_map")
async def test_the_payments_of_all_orders_are_refunded_in_reverse(
    flow: Path, flowkit_cluster: Cluster
):
    orders = [{"id": number, "amount": 5, "email": f"{number}@shop"} for number in range(3)]
    pays = {f"charge[{number}]": takes((number + 1) / 10, f"paid {number}") for number in range(3)}
    pays["charge~undo"] = takes(1)
    view = await play(flowkit_cluster, flow, {"orders": orders}, **pays, ship=fails())
    assert view.status == "failed"
    undos = [f"charge[{number}]~undo" for number in (2, 1, 0)]
    assert [name for name in ran(view) if name in undos] == undos
    assert view.nodes["charge[1]~undo"].result == {"payment": "paid 1", "to": "1@shop"}
    view = await play(flowkit_cluster, flow, {"orders": orders}, **pays | {"charge[2]": fails()})
    undos = [f"charge[{number}]~undo" for number in (1, 0)]
    assert [name for name in ran(view) if "~" in name and "[" in name] == undos


@shows("cleanup_in_any_case")
async def test_the_cluster_is_stopped_also_after_a_cancellation(
    flow: Path, flowkit_cluster: Cluster
):
    run = await start(flowkit_cluster, flow, train=takes(DAY))
    await run.after(HOUR)
    await flowkit_cluster.client.cancel(run.task_id, "too dear")
    view = await run.end()
    assert (view.status, ran(view)) == ("cancelled", ["cluster", "train", "stop"])


@shows("alert_on_failure")
async def test_a_failed_task_is_announced_with_its_error(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow)
    assert ends(view)["alert"] == "skipped"
    view = await play(flowkit_cluster, flow, load=fails("disk full"))
    assert "disk full" in view.nodes["alert"].result


@shows("independent_branches")
async def test_the_other_table_is_loaded_before_the_task_fails(
    flow: Path, flowkit_cluster: Cluster
):
    view = await play(flowkit_cluster, flow, read_shop=fails(), read_bank=takes(HOUR))
    assert view.status == "failed"
    assert (ends(view)["load_shop"], ends(view)["load_bank"]) == ("skipped", "finished")


@shows("skipped_bad_records")
async def test_a_bad_batch_is_kept_as_a_dead_letter(flow: Path, flowkit_cluster: Cluster):
    async def load(rows: list[int], ctx: RunContext) -> dict[str, int]:
        if 3 in rows:
            raise OSError("no such row")
        return {"rows": len(rows)}

    view = await play(flowkit_cluster, flow, {"rows": [1, 2, 3, 4, 5]}, load=load)
    assert (view.status, view.nodes["load"].skipped_batches) == ("finished", 1)
    (letter,) = (await flowkit_cluster.client.dead_letters(task_id=view.id)).items
    assert (letter.kind, letter.error) == ("batch", "OSError: no such row")


@shows("resume_from_checkpoint")
async def test_a_later_attempt_goes_on_at_the_page_of_the_last_heartbeat(
    flow: Path, flowkit_cluster: Cluster
):
    run = await start(flowkit_cluster, flow)
    await run.after(4.5)
    await flowkit_cluster.stop_worker(run.worker, grace=0)
    worker = await flowkit_cluster.add_worker(load_flow(str(flow), Plugins()).handlers)
    view = await replace(run, worker=worker).end()
    assert (view.result, took(view)) == (6, 4.5 + 6)


@shows("second_try_after_a_day")
async def test_the_parcel_is_delivered_on_the_next_day(flow: Path, flowkit_cluster: Cluster):
    view = await play(flowkit_cluster, flow, deliver=fails("door closed"))
    assert (view.status, starts(view)["deliver_again"]) == ("finished", DAY)
