"""Lexer: splits an expression into tokens."""

import re
from enum import Enum, auto
from typing import Any, NamedTuple

from flowkit._expressions.errors import InvalidExpression
from flowkit._expressions.values import INT_MAX, UINT_MAX, UInt

MAX_LENGTH = 4_096
"""Maximum length of an expression."""


class Kind(Enum):
    NAME = auto()
    QUOTED_NAME = auto()
    LITERAL = auto()
    SYMBOL = auto()
    END = auto()


class Token(NamedTuple):
    kind: Kind
    text: str
    position: int
    value: Any = None


KEYWORDS: dict[str, Any] = {"true": True, "false": False, "null": None}
_TOKEN = re.compile(
    r"""(?P<space>[\ \t\r\n\f]+|//[^\n]*)
    |(?P<text>[rRbB]{0,2}(?:\"\"\"|\'\'\'|\"|\'))
    |(?P<double>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
    |(?P<int>0[xX][0-9a-fA-F]+[uU]?|\d+[uU]?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<quoted>`[A-Za-z0-9_./\ -]+`)
    |(?P<symbol>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE | re.ASCII,
)
_ENDS = {
    quote: re.compile(rf"(?:[^\\{line}]|\\.)*?{quote}", re.DOTALL)
    for quote, line in (('"""', ""), ("'''", ""), ('"', r"\n\r"), ("'", r"\n\r"))
}
_RAW_ENDS = {
    quote: re.compile(rf"[^{line}]*?{quote}" if line else rf".*?{quote}", re.DOTALL)
    for quote, line in (('"""', ""), ("'''", ""), ('"', r"\n\r"), ("'", r"\n\r"))
}
_ESCAPE = re.compile(
    r"\\(?:([xX])([0-9a-fA-F]{2})|(u)([0-9a-fA-F]{4})|(U)([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))",
    re.DOTALL,
)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"} | {
    mark: mark for mark in "\\?\"'`"
}


def tokens(source: str) -> list[Token]:
    """Split an expression into tokens; the last one is ``END``.

    Raises:
        InvalidExpression: the expression is too long or contains an invalid token.
    """
    if len(source) > MAX_LENGTH:
        raise InvalidExpression(f"it is longer than {MAX_LENGTH} characters")
    found: list[Token] = []
    place = 0
    while place < len(source):
        match = _TOKEN.match(source, place)
        if match is None:
            raise InvalidExpression(f"unexpected {source[place]!r}", place)
        start, place = place, match.end()
        text = match[0]
        kind = match.lastgroup
        if kind == "text":
            value, place = _string(source, start, text)
            found.append(Token(Kind.LITERAL, source[start:place], start, value))
        elif kind == "double":
            found.append(Token(Kind.LITERAL, text, start, float(text)))
        elif kind == "int":
            found.append(Token(Kind.LITERAL, text, start, _integer(text, start)))
        elif kind == "quoted":
            found.append(Token(Kind.QUOTED_NAME, text[1:-1], start))
        elif kind == "name" and text in KEYWORDS:
            found.append(Token(Kind.LITERAL, text, start, KEYWORDS[text]))
        elif kind == "name" and text != "in":
            found.append(Token(Kind.NAME, text, start))
        elif kind != "space":
            found.append(Token(Kind.SYMBOL, text, start))
    found.append(Token(Kind.END, "the end", len(source)))
    return found


def closing_brace(source: str, start: int) -> int:
    """Return the position of the ``}`` that ends an expression which begins at ``start``.

    Braces in strings, and pairs of braces, are part of the expression.

    Raises:
        InvalidExpression: there is none, or the expression is too long.
    """
    depth, place = 0, start
    while place < len(source):
        if place - start > MAX_LENGTH:
            raise InvalidExpression(f"it is longer than {MAX_LENGTH} characters")
        match = _TOKEN.match(source, place)
        if match is None:
            raise InvalidExpression(f"unexpected {source[place]!r}", place)
        text = match[0]
        if match.lastgroup == "text":
            place = _string(source, place, text)[1]
            continue
        if text == "}" and depth == 0:
            return place
        depth += (text == "{") - (text == "}")
        place = match.end()
    raise InvalidExpression("it has no closing '}'", start)


def _integer(text: str, position: int) -> int:
    digits = text.rstrip("uU")
    base = 16 if digits[:2] in ("0x", "0X") else 10
    unsigned = digits is not text and digits != text
    # INT_MAX + 1 is allowed here because a minus may precede it. The parser checks that.
    if len(digits) > 40 or (value := int(digits, base)) > (UINT_MAX if unsigned else INT_MAX + 1):
        raise InvalidExpression(f"the number {text[:40]} exceeds 64 bits", position)
    return UInt(value) if unsigned else value


def _string(source: str, start: int, opening: str) -> tuple[str | bytes, int]:
    quote = opening.lstrip("rRbB")
    prefix = opening[: len(opening) - len(quote)].lower()
    if prefix in ("rr", "bb"):
        raise InvalidExpression(f"unexpected {prefix!r} before a string", start)
    body = start + len(opening)
    end = (_RAW_ENDS if "r" in prefix else _ENDS)[quote].match(source, body)
    if end is None:
        raise InvalidExpression("the string has no closing quote", start)
    text = source[body : end.end() - len(quote)]
    if "r" in prefix:
        return text.encode() if "b" in prefix else text, end.end()
    return (_unescape_bytes if "b" in prefix else _unescape)(text, body), end.end()


def _unescape(text: str, position: int) -> str:
    def replace(match: re.Match[str]) -> str:
        return _character(match, position)

    return _ESCAPE.sub(replace, text) if "\\" in text else text


def _character(match: re.Match[str], position: int) -> str:
    code = match[2] or match[4] or match[6]
    number = int(code, 16) if code else int(match[7], 8) if match[7] else None
    if number is None:
        if match[8] in _SIMPLE:
            return _SIMPLE[match[8]]
        raise InvalidExpression(f"unknown escape {match[0]!r}", position + match.start())
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise InvalidExpression(f"{match[0]} is not a character", position + match.start())
    return chr(number)


def _unescape_bytes(text: str, position: int) -> bytes:
    pieces = []
    done = 0
    for match in _ESCAPE.finditer(text):
        pieces.append(text[done : match.start()].encode())
        done = match.end()
        if match[4] or match[6]:
            raise InvalidExpression(f"{match[0]} is not allowed in bytes", position + match.start())
        # An escape in bytes stands for one byte, not for a character.
        pieces.append(
            _character(match, position).encode("latin-1" if match[2] or match[7] else "utf-8")
        )
    pieces.append(text[done:].encode())
    return b"".join(pieces)
