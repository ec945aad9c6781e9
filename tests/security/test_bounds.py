"""Values that are too large, too deep or not numbers raise DecodeError and nothing else.

They are rejected before or while they are read.
"""

import contextlib
import json
import sys
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from flowkit import messages
from flowkit._json import limits
from flowkit._json.limits import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_ITEMS,
    above_bounds,
    has_constants,
    is_deeper,
    is_finite,
    may_overflow,
)
from flowkit._tasks.graph_checks import GraphChecks
from flowkit._tasks.submission import checked
from flowkit.errors import DecodeError, GraphError, MessageError, MessageTooLarge
from flowkit.graph import Limits
from flowkit.messages import (
    NodeProgressed,
    NodeSucceeded,
    RunContextData,
    RunNode,
    Source,
    TaskTouched,
    decode,
    encode,
)
from flowkit_testing import Cluster
from tests.builders import nested

IDS: dict[str, Any] = {"task_id": "t", "index": 3, "attempt": 1, "token": "ab"}
PROGRESS = (
    '{"kind":"node_progressed","v":1,"task_id":"t","index":0,"attempt":1,"token":"a",'
    '"worker_id":"w","at":1.0,"progress":%s}'
)
PADDING = " " * limits.SHORT


def progress(text: str) -> bytes:
    return (PROGRESS % text).encode()


def models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return a model and the models in it."""
    found = [model]
    for field in model.model_fields.values():
        for part in (
            str(field.annotation).replace("[", " ").replace("]", " ").replace(",", " ").split()
        ):
            inner = getattr(messages, part.rpartition(".")[2], None)
            if isinstance(inner, type) and issubclass(inner, BaseModel) and inner is not model:
                found += models(inner)
    return found


def test_no_model_that_travels_takes_fields_it_does_not_know() -> None:
    travelling = {inner for model in messages._MODELS for inner in models(model)}
    assert {RunNode, RunContextData, Source} <= travelling
    for model in travelling:
        assert model.model_config.get("extra") == "forbid", model
        assert model.model_config.get("frozen"), model


@pytest.mark.parametrize("padding", ["", PADDING], ids=["short", "long"])
@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"]]]]":'])
def test_the_depth_of_arrays_and_objects_is_bounded(opening: str, padding: str) -> None:
    closing = "".join({"[": "]", "{": "}"}[sign] for sign in reversed(opening) if sign in "[{")
    # The message itself is one level, and the innermost value is not a level.
    levels = (MAX_DEPTH - 1) // len(closing)
    assert decode(progress(padding + opening * levels + "1" + closing * levels))
    for count in (levels + 1, 10_000, 100_000):
        with pytest.raises(DecodeError):
            decode(progress(padding + opening * count + "1" + closing * count))
        with pytest.raises(DecodeError):
            decode(progress(padding + opening * count))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 900_000,
        '{"a":' * 180_000,
        "[]" * 400_000,
        "[[]" * 300_000,
        "[" * 300 + '"\\' * 400_000,
        '["' * 400_000,
    ],
)
def test_a_megabyte_of_brackets_and_quotes_is_refused_in_a_moment(text: str) -> None:
    with pytest.raises(DecodeError):
        decode(progress(text))


def test_brackets_in_strings_are_no_levels() -> None:
    text = json.dumps(["[" * 3000, '"{' * 3000, "\\[" * 3000])
    assert decode(progress(text)).progress == json.loads(text)


def in_brackets(items: list[str]) -> str:
    return "[" + ",".join(items) + "]"


def in_braces(items: list[str]) -> str:
    return "{" + ",".join(f'"]":{item}' for item in items) + "}"


LEAVES = st.sampled_from(['""', '"[\\"{]"', "1"])
TEXTS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3).map(in_brackets) | st.lists(inner, max_size=3).map(in_braces)
    ),
)


@given(TEXTS)
def test_the_measured_depth_is_that_of_the_parsed_value(text: str) -> None:
    def levels(value: Any) -> int:
        parts = (
            value.values()
            if isinstance(value, dict)
            else value
            if isinstance(value, list)
            else None
        )
        return 0 if parts is None else 1 + max(map(levels, parts), default=0)

    keys_are_kept = json.loads(
        text,
        object_pairs_hook=lambda pairs: {
            f"{number}": value for number, (_, value) in enumerate(pairs)
        },
    )
    depth = levels(keys_are_kept)
    assert not is_deeper(text.encode(), depth)
    assert depth == 0 or is_deeper(text.encode(), depth - 1)


def test_items_are_bounded_both_ways() -> None:
    few, many = list(range(MAX_ITEMS - 100)), list(range(MAX_ITEMS + 1))
    report: dict[str, Any] = {**IDS, "worker_id": "w", "at": 1.0}
    assert decode(encode(NodeProgressed(**report, progress=few))).progress == few
    with pytest.raises(MessageTooLarge, match=f"more than {MAX_ITEMS} keys and items"):
        encode(NodeProgressed(**report, progress=many))
    with pytest.raises(DecodeError, match=f"more than {MAX_ITEMS} keys and items"):
        decode(progress(json.dumps(dict.fromkeys(map(str, many), 0))))
    assert decode(progress(json.dumps("," * (MAX_ITEMS + 1))))


def test_bytes_are_bounded_also_where_the_bus_says_nothing() -> None:
    with pytest.raises(DecodeError, match=f"above the limit of {MAX_BYTES}"):
        decode(b" " * (MAX_BYTES + 1))


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("padding", ["", PADDING], ids=["short", "long"])
@pytest.mark.parametrize(
    "number",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1E+999",
        "1e0999",
        "1" + "0" * 400 + ".0",
        "9" * 250 + "e99",
    ],
)
@pytest.mark.parametrize("shape", ["%s", "[1,%s]", '{"a":[{"b":%s}]}'])
def test_no_number_comes_in_that_is_not_finite(number: str, shape: str, padding: str) -> None:
    with pytest.raises(DecodeError, match="finite"):
        decode(progress(padding + shape % number))


@pytest.mark.parametrize("field", ["io", "params", "vars", "results", "errors"])
def test_no_command_brings_a_number_that_is_not_finite(field: str) -> None:
    data: dict[str, Any] = {"io": {}, "params": {}, "vars": {}, "results": {}, "errors": {}}
    command = RunNode(**IDS, node_id="n", role="r", data=RunContextData(**data))
    text = encode(command).decode().replace(f'"{field}":{{}}', f'"{field}":{{"a":{{"b":1e999}}}}')
    with pytest.raises(DecodeError, match="data: a number is not finite"):
        decode(text.encode())


def test_no_metric_is_other_than_finite() -> None:
    text = encode(
        NodeSucceeded(**IDS, worker_id="w", started_at=1, at=2, metrics={"n": 7})
    ).decode()
    for number in ("NaN", "1e999"):
        with pytest.raises(DecodeError, match="finite"):
            decode(text.replace('"n":7', f'"n":{number}').encode())


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_no_number_goes_out_that_is_not_finite(number: float) -> None:
    with pytest.raises(MessageError, match="not finite"):
        encode(NodeProgressed(**IDS, worker_id="w", at=1.0, progress={"a": [number]}))
    assert encode(NodeProgressed(**IDS, worker_id="w", at=1.0, progress="NaN and Infinity"))


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-1.5e300",
        "1e99",
        "1e-999",
        "0.1",
        '"1e999"',
        '"NaN"',
        "[1, 2.5]",
        '{"1e999": 1}',
        "1" * 300,
    ],
)
def test_what_is_finite_comes_through(text: str) -> None:
    for padding in ("", PADDING):
        assert decode(progress(padding + text)).progress == json.loads(text)


@given(
    st.recursive(
        st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_is_not_finite_is_found_wherever_it_is(value: Any) -> None:
    text = json.dumps(value)
    assert is_finite(value) == (not has_constants(text.encode()))
    assert is_finite(value) or may_overflow((PADDING + text).encode())


@pytest.mark.parametrize(
    "text",
    [
        "1" * 5000,
        "-" + "1" * 100_000,
        '"\\ud800"',
        '"\x01"',
        "01",
        "1.",
        "[1,]",
        "{1:2}",
        "'a'",
        "\ufeff1",
        "nul",
    ],
)
def test_what_other_readers_might_take_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        decode(progress(text))


# ---------------------------------------------------------------- types and texts


@pytest.mark.parametrize(
    ("name", "value"),
    [("index", '"3"'), ("index", "3.0"), ("attempt", "true"), ("at", '"1.5"'), ("at", "null")],
)
def test_nothing_is_taken_for_what_it_is_not(name: str, value: str) -> None:
    fields = json.loads(progress("1")) | {name: json.loads(value)}
    with pytest.raises(DecodeError, match=name):
        decode(json.dumps(fields).encode())


@pytest.mark.parametrize("text", ["", "a\nb", "\x00", "\x1b[2J", "\x7f", "\x85", "a" * 500])
@pytest.mark.parametrize("name", ["task_id", "worker_id"])
def test_ids_are_short_and_without_control_characters(name: str, text: str) -> None:
    fields = json.loads(progress("1")) | {name: text}
    with pytest.raises(DecodeError, match=name):
        decode(json.dumps(fields).encode())


def test_the_ids_of_a_commands_sources_are_looked_at_too() -> None:
    command = json.loads(
        encode(RunNode(**IDS, node_id="n", role="r", sources=(Source(node_id="p"),)))
    )
    assert decode(json.dumps(command).encode())
    command["sources"][0]["node_id"] = "p\x1b"
    with pytest.raises(DecodeError, match="control characters"):
        decode(json.dumps(command).encode())


def test_ids_may_be_of_any_language() -> None:
    task_id = "задача-任務-🌷 á"
    assert decode(
        json.dumps({"kind": "task_touched", "v": 1, "task_id": task_id}).encode()
    ) == TaskTouched(task_id=task_id)


def test_an_error_says_little_of_what_it_refuses() -> None:
    for text in (
        json.dumps({"kind": "x" * 100_000}),
        json.dumps({"kind": "task_touched", "task_id": "t", "y" * 100_000: 1}),
    ):
        with pytest.raises(DecodeError) as caught:
            decode(text.encode())
        assert len(str(caught.value)) < 1000


@given(st.binary())
def test_bytes_are_refused_or_read_and_nothing_else(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data)


@given(st.text())
def test_any_value_is_refused_or_read_and_nothing_else(text: str) -> None:
    with contextlib.suppress(DecodeError):
        decode(progress(text))


def test_a_small_stack_is_enough() -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(600)
    try:
        decode(progress("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)))
    finally:
        sys.setrecursionlimit(before)


def test_a_long_text_is_refused_for_its_depth_before_it_is_read() -> None:
    for text in ("[" * 201, '{"a":' * 201, '["]",' * 201 + "1" + "]" * 201):
        assert (
            above_bounds((PADDING + text).encode()) == "values are nested more than 200 levels deep"
        )
        with pytest.raises(DecodeError, match="the message is above a limit: values are nested"):
            decode((PADDING + text).encode())
    assert above_bounds((PADDING + "[" * 200 + "]" * 200).encode()) is None


def test_short_texts_are_not_looked_through() -> None:
    assert above_bounds(b"[" * (limits.SHORT - 1)) is None


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize("params", [{"a": float("nan")}, {"a": [float("inf")]}])
def test_parameters_are_finite(params: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match="not a finite number"):
        submitted(params)


def test_parameters_are_no_deeper_than_what_is_stored_with_them_can_be_read() -> None:
    assert submitted({"a": nested(127)})
    with pytest.raises(GraphError, match="more than 128 levels deep"):
        submitted({"a": nested(128)})


def submitted(params: Any) -> dict[str, Any]:
    options = {
        "task_id": None,
        "idempotency_key": None,
        "pipeline": None,
        "labels": None,
        "priority": 0,
        "deadline_sec": None,
    }
    graph = {"nodes": [{"node_id": "a", "type": "x"}]}

    async def main() -> dict[str, Any]:
        _, checked_params, _ = await checked(
            graph, params, checks=GraphChecks(Limits(max_bytes=1000), (), str), **options
        )
        return checked_params.given

    return anyio.run(main)


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (float("nan"), "not a finite number"),
        ({"a": [float("inf")]}, "not a finite number"),
        (nested(129), "more than 128 levels deep"),
    ],
)
async def test_what_a_coordinator_function_returns_is_held_to_the_same(
    result: Any, why: str
) -> None:
    class Odd:
        __name__ = "odd"

        def flowkit_register_functions(self, register: Any) -> None:
            register("odd", lambda ctx: result)

    async with Cluster(plugins=[Odd()]) as cluster:
        view = await cluster.run(
            {"nodes": [{"node_id": "a", "type": "coordinator_fn", "io": {"fn": "odd"}}]}
        )
    assert (view.status, view.nodes["a"].reason_code) == ("failed", "bad_result")
    assert why in (view.nodes["a"].error or "")
