"""Texts of a flow in Python that contain values.

``str(value)`` is a *mark*: it has the expression of the value between code points that no other
text contains. So a value in an f-string differs from a ``${…}`` that the user wrote, with any text
around it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

from flowkit._expressions import InvalidExpression
from flowkit._expressions.lexer import Kind, closing_brace, tokens
from flowkit._expressions.templates import OPENING, Placed, split_template
from flowkit._flow_building.drafts import Expression

# Unicode reserves these code points for internal use of programs, so no text contains them.
_START, _NUMBERS, _END, _REPR = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
_MARK = re.compile(rf"{_START}\$\{{([^{_START}]*?)\}}{_NUMBERS}(\d+)((?: \d+)*){_END}", re.DOTALL)
_NEXT = re.compile(rf"{_START}|\$?\$\{{")
_CODE_POINT = re.compile(rf"[{_START}-{_REPR}]|\\ufdd[0-3]")
_NOT_SHOWN = re.compile(rf"(?:{_NUMBERS}|\\ufdd1)[\d ]*(?:{_END}|\\ufdd2)|{_CODE_POINT.pattern}")


class UnusableText(Exception):
    """A value in a text was changed. The message is a sentence about it."""


class Mark(NamedTuple):
    """Value in a text."""

    source: str
    """Its expression."""
    numbers: tuple[int, ...]
    """Numbers of the nodes and of the flows that the expression reads."""


@dataclass(slots=True)
class FlowText:
    """Text of a flow, with what it reads."""

    template: str
    """The text as a document has it."""
    marks: list[Mark] = field(default_factory=list)
    expressions: list[str] = field(default_factory=list)
    """Expressions that the user wrote."""


def mark(expression: Expression) -> str:
    """Return the text of a value."""
    source = expression.operand
    read = [*(draft.number for draft in expression.parents), *sorted(expression.flows)]
    numbers = "".join(f" {number}" for number in read)
    return f"{_START}${{{source}}}{_NUMBERS}{crc32(source.encode())}{numbers}{_END}"


def representation(expression: Expression) -> str:
    """Return the ``repr`` of a value. A text with it cannot be used in a flow."""
    return f"{_REPR}<value of {expression.source}>"


def shown(text: str) -> str:
    """Return a text as errors show it: a value is ``${…}``."""
    return _NOT_SHOWN.sub("", text)


def contains_value(text: str) -> bool:
    """Return whether a text contains a value of a flow, or an expression."""
    return OPENING in text or _CODE_POINT.search(text) is not None


def text_with_value(document: object) -> str | None:
    """Return a text in a document that contains a value of a flow, as errors show it, or None."""
    left, seen = [document], set[int]()
    while left:
        one = left.pop()
        if isinstance(one, str):
            if _CODE_POINT.search(one):
                return shown(one)
        elif id(one) not in seen:
            seen.add(id(one))
            if isinstance(one, Mapping):
                left += [*one.keys(), *one.values()]
            elif isinstance(one, (list, tuple)):
                left += one
    return None


def read_text(text: str) -> FlowText:
    """Return a text of a flow. A value in it becomes a text, also if it is the whole text.

    Raises:
        UnusableText: a value in it was changed.
    """
    _check(text)
    found = FlowText("")
    if (whole := _MARK.fullmatch(text)) is not None:
        found.marks.append(_mark_of(whole))
        found.template = f"${{string({whole[1]})}}"
        return found
    done, values, filled = 0, _marks_in(text), _filled(text)
    while (match := _NEXT.search(text, done)) is not None:
        found.template += text[done : match.start()]
        done = match.end()
        if match[0] == _START:
            value = values[match.start()]
            found.marks.append(_mark_of(value))
            found.template = f"{_with_dollars(found.template)}${{{value[1]}}}"
            done = value.end()
        elif match[0] != OPENING:
            found.template += match[0]
        else:
            try:
                end = closing_brace(filled, done)
            except InvalidExpression:  # the graph is checked as a whole, with all its faults
                end = len(text)
            inner = read_expression(text[done:end])
            found.marks += inner.marks
            found.expressions += inner.expressions
            found.template += f"{OPENING}{inner.template}"
            done = end
    found.template += text[done:]
    return found


def read_expression(text: str) -> FlowText:
    """Return a text that is an expression. A value in it is a part of the expression.

    Raises:
        UnusableText: a value in it was changed, or is within quotes.
    """
    _check(text)
    marks = _marks_in(text)
    if marks:
        try:
            names = {
                token.position: len(token.text)
                for token in tokens(_filled(text))
                if token.kind is Kind.NAME
            }
        except InvalidExpression:
            names = {place: len(one[0]) for place, one in marks.items()}
        for place, one in marks.items():
            if names.get(place) != len(one[0]):
                raise UnusableText(
                    f"{one[1]} is within quotes or a name in the expression {shown(text)!r:.200};"
                    " a value in an expression has no quotes: f\"{kind} == 'a'\""
                )
    written = _MARK.sub(lambda one: one[1], text)
    return FlowText(written, [_mark_of(one) for one in marks.values()], [written])


def source_of(template: str) -> str:
    """Return a template as one expression, whose value is what the template gives.

    Raises:
        InvalidExpression: an expression in it does not end.
    """
    parts = split_template(template)
    if len(parts) == 1 and isinstance(parts[0], Placed):
        return parts[0].source
    return " + ".join(
        f"string({part.source})"
        if isinstance(part, Placed)
        else json.dumps(part, ensure_ascii=False)
        for part in parts
    )


def _check(text: str) -> None:
    """Check that the values in a text are as they were written.

    Raises:
        UnusableText: one is not.
    """
    if _REPR in text:
        raise UnusableText(
            f"the text {shown(text)!r:.200} contains the representation of a value, as {{value!r}}"
            " and a list of values in a text have it; write {value} for each, or make the text in a"
            " handler"
        )
    rest = _MARK.sub("", text)
    is_changed = any(crc32(one[1].encode()) != int(one[2]) for one in _MARK.finditer(text))
    if is_changed or _CODE_POINT.search(rest):
        raise UnusableText(
            f"the text {shown(text)!r:.200} was changed after a value was put in, whose text is"
            " known only while the task runs; change the text in a handler"
        )


def _marks_in(text: str) -> dict[int, re.Match[str]]:
    """Return the values in a text by their positions."""
    return {one.start(): one for one in _MARK.finditer(text)}


def _mark_of(match: re.Match[str]) -> Mark:
    return Mark(match[1], tuple(map(int, match[3].split())))


def _filled(text: str) -> str:
    """Return a text of the same length whose values are names of expressions."""
    return _MARK.sub(lambda one: "_" * len(one[0]), text)


def _with_dollars(before: str) -> str:
    """Return the text before a value. ``$`` just before it would make it a literal."""
    text = before.rstrip("$")
    return before if text == before else f"{text}${{'{before[len(text) :]}'}}"
