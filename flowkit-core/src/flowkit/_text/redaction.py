"""Redaction of secrets, and escapes of characters that do more than be read.

It is used for all text that people see, in logs and on terminals.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from flowkit._text.secret_forms import BEARER, WHOLE_SECRETS

HIDDEN = "***"
MAX_ERROR_CHARS = 4_000
"""Length of the text of an error in logs, reports and dead letters."""

_USER_INFO = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{1,20}://)[^\s'\"<>]{1,1024}@")
_SECRETS = (
    r"(?:passw(?:or)?d|pass[_-]?phrase|pwd|secrets?(?:[_-]?keys?)?|signing[_-]?keys?"
    r"|(?:api|access|private|account)[_-]?key|credentials?|token)"
)
_HEADERS = r"(?:authorization|cookies?)"
_QUOTED = r"""\\*b?(?:"[^"\n]*"?|'[^'\n]*'?)"""
_IS = r"(?:\\*['\"])?\s{0,8}[=:]\s{0,8}"
_WORD = r"[^\s,;&'\"()\[\]{}\\]+"
_IN_BRACKETS = r"""[^()\[\]{}'"\n]|'[^'\n]*'?|"[^"\n]*"?"""
# A call, list or object, also with another one in it: SecretStr('…'), ['…'], {'…': ['…']}
_BRACKETS = rf"[(\[{{](?:{_IN_BRACKETS}|[(\[{{](?:{_IN_BRACKETS})*+[)\]}}]?)*+[)\]}}]?"
_VALUE = rf"(?:{_QUOTED}|{_BRACKETS}|{_WORD}(?:{_BRACKETS})?)"
_SCHEME = r"(?:bearer|basic|token|negotiate|ntlm|api-?key)"

# Patterns do not backtrack, and values have no length limit, so no rest of a secret is shown.
_HIDDEN_PARTS = tuple(
    re.compile(f"(?i){pattern}")
    for pattern in (
        # ('Authorization', 'Bearer …')
        rf"""(\(\\*b?['"][a-z0-9_.-]{{0,64}}(?:{_SECRETS}|{_HEADERS})\\*['"],\s{{0,8}}){_QUOTED}(?=\))""",
        # password=…, 'password': '…', signing_keys=[…], token: Bearer …
        rf"({_SECRETS}{_IS})(?:bearer[ \t]{{1,8}})?{_VALUE}",
        # 'Authorization': '…'
        rf"({_HEADERS}{_IS}){_QUOTED}",
        # 'Authorization: …'
        rf"('[a-z0-9_.-]{{0,64}}{_HEADERS}\s{{0,8}}:\s{{0,8}})[^'\n]+",
        rf'("[a-z0-9_.-]{{0,64}}{_HEADERS}\s{{0,8}}:\s{{0,8}})[^"\n]+',
        # Authorization: Bearer …
        rf"({_HEADERS}\s{{0,8}}[=:]\s{{0,8}}{_SCHEME}[ \t]{{1,8}})[^\s,;'\"]+",
        # Cookie: a=…; b=…
        rf"({_HEADERS}\s{{0,8}}[=:]\s{{0,8}})(?!(?:{_SCHEME}[ \t]{{1,8}})?\*\*\*)[^\s'\"\\][^\n]*",
        # Bearer … without the name of a header
        rf"(?={BEARER})(bearer[ \t]{{1,8}}){_WORD}",
    )
)
_MAY_HIDE = re.compile(rf"(?i){_SECRETS}|{_HEADERS}|bearer")
_NAMES_A_SECRET = re.compile(rf"(?i)(?:{_SECRETS}|{_HEADERS})$")

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
    """Redact secrets in a text.

    These are users and passwords in addresses, the values of passwords, tokens and keys, and those
    of headers such as ``Authorization``, and secrets that have a known form, such as JSON web
    tokens, access tokens and PEM blocks.
    """
    if "://" in text:
        text = _USER_INFO.sub(rf"\1{HIDDEN}@", text)
    for pattern in _HIDDEN_PARTS if _MAY_HIDE.search(text) else ():
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return WHOLE_SECRETS.sub(HIDDEN, text)


def redacted_value(value: Any, name: str = "") -> Any:
    """Redact secrets in the texts of a value, and every text that has the name of a secret."""
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
        items = [redacted_value(item, name) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if not isinstance(value, str | bytes):
        return value
    return HIDDEN if _NAMES_A_SECRET.search(name) else redacted(_text(value))


def labelled(name: str, text: str) -> str:
    """Return ``NAME: TEXT`` about a field. Redaction does not hide a part of the text, as it would
    after the name of a secret and a colon.
    """
    return f"{name} is wrong: {text}" if _NAMES_A_SECRET.search(name) else f"{name}: {text}"


def _key(key: Any) -> Any:
    return encodable(key) if isinstance(key, str) else key


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
    "redacted_value",
    "shortened",
    "writable",
]
