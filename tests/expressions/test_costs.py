"""Cost of functions, operators and macros for large values."""

import contextlib
from typing import Any

import pytest

from flowkit._expressions import Budget, EvaluationError, ExpressionError, compile_expression
from flowkit._expressions.budget import MAX_TEXT
from flowkit._expressions.function_table import GLOBAL, METHODS
from flowkit._expressions.operators import OPERATORS
from flowkit._expressions.parser import MACROS
from flowkit._expressions.text_search import LONG_PART, search_steps

FORMS = {"[…]", "{…}", "a[b]", "a.b", "has(a.b)", "&&", "||", "? :", "!", "-a"}
"""Parts of the language that are not in a table."""
GROWING: dict[str, list[str]] = {
    "contains": [
        "text.contains('b')",
        "text.contains(half)",
        "text.contains(most)",
        "text.contains('aaab')",
    ],
    "startsWith": ["text.startsWith(same)", "text.startsWith(half)"],
    "endsWith": ["text.endsWith(same)", "text.endsWith(half)"],
    "matches": ["text.matches('ab$')", "matches(text, 'ab$')"],
    "lowerAscii": ["text.lowerAscii()", "accents.lowerAscii()"],
    "upperAscii": ["text.upperAscii()", "accents.upperAscii()"],
    "trim": ["text.trim()", "spaces.trim()"],
    "split": [
        "text.split('a')",
        "text.split('b')",
        "text.split('')",
        "text.split(half)",
        "text.split(most)",
        "text.split('b', 2)",
        "text.split('', 9)",
    ],
    "join": [
        "texts.join()",
        "texts.join('-')",
        "[text, text].join(text)",
        "(texts + [1]).join() || true",
    ],
    "replace": [
        "text.replace('a', '')",
        "text.replace('a', 'bc')",
        "text.replace('b', '')",
        "text.replace(half, '')",
        "text.replace(most, '')",
        "text.replace('', 'a')",
        "text.replace('b', '', 1)",
        "text.replace('a', '', 1)",
    ],
    "indexOf": ["text.indexOf('b')", "text.indexOf(half)", "text.indexOf('b', 3)"],
    "lastIndexOf": [
        "text.lastIndexOf('b')",
        "text.lastIndexOf(half)",
        "text.lastIndexOf(most)",
        "text.lastIndexOf('b', size(text) - 1)",
    ],
    "substring": ["text.substring(1)", "text.substring(1, size(text))"],
    "bytes": ["bytes(text)", "bytes(accents)"],
    "string": [
        "string(bytes(text))",
        "string([text])",
        "string({text: 1})",
        "string(items)",
        "string(table)",
        "string([floats])",
        "string(texts)",
    ],
    "+": ["text + text", "bytes(text) + bytes(text)", "items + items"],
    "==": [
        "text == same",
        "bytes(text) == bytes(same)",
        "items == same_items",
        "[items] == [same_items]",
        "table == same_table",
        "{1: items} == {1: same_items}",
    ],
    "!=": ["text != same", "items != same_items", "table != same_table"],
    "<": ["text < same", "bytes(text) < bytes(same)"],
    "<=": ["text <= same"],
    ">": ["text > same"],
    ">=": ["text >= same"],
    "in": ["'x' in texts", "-1 in items", "items in [same_items]", "same in {text: 1}"],
    "a[b]": ["{text: 1}[same]"],
    "{…}": ["{text: 1}", "items.map(n, {n: n, 'a': n})"],
    "[…]": ["items.map(n, [n, n])"],
    "all": ["items.all(n, n >= 0)", "table.all(k, k != '')"],
    "exists": ["items.exists(n, n < 0)", "table.exists(k, k == '')"],
    "exists_one": ["items.exists_one(n, n == 0)", "table.exists_one(k, k == '')"],
    "filter": ["items.filter(n, n < 0)", "items.filter(n, true)", "table.filter(k, k == '')"],
    "map": ["items.map(n, n)", "items.map(n, n < 0, n)", "table.map(k, k)"],
    "&&": ["items.all(n, true && n >= 0 && 1 / 0 > 0 || true)"],
    "||": ["items.all(n, 1 / 0 > 0 || true)"],
    "? :": ["items.all(n, n < 0 ? false : n >= 0 ? true : false)"],
}
"""Expressions whose cost grows with the size of their operands."""
BOUNDED: dict[str, list[str]] = {
    "size": ["size(text)", "items.size()", "table.size()"],
    "charAt": ["text.charAt(2)"],
    "int": ["int(digits)", "int(long)", "int(1.5)", "int(timestamp(0))"],
    "uint": ["uint(digits)", "uint(long)"],
    "double": ["double(digits)", "double(long)"],
    "bool": ["bool(text)"],
    "type": ["type(items)", "type(text)"],
    "dyn": ["dyn(items)"],
    "timestamp": ["timestamp(text)", "timestamp(long)", "timestamp('2026-01-01T00:00:00Z')"],
    "duration": ["duration(text)", "duration(digits + 's')"],
    **{
        name: [f"timestamp(0).{name}()", f"timestamp(0).{name}(text)"]
        for name in METHODS
        if name.startswith("get")
    },
    "matches": ["'a'.matches(text)", "'a'.matches('^' + text)"],
    "string": ["string(long)", "string([long])", "string(text)"],
    "-": ["long - 1", "1.5 - 1", "timestamp(0) - duration('1s')"],
    "*": ["long * long", "long * 1.5", "2 * 3"],
    "/": ["long / (long - 1)", "long / 3", "long / 1.5"],
    "%": ["long % (long - 1)", "long % 3"],
    "-a": ["-long", "-(1.5)"],
    "a.b": ["table.`1`", "table.x", "text.x"],
    "a[b]": ["items[3]", "table['1']", "items[long]", "table[text]"],
    "has(a.b)": ["has(table.x)"],
    "!": ["!(size(text) == 0)"],
    "==": ["text == items", "items == []", "table == {}"],
    "in": ["'1' in table"],
}
"""Expressions whose cost is bounded for operands of any size. Some reject large operands."""
FREE_STEPS = 60
FIXED_STEPS = 300
"""Steps for compiling the pattern of ``matches``."""
NAMES = {*GLOBAL, *METHODS, *OPERATORS, *MACROS} | FORMS


def scope(size: int) -> dict[str, Any]:
    """Return values of about this size.

    Equal values are different objects, so that comparing them takes time.
    """
    return {
        "text": "a" * size,
        "same": "a" * (size - 1) + "a",
        "half": "a" * (size // 4) + "b" + "a" * (size // 4),
        "most": "a" * (size // 2) + "b" + "a" * (size // 2 - 50),
        "accents": "é" * size,
        "spaces": "\u3000" * size,
        "digits": "9" * size,
        "long": 1 << (40 * size),
        "items": list(range(size)),
        "same_items": list(range(size)),
        "floats": [number / 7 for number in range(size)],
        "texts": [str(number) for number in range(size)],
        "table": {str(number): number for number in range(size)},
        "same_table": {str(number): number for number in range(size)},
    }


SMALL, LARGE = scope(3_000), scope(30_000)


def steps(expression: str, values: dict[str, Any]) -> int:
    budget = Budget(10**9, 10**9)
    with contextlib.suppress(EvaluationError):
        compile_expression(expression).evaluate(values, budget)
    return budget.used


def test_every_function_operator_and_macro_has_a_case() -> None:
    assert set(GROWING) | set(BOUNDED) == NAMES


@pytest.mark.parametrize(
    ("name", "expression"), [(name, one) for name, cases in GROWING.items() for one in cases]
)
def test_ten_times_the_work_is_charged_about_ten_times_the_steps(
    name: str, expression: str
) -> None:
    assert name in NAMES
    small, large = steps(expression, SMALL), steps(expression, LARGE)
    assert large >= 30_000 // 128
    if (
        "(half" not in expression
    ):  # Python searches for a long part by another method than for a short one
        assert large >= 7 * (small - FIXED_STEPS)


@pytest.mark.parametrize(
    ("name", "expression"), [(name, one) for name, cases in BOUNDED.items() for one in cases]
)
def test_what_has_a_bound_costs_no_more_with_large_operands(name: str, expression: str) -> None:
    assert name in NAMES
    small, large = steps(expression, SMALL), steps(expression, LARGE)
    assert small <= large + FREE_STEPS
    assert large <= small + 30_000 // 64 + FREE_STEPS


@pytest.mark.parametrize(
    "call",
    [
        "contains('b')",
        "split('b')",
        "split('')",
        "replace('b', '')",
        "indexOf('b')",
        "lastIndexOf('b')",
        "trim()",
        "lowerAscii()",
        "upperAscii()",
    ],
)
def test_one_call_handles_only_so_much_text(call: str) -> None:
    with pytest.raises(EvaluationError, match="too long for a function"):
        compile_expression(f"text.{call}").evaluate(
            {"text": "a" * (MAX_TEXT + 1)}, Budget(10**9, 10**12)
        )


@pytest.mark.parametrize("length", [2_499, 29_999, 30_000, MAX_TEXT])
def test_a_search_is_charged_for_what_python_does_at_worst(length: int) -> None:
    """Python compares a short part at each position of the text.

    A part is short up to 5 characters, or up to 99 in a text of less than 30,000.
    """
    for part in (
        2,
        5,
        50,
        99,
        100,
        1_000,
        LONG_PART,
        LONG_PART + 1,
        length // 2,
        length - 1_990,
        length,
    ):
        compared = part * max(length - part + 1, 0)
        if part < 6 or length < 2_500 or (part < 100 and length < 30_000):
            assert search_steps(length, part) >= compared // 512
        if part <= LONG_PART:
            assert search_steps(length, part) >= part * min(length - part, 2_000) // 512
            assert search_steps(length, part) <= 6_000_000 // 512
        assert search_steps(length, part) <= 6 * length // 64 + 6_000_000 // 512


@pytest.mark.parametrize("tail", [0, 1, 5, 1_990, 5_000, 50_000])
def test_searches_for_long_parts_find_what_python_finds(tail: int) -> None:
    part = "ab" * (LONG_PART // 2) + "\0" + "a" * 20
    for text in (
        part,
        part + "x" * tail,
        "y" * tail + part,
        part + "x" * tail + part + part,
        "ab" * LONG_PART + "x" * tail,
        part[:-1] + "x" * tail,
        "x" * tail + part[:-1],
        "",
    ):
        results = {
            "contains(part)": part in text,
            "indexOf(part)": text.find(part),
            "lastIndexOf(part)": text.rfind(part),
            "split(part)": text.split(part),
            "split(part, 2)": text.split(part, 1),
            "replace(part, 'z')": text.replace(part, "z"),
            "replace(part, 'z', 1)": text.replace(part, "z", 1),
        }
        for call, result in results.items():
            assert (
                compile_expression(f"text.{call}").evaluate(
                    {"text": text, "part": part}, Budget(10**7, 10**9)
                )
                == result
            ), call


def test_a_backward_search_finds_what_python_finds() -> None:
    text = "abcabcab"
    for part in ("", "a", "ab", "abc", "cab", "x", text, text + "a"):
        assert compile_expression("text.lastIndexOf(part)").evaluate(
            {"text": text, "part": part}, Budget(1_000, 1_000)
        ) == text.rfind(part)
        for start in range(len(text) + 1):
            found = compile_expression(f"text.lastIndexOf(part, {start})").evaluate(
                {"text": text, "part": part}, Budget(1_000, 1_000)
            )
            assert found == text.rfind(part, 0, start + len(part))


def test_a_search_for_a_long_part_is_refused_or_linear() -> None:
    size = MAX_TEXT // 2
    for expression in (
        "text.lastIndexOf(part) < 0",
        "!text.contains(part)",
        "text.split(part).size() == 1",
        "text.replace(part, '') == text",
    ):
        for length in (size // 2, size - 1_990):
            budget = Budget(150_000, 10**8)
            values = {"text": "a" * size, "part": "a" * (length // 2) + "b" + "a" * (length // 2)}
            assert compile_expression(expression).evaluate(values, budget), expression


def test_letters_that_are_not_of_ascii_keep_their_case() -> None:
    for name, value in (("lowerAscii", "abÉé一\ud800"), ("upperAscii", "ABÉé一\ud800")):
        assert (
            compile_expression(f"text.{name}()").evaluate(
                {"text": "aBÉé一\ud800"}, Budget(1_000, 1_000)
            )
            == value
        )


def test_a_loop_over_a_map_does_not_look_through_it_first() -> None:
    values = {"table": {str(number): number for number in range(100_000)}}
    budget = Budget(100, 0)
    assert compile_expression("table.exists(k, true)").evaluate(values, budget)
    assert budget.used < 10


def test_arithmetic_with_integers_beyond_64_bits_is_refused_before_it_is_done() -> None:
    for symbol in "*/%":
        with pytest.raises(ExpressionError, match="the operand exceeds 64 bits"):
            compile_expression(f"a {symbol} b").evaluate(
                {"a": 10**4000, "b": 3}, Budget(1_000, 1_000)
            )
