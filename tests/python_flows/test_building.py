"""A flow in Python is the graph that its calls describe."""

from copy import deepcopy
from dataclasses import asdict
from datetime import date
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel, Field

from flowkit import Graph, GraphError, first, flow
from flowkit._flow_building.drafts import Draft
from flowkit._flow_building.node_table import NodeTable
from flowkit.flows import Flow, NodeOptions
from flowkit.graph import NodeSpec, RetryPolicy
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
    wait,
)


def nodes(built: Flow[...]) -> dict[str, dict[str, Any]]:
    """Return the nodes of a flow as a document has them, by id."""
    return {node.pop("node_id"): node for node in built.build_graph().to_dict()["nodes"]}


def test_values_make_edges_and_are_expressions_in_the_input() -> None:
    @flow
    def etl(tenant: Tenant, day: date) -> None:
        rows = extract(tenant)
        merge([rows, rows], day, scale=rows.total)

    assert nodes(etl) == {
        "extract": {
            "type": "extract",
            "retry_policy": {"max": 5},
            "io": {"input_inline": "${params.tenant}"},
        },
        "merge": {
            "type": "merge",
            "depends_on": ["extract"],
            "io": {
                "input_inline": {
                    "rows": ["${results.extract}", "${results.extract}"],
                    "day": "${params.day}",
                    "scale": "${results.extract.total}",
                }
            },
        },
    }


def test_attributes_and_items_of_a_value_are_expressions() -> None:
    @flow
    def values(data: Any, place: int, loop: dict[str, int]) -> None:
        read = add(data)
        for value in (
            read[0],
            read["a b"].c,
            read["options"],
            read[place],
            read.rows[read.at],
            loop["in"],
            loop,
        ):
            note(value)

    written = [node["io"]["input_inline"] for node in nodes(values).values()]
    assert written[1:] == [
        "${results.add[0]}",
        '${results.add["a b"].c}',
        "${results.add.options}",
        "${results.add[params.place]}",
        "${results.add.rows[results.add.at]}",
        '${params["loop"]["in"]}',
        '${params["loop"]}',
    ]


def test_a_value_may_be_part_of_a_text() -> None:
    @flow
    def report(day: date) -> None:
        count = square(3)
        note(f"{count} rows on {day}")
        note("${results.square > 5 ? 'many' : 'few'}")

    found = nodes(report)
    assert found["note"]["io"]["input_inline"] == "${results.square} rows on ${params.day}"
    assert found["note"]["depends_on"] == found["note_2"]["depends_on"] == ["square"]


def test_values_inside_of_objects_make_edges() -> None:
    @flow
    def nested(day: date) -> None:
        add({"rows": [Rows(square(2), day), {"tenant": Tenant(name="x")}]})

    assert nodes(nested)["add"] == {
        "type": "add",
        "depends_on": ["square"],
        "io": {
            "input_inline": {
                "rows": [
                    {"total": "${results.square}", "day": "${params.day}"},
                    {"tenant": {"name": "x"}},
                ]
            }
        },
    }


def test_literal_arguments_are_written_as_json() -> None:
    @flow
    def literals() -> None:
        extract(Tenant(name="a"))
        merge([Rows(1, date(2026, 1, 2))], date(2026, 1, 3))

    found = nodes(literals)
    assert found["extract"]["io"]["input_inline"] == {"name": "a"}
    assert found["merge"]["io"]["input_inline"] == {
        "rows": [{"total": 1, "day": "2026-01-02"}],
        "day": "2026-01-03",
    }


def test_nodes_are_named_after_their_functions() -> None:
    @flow
    def squares() -> None:
        for number in range(3):
            square(number)
        square.options(node_id="square_5")(4)
        square(5).options(node_id="last")
        square(6)

    assert list(nodes(squares)) == [
        "square",
        "square_2",
        "square_3",
        "square_5",
        "last",
        "square_4",
    ]


def test_the_ids_of_nodes_that_got_others_or_became_undos_are_used_again() -> None:
    @flow
    def squares() -> None:
        kept = [square(number) for number in range(3)]
        kept[1].options(node_id="square_4").undo(note)
        note("again")
        square(3)
        square(4)

    assert list(nodes(squares)) == [
        "square",
        "square_4",
        "square_3",
        "note",
        "square_2",
        "square_5",
    ]


class CountedIds(dict[str, Draft]):
    """Nodes by id, which count how often they are searched."""

    searches = 0

    def __contains__(self, node_id: object) -> bool:
        self.searches += 1
        return super().__contains__(node_id)


def test_an_id_is_found_at_once_however_many_nodes_a_function_has() -> None:
    table = NodeTable("here")
    table.by_id = ids = CountedIds()
    for _ in range(200):
        table.add("square", "square", is_final=False)
        undo = table.add("note", "note", is_final=False)
        table.remove(undo)
    assert ids.searches < 900


def test_a_function_without_a_name_is_a_flow() -> None:
    def powers(n: int, more: int) -> None:
        square(n)
        square(more)

    params = flow(partial(powers, more=3)).build_graph().to_dict()["params"]
    assert params["properties"]["more"] == {"type": "integer", "default": 3}


def test_arrows_order_nodes_without_data() -> None:
    @flow
    def ordered() -> None:
        a, b, c, d = (square.options(node_id=name)(1) for name in "abcd")
        a >> [b, c] >> d
        assert a >> b is b

    found = nodes(ordered)
    assert [found[name].get("depends_on") for name in "abcd"] == [None, ["a"], ["a"], ["b", "c"]]


def test_options_are_fields_of_the_node() -> None:
    quick = square.options(timeouts={"start_to_close_sec": 5}, priority=3)

    @flow
    def optional() -> None:
        quick.options(priority=4, optional=True)(1)
        quick(2).options(retry_policy=RetryPolicy(max=7), labels={"a": "b"})

    found = nodes(optional)
    timeouts = {"start_to_close_sec": 5.0}
    assert found["square"]["optional"] is True
    assert found["square"]["priority"] == 4
    assert found["square_2"]["priority"] == 3
    assert found["square_2"]["retry_policy"] == {"max": 7}
    assert found["square"]["timeouts"] == found["square_2"]["timeouts"] == timeouts


def test_each_field_of_a_node_is_an_option_or_follows_from_the_call() -> None:
    follows = {"type", "depends_on", "routing", "io", "map", "undo"}
    options = NodeOptions.__annotations__.keys()
    assert NodeSpec.model_fields.keys() - follows == options


def test_a_comparison_is_a_condition() -> None:
    @flow
    def conditions(day: date, limit: int) -> None:
        count = square(3)
        for when in (
            count > 3,
            count == limit,
            count != None,  # noqa: E711
            day < date(2026, 1, 2),
            count.ok,
            "results.square == params.limit",
        ):
            note.options(when=when)()

    found = list(nodes(conditions).values())[1:]
    assert [node["when"] for node in found] == [
        "results.square > 3",
        "results.square == params.limit",
        "results.square != null",
        'params.day < "2026-01-02"',
        "results.square.ok",
        "results.square == params.limit",
    ]
    assert [node.get("depends_on") for node in found] == [["square"]] * 3 + [None] + [
        ["square"]
    ] * 2


def test_conditions_are_combined() -> None:
    @flow
    def conditions(n: int, flag: bool) -> None:
        count = square(3)
        for when in (
            (count > n) & (count < 5) | ~flag,  # type: ignore[operator]
            ~(count > n),  # type: ignore[operator]
            (count > n) == (flag | False),
            True & (count == n),
            f"{count} > {n} && {count == 9}",
        ):
            note.options(when=when)()

    found = list(nodes(conditions).values())[1:]
    assert [node["when"] for node in found] == [
        "((results.square > params.n) && (results.square < 5)) || !params.flag",
        "!(results.square > params.n)",
        "(results.square > params.n) == (params.flag || false)",
        "(results.square == params.n) && true",
        "results.square > params.n && (results.square == 9)",
    ]
    assert [node["depends_on"] for node in found] == [["square"]] * 5


def test_values_may_be_copied() -> None:
    @flow
    def copied() -> None:
        rows = Rows(square(3), None)
        add(asdict(rows))
        add({"a": deepcopy(rows.total)})

    assert nodes(copied)["add"]["io"]["input_inline"] == {"total": "${results.square}", "day": None}
    assert nodes(copied)["add_2"]["depends_on"] == ["square"]


def test_branches_are_nodes_or_handlers_without_arguments() -> None:
    @flow
    def branches() -> None:
        count = square(3)
        count.on_success(note, note(f"{count}")).on_failure(alert)

    found = nodes(branches)
    assert found["square"]["routing"] == {"on_success": ["note_2", "note"], "on_failure": ["alert"]}
    assert found["note"] == {"type": "note", "io": {"input_inline": "${string(results.square)}"}}


def test_the_first_results_of_some_nodes_are_a_list() -> None:
    @flow
    def race(day: date) -> None:
        a, b, c = (extract.options(node_id=name)(Tenant(name=name)) for name in "abc")
        merge(first(2, a, b, c, rest="cancel"), day)
        extract(first(1, a, b)[0])

    found = nodes(race)
    assert found["merge"] == {
        "type": "merge",
        "depends_on": ["a", "b", "c"],
        "fan_in": "count:2",
        "on_satisfied": "cancel",
        "io": {
            "input_inline": {
                "rows": "${[results.a, results.b, results.c].filter(one, one != null)}",
                "day": "${params.day}",
            }
        },
    }
    assert found["extract"]["fan_in"] == "count:1"
    assert found["extract"]["depends_on"] == ["a", "b"]
    assert found["extract"]["io"]["input_inline"] == (
        "${[results.a, results.b].filter(one, one != null)[0]}"
    )


def test_a_stream_is_an_edge_for_batches() -> None:
    @flow
    def streaming(upto: int) -> None:
        add.stream(double.stream(numbers(upto)))

    document = streaming.build_graph().to_dict()
    assert document["edges"] == [
        {"from": "numbers", "to": "double", "trigger": "on_batch"},
        {"from": "double", "to": "add", "trigger": "on_batch"},
    ]
    assert document["nodes"][1] == {
        "node_id": "double",
        "type": "double",
        "io": {
            "input_inline": {
                "input_adapter": "pull.from_artifacts",
                "input_args": {"from_nodes": ["numbers"]},
            },
        },
    }


def test_the_returned_value_is_the_output() -> None:
    @flow
    def returning(day: date, form: int) -> Any:
        a, b = square(1), square(2)
        return {
            1: a,
            2: f"{a} on {day}",
            3: {"sum": [a, b.total], "of": 2},
            4: [a, {"b": b, "rows": [1, "x", None, 2.5]}],
            5: True,
            6: "done",
            7: None,
        }[wanted]

    outputs = {}
    for wanted in range(1, 8):
        outputs[wanted] = returning.build_graph().to_dict().get("output")
    assert outputs == {
        1: "${results.square}",
        2: "${results.square} on ${params.day}",
        3: {"sum": ["${results.square}", "${results.square_2.total}"], "of": 2},
        4: '${[results.square, {"b": results.square_2, "rows": [1, "x", null, 2.5]}]}',
        5: "${true}",
        6: '${"done"}',
        7: None,
    }


def test_the_signature_is_the_schema_of_the_params() -> None:
    class Window(BaseModel):
        size: int = Field(ge=1)

    @flow
    def typed(
        tenants: list[Tenant], window: Window, day: date = date(2026, 1, 1), *, note: Any = None
    ) -> None:
        add({"tenants": tenants, "window": window, "day": day, "note": note})

    schema = typed.build_graph().to_dict()["params"]
    assert schema["required"] == ["tenants", "window"]
    assert schema["additionalProperties"] is False
    assert schema["properties"] == {
        "tenants": {"type": "array", "items": {"$ref": "#/$defs/Tenant"}},
        "window": {"$ref": "#/$defs/Window"},
        "day": {"type": "string", "format": "date", "default": "2026-01-01"},
        "note": {"default": None},
    }
    assert schema["$defs"]["Window"]["properties"]["size"]["minimum"] == 1


def test_the_fields_of_the_graph_are_arguments_of_the_decorator() -> None:
    @flow(on_node_failure="continue", deadline_sec=60, max_parallel=2)
    def limited() -> None:
        square(1)

    document = limited.build_graph().to_dict()
    assert (document["on_node_failure"], document["deadline_sec"]) == ("continue", 60.0)
    assert document["max_parallel"] == 2


def test_a_flow_is_accepted_as_a_graph_and_keeps_its_name() -> None:
    @flow
    def small() -> None:
        """Square a number."""
        square(3)

    assert Graph.parse(small).plan.ids == ("square",)
    assert (small.__name__, small.__doc__) == ("small", "Square a number.")


def test_a_function_that_takes_a_graph_describes_it() -> None:
    @flow
    def nightly(g: Graph) -> None:
        g.node("a", "square", input_inline=3)

    @flow
    def hourly(graph: Graph) -> None:
        graph.node("a", "square", input_inline=3)

    assert Graph.parse(nightly) == Graph.parse(hourly) == nightly()


async def test_a_handler_is_called_outside_of_a_flow() -> None:
    assert square(3) == 9
    assert await extract.options(priority=3)(Tenant(name="abc")) == Rows(3)
    assert merge([Rows(1), Rows(2)], date(2026, 1, 1)).total == 3


def test_each_build_calls_the_function_again() -> None:
    sizes = [1]

    @flow
    def wide() -> None:
        for number in range(sizes[0]):
            wait(number)

    assert len(wide.build_graph().plan.ids) == 1
    sizes[0] = 3
    assert len(wide.build_graph().plan.ids) == 3


def test_a_flow_that_failed_to_be_built_leaves_handlers_callable() -> None:
    @flow
    def broken() -> None:
        square(1)
        raise RuntimeError("no configuration")

    with pytest.raises(RuntimeError, match="no configuration"):
        broken.build_graph()
    assert square(3) == 9
    with pytest.raises(GraphError, match="stream makes a node"):
        double.stream(square(3))
