"""Every expression is limited in time, memory and stack."""

import tracemalloc
from typing import Any

import pytest

from flowkit._expressions import (
    Budget,
    BudgetExceeded,
    EvaluationError,
    InvalidExpression,
    compile_expression,
)
from flowkit._expressions.budget import ERROR_STEPS
from flowkit._expressions.pattern_costs import MAX_WEIGHT, cost
from flowkit._expressions.patterns import MAX_WORK, WEIGHT_STEPS
from tests.expressions.values import evaluate

SCOPE: dict[str, Any] = {"rows": list(range(1000)), "text": "a" * 100_000, "digits": "9" * 100_000}
TEN = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"
TIMES_TEN = ".map(v, [v, v, v, v, v, v, v, v, v, v])"
BOMBS = {
    "nested loops": "".join(f"{TEN}.all({name}, " for name in "abcdefg") + "true" + ")" * 7,
    "nested loops over params": "rows.all(a, rows.all(b, rows.all(c, a + b + c >= 0))) || true",
    "loops whose errors are ignored": "rows.all(a, rows.all(b, rows.all(c, int('x') > 0))) || true",
    "operands whose errors are ignored": (
        "rows.all(a, rows.all(b, int('x') > 0 || int('x') > 0 || true))"
    ),
    "a string that grows": (
        "['x']" + ".map(v, v + v + v + v + v + v + v + v + v + v)" * 9 + " == ['']"
    ),
    "bytes that grow": (
        "[b'x']" + ".map(v, v + v + v + v + v + v + v + v + v + v)" * 9 + " == [b'']"
    ),
    "a list that grows": "[[1]]" + ".map(v, v + v + v + v + v + v + v + v + v + v)" * 9 + " == []",
    "a string of a value that has itself many times": f"string([[0]]{TIMES_TEN * 9}) == ''",
    "comparing values that have themselves many times": (
        f"[[0]]{TIMES_TEN * 9} == [[0]]{TIMES_TEN * 9}"
    ),
    "looking for such a value": f"[[0]]{TIMES_TEN * 9} in rows.map(r, [[0]]{TIMES_TEN * 9})",
    "a long replacement": "text.replace('a', text) == ''",
    "a replacement of nothing": "text.replace('', text) == ''",
    "many parts": "rows.all(r, text.split('').size() > 0)",
    "a long join": "rows.map(r, text).join(text) == ''",
    "long searches": "rows.all(a, rows.all(b, !text.contains('b')))",
    "patterns": "rows.all(a, rows.all(b, text.matches('^a+$')))",
    "time zones": "rows.all(a, rows.all(b, timestamp(0).getHours('Europe/Berlin') == 1))",
    "long maps": "rows.all(a, rows.map(b, {a: {b: a}}).size() > 0)",
    "numbers as texts": "rows.all(a, rows.all(b, string(a * b) != ''))",
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize(("steps", "memory"), [(10_000, 1_000_000), (60_000, 4_000_000)])
def test_a_bomb_is_refused(name: str, steps: int, memory: int) -> None:
    expression = compile_expression(BOMBS[name])
    tracemalloc.start()
    try:
        with pytest.raises(BudgetExceeded):
            expression.evaluate(SCOPE, Budget(steps, memory))
        assert tracemalloc.get_traced_memory()[1] < 2 * memory + 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "expression",
    [
        "int(digits) == 1",
        "uint(digits) == 1u",
        "double(digits) == 1.0",
        "duration(digits + 's') == duration('1s')",
        "timestamp(text) == timestamp(0)",
        "timestamp(0).getHours(text) == 1",
        "text.matches('(a{50}){50}b')",
    ],
)
def test_a_text_that_is_too_long_is_not_converted(expression: str) -> None:
    budget = Budget(100_000, 10_000_000)
    with pytest.raises(EvaluationError):
        compile_expression(expression).evaluate(SCOPE, budget)
    assert budget.used < 10_000


@pytest.mark.parametrize(
    "expression",
    [
        "!" * 100_000 + "true",
        "(" * 100_000,
        "(" * 4_000,
        "[" * 4_000,
        "{1:" * 1_300,
        "a[" * 2_000,
        "f(" * 2_000,
        "has(" * 1_000,
        "true?" * 800,
        "a" + ".b" * 2_000,
        "1" + ".map(x, x)" * 400,
        "-" * 100_000 + "1",
        "[1].map(x, " * 300,
    ],
)
def test_an_expression_that_is_nested_too_deeply_is_refused(expression: str) -> None:
    with pytest.raises(InvalidExpression, match=r"nested more than|longer than 4096 characters"):
        compile_expression(expression)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("!" * 4_090 + "true", True),
        ("-" * 4_090 + "(1)", 1),
        ("1" + "+1" * 2_000, 2_001),
        ("true" + "&&true" * 600, True),
        ("false" + "||false" * 500, False),
        ("false?1:" * 500 + "2", 2),
        ("(" * 64 + "1" + ")" * 64, 1),
        ("1==1" + "==true" * 600, True),
    ],
)
def test_long_chains_need_no_stack(expression: str, value: Any) -> None:
    assert evaluate(expression) == value


def test_values_that_no_expression_reads_cost_nothing() -> None:
    budget = Budget(100, 0)
    assert compile_expression("x.limit > 3").evaluate(
        {"x": {"limit": 4, "rows": [{"n": n} for n in range(10_000)]}}, budget
    )
    assert budget.used == 0


def test_an_error_that_is_ignored_is_charged() -> None:
    for expression in ("rows.all(a, int('x') > 0 || true)", "rows.exists(a, int('x') > 0) || true"):
        budget = Budget(100_000, 0)
        assert compile_expression(expression).evaluate(SCOPE, budget)
        assert budget.used > 1_000 * ERROR_STEPS


def test_a_budget_pauses_every_so_many_steps_and_a_pause_can_end_the_evaluation() -> None:
    pauses = []
    expression = compile_expression("rows.all(a, a >= 0)")
    assert expression.evaluate(
        SCOPE, Budget(100_000, 0, pause=lambda: pauses.append(1), pause_every=500)
    )
    assert len(pauses) == 7  # of 4,000 steps, the first 500 without a pause

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        expression.evaluate(SCOPE, Budget(100_000, 0, pause=stop, pause_every=500))


@pytest.mark.parametrize(
    ("pattern", "states"),
    [
        ("abc", 3),
        ("a{10}", 10),
        ("(ab){10}", 20),
        ("((a{10}){10}){10}", 1000),
        ("[a-z]{5}x", 6),
        ("(?i)a|b", 2),
        ("(?:a{3}){4}", 12),
        (r"\d{3}-\w+", 5),
        ("(a", 1),
        ("{5}", 0),
        ("a{2,7}b{3,}", 10),
        (r"[\]{9}]x", 2),
        ("", 0),
    ],
)
def test_the_states_of_a_pattern_are_estimated(pattern: str, states: int) -> None:
    assert states <= cost(pattern).states <= states + 3


@pytest.mark.parametrize(
    ("pattern", "classes"),
    [
        (r"\w", 1),
        (r"\w{30}", 30),
        (r"\w{ 30 }", 30),
        (r"\w{0030}", 30),
        (r"\w{2, 30 }", 30),
        (r"\w{,30}", 30),
        (r"\pL{30}", 30),
        (r"\p{Lu}{30}", 30),
        (r"[\w]{30}", 30),
        (r"[]\w]{30}", 30),
        (r"[^]\w]{30}", 30),
        (r"[[a]\w]{30}", 30),
        (r"[a[[:alpha:]]\w]{30}", 30),
        (r"[\]\w]{30}", 30),
        (r"(\w{5}){6}", 30),
        (r"(?:\w|a){30}", 30),
        (r"(?i:\w){20}", 20),
        (r"(?P<name>\w){30}", 30),
        (r"(?<name>\w){30}", 30),
        (r"a\W{30}?", 30),
    ],
)
def test_every_form_of_a_repeated_class_is_weighed(pattern: str, classes: int) -> None:
    assert classes * 400 < cost(pattern).weight < MAX_WEIGHT
    with pytest.raises(EvaluationError, match="too large"):
        cost(f"(?:{pattern}){{900}}")


def test_a_class_without_regard_to_case_weighs_its_characters() -> None:
    wide = [
        r"(?i)[\x{100}-\x{10ffff}]",
        "(?i)[[^a]]",
        r"(?i)[\D]",
        "(?i)[一-鿿]",
        r"(?i)[b-\x{10ffff}]",
    ]
    assert [
        pattern
        for pattern in wide
        if cost(pattern).weight < cost(pattern.removeprefix("(?i)")).weight + 100
    ] == []
    assert cost("(?i)[^a-z]x").weight < 300


@pytest.mark.parametrize(
    ("pattern", "error"),
    [(r"(?x)\w {900}", "the flag x"), (r"(?i-x:a)", "the flag x"), ("a)(?:b", "unopened group")],
)
def test_a_pattern_whose_cost_cannot_be_seen_is_refused(pattern: str, error: str) -> None:
    for expression in (f"text.matches(r'{pattern}')", f"text.matches(r'{pattern}' + '')"):
        with pytest.raises((InvalidExpression, EvaluationError), match=error):
            evaluate(expression, text="a")


def test_each_evaluation_pays_for_the_patterns_it_compiles() -> None:
    patterns = [rf"\w{{30}}{number}" for number in range(1_000)]
    expression = compile_expression("patterns.all(p, !'a'.matches(p))")
    for steps, memory in ((10_000, 1_000_000), (2_000_000, 64_000_000), (100_000, 10**9)):
        with pytest.raises(BudgetExceeded):
            expression.evaluate({"patterns": patterns}, Budget(steps, memory))

    used = []
    for _ in range(2):
        budget = Budget(100_000, 10_000_000)
        assert not compile_expression(r"[1, 2].exists(n, 'a'.matches(r'^\w{10}$'))").evaluate(
            {}, budget
        )
        used.append(budget.used)
    assert used[0] == used[1]
    assert (
        WEIGHT_STEPS * cost(r"^\w{10}$").weight
        < used[0]
        < 1.1 * WEIGHT_STEPS * cost(r"^\w{10}$").weight
    )


def test_a_constant_pattern_is_checked_without_being_compiled() -> None:
    small, large = (
        compile_expression(f"'a'.matches(r'{pattern}')").pattern_weight
        for pattern in (r"\w", r"\w{37}")
    )
    assert small <= large < small + 5
    with pytest.raises(InvalidExpression, match="too large in total"):
        compile_expression(
            " || ".join(
                rf"'a'.matches(r'(?i)\pL{{{number}}}\pL\pL\pL\pL\pL\pL\pL\pL\pL\pL\pL')"
                for number in range(1, 21)
            )
        )


def test_a_search_for_word_boundaries_costs_more_in_a_text_that_is_not_of_ascii() -> None:
    def used(pattern: str, text: str) -> int:
        budget = Budget(100_000, 1_000_000)
        assert not compile_expression(f"text.matches(r'{pattern}')").evaluate(
            {"text": text}, budget
        )
        return budget.used

    assert used(r"x\b", "a" * 10_000) == used(r"x\b", "b" * 10_000)
    assert used(r"x\b", "é" * 10_000) > 2 * used(r"x\b", "a" * 10_000)
    assert used("xy", "é" * 10_000) == used("xy", "a" * 10_000)


def test_a_search_is_refused_where_it_could_take_long() -> None:
    assert evaluate("text.matches('^(a{50}){2}')", text="a" * 10_000, steps=100_000)
    with pytest.raises(
        EvaluationError, match="a string of 100000 characters is too long for this pattern"
    ):
        evaluate("text.matches('^(a{50}){2}')", text="a" * (MAX_WORK // 20), steps=100_000)
