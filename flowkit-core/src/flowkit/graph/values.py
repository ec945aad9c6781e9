"""Whether a value is what JSON can carry, and small enough. One cheap pass says yes; only after a no is the place looked for."""

from collections.abc import Iterator
from typing import Any

from flowkit.graph.limits import GraphLimits, levels

Path = tuple[str | int, ...]

MAX_INTEGER_BITS = 1_024


class TooLarge(Exception):
    """A limit is exceeded: there is no point in looking on. The message is the fault's sentence."""


def is_plain(value: Any, limits: GraphLimits) -> bool:
    """Whether ``value`` is made of JSON's types only, and flat enough. Shared and circular parts count wherever they are met.

    Raises:
        TooLarge: it certainly takes more bytes than the limit, as JSON.
    """
    plain = True
    level = [value]
    size = 0
    for _ in range(levels(limits) + 1):
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str:
                size += len(item)
                if not item.isascii():
                    plain = plain and is_unicode(item)
            elif kind is dict:
                for key in item:
                    if type(key) is not str or not (key.isascii() or is_unicode(key)):
                        plain = False
                    else:
                        size += len(key)
                below.extend(item.values())
            elif kind is list or kind is tuple:
                below.extend(item)
            elif kind is float:
                if item - item != 0.0:
                    plain = False
            elif kind is int:
                if item.bit_length() > MAX_INTEGER_BITS:
                    plain = False
            elif item is not None and kind is not bool:
                plain = False
                below.extend(item.values() if isinstance(item, dict) else item if isinstance(item, (list, tuple)) else ())
            if size + 2 * len(below) > limits.max_bytes:
                raise TooLarge(f"the graph is larger than {limits.max_bytes} bytes; put large inputs elsewhere and name them in input_ref")
        if not below:
            return plain
        size += 2 * len(below)
        level = below
    return False


def clean(value: Any, limits: GraphLimits) -> tuple[Any, list[tuple[Path, str]]]:
    """A copy of a value that is not plain, without what JSON cannot carry, and what was left out: where, and why.

    Raises:
        TooLarge: it is deeper than the limits allow.
    """
    problems: list[tuple[Path, str]] = []
    deepest = levels(limits)

    def copied(item: Any, path: Path) -> Any:
        if isinstance(item, (dict, list, tuple)) and item and len(path) >= deepest:
            raise TooLarge(f"{place(path[:4])}…: values are nested more than {deepest} levels deep; make the graph flatter")
        if isinstance(item, dict):
            return dict(pairs(item, path))
        if isinstance(item, (list, tuple)):
            return [copied(part, (*path, number)) for number, part in enumerate(item)]
        if (reason := _why_not(item)) is not None:
            problems.append((path, reason))
            return None
        return item

    def pairs(item: dict[Any, Any], path: Path) -> Iterator[tuple[str, Any]]:
        for key, part in item.items():
            if not isinstance(key, str):
                problems.append((path, f"has the key {short(key)}, which is {kind_of(key)}; keys are strings"))
            elif not is_unicode(key):
                problems.append((path, f"has the key {short(key)}, which is not valid Unicode"))
            else:
                yield key, copied(part, (*path, key))

    return copied(value, ()), problems


def _why_not(item: Any) -> str | None:
    if item is None or isinstance(item, bool):
        return None
    if isinstance(item, str):
        return None if is_unicode(item) else f"{short(item)} is not valid Unicode (it has a lone surrogate)"
    if isinstance(item, int):
        return None if item.bit_length() <= MAX_INTEGER_BITS else "is a number of too many digits"
    if isinstance(item, float):
        return None if item - item == 0.0 else f"is {item}, which is not a finite number"
    return f"is {kind_of(item)}, which JSON cannot carry; write it as a string, a number, a list or an object"


def is_unicode(text: str) -> bool:
    """Whether a text can be written: one with a lone surrogate cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_KINDS = {
    "str": "a string",
    "bool": "a boolean",
    "int": "a number",
    "float": "a number",
    "dict": "an object",
    "list": "a list",
    "tuple": "a list",
    "NoneType": "null",
}


def kind_of(item: Any) -> str:
    """What JSON calls a value's type; for others the name of the Python type."""
    name = type(item).__name__
    return _KINDS.get(name) or f"a Python {name}"


def short(item: Any) -> str:
    """A value as it is shown in a sentence, cut to a bearable length."""
    if isinstance(item, str):
        return repr(item if len(item) <= 80 else item[:79] + "…")
    if isinstance(item, (bool, int, float)) and not (isinstance(item, int) and item.bit_length() > 200):
        return repr(item)
    return kind_of(item)


def place(path: Path) -> str:
    """A path as it is written in a sentence: ``io.input_inline.items[3]``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{short(step)[1:-1]}" if text else short(step)[1:-1]
    return text
