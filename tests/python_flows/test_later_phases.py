"""Undos, and the nodes of ``finally``, are calls in a flow in Python."""

from collections.abc import Callable
from typing import Any

import pytest

from flowkit import GraphError, TaskStatus, approval, finally_, first, flow, sleep
from flowkit.flows.functions import task_end, vars_unset
from flowkit_testing import Cluster
from tests.python_flows.documents import document, document_of
from tests.python_flows.handlers import (
    HANDLERS,
    add,
    alert,
    book,
    cancel_booking,
    double,
    fail,
    note,
    numbers,
    refund,
    square,
)
from tests.python_flows.mistakes import Mistakes, check_mistake

BY_ROLE = {str(one.role): one for one in HANDLERS}
faulty = Mistakes()


def test_undos_are_handlers_calls_and_functions_of_the_result() -> None:
    @flow
    def trips(to: str) -> None:
        book(to).undo(cancel_booking).options(node_id="a")
        book(to).undo(alert).options(node_id="b")
        hotel = book.options(node_id="c")(to)
        hotel.undo(refund(hotel, 100, reason=f"{to} is closed"))
        book(to).undo(
            lambda trip: refund.options(timeouts={"start_to_close_sec": 5})(trip, trip.id)
        ).options(node_id="d")
        approval("Go?").undo(lambda decision: note(f"{decision.by} said {decision.choice}"))
        square(2).undo(lambda: vars_unset(["booked"]))

    assert document_of(trips) == document("""
        nodes:
          - node_id: a
            type: book
            io: {input_inline: "${params.to}"}
            undo:
              {type: cancel_booking, retry_policy: {max: 20}, io: {input_inline: "${result}"}}
          - {node_id: b, type: book, io: {input_inline: "${params.to}"}, undo: {type: alert}}
          - node_id: c
            type: book
            io: {input_inline: "${params.to}"}
            undo:
              type: refund
              io:
                input_inline:
                  {trip: "${results.c}", amount: 100, reason: "${params.to} is closed"}
          - node_id: d
            type: book
            io: {input_inline: "${params.to}"}
            undo:
              type: refund
              timeouts: {start_to_close_sec: 5}
              io: {input_inline: {trip: "${result}", amount: "${result.id}"}}
          - node_id: approval
            type: approval
            io: {prompt: "Go?"}
            undo:
              {type: note, io: {input_inline: "${result.by} said ${result.choice}"}}
          - node_id: square
            type: square
            io: {input_inline: 2}
            undo: {type: coordinator_fn, io: {fn: vars.unset, fn_args: {keys: [booked]}}}
    """)


def test_undos_of_maps_get_the_result_and_the_item_of_each_child() -> None:
    @flow
    def each(to: str) -> Any:
        return book(to)

    @flow
    def trips(places: list[str]) -> None:
        book.map(places).undo(cancel_booking).options(node_id="a")
        book.map(places).undo(alert).options(node_id="b")
        each.map(places).undo(lambda trip, to: note(f"{trip.id} to {to}")).options(node_id="c")
        book.map(places).undo(refund).options(node_id="d")

    undos = {one["node_id"]: one["undo"] for one in document_of(trips)["nodes"]}
    assert undos == {
        "a": {
            "type": "cancel_booking",
            "retry_policy": {"max": 20},
            "io": {"input_inline": "${result}"},
        },
        "b": {"type": "alert"},
        "c": {"type": "note", "io": {"input_inline": "${result.id} to ${item}"}},
        "d": {
            "type": "refund",
            "io": {"input_inline": {"trip": "${result}", "amount": "${item}"}},
        },
    }


async def test_a_flow_in_python_undoes_the_children_of_a_map() -> None:
    @flow
    def trips(places: list[str]) -> Any:
        return fail(book.map(places, max_parallel=1).undo(lambda trip, to: note(f"{trip.id} {to}")))

    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(trips.build_graph(), params={"places": ["Rome", "Oslo"]})
    assert view.status == "failed"
    assert view.nodes["book[1]~undo"].result == "4 Oslo"


def test_a_field_with_the_name_of_a_method_is_an_item() -> None:
    @flow
    def fields() -> None:
        added = add({})
        note(added["undo"])

    assert document_of(fields)["nodes"][1]["io"] == {"input_inline": "${results.add.undo}"}


def test_calls_in_the_block_are_nodes_of_finally() -> None:
    @flow
    def trips(to: str) -> Any:
        trip = book(to)
        with finally_() as task:
            sent = note.options(when=task.status != "finished")(f"{to}: {task.error}")
            sent.on_failure(alert)
            refund(trip, trip.id, reason=f"{sent}") >> sleep(5)
            double.stream(numbers(3))
        return trip.id

    assert document_of(trips) == document("""
        nodes:
          - {node_id: book, type: book, io: {input_inline: "${params.to}"}}
        output: "${results.book.id}"
        finally:
          - node_id: note
            type: note
            when: task.status != "finished"
            io: {input_inline: "${params.to}: ${task.error}"}
            routing: {on_failure: [alert]}
          - {node_id: alert, type: alert}
          - node_id: refund
            type: refund
            depends_on: [note]
            io:
              input_inline:
                trip: "${results.book}"
                amount: "${results.book.id}"
                reason: "${string(results.note)}"
          - {node_id: sleep, type: sleep, depends_on: [refund], io: {for_sec: 5}}
          - {node_id: numbers, type: numbers, io: {input_inline: 3}}
          - node_id: double
            type: double
            io:
              input_inline:
                {input_adapter: pull.from_artifacts, input_args: {from_nodes: [numbers]}}
        edges:
          - {from: numbers, to: double, trigger: on_batch}
    """)


def test_several_blocks_are_one_and_branches_stay_in_their_phase() -> None:
    @flow
    def blocks() -> None:
        square(1)
        with finally_():
            sent = note()
        square(2)
        sent.on_failure(alert)
        with finally_():
            square(3)

    made = document_of(blocks)
    assert [node["node_id"] for node in made["nodes"]] == ["square", "square_2"]
    assert [node["node_id"] for node in made["finally"]] == ["note", "alert", "square_3"]


def test_the_first_of_some_nodes_of_finally_is_taken_there() -> None:
    @flow
    def racing() -> None:
        square(1)
        with finally_():
            add(first(1, square(2), square(3)))

    assert document_of(racing)["finally"][-1]["fan_in"] == "count:1"


async def test_a_flow_that_fails_is_undone_and_cleaned_up(flowkit_cluster: Cluster) -> None:
    @flow
    def trips(to: str) -> None:
        trip = book(to).undo(cancel_booking)
        hotel = book.options(node_id="hotel")(f"a hotel in {to}")
        hotel.undo(refund(hotel, trip.id, reason="closed"))
        trip >> hotel >> fail("no seats")
        with finally_() as task:
            add({"status": task.status, "error": task.error, "trip": trip, "task": task.id})

    view = await flowkit_cluster.run(trips, handlers=BY_ROLE, params={"to": "Rome"})
    assert view.status == TaskStatus.FAILED
    assert view.nodes["book~undo"].result == "cancelled Rome"
    assert view.nodes["hotel~undo"].result == "4 for a hotel in Rome: closed"
    assert view.nodes["add"].result == {
        "status": "failed",
        "error": view.error,
        "trip": {"id": 4, "to": "Rome"},
        "task": view.id,
    }


def test_the_handlers_of_undos_and_finally_are_those_of_the_flow() -> None:
    @flow
    def trips() -> None:
        book("Rome").undo(cancel_booking)
        with finally_():
            note()

    assert trips.build().handlers == {
        "book": book,
        "cancel_booking": cancel_booking,
        "note": note,
    }


# ---------------------------------------------------------------- mistakes


@faulty("'book' has an undo already: ")
def two_undos() -> None:
    trip = book("Rome").undo(cancel_booking)
    trip.undo(alert)  # here


@faulty("missing a required argument: 'amount'")
def an_undo_that_needs_another_argument() -> None:
    book("Rome").undo(refund)  # type: ignore[arg-type]  # here


@faulty("the call is the undo of 'book' and has no other use")
def an_undo_of_two_nodes() -> None:
    sent = note()
    book("Rome").undo(sent)
    book("Oslo").undo(sent)  # here


@faulty("the call is the undo of 'book' and has no other use")
def a_value_of_an_undo() -> None:
    sent = note()
    book("Rome").undo(sent)
    note(sent)  # here


@faulty("the call is the undo of 'book' and has no other use")
def an_arrow_to_an_undo() -> None:
    sent = note()
    book("Rome").undo(sent)
    square(2) >> sent  # here


@faulty("the call is the undo of 'book' and has no other use")
def an_option_of_an_undo_that_is_given_late() -> None:
    sent = note()
    book("Rome").undo(sent)
    sent.options(timeouts={"start_to_close_sec": 5})  # here


@faulty("the call is the undo of 'book' and has no other use")  # here
def an_output_of_an_undo() -> Any:
    sent = note()
    book("Rome").undo(sent)
    return sent


@faulty("no other node can read its value or be joined with it")
def an_undo_whose_value_is_used() -> None:
    sent = note()
    square(2).options(when=sent == "x")
    book("Rome").undo(sent)  # here


@faulty("no other node can read its value or be joined with it")
def an_undo_with_an_arrow() -> None:
    sent = note()
    square(2) >> sent
    book("Rome").undo(sent)  # here


@faulty("no other node can read its value or be joined with it")
def an_undo_on_a_branch() -> None:
    sent = note()
    square(2).on_failure(sent)
    book("Rome").undo(sent)  # here


@faulty("no other node can read its value or be joined with it")
def an_undo_that_streams() -> None:
    trip = book("Rome")
    trip.undo(double.stream(trip))  # here


@faulty("an undo cannot have an undo")
def an_undo_of_an_undo() -> None:
    book("Rome").undo(note().undo(alert))  # here


@faulty("'book' cannot be its own undo; call another handler")
def an_undo_of_the_node_itself() -> None:
    trip = book("Rome")
    trip.undo(trip)  # here


@faulty("an undo has the options retry_policy and timeouts; remove 'when'")
def an_undo_with_a_condition() -> None:
    book("Rome").undo(note.options(when="true"))  # here


@faulty("first(...) has no effect on an undo, which runs after all nodes")
def an_undo_of_the_first() -> None:
    trip = book("Rome")
    trip.undo(add(first(1, trip, square(2))))  # here


@faulty("the node_id of this undo is 'book~undo'; remove node_id")
def an_undo_with_an_id() -> None:
    book("Rome").undo(note.options(node_id="cancel"))  # here


@faulty("retry_policy.max must be at least 0, not -1")
def an_undo_with_a_wrong_option() -> None:
    trip = book("Rome")
    trip.undo(note.options(retry_policy={"max": -1}))  # here


@faulty("type 'sleep': an undo does not wait; use a role or 'coordinator_fn'")
def an_undo_that_waits() -> None:
    trip = book("Rome")
    trip.undo(sleep(3))  # here


@faulty("a node is expected, the value of a call, not NoneType")
def an_undo_that_makes_no_call() -> None:
    book("Rome").undo(lambda: None)  # type: ignore[arg-type, return-value]  # here


@faulty("a node is expected, the value of a call, not str")
def an_undo_that_is_a_text() -> None:
    book("Rome").undo("cancel_booking")  # type: ignore[arg-type]  # here


@faulty("undo: <lambda>: missing a required argument: 'item'; it is given the result of the node")
def an_undo_that_needs_an_item_of_a_node_without_items() -> None:
    book("here").undo(lambda trip, item: refund(trip, item))  # type: ignore[misc,arg-type]  # here


@faulty("undo: <lambda>: missing a required argument: 'item'; it is given the result and the item")
def an_undo_of_a_map_that_needs_three_values() -> None:
    book.map(["a"]).undo(lambda trip, item, more: note(f"{trip}{item}{more}"))  # type: ignore[misc,arg-type]  # here


@faulty("an undo is a handler or the value of a call, not <class 'int'>")
def an_undo_that_is_a_type() -> None:
    book("Rome").undo(int)  # type: ignore[arg-type]  # here


@faulty("Trip, the type of result, has no field 'idd'; did you mean 'id'?")
def a_misspelt_field_of_the_result() -> None:
    book("Rome").undo(lambda trip: note(trip.idd))  # type: ignore[attr-defined]  # here


@faulty("undo: /io/input_inline: 'string(results.square)' reads results of 'square', which is not")
def an_undo_that_reads_a_node_below() -> None:
    trip = book("Rome")
    trip.undo(note(f"{square(3)}"))  # here


@faulty("result has a meaning only in the function that it was given to")
def a_result_outside_of_its_undo() -> None:
    kept: list[Any] = []

    def undo(trip: Any) -> Any:
        kept.append(trip)
        return alert()

    book("Rome").undo(undo)
    note(kept[0])  # here


@faulty("'note' is in finally_, whose nodes are not undone")
def an_undo_in_finally() -> None:
    square(2)
    with finally_():
        note().undo(alert)  # here


@faulty("finally_ inside of finally_; call the handlers in one block")
def a_block_in_a_block() -> None:
    square(2)
    with finally_(), finally_():  # here
        note()


@faulty("finally_() begins a block; write with finally_():")
def a_block_that_is_not_entered() -> None:
    square(2)
    finally_()  # here
    note()


@faulty("the flow a_flow_with_nodes_of_finally_alone has no nodes; call handlers in it")  # here
def a_flow_with_nodes_of_finally_alone() -> None:
    with finally_():
        note()


@faulty(
    "'note' is in finally_, whose nodes run when all others have ended, so 'note_2' cannot read"
)
def a_value_of_finally_in_another_node() -> None:
    square(2)
    with finally_():
        sent = note()
    note(sent)  # here


@faulty("'note' is in finally_, whose nodes run when all others have ended, so 'square' cannot be")
def an_arrow_into_finally() -> None:
    count = square(2)
    with finally_():
        count >> note()  # here


@faulty("'note' is in finally_, whose nodes run when all others have ended, so 'square' cannot be")
def an_arrow_out_of_finally() -> None:
    count = square(2)
    with finally_():
        sent = note()
    sent >> count  # here


@faulty("'note' is in finally_, whose nodes run when all others have ended, so 'square' cannot be")
def a_branch_into_finally() -> None:
    count = square(2)
    with finally_():
        count.on_failure(note())  # here


@faulty("'double' is in finally_, whose nodes run when all others have ended, so 'numbers' cannot")
def a_stream_into_finally() -> None:
    source = numbers(3)
    with finally_():
        double.stream(source)  # here


@faulty("'add' is in finally_, whose nodes run when all others have ended, so 'square' cannot be")
def the_first_of_nodes_that_have_ended() -> None:
    a, b = square(2), square(3)
    with finally_():
        add(first(1, a, b))  # here


@faulty("reads results of 'note', which runs after the output is evaluated")  # here
def an_output_of_finally() -> Any:
    square(2)
    with finally_():
        return note()


@faulty("uses the unknown field 'task.status'")
def the_status_outside_of_finally() -> None:
    with finally_() as task:
        note()
    note(task.status)  # here


@faulty("EndingTaskScope, the type of task, has no field 'state'; did you mean 'status'?")
def a_misspelt_field_of_the_task() -> None:
    square(2)
    with finally_() as task:
        note(task.state)  # type: ignore[attr-defined]  # here


@faulty('task.status == "failed" is known only while the task runs')
def a_branch_on_the_status() -> None:
    square(2)
    with finally_() as task:
        if task.status == "failed":  # here
            note()


@faulty("io.fn: task.end has no effect in undos and in finally; remove it")
def an_end_of_the_task_in_finally() -> None:
    square(2)
    with finally_():
        task_end("failed")  # here


@faulty("is on a cycle")
def a_cycle_in_finally() -> None:
    square(2)
    with finally_():
        sent = note()  # here
        sent >> alert() >> sent


@pytest.mark.parametrize(("function", "error"), faulty.table.values(), ids=faulty.table)
def test_a_mistake_is_an_error_that_names_its_line(
    function: Callable[..., Any], error: str
) -> None:
    check_mistake(function, error)


def test_a_block_outside_of_a_flow_is_an_error() -> None:
    with pytest.raises(GraphError, match="finally_ makes nodes, so it is called in a @flow"):
        finally_()


def test_an_error_in_a_block_leaves_it() -> None:
    @flow
    def careful() -> None:
        square(2)
        try:
            with finally_():
                raise RuntimeError("no configuration")
        except RuntimeError:
            note()

    assert [node["node_id"] for node in document_of(careful)["nodes"]] == ["square", "note"]
