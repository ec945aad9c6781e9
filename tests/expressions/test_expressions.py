"""Meaning of expressions beyond the conformance cases, and their error texts."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from flowkit._expressions import (
    BudgetExceeded,
    EvaluationError,
    InvalidExpression,
    compile_expression,
)
from flowkit._expressions.function_table import GLOBAL, METHODS
from flowkit._expressions.parser import MACROS
from tests.expressions.values import evaluate, same


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 0.5", 1.5),
        ("2 * 1.5 == 3", True),
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("7 / 2.0", 3.5),
        ("2 == 2.0 && 2.0 in [1, 2]", True),
        ("true == 1 || 1 == true", False),
        ("{1: 'one', true: 'yes'}[true]", "yes"),
        ("{true: 1}.map(k, k)", [True]),
        ("{'a': 1}['a'] + {'b': 2}.b", 3),
        ("[1, 2, 3].map(x, x > 1, x * 2)", [4, 6]),
        ("[3, 1].filter(x, x > 2) + [5]", [3, 5]),
        ("[1, 2, 2].exists_one(x, x == 2)", False),
        ("[1, 2].all(x, [x].exists(y, y == x))", True),
        ("[[1], [2]].map(x, x.map(x, x + 1))", [[2], [3]]),
        ("[0, 1].exists(x, 1 / x == 1)", True),
        ("1 / 0 == 1 || true", True),
        ("true || 1 / 0 == 1", True),
        ("1 / 0 == 1 && false", False),
        ("!!true", True),
        ("--1", 1),
        ("true ? 'a' : false ? 'b' : 'c'", "a"),
        ("false ? 'a' : false ? 'b' : 'c'", "c"),
        ("true ? false ? 1 : 2 : 3", 2),
        ("1 + 2 * 3 - 4 / 2", 5),
        ("(1 + 2) * 3", 9),
        ("1 < 2 == true", True),
        ("'a' + 'b' == 'ab' && b'a' != b'b'", True),
        ("r'\\d' + '\\x41\\u00e9\\101'", "\\dAéA"),
        ("'''a\n'b'''", "a\n'b"),
        ("size('aé😀') + size(b'\\xff') + [1].size()", 5),
        ("1 // a comment", 1),
        ("[1, 2,]", [1, 2]),
        ("x.`a-b`", 7),
        ("x['a-b'] + x.n", 9),
        ("has(x.n) && !has(x.m)", True),
        (
            "string({'a': [1, 2.5, null, true, 'ü\"', timestamp(0)]})",
            '{"a":[1,2.5,null,true,"ü\\"","1970-01-01T00:00:00Z"]}',
        ),
        (
            "string(2.0) + string(2) + string(1e300) + string(true) + string(null)",
            "221e+300truenull",
        ),
        ("string({1: {true: b'x'}}) + string([])", '{"1":{"true":"x"}}[]'),
        ("'Ab É'.lowerAscii() + 'ab é'.upperAscii()", "ab ÉAB é"),
        ("' a '.trim() + 'a,b,c'.split(',', 2)[1] + ['x', 'y'].join('-')", "ab,cx-y"),
        ("'aaa'.replace('a', 'b', 2).substring(1, 3) + 'abc'.charAt(2)", "bac"),
        ("'abcabc'.indexOf('c', 3) + 'abcabc'.lastIndexOf('a')", 8),
        ("'release-2026'.matches('^release-[0-9]{4}$') && matches('xay', 'a')", True),
        (
            "type(1) == int && type([]) == list && type(null) == null_type && type(int) == type",
            True,
        ),
        ("timestamp('2026-03-29T01:30:00Z').getHours('Europe/Berlin')", 3),
        ("timestamp('2026-03-29T01:30:00Z').getHours('-02:30')", 23),
        (
            (
                "timestamp('2026-01-01T00:00:00Z') - timestamp('2025-12-31T00:00:00+01:00') =="
                " duration('25h')"
            ),
            True,
        ),
        ("duration('1h30m').getMinutes() + int(duration('-1500ms'))", 89),
        ("int('42') + int(2.9) + int(timestamp('1970-01-01T00:01:00Z'))", 104),
        ("double('1e3')", 1000.0),
        ("1.0 / 0.0", math.inf),
    ],
)
def test_an_expression_has_its_value(expression: str, value: Any) -> None:
    assert same(evaluate(expression, x={"a-b": 7, "n": 2}), value)


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("x.missing", "no such key 'missing' (at character 2)"),
        ("x.n.more", "int has no fields, so it has no 'more' (at character 4)"),
        ("1 + 'a'", "+ is not defined for int and string (at character 3)"),
        ("x.n > 'a'", "> is not defined for int and string (at character 5)"),
        ("1u + 1", "+ is not defined for uint and int (at character 4)"),
        ("true ? 1 / 0 : 2", "division by zero (at character 10)"),
        (
            "9223372036854775807 + 1",
            "the result is out of range for an int (at character 21)",
        ),
        (
            "-(-9223372036854775808)",
            "the result is out of range for an int (at character 1)",
        ),
        ("1 && true", "&& needs true or false, not int (at character 3)"),
        ("[1].all(x, x)", "all() needs true or false for each element, not int (at character 5)"),
        ("!1", "! is not defined for int (at character 1)"),
        ("[1, 2][2]", "index 2 is out of range for 2 elements (at character 7)"),
        ("[1]['a']", "a list index must be an int, not string (at character 4)"),
        ("{'a': 1, 'a': 2}", "duplicate key in a map (at character 10)"),
        (
            "{1.5: 1}",
            "a map key must be a string, an integer or a bool, not double (at character 2)",
        ),
        ("size(1)", "size() is not defined for int (at character 1)"),
        ("'abc'.substring(2, 1)", "substring() ends at 1, before its start at 2 (at character 7)"),
        ("'abc'.charAt(4)", "position 4 is out of range for 3 characters (at character 7)"),
        ("int('x')", "the string is not an integer (at character 1)"),
        ("int(1e30)", "the number is out of range for an int (at character 1)"),
        ("x.n in 1", "in is not defined for int and int (at character 5)"),
        (
            "timestamp(0).getHours('Nowhere/At all')",
            "unknown time zone; use a name such as 'Europe/Berlin' or an offset such as",
        ),
    ],
)
def test_a_value_that_cannot_be_computed_is_an_error_with_its_position(
    expression: str, error: str
) -> None:
    with pytest.raises(EvaluationError) as caught:
        evaluate(expression, x={"n": 2})
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("", "expected a value, found the end (at character 1)"),
        ("1 +", "expected a value, found the end (at character 4)"),
        ("1 2", "expected an operator or the end, found '2' (at character 3)"),
        ("(1", "expected ')', found the end (at character 3)"),
        ("a b", "expected an operator or the end, found 'b' (at character 3)"),
        ("a = b", "unexpected '=' (at character 3)"),
        ("a & b", "unexpected '&' (at character 3)"),
        ("'abc", "the string has no closing quote (at character 1)"),
        ("'\\q'", "unknown escape '\\\\q' (at character 2)"),
        ("'\\ud800'", "\\ud800 is not a character (at character 2)"),
        ("a.'b'", "expected a name after '.', found \"'b'\" (at character 3)"),
        ("!-1", "unexpected '-' after '!' (at character 2)"),
        ("if", "'if' is a reserved word (at character 1)"),
        ("f(1,)", "expected a value after ',', found ')' (at character 5)"),
        ("missing(1)", "unknown function missing() (at character 1)"),
        ("x.missing()", "unknown function missing() (at character 3)"),
        ("x.string()", "string() must be called as string(value) (at character 3)"),
        ("contains('a', 'b')", "contains() must be called as value.contains() (at character 1)"),
        ("x.contains()", "contains() takes 1 argument, not 0 (at character 3)"),
        ("size()", "size() takes 1 argument, not 0 (at character 1)"),
        ("x.getHours('a', 'b')", "getHours() takes 0 or 1 arguments, not 2 (at character 3)"),
        ("x.all(y)", "all() takes 2 arguments, not 1 (at character 3)"),
        ("x.map(y + 1, y)", "the first argument of map() must be a plain name (at character 9)"),
        ("has(x)", "has() takes one field, such as has(params.limit) (at character 1)"),
        (
            "x.matches('(')",
            "the pattern of matches() is not valid: unclosed group (at character 3)",
        ),
        (
            "'a'.matches('(a{100}){1000}')",
            (
                "the pattern of matches() is too large; use fewer and smaller repetitions (at"
                " character 5)"
            ),
        ),
        (
            "timestamp('yesterday') < x",
            "timestamp() needs a time such as '2026-01-31T12:00:00Z' (at character 1)",
        ),
        (
            "duration('1 hour') < x",
            "duration() needs a duration such as '1h30m' or '1.5s' (at character 1)",
        ),
        (
            "9223372036854775808",
            "the number 9223372036854775808 exceeds 64 bits (at character 1)",
        ),
    ],
)
def test_an_expression_that_is_wrong_is_refused_with_the_position(
    expression: str, error: str
) -> None:
    with pytest.raises(InvalidExpression) as caught:
        compile_expression(expression)
    assert str(caught.value) == error


def test_an_error_that_depends_on_values_is_no_error_of_the_expression() -> None:
    assert compile_expression("x.matches('a' + '(')")
    with pytest.raises(EvaluationError, match="unclosed group"):
        evaluate("x.matches('a' + '(')", x="a")


def test_the_paths_that_an_expression_reads_are_known() -> None:
    def paths(expression: str) -> set[str]:
        return {".".join(path) for path in compile_expression(expression).paths}

    assert paths("results.count.n > 3 && results['a-b'].x") == {"results.count.n", "results.a-b.x"}
    assert paths("has(results.a.b) && !has(vars.x)") == {"results.a.b", "vars.x"}
    assert paths("results[vars.node].n") == {"results", "vars.node"}
    assert paths("results.exists(r, results[r].ok)") == {"results"}
    assert paths("[1].all(results, results.x > vars.y)") == {"vars.y"}
    assert paths("results.a.all(x, x.b == results.c)") == {"results.a", "results.c"}
    assert paths("results.a.size() + size(results.b.c.substring(1))") == {
        "results.a",
        "results.b.c",
    }
    assert paths("type(1) == int && google.protobuf.Timestamp == type(task.created_at)") == {
        "task.created_at"
    }


def test_an_error_of_the_budget_is_ignored_by_no_operator() -> None:
    rows = list(range(1000))
    bomb = "rows.all(a, rows.all(b, a + b >= 0))"
    for expression in (
        f"{bomb} || true",
        f"true && {bomb}",
        f"[1].exists(x, {bomb} || true)",
        f"false && false || {bomb} || true",
    ):
        with pytest.raises(BudgetExceeded):
            evaluate(expression, rows=rows)
    for expression in (
        "rows + rows == [] || true",
        "[1].exists(x, rows.map(y, y) == rows || true)",
    ):
        with pytest.raises(BudgetExceeded, match="memory limit"):
            evaluate(expression, rows=rows, memory=1_000)


def test_json_values_are_read_where_they_are() -> None:
    rows = [{"n": n} for n in range(100_000)]
    assert evaluate("rows[99999].n == 99999 && size(rows) == 100000", rows=rows, steps=20, memory=0)
    assert evaluate("rows", rows=rows, steps=0, memory=0) is rows


def test_the_documentation_names_every_function_and_macro() -> None:
    page = (
        Path(__file__).parents[2].joinpath("docs/topics/expressions.md").read_text(encoding="utf-8")
    )
    assert [
        name for name in (*GLOBAL, *METHODS, *MACROS) if not re.search(rf"[`.]{name}[`(]", page)
    ] == []


@pytest.mark.parametrize(
    "expression",
    [
        "xs[big]",
        "m[big]",
        "'a'.charAt(big)",
        "'a'.substring(0, big)",
        "'a,b'.split(',', big)",
        "big + 1",
        "-big",
        "'a'.indexOf('a', big)",
        "string(big)",
        "string([big])",
        "int(big)",
        "double(big)",
        "timestamp(big)",
        "big * 1.5",
        "big % 7 * big",
    ],
)
def test_an_integer_of_json_that_is_too_long_is_an_error_where_it_does_not_fit(
    expression: str,
) -> None:
    with pytest.raises(EvaluationError):
        evaluate(expression, big=10**4500, xs=[1], m={"a": 1})
    assert evaluate("big > 1.5 && big == big && !(big in [1])", big=10**4500)
