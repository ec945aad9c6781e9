"""Redaction of secrets, and escapes of characters that do more than be read.

It is used for all text that people see, in logs and on terminals.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flowkit._text.secret_forms import AFTER_BEARER, BEARER, WHOLE_SECRETS
from flowkit._text.secret_values import COUNTS, HEADERS, SECRETS, secret_values

HIDDEN = "***"
MAX_ERROR_CHARS = 4_000
"""Length of the text of an error in logs, reports and dead letters."""

_ADDRESS = re.compile(
    r"\b([A-Za-z][A-Za-z0-9+.-]{1,20}://)((?:[^\s'\"<>]|['\"](?=[^\s'\"<>,;:)\]}]))++)"
)
"""Address up to its last character. A quote with more of the address after it belongs to it."""
_QUOTED = r"""\\*b?(?:"[^"\n]*"?|'[^'\n]*'?)"""
_WORD = r"[^\s,;&'\"()\[\]{}\\]+"
_SCHEME = r"(?:bearer|basic|token|negotiate|ntlm|api-?key)"
_BEFORE_A_PAIR = r"(?:\(|(?<=[\[,])\[|(?<=,[ ])\[)"
_FOLDED_LINES = r"(?:(?<=[,;])\n[ \t][^\n]*)*"
_TO_A_TOKEN = rf"{AFTER_BEARER}(?:\\*['\"])?"

_HEADER_PAIR = (
    rf"""({_BEFORE_A_PAIR}\\*b?['"][a-z0-9_.-]{{0,64}}(?:{SECRETS}|{HEADERS})\\*['"],\s{{0,8}})"""
    rf"{_QUOTED}(?=[)\]])"
)
_HEADER_LINE = (
    rf"({HEADERS}\s{{0,8}}[=:][ \t]*+\s{{0,8}})(?!(?:{_SCHEME}{_TO_A_TOKEN})?\*\*\*)"
    rf"[^\s'\"\\][^\n]*{_FOLDED_LINES}"
)

# Patterns do not backtrack, and values have no length limit, so no rest of a secret is shown.
_HIDDEN_PARTS = tuple(
    re.compile(f"(?i){pattern}")
    for pattern in (
        # ('Authorization', 'Bearer …'), [['Authorization', 'Bearer …']]
        _HEADER_PAIR,
        # 'Authorization: …'
        rf"('[a-z0-9_.-]{{0,64}}{HEADERS}\s{{0,8}}:[ \t]*+\s{{0,8}})(?:[^'\\\n]|\\.)+",
        rf'("[a-z0-9_.-]{{0,64}}{HEADERS}\s{{0,8}}:[ \t]*+\s{{0,8}})(?:[^"\\\n]|\\.)+',
        # Authorization: Bearer …
        rf"({HEADERS}\s{{0,8}}[=:][ \t]*+\s{{0,8}}{_SCHEME}{_TO_A_TOKEN})[^\s,;'\"\\]+",
        # Cookie: a=…; b=…
        _HEADER_LINE,
        # Bearer … without the name of a header
        rf"(?={BEARER})(bearer{_TO_A_TOKEN}){_WORD}",
    )
)
_MAY_HIDE = re.compile(rf"(?i){SECRETS}|{HEADERS}|bearer")
_NAMES_A_SECRET = re.compile(rf"(?i)(?:{SECRETS}|{HEADERS})$")
_NAMES_A_COUNT = re.compile(rf"(?i){COUNTS}$")
_PEM_BEGIN, _PEM_END = "-----BEGIN ", "-----END "
_CUT_CHARS = 256
"""Number of characters from whose beginning each form of a secret is recognized."""

# Control characters, marks of the writing direction, separators of lines and paragraphs, and lone
# surrogates.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_BEYOND_ASCII = re.compile("[^\x00-\x7f]")
_UNPRINTABLE_BUT_LINES = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def redacted(text: str) -> str:
    """Redact secrets in a text, which must be a ``str``.

    These are users and passwords in addresses, the values of passwords, tokens and keys, and those
    of headers such as ``Authorization``, and secrets that have a known form, such as JSON web
    tokens, access tokens and PEM blocks. A value may have several lines, and others in it at any
    depth. The time is proportional to the length of the text.
    """
    if "://" in text:
        text = _ADDRESS.sub(_without_user, text)
    if _MAY_HIDE.search(text):
        text = _without_values(text)
        for pattern in _HIDDEN_PARTS:
            text = pattern.sub(rf"\1{HIDDEN}", text)
    return WHOLE_SECRETS.sub(HIDDEN, text)


def _without_user(address: re.Match[str]) -> str:
    shown = ""
    user, at, rest = address[2].rpartition("@")
    if "/" in user and ":" not in user:  # the sign is in the path
        host, slash, path = address[2].partition("/")
        user, at, rest = host.rpartition("@")
        shown = slash + path
    return f"{address[1]}{HIDDEN if user else ''}{at}{rest}{shown}"


def _without_values(text: str) -> str:
    parts: list[str] = []
    shown = 0
    for begin, end in secret_values(text):
        parts += (text[shown:begin], HIDDEN)
        shown = end
    return "".join((*parts, text[shown:]))


def redacted_start(text: str, most: int) -> str:
    """Redact secrets in the first ``most`` characters of a text, also one that the cut divides."""
    if len(text) <= most:
        return redacted(text)
    return redacted(text[: most + _CUT_CHARS])[:-_CUT_CHARS][:most]


def redacted_value(value: Any, name: str = "") -> Any:
    """Redact secrets in the texts of a value, and all texts and numbers with a secret's name.

    A name holds for all that is in its value, at any depth. Keys of objects are redacted as texts.
    A PEM block may be divided among the items of a list.
    """
    if isinstance(value, Mapping):
        within = name if _NAMES_A_SECRET.search(name) else ""
        return {
            _key(key): redacted_value(item, within or _text(key)) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        if (
            len(value) == 2
            and isinstance(value[0], str | bytes)
            and _NAMES_A_SECRET.search(_text(value[0]))
        ):
            # A header, as HTTP clients represent it.
            return (value[0], redacted_value(value[1], _text(value[0])))
        items = [redacted_value(item, name) for item in _without_pem_lines(value)]
        return tuple(items) if isinstance(value, tuple) else items
    is_count = isinstance(value, int | float) and _NAMES_A_COUNT.search(name)
    if value is None or isinstance(value, bool) or is_count:
        return value
    if _NAMES_A_SECRET.search(name) and isinstance(value, str | bytes | int | float):
        return HIDDEN
    return redacted(_text(value)) if isinstance(value, str | bytes) else value


def _without_pem_lines(items: Iterable[Any]) -> Iterator[Any]:
    """Yield the items of a list, with redacted lines of a PEM block that several items share."""
    inside = False
    for item in items:
        text = _text(item) if isinstance(item, str | bytes) else ""
        yield HIDDEN if inside and text else item
        if _PEM_BEGIN in text or (inside and _PEM_END in text):
            inside = text.rfind(_PEM_BEGIN) > text.rfind(_PEM_END)


def labelled(name: str, text: str) -> str:
    """Return ``NAME: TEXT`` about a field. Redaction does not hide a part of the text, as it would
    after the name of a secret and a colon.
    """
    return f"{name} is wrong: {text}" if _NAMES_A_SECRET.search(name) else f"{name}: {text}"


def _key(key: Any) -> Any:
    return redacted(encodable(key)) if isinstance(key, str) else key


def _text(value: Any) -> str:
    return (
        value.decode("utf-8", "backslashreplace")
        if isinstance(value, bytes)
        else encodable(str(value))
    )


def printable(text: str, *, lines: bool = False) -> str:
    """Return a text with escapes such as ``\\x1b`` and ``\\u202e`` for unprintable characters.

    Such characters could control a terminal or begin a line of a log. Line breaks stay if
    ``lines``.
    """
    if text.isprintable():
        return text
    return (_UNPRINTABLE_BUT_LINES if lines else _UNPRINTABLE).sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    sign = found[0]
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(sign)
    return short or (f"\\x{ord(sign):02x}" if ord(sign) < 256 else f"\\u{ord(sign):04x}")


def shortened(text: str, most: int = 80) -> str:
    """Return a text cut to ``most`` characters, with an ellipsis if something is left out."""
    return text if len(text) <= most else text[: most - 1] + "…"


def without_middle(text: str, most: int) -> str:
    """Return a text cut to ``most`` characters, with an ellipsis in the place of its middle."""
    if len(text) <= most:
        return text
    end = most // 2
    return f"{text[: most - end - 3]} … {text[-end:]}"


def writable(text: str, *, most: int = MAX_ERROR_CHARS) -> str:
    """Return the first ``most`` characters of a text, in a form that every encoding can write."""
    return encodable(text[:most])[:most]


def encodable(text: str) -> str:
    """Return a text with escapes such as ``\\ud800`` for lone surrogates."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def escaped_for(encoding: str, text: str) -> str:
    """Return a text unchanged if this encoding has all its characters.

    Else return it with the characters beyond ASCII escaped as in JSON.
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return _BEYOND_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)
    return text


def printable_json(text: str) -> str:
    """Return JSON with the escapes of JSON for unprintable characters.

    JSON itself escapes those below a space.
    """
    return (
        text
        if text.isascii() and "\x7f" not in text
        else _UNPRINTABLE_BUT_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    )


__all__ = [
    "HIDDEN",
    "MAX_ERROR_CHARS",
    "encodable",
    "escaped_for",
    "printable",
    "printable_json",
    "redacted",
    "redacted_start",
    "redacted_value",
    "shortened",
    "writable",
]
