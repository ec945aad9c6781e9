"""What may be shown to people, in logs and on terminals: texts without secrets, and without signs that do more than be read."""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_USER_INFO = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{1,20}://)[^\s'\"<>]{1,1024}@")
_NAMES = r"(?:passw(?:or)?d|pass_?phrase|pwd|secret(?:_?key)?|signing_?keys?|api_?key|access_?key|private_?key|credentials?|token)"
_ASSIGNED = re.compile(
    rf"(?i)(\b[a-z0-9_.-]{{0,64}}{_NAMES}['\"]?\s{{0,8}}[=:]\s{{0,8}})"
    r"(?:(['\"])[^'\"\n]{0,1024}\2|\[[^\]\n]{0,1024}\]|[^\s,;&'\"()\[\]{}]{1,1024})"
)
_NAMES_A_SECRET = re.compile(rf"(?i){_NAMES}$")

# Controls; marks that turn the direction of writing; separators of lines and paragraphs; halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_UNPRINTABLE_BUT_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def redacted(text: str) -> str:
    """A text without the users and passwords of addresses, and without what stands behind ``password=`` and the like."""
    if "://" in text:
        text = _USER_INFO.sub(rf"\1{HIDDEN}@", text)
    return _ASSIGNED.sub(rf"\1{HIDDEN}", text)


def redacted_value(value: Any, name: str = "") -> Any:
    """A value of a configuration for showing: its texts redacted, and what stands under the name of a secret left out."""
    if isinstance(value, Mapping):
        return {key: redacted_value(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(redacted_value(item, name) for item in value)
    if not isinstance(value, str):
        return value
    return HIDDEN if _NAMES_A_SECRET.search(name) else redacted(value)


def printable(text: str, *, lines: bool = False) -> str:
    """A text in which what would steer a terminal, or begin a line of a log, is written out: ``\\x1b``, ``\\u202e``. ``lines`` stay."""
    if text.isprintable():
        return text
    return (_UNPRINTABLE_BUT_LINES if lines else _UNPRINTABLE).sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    sign = found[0]
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(sign)
    return short or (f"\\x{ord(sign):02x}" if ord(sign) < 256 else f"\\u{ord(sign):04x}")


def writable(text: str, *, most: int = 4_000) -> str:
    """The first ``most`` characters of a text, in a form that can be written everywhere: halves of surrogate pairs are written out."""
    return text[:most].encode("utf-8", "backslashreplace").decode()[:most]


def printable_json(text: str) -> str:
    """JSON in which the same is escaped as JSON does it. What is below a space JSON escapes by itself."""
    return text if text.isascii() and "\x7f" not in text else _UNPRINTABLE_BUT_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


__all__ = ["HIDDEN", "printable", "printable_json", "redacted", "redacted_value", "writable"]
