"""Comparison of this evaluator with another implementation of CEL.

It is ``common-expression-language``, which is written in Rust.
"""

from typing import Any

import cel
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flowkit._expressions import Budget, ExpressionError, compile_expression

PARAMS: dict[str, Any] = {
    "i": 3,
    "d": 2.5,
    "s": "ab",
    "b": True,
    "none": None,
    "xs": [1, 2, 3],
    "ys": ["a", "b"],
    "m": {"k": 1, "l": "x"},
}

integers = st.sampled_from(
    ["0", "1", "2", "-7", "10", "params.i", "x", "size(params.xs)", "params.m.k", "params.xs[0]"]
)
doubles = st.sampled_from(["0.5", "2.0", "-1.5", "params.d"])
texts = st.sampled_from(["''", "'a'", "'ab'", "params.s", "params.m.l", "params.ys[1]"])
lists = st.sampled_from(["[]", "[1, 2]", "params.xs", "[0, x]"])


def calls(*forms: str, **parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return expressions of these forms, with parts inserted."""

    def filled(form: str) -> st.SearchStrategy[str]:
        return st.builds(
            form.format, **{name: part for name, part in parts.items() if f"{{{name}" in form}
        )

    return st.sampled_from(forms).flatmap(filled)


def numbers(depth: int) -> st.SearchStrategy[str]:
    if not depth:
        return integers
    less = numbers(depth - 1)
    return integers | calls(
        "({a} + {b})",
        "({a} - {b})",
        "({a} * {b})",
        "({a} / {b})",
        "({a} % {b})",
        "-({a})",
        "({c} ? {a} : {b})",
        "size({t})",
        "size({l})",
        a=less,
        b=less,
        c=booleans(depth - 1),
        t=texts,
        l=collections(depth - 1),
    )


def collections(depth: int) -> st.SearchStrategy[str]:
    if not depth:
        return lists
    return lists | calls(
        "{l}.map(x, {a})",
        "{l}.filter(x, {c})",
        "({l} + {m})",
        "[{a}, {b}]",
        a=numbers(depth - 1),
        b=numbers(depth - 1),
        c=booleans(depth - 1),
        l=collections(depth - 1),
        m=lists,
    )


def booleans(depth: int) -> st.SearchStrategy[str]:
    leaves = st.sampled_from(
        [
            "true",
            "false",
            "params.b",
            "has(params.m)",
            "has(params.q)",
            "params.none == null",
            "'k' in params.m",
        ]
    )
    if not depth:
        return leaves
    return leaves | calls(
        "({c} && {d})",
        "({c} || {d})",
        "!({c})",
        "({a} == {b})",
        "({a} != {b})",
        "({a} < {b})",
        "({a} >= {b})",
        "({f} > {g})",
        "({a} in {l})",
        "{t}.contains({u})",
        "{t}.startsWith({u})",
        "{t}.endsWith({u})",
        "({t} + {u} == {u})",
        "{l}.all(x, {c})",
        "{l}.exists(x, {d})",
        "{l}.exists_one(x, {c})",
        "({c} ? {c} : {d})",
        "({l} == {m})",
        "({t} < {u})",
        "{t}.matches('^a')",
        a=numbers(depth - 1),
        b=numbers(depth - 1),
        c=booleans(depth - 1),
        d=booleans(depth - 1),
        f=doubles,
        g=doubles,
        t=texts,
        u=texts,
        l=collections(depth - 1),
        m=collections(depth - 1),
    )


def ours(expression: str) -> Any:
    try:
        return compile_expression(expression).evaluate(
            {"params": PARAMS, "x": 1}, Budget(200_000, 10_000_000)
        )
    except ExpressionError:
        return "error"


def theirs(expression: str) -> Any:
    try:
        return cel.evaluate(expression, {"params": PARAMS, "x": 1})
    except Exception:  # it raises exceptions of any class
        return "error"


DIFFERENCES: dict[str, tuple[Any, Any]] = {
    "1 + 0.5": (1.5, "error"),
    "2.0 * 3": (6.0, "error"),
    "{1: 'a'}[1.0]": ("a", "error"),
    "string([1])": ("[1]", "error"),
    "size('é')": (1, 2),
    "[0, 1].exists(x, 1 / x == 1)": (True, "error"),
    "[0, 1].all(x, 1 / x == 5)": (False, "error"),
}
"""Expressions with the results of FlowKit's evaluator and of the other one.

The first four go beyond standard CEL or are undefined in it. In the others, CEL agrees with
FlowKit: characters are counted, and an element that decides the result of a loop makes errors of
the other elements irrelevant.
"""


@pytest.mark.parametrize("expression", DIFFERENCES)
def test_known_differences_are_differences(expression: str) -> None:
    assert (ours(expression), theirs(expression)) == DIFFERENCES[expression]


@settings(max_examples=400)
@given(booleans(3) | numbers(3) | collections(3))
def test_both_give_the_same_value_or_both_fail(expression: str) -> None:
    assume(len(expression) < 2_000)
    mine, other = ours(expression), theirs(expression)
    if other == "error":
        assume(mine == other or (".all(" not in expression and ".exists(" not in expression))
    assert mine == other, expression
    assert type(mine) is type(other)
