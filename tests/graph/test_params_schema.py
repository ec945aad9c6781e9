"""JSON Schema of params: faults of schemas, faults of params, and defaults."""

from typing import Any

import pytest
from pydantic import BaseModel

from flowkit import Graph
from flowkit.errors import GraphError, TaskRefused
from flowkit.flows import flow
from flowkit.graph._params_schema import params_faults, with_defaults
from flowkit.graph._schema_checks import (
    MAX_FAULTS,
    MAX_WORK,
    VALUES_AT_ONCE,
    takes_long,
    value_faults,
)
from flowkit.graph._schema_properties import nested_defaults
from flowkit.worker import handler
from flowkit_testing import Cluster
from tests.builders import graph, node


def doubled(levels: int) -> dict[str, Any]:
    """Return a schema whose size doubles with each definition."""
    last = {f"d{levels}": {"type": "string"}}
    definitions = {
        f"d{level}": {"anyOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)
    }
    return {"$defs": definitions | last, "properties": {"x": {"$ref": "#/$defs/d0"}}}


def faults(schema: Any) -> list[str]:
    try:
        Graph.parse(graph(node("a"), params=schema))
    except GraphError as error:
        return [fault.message for fault in error.faults]
    return []


def prop(**schema: Any) -> dict[str, Any]:
    return {"properties": {"x": schema}}


def each(**schema: Any) -> dict[str, Any]:
    return prop(type="array", items=schema)


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ("string", "params must be an object"),
        ([], "params must be an object"),
        (True, "params must be an object"),
        ({"type": "array"}, "the type of the schema must be 'object', not 'array'"),
        ({"type": ["string", "null"]}, "the type of the schema must be 'object'"),
        ({"type": "obejct"}, "the type of the schema must be 'object', not 'obejct'"),
        (prop(type="strnig"), 'params.properties.x.type: "strnig"'),
        (prop(minimum="a"), 'params.properties.x.minimum: "a" is not of type "number"'),
        (prop(minLength=-1), "params.properties.x.minLength: -1 is less than the minimum of 0"),
        (prop(required="x"), 'params.properties.x.required: "x" is not of type "array"'),
        (prop(enum=1), 'params.properties.x.enum: 1 is not of type "array"'),
        (prop(multipleOf=0), "params.properties.x.multipleOf: 0"),
        ({"properties": []}, 'params.properties: [] is not of type "object"'),
        ({"required": [1]}, 'params.required[0]: 1 is not of type "string"'),
        (prop(pattern="("), '"(" is not a "regex"'),
        (
            prop(pattern="(?=a)b"),
            (
                'params.properties.x.pattern: "(?=a)b" is not a "regex"; patterns have the syntax'
                " of Rust, without look-around and back-references"
            ),
        ),
        (prop(type="int"), "; did you mean 'integer'?"),
        (prop(type="Int"), "; did you mean 'integer'?"),
        (prop(type="intger"), "; did you mean 'integer'?"),
        (prop(type="str"), "; did you mean 'string'?"),
        (prop(type="date"), "; the types are array, boolean, integer, null, number, object"),
        (each(type="float"), 'params.properties.x.items.type: "float" is not valid under'),
        (prop(pattern=r"(a)\1"), "is not a"),
        (prop(pattern="((((a{100}){100}){100}){100})"), "is not a"),
        ({"patternProperties": {"(": {}}}, "is not a"),
        (prop(**{"$ref": "http://example.org/x.json"}), "is not one of the schema's own"),
        (prop(**{"$ref": "file:///etc/passwd"}), "is not one of the schema's own #/$defs/NAME"),
        (prop(**{"$ref": "#/$defs/y"}), "$ref '#/$defs/y' is not one of the schema's own"),
        (prop(**{"$ref": "#/properties/x"}), "is not one of the schema's own"),
        (
            {"n": {"type": "integer", "default": 4}},
            "params: 'n' is not a keyword of JSON Schema; names of properties belong under",
        ),
        ({"propertys": {}}, "'propertys' is not a keyword of JSON Schema; did you mean 'propert"),
        (prop(typ="integer"), "'typ' is not a keyword of JSON Schema; did you mean 'type'?"),
        (prop(items={"anyOf": [{"minimun": 1}]}), "did you mean 'minimum'?"),
        (prop(**{"$ref": "#"}), "$ref '#' is not one of the schema's own"),
        (prop(**{"$ref": 1}), "params.properties.x.$ref: 1 is not of type"),
        (
            prop(**{"$ref": "#/$defs/a"}) | {"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}},
            "$ref '#/$defs/a' is part of a cycle, which is not supported",
        ),
        (
            prop(**{"$ref": "#/$defs/a"})
            | {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
            "is part of a cycle",
        ),
        (doubled(30), "the schema has more than 2000 subschemas"),
        ({"properties": {f"p{n}": {} for n in range(2_001)}}, "more than 2000 subschemas"),
        ({"$id": "http://example.org/"}, "$id is not supported"),
        (prop(**{"$dynamicRef": "#x"}), "$dynamicRef is not supported"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "$schema must be 'https://json-"),
        (prop(type="integer", default="a"), "the default of 'x' is wrong: \"a\" is not of type"),
        (prop(enum=[1, 2], default=3), "the default of 'x' is wrong: 3 is not one of 1 or 2"),
    ],
)
def test_a_schema_that_cannot_be_used_is_a_fault_of_the_graph(schema: Any, fault: str) -> None:
    found = faults(schema)
    assert any(fault in one for one in found), found


def needed(**schema: Any) -> dict[str, Any]:
    """Return a schema with a required property."""
    return {"properties": {"x": schema}, "required": ["x"]}


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        (needed(enum=[]), "params.properties.x: enum is empty, so that no value matches"),
        (
            needed(type="integer", minimum=5, maximum=3),
            "params.properties.x: minimum 5 is above maximum 3",
        ),
        (
            needed(type="string", minLength=2, maxLength=1),
            "params.properties.x: minLength 2 is above maxLength 1",
        ),
        (
            needed(type="array", minItems=1, maxItems=0),
            "params.properties.x: minItems 1 is above maxItems 0",
        ),
        ({"minProperties": 2, "maxProperties": 1}, "params: minProperties 2 is above"),
        (
            needed(type=["integer", "number"], exclusiveMinimum=1, maximum=1),
            "exclusiveMinimum 1 is not below maximum 1",
        ),
        (
            needed(type="number", minimum=1, exclusiveMaximum=1),
            "minimum 1 is not below exclusiveMaximum 1",
        ),
        (needed(allOf=[{}, False]), "params.properties.x: allOf contains false"),
        (needed(allOf=[{"enum": []}]), "params.properties.x.allOf[0]: enum is empty"),
        (needed(anyOf=[False, False]), "params.properties.x: no value matches any schema in anyOf"),
        (needed(oneOf=[False, {"enum": []}]), "no value matches any schema in oneOf"),
        (
            {"properties": {"x": False}, "required": ["x"]},
            "params: the required property 'x' has the schema false",
        ),
        (
            {"properties": {"x": {}}, "required": ["y"], "additionalProperties": False},
            "params: the required property 'y' is not in properties, and additionalProperties is",
        ),
        (
            needed(type="object", properties={"y": {"enum": []}}, required=["y"]),
            "params.properties.x.properties.y: enum is empty",
        ),
    ],
)
def test_a_schema_that_no_value_can_match_is_a_fault(schema: Any, fault: str) -> None:
    (found,) = faults(schema)
    assert fault in found


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"x": False}},
        {"properties": {"x": {}}, "required": ["x"], "additionalProperties": False},
        {"patternProperties": {"^x": {}}, "required": ["xy"], "additionalProperties": False},
        needed(type="integer", minimum=3, maximum=3),
        needed(type="number", exclusiveMinimum=1, maximum=1.5),
        needed(minimum=5, maximum=3),
        needed(type=["string", "integer"], minLength=5, maxLength=1),
        needed(type="integer", required=["q"], additionalProperties=False),
        needed(properties={"y": {"enum": []}}, required=["y"]),
        needed(minContains=3, maxContains=1),
        needed(items={"enum": []}),
        needed(additionalProperties={"enum": []}),
        needed(anyOf=[{"enum": []}, {"type": "string"}]),
        prop(enum=[]),
        {"not": {"enum": []}},
        {"$defs": {"d": {"enum": []}}},
        {"if": {"required": ["a"], "properties": {"a": False}}, "else": {}},
        {"dependentSchemas": {"a": {"required": ["b"], "properties": {"b": False}}}},
        prop(default={"minimum": 5, "maximum": 3}),
    ],
)
def test_a_schema_that_some_values_match_has_no_fault(schema: Any) -> None:
    assert faults(schema) == []


def test_all_faults_of_a_schema_are_listed_beside_those_of_the_nodes() -> None:
    document = graph(
        node("a", "work", "nowhere"),
        params={"properties": {"x": {"type": "y"}, "z": {"minimum": "a"}}},
    )
    with pytest.raises(GraphError) as caught:
        Graph.parse(document)
    assert len(caught.value.faults) == 3


SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 1, "default": 5},
        "name": {"type": "string", "pattern": "^(a+)+$", "maxLength": 100},
        "rows": {"type": "array", "items": {"$ref": "#/$defs/row"}},
        "day": {"type": "string", "format": "date"},
        "options": {"type": "object", "default": {"deep": []}},
        "any": True,
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"row": {"type": "object", "required": ["id"], "properties": {"id": {}}}},
}


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        ({}, '"name" is a required property'),
        ({"name": 1}, 'params.name: 1 is not of type "string"'),
        ({"name": "b"}, 'params.name: "b" does not match'),
        ({"name": "a" * 60 + "b"}, "does not match"),
        ({"name": "a", "n": 0}, "params.n: 0 is less than the minimum of 1"),
        ({"name": "a", "n": 1.5}, 'params.n: 1.5 is not of type "integer"'),
        ({"name": "a", "n": "1"}, 'params.n: "1" is not of type "integer"'),
        ({"name": "a", "n": None}, 'params.n: null is not of type "integer"'),
        ({"name": "a", "rows": [{"id": 1}, {}]}, 'params.rows[1]: "id" is a required property'),
        ({"name": "a", "rows": {}}, 'params.rows: {} is not of type "array"'),
        ({"name": "a", "day": "soon"}, 'params.day: "soon" is not a "date"'),
        ({"name": "a", "extra": 1}, "Additional properties are not allowed ('extra'"),
        ({"name": "a" * 500}, "…"),
    ],
)
def test_params_that_do_not_fit_are_faults_with_their_place(params: Any, fault: str) -> None:
    found = params_faults(SCHEMA, with_defaults(SCHEMA, params))
    assert any(fault in one for one in found), found
    assert max(map(len, found)) < 400


@pytest.mark.parametrize(
    "params",
    [
        {"name": "a"},
        {"name": "a", "n": 2.0},
        {"name": "a", "n": 2**70},
        {"name": "aa", "any": [None, {"x": 1}], "day": "2026-01-31", "rows": [{"id": None}]},
    ],
)
def test_params_that_fit_have_no_faults(params: Any) -> None:
    assert faults(SCHEMA) == []
    assert params_faults(SCHEMA, with_defaults(SCHEMA, params)) == []


def test_defaults_are_copies_and_given_values_stay() -> None:
    first = with_defaults(SCHEMA, {"n": 1})
    assert first == {"n": 1, "options": {"deep": []}}
    first["options"]["deep"].append(1)
    assert with_defaults(SCHEMA, {"n": None})["options"] == {"deep": []}
    assert with_defaults(SCHEMA, {"n": None})["n"] is None


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        pytest.param(
            each(allOf=[{"minimum": n} for n in range(1_900)]),
            [2_000] * (MAX_WORK // 1_900),
            id="many subschemas for many values",
        ),
        pytest.param(prop(uniqueItems=True), [2**64 + n for n in range(900)], id="large numbers"),
        pytest.param(
            prop(contains={"enum": [{"a": n} for n in range(400)]}),
            [{"a": 399}] * 400,
            id="objects to compare with",
        ),
        pytest.param(prop(contains={"multipleOf": 0.1}), [0.35] * 20_000, id="fractions"),
        pytest.param(
            prop(anyOf=[{"type": "array", "minItems": n} for n in range(50)]),
            [0] * 60_000,
            id="errors that show the value",
        ),
    ],
)
def test_a_value_whose_check_would_take_long_is_refused(schema: Any, value: Any) -> None:
    assert faults(schema) == []
    assert params_faults(schema, {"x": value}) == [
        "params is too large to be checked by its JSON Schema"
    ]


ROW = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
ROWS: list[Any] = [{"id": n} for n in range(30_000)]


@pytest.mark.parametrize(
    "schema",
    [
        each(**ROW),
        prop(anyOf=[{"type": "array", "items": ROW}, {"type": "null"}]),
        prop(allOf=[{"items": {"$ref": "#/$defs/Row"}}]) | {"$defs": {"Row": ROW}},
        prop(oneOf=[{"type": "null"}, {"$ref": "#/$defs/Rows", "type": "array"}])
        | {"$defs": {"Rows": {"uniqueItems": True, "items": ROW}}},
    ],
)
def test_a_large_value_is_checked_part_by_part(schema: Any) -> None:
    assert faults(schema) == []
    assert params_faults(schema, {"x": ROWS}) == []
    wrong = [*ROWS[:20_000], {"id": "x"}, *ROWS[-10:], {}]
    assert params_faults(schema, {"x": wrong}) == [
        'params.x[20000].id: "x" is not of type "integer"',
        'params.x[20011]: "id" is a required property',
    ]


def test_a_large_object_is_checked_part_by_part() -> None:
    schema = {"additionalProperties": {"type": "string", "pattern": "^[a-z]+$"}}
    params: dict[str, Any] = {f"p{n}": "x" for n in range(30_000)}
    assert params_faults(schema, params) == []
    params["p7"], params["p9"] = 3, "X"
    assert params_faults(schema, params) == [
        'params.p7: 3 is not of type "string"',
        'params.p9: "X" does not match "^[a-z]+$"',
    ]
    names = {"propertyNames": {"pattern": "a"}}
    assert params_faults(names, dict.fromkeys(map(str, range(20_000)), 1))[0].startswith("params: ")


def test_the_reason_is_kept_when_a_long_value_is_cut() -> None:
    (fault,) = params_faults(prop(type="integer"), {"x": "0123456789" * 100})
    assert fault.startswith('params.x: "0123456789')
    assert fault.endswith('0123456789" is not of type "integer"')
    assert len(fault) == len("params.x: ") + 200


def test_the_first_faults_of_many_are_listed() -> None:
    schema = {"additionalProperties": {"type": "string"}}
    assert len(params_faults(schema, {f"p{n}": n for n in range(1_000)})) == 200
    broken = {"patternProperties": {f"({n}": {} for n in range(20_000)}}
    assert 0 < len(faults(broken)) <= 200


def test_the_schema_of_a_pydantic_model_is_accepted() -> None:
    class Row(BaseModel):
        id: int

    class Params(BaseModel):
        rows: list[Row]
        limit: int = 10

    schema = Params.model_json_schema()
    assert faults(schema) == []
    assert with_defaults(schema, {"rows": []}) == {"rows": [], "limit": 10}
    assert params_faults(schema, {"rows": [{"id": "x"}]}) != []


def test_a_graph_and_a_flow_take_a_schema() -> None:
    built = Graph(params=SCHEMA)
    built.node("a", "work")

    @flow(params=SCHEMA)
    def described(g: Graph) -> None:
        g.node("a", "work")

    assert Graph.parse(described) == Graph.parse(built.to_dict()) == built
    assert built.to_dict()["params"] == SCHEMA
    assert Graph.restore(built.source).document.params == SCHEMA


@handler("echo")
async def echo(item: Any) -> Any:
    return item


async def test_a_task_has_the_defaults_and_one_that_does_not_fit_is_not_stored() -> None:
    document = graph(
        node("a", "echo", io={"input_inline": "${params.n + params.name.size()}"}), params=SCHEMA
    )
    async with Cluster(handlers=[echo]) as cluster:
        create = cluster.client.create_task
        with pytest.raises(GraphError) as caught:
            await create(graph=document, params={"n": 0, "extra": 1}, priority="high")  # type: ignore[arg-type]
        assert len(caught.value.faults) == 4
        with pytest.raises(GraphError, match="required"):
            await create(graph=document)
        assert (await cluster.client.list_tasks()).items == []
        task_id = await create(graph=document, params={"name": "aa"}, idempotency_key="k")
        view = await cluster.client.wait(task_id)
        assert view.params == {"name": "aa", "n": 5, "options": {"deep": []}}
        assert view.nodes["a"].result == 7
        assert await create(graph=document, params={"name": "aa"}, idempotency_key="k") == task_id
        for others in ({"name": "aaa"}, {"name": "aa", "n": 5}):
            with pytest.raises(TaskRefused, match="other params"):
                await create(graph=document, params=others, idempotency_key="k")


DEFINED: dict[str, Any] = {
    "properties": {
        "mode": {"$ref": "#/$defs/Mode"},
        "speed": {"$ref": "#/$defs/Mode", "default": "slow"},
        "options": {"$ref": "#/$defs/Options"},
    },
    "$defs": {
        "Mode": {"$ref": "#/$defs/Text", "default": "fast"},
        "Text": {"type": "string", "default": "text"},
        "Options": {"properties": {"limit": {"default": 10}, "deep": {"$ref": "#/$defs/Deep"}}},
        "Deep": {"properties": {"x": {"default": 1}}},
    },
}


def test_a_default_in_a_definition_is_filled_in_at_a_top_level_property() -> None:
    assert faults(DEFINED) == []
    assert with_defaults(DEFINED, {}) == {"mode": "fast", "speed": "slow"}
    assert with_defaults(DEFINED, {"options": {}})["options"] == {}
    assert list(nested_defaults(DEFINED)) == ["params.options.limit", "params.options.deep.x"]
    wrong = {**DEFINED, "$defs": {**DEFINED["$defs"], "Text": {"type": "integer"}}}
    assert faults(wrong) == [
        'params: the default of \'mode\' is wrong: "fast" is not of type "integer"',
        'params: the default of \'speed\' is wrong: "slow" is not of type "integer"',
    ]


def test_many_values_are_counted_and_checked_in_a_thread_however_simple_the_schema_is() -> None:
    assert takes_long({}, [0] * VALUES_AT_ONCE)
    assert takes_long({"items": {"type": "object"}}, [{"a": 1}] * VALUES_AT_ONCE)
    assert not takes_long({}, [0] * (VALUES_AT_ONCE - 1))


@pytest.mark.parametrize("wanted", [{"type": "object"}, {"allOf": [{"type": "object"}]}])
def test_the_errors_of_a_long_list_are_found_however_simple_its_items_are(wanted: Any) -> None:
    found = value_faults({"items": wanted}, list(range(60_000)), "v")
    assert len(found) == MAX_FAULTS
    assert found[-1] == 'v[199]: 199 is not of type "object"'
