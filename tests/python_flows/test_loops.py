"""Loops in flows in Python."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from flowkit import GraphError, TaskStatus, flow, loop, subflow
from flowkit.flows import NodeRef, iteration, previous
from flowkit.worker import handler
from flowkit_testing import Cluster
from tests.python_flows.documents import document_of
from tests.python_flows.handlers import HANDLERS, note, square
from tests.python_flows.mistakes import Mistakes, check_mistake


@dataclass
class Status:
    ready: bool
    round: int


@handler("ask")
async def ask(job: str, number: int) -> Status:
    return Status(ready=number >= 2, round=number)


BY_ROLE = {str(one.role): one for one in [*HANDLERS, ask]}


@flow
def status_of(job: str, number: int) -> NodeRef[Status]:
    return ask(job, number)


@flow
def plain(n: int) -> object:
    return square(n)


def test_a_call_is_a_node_with_the_graph_the_params_and_the_condition() -> None:
    @flow
    def outer(job: str, limit: int, pause: float) -> object:
        count = square(3)
        found = loop(
            status_of,
            f"{job}-{iteration}",
            number=iteration,
            until=lambda status: status.ready & (count < status.round),
            max_iterations=limit,
            delay_sec=pause,
        )
        loop(plain, n=f"${{{previous} == null ? 2 : {previous}}}", while_=iteration < found.round)
        loop(plain.build_graph(), n=1, until="previous > 3", delay_sec=5).options(node_id="third")
        return found.ready

    document = document_of(outer)
    for node in document["nodes"]:
        node.get("io", {}).pop("graph", None)
    assert document["nodes"][1:] == [
        {
            "node_id": "status_of",
            "type": "loop",
            "depends_on": ["square"],
            "io": {
                "params": {"job": "${params.job}-${iteration}", "number": "${iteration}"},
                "until": "previous.ready && (results.square < previous.round)",
                "max_iterations": "${params.limit}",
                "delay_sec": "${params.pause}",
            },
        },
        {
            "node_id": "plain",
            "type": "loop",
            "depends_on": ["status_of"],
            "io": {
                "params": {"n": "${previous == null ? 2 : previous}"},
                "while": "iteration < results.status_of.round",
            },
        },
        {
            "node_id": "third",
            "type": "loop",
            "io": {"params": {"n": 1}, "until": "previous > 3", "delay_sec": 5},
        },
    ]
    assert document["output"] == "${results.status_of.ready}"


async def test_a_loop_ends_after_the_round_that_meets_its_condition(
    flowkit_cluster: Cluster,
) -> None:
    @flow
    def outer() -> object:
        ready = loop(
            status_of, "a", number=iteration, until=lambda status: status.ready, delay_sec=60
        )
        grown = loop(
            plain,
            n=f"${{{previous} == null ? 2 : {previous}}}",
            while_=(previous == None) | (previous < 1000),  # noqa: E711
        )
        return {"ready": ready, "grown": grown}

    view = await flowkit_cluster.run(outer, handlers=BY_ROLE)
    assert view.status == TaskStatus.FINISHED, view.error
    assert view.result == {"ready": {"ready": True, "round": 2}, "grown": 65536}
    assert view.nodes["status_of"].finished_at is not None
    assert view.nodes["status_of"].started_at is not None
    took = view.nodes["status_of"].finished_at - view.nodes["status_of"].started_at
    assert took.total_seconds() >= 120


@flow
def endless(n: int) -> object:
    return loop(endless, n, until="true")


faulty = Mistakes()


@faulty("loop needs exactly one of until and while_")
def no_condition() -> None:
    loop(plain, 3)  # type: ignore[call-overload]  # here


@faulty("loop needs exactly one of until and while_")
def two_conditions() -> None:
    loop(plain, 3, until="true", while_="true")  # type: ignore[call-overload]  # here


@faulty("until must be an expression or a value of the flow")
def a_condition_that_is_known() -> None:
    loop(plain, 3, until=True)  # here


@faulty("until must be an expression or a value of the flow, such as rows.total > 3, not None")
def a_condition_without_a_value() -> None:
    loop(plain, 3, until=lambda number: None)  # here


@faulty("until: too many positional arguments; a condition is a function of the result of a round")
def a_condition_without_a_parameter() -> None:
    loop(plain, 3, until=lambda: True)  # type: ignore[call-overload]  # here


@faulty("until: a handler cannot be a condition; call it in the flow of the rounds")
def a_handler_as_a_condition() -> None:
    loop(plain, 3, until=square)  # here


@faulty("until: a condition is evaluated by the coordinator, so square cannot be called in it")
def a_call_in_a_condition() -> None:
    loop(
        plain,
        3,
        until=lambda number: square(number) > 3,  # here
    )


@faulty("while: a condition is evaluated by the coordinator, so plain cannot be called in it")
def a_flow_in_a_condition() -> None:
    loop(
        plain,
        3,
        while_=lambda number: subflow(plain, number) > 3,  # here
    )


@faulty("the argument 'delay_sec' of loop is a number of seconds; give 90")
def a_duration_as_a_pause() -> None:
    loop(plain, 3, until="true", delay_sec=timedelta(minutes=1.5))  # type: ignore[call-overload]  # here


@faulty("Status, the type of previous, has no field 'redy'; did you mean 'ready'?")
def a_misspelt_field_in_the_condition() -> None:
    loop(status_of, "a", 1, until=lambda one: one.redy)  # type: ignore[attr-defined]  # here


@faulty("has no parameter 'm'")
def a_misspelt_param() -> None:
    loop(plain, m=3, until="true")  # here


@faulty("the argument 'n' of plain does not match: Input should be a valid integer")
def a_param_of_another_type() -> None:
    loop(plain, "x", until="true")  # here


@faulty("loop takes a @flow function, a Graph, a graph document, or the name of a registered")
def a_handler() -> None:
    loop(square, n=3, until="true")  # type: ignore[call-overload]  # here


@faulty("io.max_iterations must be at least 1, not 0")
def no_rounds() -> None:
    loop(plain, 3, until="true", max_iterations=0)  # here


@faulty("uses the unknown name 'previous'")
def the_previous_result_outside_of_a_loop() -> None:
    note(previous)  # here


@pytest.mark.parametrize(("function", "error"), faulty.table.values(), ids=faulty.table)
def test_a_mistake_is_an_error_that_names_its_line(
    function: Callable[..., Any], error: str
) -> None:
    check_mistake(function, error)


def test_a_loop_cannot_contain_itself() -> None:
    with pytest.raises(GraphError, match=r"endless -> endless"):
        endless.build_graph()
