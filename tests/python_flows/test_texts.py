"""A value in a text is an expression, with any text around it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from flowkit import TaskStatus, flow
from flowkit.flows import this_task
from flowkit_testing import Cluster
from tests.python_flows.handlers import HANDLERS, Tenant, add, extract, note, square
from tests.python_flows.mistakes import Mistakes, check_mistake

BY_ROLE = {str(one.role): one for one in HANDLERS}
TASK_ID = f"{this_task.id}"


async def test_texts_have_the_values_of_the_run(flowkit_cluster: Cluster) -> None:
    @flow
    def texts(price: int, name: str, row: dict[str, int]) -> Any:
        nine = square(3)
        return {
            "dollar": add({"a": f"${price}"}),
            "dollars": add({"a": f"$${price} and $${{x}} $${nine}"}),
            "alone": add({"a": f"{nine}", "b": str(price), "c": f"{row}", "d": f"{nine == 9}"}),
            "formats": add({"a": "%s of %s" % (nine, name), "b": "{} {}".format(name, row.a)}),  # type: ignore[attr-defined]  # noqa: UP031, UP032
            "braces": add({"a": f"{{{name}}}", "b": f"}}{name}{{"}),
            "literal": add({"a": "$${price}", "b": "$5 {name} }", "c": f"$${{{name}"}),
            "expressions": add({"a": f"${{{nine} + {price}}}", "b": "${params.price + 1}"}),
            "list": [f"${nine}", f"{nine}", "${params.price}", "text"],
            "task": note(TASK_ID),
        }

    params = {"price": 5, "name": "${x} }'\"", "row": {"a": 1}}
    view = await flowkit_cluster.run(texts, handlers=BY_ROLE, params=params)
    assert view.status == TaskStatus.FINISHED, view.error
    assert view.result == {
        "dollar": {"a": "$5"},
        "dollars": {"a": "$$5 and ${x} $$9"},
        "alone": {"a": "9", "b": "5", "c": '{"a":1}', "d": "true"},
        "formats": {"a": "9 of ${x} }'\"", "b": "${x} }'\" 1"},
        "braces": {"a": "{${x} }'\"}", "b": "}${x} }'\"{"},
        "literal": {"a": "${price}", "b": "$5 {name} }", "c": "${${x} }'\""},
        "expressions": {"a": 14, "b": 6},
        "list": ["$9", "9", 5, "text"],
        "task": view.id,
    }


def test_a_value_in_a_text_is_an_edge() -> None:
    @flow
    def report() -> None:
        count, other = square(3), square(4)
        note(f"${count}")
        note(f"${{{other} + 1}}")
        note.options(when=f"{count} > 3 && {other == 16}")()
        extract(Tenant(name=f"{other}"))

    document = report.build_graph().to_dict()
    found = {node["node_id"]: node for node in document["nodes"]}
    assert found["note"]["depends_on"] == ["square"]
    assert found["note_2"]["depends_on"] == found["extract"]["depends_on"] == ["square_2"]
    assert found["note_3"]["depends_on"] == ["square", "square_2"]
    assert found["note_3"]["when"] == "results.square > 3 && (results.square_2 == 16)"


faulty = Mistakes()


@faulty("the text '<value of params.n>' contains the representation of a value")
def a_representation(n: int) -> None:
    note(f"{n!r}")  # here


@faulty("the text 'rows: [<value of params.n>]' contains the representation of a value")
def a_list_of_values(n: int) -> None:
    note(f"rows: {[n]}")  # here


@faulty("params.n is known only while the task runs, so it cannot be formatted with '>5'")
def a_width(n: int) -> None:
    note(f"{n:>5}")  # here


@faulty("cannot be converted to a number or bytes when the flow is built; compute it in a handler")
def a_number_format(n: int) -> None:
    note("%d" % n)  # noqa: UP031  # here


@faulty("the text '${PARAMS.NAME}' was changed after a value was put in")
def a_method_of_the_text(name: str) -> None:
    note(f"{name}".upper())  # here


@faulty("was changed after a value was put in")
def a_slice_of_the_text(name: str) -> None:
    note(f"{name} and more"[:9])  # here


@faulty("was changed after a value was put in")
def a_text_in_a_text_of_json(name: str) -> None:
    note(json.dumps({"name": f"{name}"}))  # here


@faulty("was changed after a value was put in")
def an_ascii_representation(name: str) -> None:
    note(f"{name!a}")  # here


@faulty("params.kind is within quotes or a name in the expression \"'${params.kind}' == 'a'\"")
def a_quoted_value_in_a_condition(kind: str) -> None:
    note.options(when=f"'{kind}' == 'a'")()  # here


@faulty("results.square is within quotes or a name in the expression")
def a_value_as_a_part_of_a_name() -> None:
    note(f"${{x{square(3)}}}")  # here


@faulty("results.square belongs to another flow; give its value to this flow as a param")
def a_text_of_another_flow() -> None:
    square(3)
    note(f"{LEAKED[0]}")  # here


LEAKED: list[Any] = []


@flow
def leaking() -> None:
    LEAKED.append(square(3))


@pytest.mark.parametrize(("function", "error"), faulty.table.values(), ids=faulty.table)
def test_a_text_that_cannot_be_used_is_an_error_that_names_its_line(
    function: Callable[..., Any], error: str
) -> None:
    leaking.build_graph()
    check_mistake(function, error)
