"""Sub-flows in flows in Python."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
import yaml

from flowkit import (
    FlowRef,
    Graph,
    GraphError,
    NodeStatus,
    TaskStatus,
    finally_,
    first,
    flow,
    subflow,
)
from flowkit.errors import ConfigError
from flowkit.flows import NodeRef
from flowkit.worker import handler
from flowkit_testing import Cluster
from tests.python_flows.handlers import (
    HANDLERS,
    Rows,
    Tenant,
    alert,
    extract,
    fail,
    merge,
    note,
    square,
)
from tests.python_flows.mistakes import Mistakes, check_mistake

BY_ROLE = {str(one.role): one for one in HANDLERS}
SQUARES = {
    "nodes": [{"node_id": "x", "type": "square", "io": {"input_inline": "${params.n}"}}],
    "output": "${results.x}",
}


@flow
def total(
    tenants: list[Tenant], day: date = date(2026, 1, 1), pause: timedelta = timedelta(1)
) -> Rows:
    rows = [extract.options(node_id=f"rows_{place}")(tenants[place]) for place in (0, 1)]
    note(f"{pause}")
    return merge(rows, day)


@flow(on_node_failure="continue")
def plain(n: int) -> None:
    square(n)


def test_a_call_is_a_node_with_the_graph_and_the_params_of_the_flow() -> None:
    @flow
    def outer(n: int, tenant: Tenant) -> object:
        made = subflow(total, [tenant, Tenant(name="b")], pause=timedelta(hours=2))
        nested = subflow(plain, n=square(made.total)).options(node_id="nested", priority=3)
        subflow(SQUARES, n=f"{n}") >> subflow(Graph.parse(SQUARES), n=3)
        return {"total": made.total, "nested": nested}

    found = outer.build_graph().to_dict()
    graphs = [node["io"].pop("graph", None) for node in found["nodes"]]
    del found["params"]
    assert found == yaml.safe_load("""\
        nodes:
          - node_id: total
            type: subflow
            io: {params: {tenants: ["${params.tenant}", {name: b}], pause: PT2H}}
          - node_id: square
            type: square
            depends_on: [total]
            io: {input_inline: "${results.total.total}"}
          - node_id: nested
            type: subflow
            priority: 3
            depends_on: [square]
            io: {params: {n: "${results.square}"}}
          - {node_id: subflow, type: subflow, io: {params: {n: "${string(params.n)}"}}}
          - {node_id: subflow_2, type: subflow, depends_on: [subflow], io: {params: {n: 3}}}
        output: {total: "${results.total.total}", nested: "${results.nested}"}
        """)
    squares = Graph.parse(SQUARES).to_dict()
    assert graphs == [
        total.build_graph().to_dict(),
        None,
        plain.build_graph().to_dict(),
        *[squares] * 2,
    ]


async def test_a_sub_flow_runs_with_the_values_of_the_outer_flow(flowkit_cluster: Cluster) -> None:
    @flow
    def outer(tenant: Tenant) -> object:
        made = subflow(total, [tenant, tenant])
        again = subflow(SQUARES, n=subflow(SQUARES, n=made.total))
        slow = subflow(SQUARES, n=first(1, made, again)[0].total)
        return [made.day, again, slow]

    view = await flowkit_cluster.run(outer, handlers=BY_ROLE, params={"tenant": {"name": "a"}})
    assert view.result == ["2026-01-01", 16, 4]
    child = await flowkit_cluster.client.get_task(str(view.nodes["total"].child_task_id))
    assert child.params == {
        "tenants": [{"name": "a"}, {"name": "a"}],
        "day": "2026-01-01",
        "pause": "P1D",
    }


@flow
def failing(text: str) -> None:
    fail(text)


async def test_undos_branches_and_finally_are_those_of_other_nodes(
    flowkit_cluster: Cluster,
) -> None:
    @flow
    def outer() -> None:
        made = subflow(SQUARES, n=2).undo(lambda number: note(f"undo {number}"))
        told = alert()
        made >> subflow(failing, "no disk").on_failure(told)
        told >> subflow(failing, f"{made}")
        with finally_() as task:
            subflow(failing, f"{task.status}").on_failure(note("finally"))

    view = await flowkit_cluster.run(outer, handlers=BY_ROLE)
    assert view.status == TaskStatus.FAILED
    assert view.nodes["alert"].result == {"failing": "subflow_failed"}
    assert view.nodes["subflow~undo"].result == "undo 4"
    assert view.nodes["note"].result == "finally"
    assert view.nodes["failing_2"].status == NodeStatus.FAILED
    assert view.nodes["failing_3"].status == NodeStatus.FAILED


def test_run_has_the_handlers_of_the_flows_inside() -> None:
    @flow
    def outer() -> object:
        return subflow(plain, 3)

    assert outer.build().handlers == {"square": square}
    assert outer.run().result == {"square": 9}


def test_run_needs_a_handler_for_each_role_of_a_graph_inside() -> None:
    @flow
    def outer() -> None:
        subflow(SQUARES, n=3)

    with pytest.raises(ConfigError, match=r"none for the role 'square' of node 'subflow'"):
        outer.run()


@handler("square")
def other_square(n: int) -> int:
    return n


@flow
def typed(n: int) -> NodeRef[Rows]:
    return merge([Rows(n)], date(2026, 1, 1))


@flow
def endless(n: int) -> object:
    return subflow(endless_too, n)


@flow
def endless_too(n: int) -> object:
    return subflow(endless, n)


@flow
def older(g: Graph, size: int = 2) -> None:
    g.node("a", "square", input_inline=size)


@flow
def faulty_inside() -> None:
    square.options(priority="high")(3)  # type: ignore[arg-type]


faulty = Mistakes()


@faulty("total(tenants: list[tests.python_flows.handlers.Tenant], day: datetime.date")
def a_missing_param() -> None:
    subflow(total)  # type: ignore[call-overload]  # here


@faulty("has no parameter 'dy'; did you mean 'day'?")
def a_misspelt_param(rows: list[Tenant]) -> None:
    subflow(total, rows, dy=3)  # type: ignore[call-arg]  # here


@faulty("the argument 'n' of plain does not match: Input should be a valid integer")
def a_param_of_another_type() -> None:
    subflow(plain, "x")  # type: ignore[call-overload]  # here


@faulty("subflow: give the params of a graph by name")
def a_positional_param_of_a_graph() -> None:
    subflow(SQUARES, 3)  # type: ignore[call-overload]  # here


@faulty("io.params: Additional properties are not allowed ('m' was unexpected)")
def an_unknown_param_of_a_graph() -> None:
    subflow(plain.build_graph(), n=3, m=3)  # here


@faulty("subflow: give the params of a registered flow by name")
def a_positional_param_of_a_registered_flow() -> None:
    subflow("etl", 3)  # type: ignore[call-overload]  # here


@faulty("subflow takes a @flow function, a Graph, a graph document, or the name of a registered")
def a_handler() -> None:
    subflow(square, n=3)  # type: ignore[call-overload]  # here


@faulty("io.version must be at least 1, not 0")
def a_version_that_cannot_be() -> None:
    subflow(FlowRef("etl", 0))  # here


@faulty("'size' is an argument with which older builds its graph, and no param of a task; give")
def an_argument_of_the_function_of_a_graph() -> None:
    subflow(older, size=3)  # here


@faulty("node 'subflow': io.graph: nodes is empty; a graph needs at least one node")
def an_empty_graph() -> None:
    subflow({"nodes": []})  # here


@faulty("Rows, the type of results.typed, has no field 'totl'; did you mean 'total'?")
def a_misspelt_field_of_the_result() -> None:
    note(subflow(typed, 3).totl)  # here


@faulty("square and other_square are handlers of the same role 'square'")
def another_handler_of_a_role_inside() -> None:
    other_square(3)
    subflow(plain, 3)  # here


@faulty("unknown option 'wen'; did you mean 'when'?")
def an_option_that_does_not_exist() -> None:
    subflow(plain, 3).options(wen="true")  # type: ignore[call-arg]  # here


@faulty("plain.map takes a list, or a value of the flow that is a list, not 3")
def a_map_over_a_number() -> None:
    plain.map(3)  # type: ignore[call-overload]  # here


@faulty("plain.map: 'n' is the item; give the items as the values")
def a_fixed_item_of_a_map() -> None:
    plain.map([1], n=3)  # type: ignore[call-arg]  # here


@faulty("the values of plain.map does not match: 0: Input should be a valid integer")
def an_item_of_another_type() -> None:
    plain.map(["x"])  # type: ignore[list-item]  # here


@faulty("faulty_inside.map: faulty_inside has no parameter for the items")
def a_map_of_a_flow_without_params() -> None:
    faulty_inside.map([1])  # type: ignore[misc]  # here


@faulty("the flow plain cannot be called; use plain.run(...) or await plain.submit(client, ...)")
def a_flow_that_is_called() -> None:
    plain(3)  # here


@pytest.mark.parametrize(("function", "error"), faulty.table.values(), ids=faulty.table)
def test_a_mistake_is_an_error_that_names_its_line(
    function: Callable[..., Any], error: str
) -> None:
    check_mistake(function, error)


def test_a_flow_cannot_contain_itself() -> None:
    with pytest.raises(GraphError, match=r"endless -> endless_too -> endless"):
        endless.build_graph()


def test_a_fault_of_a_flow_inside_names_its_own_line() -> None:
    @flow
    def outer() -> None:
        subflow(faulty_inside)

    with pytest.raises(GraphError) as caught:
        outer.build_graph()
    assert [fault.node_id for fault in caught.value.faults] == ["square"]
    assert __file__ in str(caught.value)


def test_a_sub_flow_is_a_node_of_a_flow_that_is_built() -> None:
    with pytest.raises(GraphError, match="subflow makes a node, so it is called in a @flow"):
        subflow(plain, 3)


# ---------------------------------------------------------------- maps


@flow
def summed(tenants: list[Tenant], day: date = date(2026, 1, 1)) -> Rows:
    return merge([extract(tenants[0]), extract.options(node_id="second")(tenants[1])], day)


def test_a_map_of_a_flow_is_a_mapped_sub_flow() -> None:
    @flow
    def outer(numbers: list[int], day: date) -> object:
        plain.map(numbers, max_parallel=2, on_item_failure="continue").options(node_id="each")
        return summed.map([[Tenant(name="a"), Tenant(name="b")]], day=day)[0].total

    found = outer.build_graph().to_dict()
    graphs = [node["io"].pop("graph") for node in found["nodes"]]
    del found["params"]
    assert found == yaml.safe_load("""\
        nodes:
          - node_id: each
            type: subflow
            map: {over: "${params.numbers}", max_parallel: 2, on_item_failure: continue}
            io: {params: {n: "${item}"}}
          - node_id: summed
            type: subflow
            map: {over: [[{name: a}, {name: b}]]}
            io: {params: {tenants: "${item}", day: "${params.day}"}}
        output: "${results.summed[0].total}"
        """)
    assert graphs == [plain.build_graph().to_dict(), summed.build_graph().to_dict()]


async def test_a_map_of_a_flow_runs_a_task_for_each_value() -> None:
    @flow
    def squared(n: int) -> int:
        return square(n)

    @flow
    def nested(rows: list[int]) -> list[int]:
        return squared.map(rows)

    @flow
    def outer(tables: list[list[int]]) -> object:
        return nested.map(tables)

    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(outer, params={"tables": [[1, 2], [], [3]]})
        tasks = (await cluster.client.list_tasks()).items
    assert view.result == [[1, 4], [], [9]]
    assert len(tasks) == 1 + 3 + 3
