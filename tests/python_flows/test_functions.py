"""Coordinator functions are calls in a flow in Python."""

from collections.abc import Callable
from typing import Any

import pytest

from flowkit import GraphError, TaskStatus, flow
from flowkit.coordinator._builtin_functions import BUILTIN_FUNCTIONS
from flowkit.coordinator.functions import FunctionContext
from flowkit.errors import ConfigError
from flowkit.flows import functions, task_vars, this_task
from flowkit.flows.functions import (
    CoordinatorFunction,
    merge_generic,
    metrics_aggregate,
    noop,
    task_end,
    vars_incr,
    vars_merge,
    vars_set,
    vars_unset,
)
from flowkit_testing import Cluster
from tests.python_flows.documents import document, document_of
from tests.python_flows.handlers import HANDLERS, Tenant, add, extract, note, numbers, square
from tests.python_flows.mistakes import Mistakes, check_mistake

BY_ROLE = {str(one.role): one for one in HANDLERS}
faulty = Mistakes()


async def publish(ctx: FunctionContext, /, topic: str, value: Any = None) -> int:
    return 1


def test_each_builtin_function_has_a_function_for_flows() -> None:
    found = vars(functions).values()
    known = [one.name for one in found if isinstance(one, CoordinatorFunction)]
    assert sorted(known) == sorted(BUILTIN_FUNCTIONS)


def test_calls_are_nodes_of_the_coordinator() -> None:
    @flow
    def calls(n: int) -> None:
        read = [extract(Tenant(name="a")), extract(Tenant(name="b"))]
        merged = merge_generic(read, target="all")
        merged >> vars_set({"n": n, "task": f"{this_task.id}"}, block_sensitive=True)
        square(2).on_success(noop)
        note(task_vars.all.total)
        task_end("failed", error=f"{n}").options(node_id="stop", when=read[0].total == 0)
        CoordinatorFunction("kafka.publish", publish)("topic", value=n)
        CoordinatorFunction("other")(x=read[1].total)

    assert document_of(calls) == document("""
        nodes:
          - {node_id: extract, type: extract, retry_policy: {max: 5}, io: {input_inline: {name: a}}}
          - node_id: extract_2
            type: extract
            retry_policy: {max: 5}
            io: {input_inline: {name: b}}
          - node_id: merge_generic
            type: coordinator_fn
            depends_on: [extract, extract_2]
            io: {fn: merge.generic, fn_args: {from_nodes: [extract, extract_2], target: all}}
          - node_id: vars_set
            type: coordinator_fn
            depends_on: [merge_generic]
            io:
              fn: vars.set
              fn_args: {kv: {n: "${params.n}", task: "${string(task.id)}"}, block_sensitive: true}
          - node_id: square
            type: square
            io: {input_inline: 2}
            routing: {on_success: [noop]}
          - {node_id: noop, type: coordinator_fn, io: {fn: noop}}
          - {node_id: note, type: note, io: {input_inline: "${vars.all.total}"}}
          - node_id: stop
            type: coordinator_fn
            depends_on: [extract]
            when: results.extract.total == 0
            io: {fn: task.end, fn_args: {status: failed, error: "${string(params.n)}"}}
          - node_id: kafka_publish
            type: coordinator_fn
            io: {fn: kafka.publish, fn_args: {topic: topic, value: "${params.n}"}}
          - node_id: other
            type: coordinator_fn
            depends_on: [extract_2]
            io: {fn: other, fn_args: {x: "${results.extract_2.total}"}}
    """)


async def test_functions_change_vars_and_end_the_task(flowkit_cluster: Cluster) -> None:
    @flow
    def counting(n: int) -> None:
        counted = vars_incr("count", by=n) >> vars_merge({"a": {"b": 1}}) >> vars_unset("a.b")
        seen = counted >> add({"count": task_vars.count})
        rows = numbers(3)
        sums = metrics_aggregate(rows)
        [seen, sums] >> task_end("finished", result={"seen": seen.count, "of": sums.batches})

    view = await flowkit_cluster.run(counting, handlers=BY_ROLE, params={"n": 2})
    assert (view.status, view.result) == (TaskStatus.FINISHED, {"seen": 2, "of": 3})
    assert view.vars == {"count": 2}


# ---------------------------------------------------------------- mistakes


@faulty("task_end(status: Literal['finished', 'failed', 'cancelled'], result: Any = None")
def a_misspelt_argument() -> None:
    task_end("failed", eror="x")  # type: ignore[call-arg]  # here


@faulty("the argument 'status' of task_end does not match: Input should be 'finished', 'failed'")
def an_unknown_status() -> None:
    task_end("done")  # type: ignore[arg-type]  # here


@faulty("the argument 'kv' of vars_set does not match: Input should be a valid dictionary")
def an_argument_of_another_type() -> None:
    vars_set("x")  # type: ignore[arg-type]  # here


@faulty("missing a required argument: 'target'")
def a_missing_argument() -> None:
    merge_generic(["x"])  # type: ignore[call-arg]  # here


@faulty("the argument 'node_id' of metrics_aggregate names nodes: values of calls, or node ids")
def a_param_that_names_a_node(node: str) -> None:
    metrics_aggregate(node)  # here


@faulty("the argument 'node_id' of metrics_aggregate names nodes")
def a_field_that_names_a_node() -> None:
    metrics_aggregate(extract(Tenant(name="a")).total)  # here


@faulty("io.fn_args.node_id reads 'numbrs', which is not in the graph; did you mean 'numbers'?")
def a_misspelt_node_id() -> None:
    numbers(3)
    metrics_aggregate("numbrs")  # here


@faulty("kafka_publish: give its arguments by name")
def positions_of_unknown_parameters() -> None:
    CoordinatorFunction("kafka.publish")("topic")  # here


@faulty("concurrency_key")
def an_option_with_an_expression(n: int) -> None:
    noop().options(concurrency_key=f"{n}")  # here


@faulty("results.vars_set is known only while the task runs, so it cannot be a condition")
def a_branch_on_a_result() -> None:
    if vars_set({"a": 1}):  # here
        square(2)


@faulty("is on a cycle")
def functions_that_wait_for_each_other() -> None:
    meeting = noop()  # here
    meeting >> note() >> meeting


@faulty("TaskScope, the type of task, has no field 'status'; its fields: id, pipeline, labels")
def the_status_of_a_task_that_runs() -> None:
    note(this_task.status)  # type: ignore[attr-defined]  # here


@pytest.mark.parametrize(("function", "error"), faulty.table.values(), ids=faulty.table)
def test_a_mistake_is_an_error_that_names_its_line(
    function: Callable[..., Any], error: str
) -> None:
    check_mistake(function, error)


def test_a_function_is_called_in_a_flow() -> None:
    with pytest.raises(GraphError, match="noop makes a node, so it is called in a @flow"):
        noop()


@pytest.mark.parametrize("name", ["", 3])
def test_a_function_needs_a_name(name: Any) -> None:
    with pytest.raises(ConfigError, match="a coordinator function has a name"):
        CoordinatorFunction(name)


def test_an_annotation_that_cannot_be_resolved_is_an_error_where_it_is_declared() -> None:
    async def unknown(ctx: FunctionContext, n: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigError, match="coordinator function 'x': the annotation") as caught:
        CoordinatorFunction("x", unknown)
    assert __file__ in str(caught.value)
