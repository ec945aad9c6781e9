"""Each mistake in a flow in Python is an error that names the line and says what to use."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, SecretStr

from flowkit import GraphError, first, flow
from flowkit.errors import ConfigError
from flowkit.worker import RunContext, handler
from tests.python_flows.handlers import (
    Rows,
    Tenant,
    add,
    alert,
    double,
    extract,
    merge,
    note,
    numbers,
    square,
)
from tests.python_flows.mistakes import Mistakes, check_mistake

faulty = Mistakes()


@faulty("square(n: int): missing a required argument: 'n'")
def a_missing_argument() -> None:
    square()  # type: ignore[call-arg]  # here


@faulty("note(text: str = 'nothing') has no parameter 'txt'; did you mean 'text'?")
def a_misspelt_keyword() -> None:
    note(txt="x")  # type: ignore[call-arg]  # here


@faulty("too many positional arguments")
def too_many_arguments() -> None:
    square(3, 4)  # type: ignore[call-arg]  # here


@faulty("the argument 'n' of square does not match: Input should be a valid integer")
def an_argument_of_another_type() -> None:
    square("x")  # here


@faulty("the argument 'tenant' of extract does not match: name: Field required")
def an_incomplete_object() -> None:
    extract({"nam": "x"})  # here


@faulty("the argument 'item' of add is not JSON")
def an_argument_that_is_not_json() -> None:
    add({"rows": {1, 2}})  # here


@faulty("is known only while the task runs, so it cannot be iterated")
def a_loop_over_a_param(rows: list[int]) -> None:
    for row in rows:  # here
        square(row)


@faulty("results.numbers is known only while the task runs, so it cannot be iterated")
def a_loop_over_a_result() -> None:
    found = numbers(3)
    [square(one) for one in found]  # here


@faulty("cannot be a condition when the flow is built; let the node decide with .options(when=...)")
def a_branch_on_a_comparison(day: date) -> None:
    if day > date(2026, 1, 1):  # here
        square(3)


@faulty("cannot be a condition")
def a_branch_on_a_result() -> None:
    square(1) or square(2)  # here


@faulty("cannot be measured with len()")
def a_length(rows: list[int]) -> None:
    square(len(rows))  # here


@faulty("cannot be searched with 'in'")
def a_search(names: list[str]) -> None:
    note(str("a" in names))  # here


@faulty("cannot be an operand when the flow is built; compute it in a handler")
def arithmetic() -> None:
    square(square(3) + 1)  # here


@faulty("cannot be an operand")
def reflected_arithmetic(n: int) -> None:
    square(1 - n)  # here


@faulty("cannot be converted to a number or bytes")
def a_conversion_to_a_number(n: int) -> None:
    square(int(n))  # here


@faulty("cannot be converted to a number or bytes")
def a_value_as_a_position(n: int) -> None:
    square([1, 2][n])  # here


@faulty("cannot be converted to a number or bytes")
def a_range_up_to_a_value(n: int) -> None:
    [square(one) for one in range(n)]  # here


@faulty("cannot be rounded")
def a_rounded_value(share: float) -> None:
    note(str(round(share)))  # here


@faulty("cannot be changed")
def a_changed_item(rows: dict[str, int]) -> None:
    rows["a"] = 3  # here
    add(rows)


@faulty("cannot be a context manager")
def a_value_in_a_with_statement(lock: Any) -> None:
    with lock:  # here
        square(3)


@faulty("results.square.on_sucess is known only while the task runs, so it cannot be called")
def a_misspelt_method() -> None:
    square(3).on_sucess(note)  # here


@faulty("Rows, the type of results.merge, has no field 'totl'; did you mean 'total'?")
def a_misspelt_field(rows: list[Rows], day: date) -> None:
    square(merge(rows, day).totl)  # here


@faulty("Tenant, the type of params.tenant, has no field 'id'; its fields: name")
def an_unknown_field(tenant: Tenant) -> None:
    note(tenant.id)  # type: ignore[attr-defined]  # here


@faulty("an item has a name or a position from 0")
def a_negative_position(rows: list[int]) -> None:
    square(rows[-1])  # here


@faulty("an item has a name or a position from 0")
def a_slice(rows: list[int]) -> None:
    add(rows[1:])  # here


@faulty("cannot be formatted with '.2f' when the flow is built; format it in a handler")
def a_formatted_value(share: float) -> None:
    note(f"{share:.2f}")  # here


@faulty("the compared value is not JSON")
def a_comparison_with_an_object(n: int) -> None:
    note.options(when=n == Decimal("1.1"))("x")  # here


@faulty("when must be an expression or a value of the flow")
def a_condition_that_is_known_when_the_flow_is_built() -> None:
    note.options(when=1 > 2)()  # here


@faulty("when: 'results.square >' is not a valid expression")
def an_invalid_condition() -> None:
    square(3)
    note.options(when="results.square >")()  # here


@faulty("when: 'results.squar > 3' reads results of 'squar', which is not in the graph")
def a_condition_on_an_unknown_node() -> None:
    square(3)
    note.options(when="results.squar > 3")()  # here


@faulty("is not a valid expression")
def a_text_with_an_invalid_expression() -> None:
    note("${results.}")  # here


@faulty("uses the unknown name 'HOME'")
def a_text_with_an_unescaped_dollar() -> None:
    note("${HOME}")  # here


@faulty("square.options: unknown option 'wen'; did you mean 'when'?")
def an_unknown_option() -> None:
    square.options(wen="true")(3)  # type: ignore[call-arg]  # here


@faulty("unknown option 'type'")
def an_option_that_follows_from_the_call() -> None:
    square(3).options(type="x")  # type: ignore[call-arg]  # here


@faulty("retry_policy.max must be at least 0, not -1")
def an_invalid_option() -> None:
    square.options(retry_policy={"max": -1})(3)  # here


@faulty("priority is fixed when the flow is built; give it a plain value")
def an_option_that_is_a_value(n: int) -> None:
    square.options(priority=n)(3)  # here


@faulty("timeouts is fixed when the flow is built")
def an_option_that_contains_a_value(n: int) -> None:
    square.options(timeouts={"start_to_close_sec": n})(3)  # here


@faulty("another node has the node_id 'a'")
def a_node_id_given_twice() -> None:
    square.options(node_id="a")(3)
    square.options(node_id="a")(4)  # here


@faulty("another node has the node_id 'square'")
def a_node_id_that_a_function_has() -> None:
    square(3)
    note().options(node_id="square")  # here


@faulty("the node_id 'square' is already in use by an expression")
def a_node_id_that_is_changed_too_late() -> None:
    count = square(3)
    square(count)
    count.options(node_id="count")  # here


@faulty("node_id must be a string, not int")
def a_node_id_that_is_no_string() -> None:
    square.options(node_id=3)(3)  # here


@faulty("node 'square' reads its own result")
def a_condition_on_the_node_itself() -> None:
    count = square(3)
    count.options(when=count > 3)  # here


@faulty("is on a cycle")
def nodes_that_wait_for_each_other() -> None:
    a = square(1)  # here
    b = square(a)
    b >> a


@faulty("a node is expected, the value of a call, not int")
def an_arrow_to_something_else() -> None:
    square(3) >> [4]  # here


@faulty("a node is expected, the value of a call, not FunctionHandler")
def an_arrow_to_a_handler_that_is_not_called() -> None:
    square(3) >> note  # type: ignore[operator]  # here


@faulty("a node is expected, the value of a call, not FunctionHandler")
def an_arrow_from_a_handler_that_is_not_called() -> None:
    note >> square(3)  # here


@faulty("the key '${params.day}' is known only while the task runs; keys are fixed when the flow")
def a_key_that_is_a_value(day: date) -> None:
    add({f"{day}": 3})  # here


@faulty("the key <value of results.square> is known only while the task runs; keys are fixed when")
def a_key_that_is_the_value_of_a_call() -> None:
    add({square(3): 1})  # here


@faulty("the key <value of results.square> is known only while the task runs")  # here
def an_output_with_a_key_that_is_a_value() -> Any:
    return {"a": [{square(3): 1}]}


@faulty("a node is expected, the value of a call, not params.n")
def an_arrow_from_a_param(n: int) -> None:
    n >> square(3)  # here


@faulty("a node is expected, the value of a call, not str")
def a_branch_that_is_no_node() -> None:
    square(3).on_failure("alert")  # here


@faulty("missing a required argument: 'n'")
def a_branch_that_needs_an_argument() -> None:
    square(3).on_success(square)  # here


@faulty("routing has 'alert' in on_success and in on_failure")
def a_node_on_both_branches() -> None:
    told = alert()
    square(3).on_success(told).on_failure(told)  # here


@faulty("first: the count must be from 1 to 2, the number of nodes, not 3")
def more_than_there_are() -> None:
    add(first(3, square(1), square(2)))  # here


@faulty("first: the count must be from 1 to 0, the number of nodes, not 1")
def the_first_of_nothing() -> None:
    add(first(1))  # here


@faulty("first takes nodes, the values of calls, not int")
def the_first_of_plain_values() -> None:
    add(first(1, 2, 3))  # here


@faulty("first takes nodes, the values of calls, not Value")
def the_first_of_fields() -> None:
    rows = extract(Tenant(name="a"))
    add(first(1, rows.total))  # here


@faulty("first: rest must be 'leave' or 'cancel', not 'kill'")
def an_unknown_rest() -> None:
    add(first(1, square(1), square(2), rest="kill"))  # here


@faulty("first: a node is given twice")
def the_first_of_one_node_twice() -> None:
    one = square(1)
    add(first(1, one, one))  # here


@faulty("first(...) is given twice for different nodes; pass one through a node of its own")
def two_firsts() -> None:
    a, b = square(1), square(2)
    add([first(1, a, b), first(2, a, b)])  # here


@faulty("waits for the first of some nodes, and for 'square_3' as well")
def a_first_beside_another_value() -> None:
    a, b, c = square(1), square(2), square(3)
    add([first(1, a, b), c])  # here


@faulty("waits for the first of some nodes, and for 'square' as well")
def a_first_beside_one_of_its_nodes() -> None:
    a, b = square(1), square(2)
    add({"first": first(1, a, b), "a": a})  # here


@faulty("waits for the first of some nodes, and for 'square' as well")
def a_first_beside_a_condition() -> None:
    a, b = square(1), square(2)
    add(first(1, a, b)).options(when=a > 3)  # here


@faulty("node 'add' reads its own result")
def a_first_of_the_node_itself() -> None:
    added = add({})
    added.options(when=first(1, added, square(1))[0] > 3)  # here


@faulty("waits for the first of some nodes, and for 'square_3' as well")
def a_first_on_a_branch() -> None:
    a, b, c = square(1), square(2), square(3)
    d = add(first(1, a, b))  # here
    c.on_success(d)


@faulty("cannot be part of a text when the flow is built")
def a_first_in_a_text() -> None:
    note(f"{first(1, square(1), square(2))}")  # here


@faulty("nameless has no role, so no worker can run it")
def a_handler_without_a_role() -> None:
    nameless(3)  # here


@faulty("other_square and square are handlers of the same role 'square'; give each its own")
def two_handlers_of_a_role() -> None:
    square(3)
    other_square(4)  # here


@faulty("belongs to another flow")
def a_value_of_another_flow() -> None:
    square(LEAKED[-1])  # here


@faulty("belongs to another flow")
def an_arrow_to_another_flow() -> None:
    square(3) >> LEAKED[-1]  # here


@faulty("the call that makes the node 'square' has failed, and the flow has caught its error")
def a_caught_error() -> None:
    with suppress(GraphError):
        square("a")  # type: ignore[arg-type]  # here
    square(3)


@faulty("the flow inner cannot be called; use inner.run(...)")
def a_flow_in_a_flow() -> None:
    inner()  # here


@faulty("cannot be called in a flow, which only builds a graph")
def a_run_in_a_flow(n: int) -> None:
    inner.run(n)  # type: ignore[call-arg]  # here


@faulty("on_success: square: missing a required argument: 'n'; give a call, such as square(...)")
def a_branch_to_a_handler_that_needs_an_argument() -> None:
    square(3).on_success(square)  # type: ignore[arg-type]  # here


@faulty("on_failure: <lambda>: missing a required argument: 'error'; give a call")
def a_branch_to_a_function_that_needs_an_argument() -> None:
    square(3).on_failure(lambda error: note(error))  # type: ignore[arg-type,misc]  # here


@faulty("square.map: a set has no order; give a list, such as sorted(...)")
def a_map_over_a_set() -> None:
    square.map({3, 1, 2})  # here


@faulty("square.map takes a list, or a value of the flow that is a list, not 'abc'")
def a_map_over_a_text() -> None:
    square.map("abc")  # type: ignore[arg-type]  # here


@faulty("square.map takes a list, or a value of the flow that is a list, not {'a': 1}")
def a_map_over_an_object() -> None:
    square.map({"a": 1})  # type: ignore[arg-type]  # here


@faulty("max_parallel is fixed when the flow is built; give it a plain value")
def a_map_with_an_option_that_is_a_value(n: int, rows: list[int]) -> None:
    square.map(rows, max_parallel=n)  # here


@faulty("node_id is fixed when the flow is built; give it a plain value")
def a_node_id_with_a_value(n: int) -> None:
    square.options(node_id=f"square_{n}")(3)  # here


@faulty("cannot be changed")
def a_changed_field(rows: Any) -> None:
    rows.total = 3  # here


@faulty("cannot be changed")
def a_deleted_field(rows: Any) -> None:
    del rows.total  # here


@faulty("params.folder is known only while the task runs, so it cannot be a path")
def a_value_in_a_path(folder: str) -> None:
    note(str(Path(folder) / "a.png"))  # here


@faulty("params.folder is known only while the task runs, so it cannot be a path")
def a_value_in_a_joined_path(folder: str) -> None:
    note(os.path.join(folder, "a.png"))  # noqa: PTH118  # here


@faulty("TypeError: sequence item 0: expected str instance, Value found; a value of the flow is")
def joined_values(name: str) -> None:
    note(", ".join([name, name]))  # here


@faulty("TypeError: Object of type Value is not JSON serializable; a value of the flow is known")
def a_value_as_json(name: str) -> None:
    note(json.dumps({"name": name}))  # here


@faulty("ValidationError: 1 validation error for Tenant name Input should be a valid string")
def a_value_in_a_model(name: str) -> None:
    extract(Tenant(name=name))  # here


@faulty("KeyError: <value of params.name>; a value of the flow is known only while the task runs")
def a_value_as_a_key_of_a_dict(name: str) -> None:
    note({"a": "b"}[name])  # here


@faulty("ValueError: <value of params.color> is not a valid Color; a value of the flow is known")
def a_member_of_an_enum(color: str) -> None:
    note(Color(color))  # here


@faulty("AttributeError: <value of params.row> has no attribute '_id'; use ['_id']")
def an_attribute_with_an_underscore(row: Any) -> None:
    note(row._id)  # here


@faulty("a value contains itself or is nested too deeply")
def a_list_that_contains_itself(n: int) -> None:
    rows: list[Any] = [n]
    rows.append(rows)
    add(rows)  # type: ignore[arg-type]  # here


@faulty("a node is expected, the value of a call, not list")
def a_branch_that_is_a_list() -> None:
    square(3).on_success([square(4)])  # type: ignore[arg-type]  # here


@faulty("cannot be a condition")
def conditions_joined_with_and(n: int) -> None:
    note.options(when=n > 3 and n < 5)()  # here


@faulty("cannot be a condition")
def a_chained_comparison(n: int) -> None:
    note.options(when=3 < n < 5)()  # here


@faulty("cannot be combined with 3")
def a_condition_joined_with_a_number(n: int) -> None:
    note.options(when=n & 3)()  # here


@faulty("has no nodes; call handlers in it")  # here
def a_flow_without_nodes() -> None:
    pass


@faulty("has the trigger 'on_batch', but 'numbers' routes to the node when it ends; remove one")
def a_stream_on_a_branch() -> None:
    source = numbers(3)
    source.on_success(double.stream(source))  # here


@faulty("$ref '#/$defs/Folder' is part of a cycle, which is not supported")  # here
def a_param_of_a_recursive_type(folder: "Folder") -> None:
    add(folder)


@faulty("all nodes have ended when it is evaluated, so first(...) has no effect")  # here
def an_output_of_the_first() -> Any:
    return {"first": first(1, square(1), square(2))}


@faulty("the output of an_output_that_is_not_json is not JSON")  # here
def an_output_that_is_not_json() -> Any:
    return [square(1), {1, 2}]


@faulty("node 'square' belongs to another flow")  # here
def an_output_of_another_flow() -> Any:
    square(1)
    return LEAKED[-1]


@faulty("output: 'results.missing' reads results of 'missing', which is not in the graph")  # here
def an_output_of_an_unknown_node() -> Any:
    square(1)
    return "${results.missing}"


class Folder(BaseModel):
    folders: list["Folder"]


@handler("square")
def other_square(n: int) -> int:
    return n


def _nameless() -> Any:
    from flowkit.worker import FunctionHandler

    def nameless(n: int) -> int:
        return n

    return FunctionHandler(nameless)


nameless = _nameless()
LEAKED: list[Any] = []
SECRET = SecretStr("x")


class Color(StrEnum):
    RED = "red"


@flow
def leaking() -> None:
    LEAKED.append(square(3))


@flow
def inner() -> None:
    square(3)


@pytest.mark.parametrize(("function", "error"), faulty.table.values(), ids=faulty.table)
def test_a_mistake_is_an_error_that_names_its_line(
    function: Callable[..., Any], error: str
) -> None:
    leaking.build_graph()
    check_mistake(function, error)


def test_all_faults_of_the_graph_are_listed_with_their_lines() -> None:
    @flow
    def several() -> None:
        square.options(priority="high")(1)
        note.options(fan_in="some")()
        note("${HOME}")

    with pytest.raises(GraphError) as caught:
        several.build_graph()
    assert [(fault.node_id, fault.message.endswith(")")) for fault in caught.value.faults] == [
        ("square", True),
        ("note", True),
        ("note_2", True),
    ]


# ---------------------------------------------------------------- declarations


def a_class() -> None:
    flow(Folder)


def an_async_function() -> None:
    @flow
    async def waiting() -> None: ...


def a_generator() -> None:
    @flow
    def yielding() -> Any:
        yield 3


def variable_arguments() -> None:
    @flow
    def many(*rows: int) -> None: ...


def variable_keywords() -> None:
    @flow
    def many(**rows: int) -> None: ...


def a_positional_parameter() -> None:
    @flow
    def one(n: int, /) -> None: ...


def an_annotation_that_is_not_there() -> None:
    @flow
    def one(n: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821


def a_type_without_a_schema() -> None:
    @flow
    def one(ctx: RunContext) -> None: ...


def a_union_without_its_discriminator() -> None:
    @flow
    def one(row: Annotated[Rows | Tenant, Field(discriminator="kind")]) -> None: ...


def a_type_without_a_json_schema() -> None:
    @flow
    def one(call: Callable[[], int]) -> None: ...


def a_default_of_another_type() -> None:
    @flow
    def one(n: int = "x") -> None: ...


def a_default_that_is_not_json() -> None:
    @flow
    def one(names: Any = frozenset("ab")) -> None: ...


def a_default_without_a_time_zone() -> None:
    @flow
    def one(at: datetime = datetime(2026, 1, 1)) -> None: ...


def a_default_that_is_hidden_in_json() -> None:
    @flow
    def one(key: SecretStr = SECRET) -> None: ...


def a_default_that_is_no_text() -> None:
    @flow
    def one(key: bytes = b"\xff") -> None: ...


def an_output_beside_a_function() -> None:
    @flow(output="${results.square}")
    def one() -> None: ...


def params_beside_a_signature() -> None:
    @flow(params={"type": "object"})
    def one(n: int) -> None: ...


WRONG: dict[Callable[[], None], str] = {
    a_class: "is not a function",
    an_async_function: "is an async function",
    a_generator: "is a generator",
    variable_arguments: "*rows: int cannot be a param; give each param a parameter of its own",
    variable_keywords: "**rows: int cannot be a param",
    a_positional_parameter: "the parameter 'n' is positional-only, but params have names",
    an_annotation_that_is_not_there: "the annotation 'Nowhere' of the parameter 'n' cannot be",
    a_type_without_a_schema: "pydantic cannot validate the annotation",
    a_union_without_its_discriminator: "pydantic cannot validate the annotation",
    a_type_without_a_json_schema: "a type has no JSON Schema",
    a_default_of_another_type: "the default of 'n' does not match its type",
    a_default_that_is_not_json: "the default of 'names' is not JSON",
    a_default_without_a_time_zone: "the default of 'at' is a time without a zone; write datetime(",
    a_default_that_is_hidden_in_json: "the default of 'key' is not JSON",
    a_default_that_is_no_text: "the default of 'key' is not JSON",
    an_output_beside_a_function: "returns its output; remove output= of @flow",
    params_beside_a_signature: "has its params in its signature; remove params= of @flow",
}


@pytest.mark.parametrize(
    ("declare", "fault"), WRONG.items(), ids=[declare.__name__ for declare in WRONG]
)
def test_a_function_that_cannot_be_a_flow_is_an_error_that_names_it(
    declare: Callable[[], None], fault: str
) -> None:
    with pytest.raises(TypeError) as caught:
        declare()
    assert "@flow: " in str(caught.value)
    assert fault in str(caught.value)
    assert declare is a_class or f"({__file__}, line " in str(caught.value)


def test_an_error_about_a_method_of_flowkit_stays_as_it_is() -> None:
    @flow
    def one() -> None:
        square(3).options("a")  # type: ignore[call-arg]

    with pytest.raises(TypeError, match=r"^NodeRef.options\(\) takes 1 positional argument"):
        one.build_graph()


def test_an_error_of_the_user_stays_as_it_is() -> None:
    @flow
    def one(n: int) -> None:
        raise ValueError("no day is left")

    with pytest.raises(ValueError, match=r"^no day is left$"):
        one.build_graph()


def test_an_unknown_option_of_a_handler_is_an_error_where_it_is_declared() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'retry_policy'.*test_faults"):

        @handler("x", retry_polcy={"max": 3})  # type: ignore[call-arg]
        def work() -> None: ...


def test_params_that_do_not_fit_are_refused_before_anything_is_stored() -> None:
    @flow
    def one(n: int, day: date) -> None:
        square(n)

    with pytest.raises(GraphError, match=r"one\(n: int, day: datetime.date\): missing a required"):
        one.run(3)  # type: ignore[call-arg]
    with pytest.raises(GraphError) as caught:
        one.run("x", day="tomorrow")
    assert [fault.message.partition(":")[0] for fault in caught.value.faults] == [
        "params.n",
        "params.day",
    ]


async def test_a_flow_does_not_run_inside_an_event_loop() -> None:
    with pytest.raises(RuntimeError, match=r"use await inner.submit\(client, ...\)"):
        inner.run()
