"""Flows in Python run like any other graph."""

from datetime import date
from typing import Any

from flowkit import Coordinator, NodeStatus, TaskStatus, first, flow
from flowkit.worker import Worker
from flowkit_testing import Cluster
from tests.python_flows.handlers import (
    HANDLERS,
    Rows,
    Tenant,
    add,
    alert,
    double,
    extract,
    fail,
    merge,
    note,
    numbers,
    square,
    wait,
)

BY_ROLE = {str(one.role): one for one in HANDLERS}


@flow
def etl(tenants: Tenant, other: Tenant, day: date = date(2026, 1, 1)) -> None:
    rows = merge([extract(tenants), extract(other)], day, scale=2)
    note.options(when=rows.total > 3)(f"{rows.total} rows on {rows.day}")


async def test_params_and_results_are_values_of_the_annotated_types(
    flowkit_cluster: Cluster,
) -> None:
    params = {"tenants": {"name": "ab"}, "other": {"name": "c"}}
    view = await flowkit_cluster.run(etl, handlers=BY_ROLE, params=params)
    assert view.status == TaskStatus.FINISHED
    assert view.params == params | {"day": "2026-01-01"}
    assert view.nodes["merge"].result == {"total": 6, "day": "2026-01-01"}
    assert view.nodes["note"].result == "6 rows on 2026-01-01"


async def test_a_condition_that_is_false_skips_the_node(flowkit_cluster: Cluster) -> None:
    params = {"tenants": {"name": ""}, "other": {"name": "c"}}
    view = await flowkit_cluster.run(etl, handlers=BY_ROLE, params=params)
    assert view.nodes["note"].status == NodeStatus.SKIPPED


async def test_the_branch_of_a_failure_runs_and_sees_the_error(flowkit_cluster: Cluster) -> None:
    @flow
    def failing() -> None:
        fail("no disk").on_success(note).on_failure(alert, note("${errors.fail.error}"))

    view = await flowkit_cluster.run(failing, handlers=BY_ROLE)
    assert view.status == TaskStatus.FINISHED
    assert view.nodes["alert"].result == {"fail": "unexpected_error"}
    assert view.nodes["note_2"].result == "RuntimeError: no disk"
    assert view.nodes["note"].status == NodeStatus.SKIPPED


async def test_the_first_results_are_taken_and_the_others_cancelled(
    flowkit_cluster: Cluster,
) -> None:
    @flow
    def race() -> None:
        runners = [wait.options(node_id=f"wait{number}")(number) for number in (3.0, 1.0, 2.0)]
        fastest = first(2, *runners, rest="cancel")
        add({"taken": fastest, "fastest": fastest[0]})

    view = await flowkit_cluster.run(race, handlers=BY_ROLE)
    assert view.nodes["add"].result == {"taken": [1.0, 2.0], "fastest": 1.0}
    assert view.nodes["wait3.0"].status == NodeStatus.CANCELLED


async def test_batches_flow_through_streams(flowkit_cluster: Cluster) -> None:
    @flow
    def streaming(upto: int) -> None:
        add.stream(double.stream(numbers(upto)))

    view = await flowkit_cluster.run(streaming, handlers=BY_ROLE, params={"upto": 3})
    assert view.status == TaskStatus.FINISHED
    found = [one.meta async for one in flowkit_cluster.client.artifacts(view.id, "add")]
    assert found == [{"number": 0}, {"number": 2}, {"number": 4}]


async def test_a_default_is_the_argument_that_a_call_leaves_out(flowkit_cluster: Cluster) -> None:
    @flow
    def defaults() -> None:
        note()
        merge([Rows(3)], date(2026, 1, 1))

    view = await flowkit_cluster.run(defaults, handlers=BY_ROLE)
    assert view.nodes["note"].result == "nothing"
    assert view.nodes["merge"].result["total"] == 3


async def test_a_text_with_an_escaped_dollar_stays_as_it_is(flowkit_cluster: Cluster) -> None:
    @flow
    def escaped() -> None:
        note("$${HOME}")

    view = await flowkit_cluster.run(escaped, handlers=BY_ROLE)
    assert view.nodes["note"].result == "${HOME}"


async def test_submit_makes_a_task_with_the_params(flowkit_store: Any, flowkit_bus: Any) -> None:
    async with (
        Coordinator(store=flowkit_store, bus=flowkit_bus) as coordinator,
        Worker(store=flowkit_store, bus=flowkit_bus, handlers=HANDLERS),
    ):
        task_id = await etl.submit(
            coordinator, Tenant(name="ab"), other=Tenant(name="c"), day=date(2026, 2, 3)
        )
        view = await coordinator.wait(task_id, timeout=10)
    assert view.params["day"] == "2026-02-03"
    assert view.nodes["merge"].result == {"total": 6, "day": "2026-02-03"}


def test_run_needs_no_server_and_returns_the_ended_task() -> None:
    @flow
    def squares(n: int) -> dict[str, int]:
        return {"n": n, "squared": square(square(n))}

    view = squares.run(n=3)
    assert (view.status, view.result) == (TaskStatus.FINISHED, {"n": 3, "squared": 81})


def test_run_returns_a_task_that_failed() -> None:
    @flow
    def failing() -> None:
        fail("no disk")

    view = failing.run()
    assert view.status == TaskStatus.FAILED
    assert view.nodes["fail"].error == "RuntimeError: no disk"
