"""Cases of the CEL conformance suite that concern the subset.

They are in ``conformance.json``, written by tools/cel_conformance.py.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from flowkit._expressions import ExpressionError
from tests.expressions.values import evaluate, read, same

SUITE: dict[str, Any] = json.loads(
    Path(__file__).with_name("conformance.json").read_text(encoding="utf-8")
)
DIFFERENCES = {
    "an int and a double are compared exactly, not after the int was rounded": [
        "comparisons/lt_literal/not_lt_dyn_int_big_lossy_double",
        "comparisons/gt_literal/not_gt_dyn_big_double_int",
        "comparisons/lte_literal/lte_dyn_big_double_int",
        "comparisons/gte_literal/gte_dyn_int_big_lossy_double",
    ],
    "names have no dots": [
        "fields/qualified_identifier_resolution/qualified_ident",
        "fields/qualified_identifier_resolution/map_field_select",
        "fields/qualified_identifier_resolution/qualified_identifier_resolution_unchecked",
        "fields/qualified_identifier_resolution/ident_with_longest_prefix_check",
    ],
    "an unknown name or function is a fault, even where || would ignore it": [
        "basic/variables/unbound_is_runtime_error",
        *(name for name in SUITE["cases"] if name.startswith("parse/receiver_function_names/")),
    ],
}
DIFFERENT = {name for names in DIFFERENCES.values() for name in names}


def outcome(expression: str, bindings: dict[str, Any]) -> Any:
    try:
        return evaluate(expression, **{name: read(value) for name, value in bindings.items()})
    except (ExpressionError, KeyError) as error:
        return error


def agrees(name: str) -> bool:
    expression, bindings, expected = SUITE["cases"][name]
    found = outcome(expression, bindings)
    return isinstance(found, Exception) if expected == ["error"] else same(found, read(expected))


@pytest.mark.parametrize("section", sorted({name.rpartition("/")[0] for name in SUITE["cases"]}))
def test_expressions_have_the_values_that_the_suite_expects(section: str) -> None:
    names = [
        name
        for name in SUITE["cases"]
        if name.rpartition("/")[0] == section and name not in DIFFERENT
    ]
    assert [name for name in names if not agrees(name)] == []


def test_documented_differences_are_differences() -> None:
    assert {name for name in DIFFERENT if agrees(name)} == set()
