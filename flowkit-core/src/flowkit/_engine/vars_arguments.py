"""Arguments of the operations on vars, and their limits: see :mod:`flowkit._engine.vars`."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, pairwise
from typing import Any

from flowkit._text.secret_scanner import kind_of_secret
from flowkit.errors import VarsError

MAX_KEYS = 256
MAX_DEPTH = 16
MAX_PATH_CHARS = 512
MAX_SEGMENT_CHARS = 128
MAX_VALUE_BYTES = 64 * 1024
_SHOWN_CHARS = 100

Path = tuple[str, ...]
Step = tuple[Any, ...]
"""A path to change, and further arguments of the change."""


def read_set(op: str, args: Mapping[str, Any]) -> list[Step]:
    """Return the steps of ``vars.set``: paths and values."""
    kv = _object(op, "kv", args)
    _checked_leaves(op, kv, dotted_levels=1, sensitive=_flag(op, args))
    steps = [(_path(op, key), value) for key, value in kv.items()]
    _check_apart(op, [path for path, _ in steps])
    return list(steps)


def read_merge(op: str, args: Mapping[str, Any]) -> list[Step]:
    """Return the steps of ``vars.merge``: paths and values."""
    leaves = _checked_leaves(
        op, _object(op, "data", args), dotted_levels=MAX_DEPTH, sensitive=_flag(op, args)
    )
    _check_apart(op, [path for path, _ in leaves])
    return list(leaves)


def read_incr(op: str, args: Mapping[str, Any]) -> list[Step]:
    """Return the step of ``vars.incr``: a path and a number."""
    key, by = args.get("key"), args.get("by", 1)
    if not isinstance(key, str):
        raise VarsError(f"{op}: key must be a text, not {described(key)}")
    path = _path(op, key)
    if not is_number(by):
        raise VarsError(
            f"{op}: by, for {shown(path)}, must be a finite number, not {described(by)}"
        )
    return [(path, by)]


def read_unset(op: str, args: Mapping[str, Any]) -> list[Step]:
    """Return the steps of ``vars.unset``: paths."""
    keys = args.get("keys")
    if isinstance(keys, str):
        keys = [keys]
    if not isinstance(keys, list):
        raise VarsError(f"{op}: keys is a key or a list of keys, not {described(keys)}")
    if len(keys) > MAX_KEYS:
        raise VarsError(f"{op}: more than {MAX_KEYS} keys")
    return [(_path(op, key),) for key in keys]


def _object(op: str, name: str, args: Mapping[str, Any]) -> dict[Any, Any]:
    value = args.get(name)
    if not isinstance(value, dict):
        raise VarsError(f"{op}: {name} is an object of keys and values, not {described(value)}")
    return value


def _flag(op: str, args: Mapping[str, Any]) -> bool:
    flag = args.get("block_sensitive", False)
    if not isinstance(flag, bool):
        raise VarsError(f"{op}: block_sensitive is true or false, not {described(flag)}")
    return flag


# ---------------------------------------------------------------- limits


def _checked_leaves(
    op: str, data: dict[Any, Any], *, dotted_levels: int, sensitive: bool
) -> list[tuple[Path, Any]]:
    leaves = list(islice(_leaves(op, data, dotted_levels), MAX_KEYS + 1))
    if len(leaves) > MAX_KEYS:
        raise VarsError(f"{op}: more than {MAX_KEYS} keys")
    for path, value in leaves:
        _check_value(op, path, value)
        if sensitive:
            _check_harmless(op, path, value)
    return leaves


def _leaves(
    op: str, data: dict[Any, Any], dotted_levels: int, base: Path = ()
) -> Iterator[tuple[Path, Any]]:
    """Yield each value that is no object, or an empty one, with its path."""
    for key, value in data.items():
        path = _path(op, key, base, dotted=dotted_levels > 0)
        if isinstance(value, dict) and value:
            yield from _leaves(op, value, dotted_levels - 1, path)
        else:
            yield path, value


def _path(op: str, key: Any, base: Path = (), *, dotted: bool = True) -> Path:
    if not isinstance(key, str):
        raise VarsError(
            f"{op}: a key{f' in {shown(base)}' if base else ''} is a text, not {described(key)}"
        )
    path = (*base, *(key.split(".") if dotted else (key,)))
    if len(path) > MAX_DEPTH:
        raise VarsError(f"{op}: {shown(path)} has more than {MAX_DEPTH} segments")
    if len(".".join(path)) > MAX_PATH_CHARS:
        raise VarsError(f"{op}: {shown(path)} is longer than {MAX_PATH_CHARS} characters")
    for segment in path[len(base) :]:
        if fault := _fault_of(segment):
            raise VarsError(f"{op}: {shown(path)} has a segment that {fault}")
    return path


def _fault_of(segment: str) -> str | None:
    if not segment:
        return "is empty"
    if len(segment) > MAX_SEGMENT_CHARS:
        return f"is longer than {MAX_SEGMENT_CHARS} characters"
    if segment.startswith("$"):
        return "begins with '$'"
    if "." in segment:
        return (
            "has a dot in it; only the outer keys of vars.set, and those of vars.merge, are paths"
        )
    if "\0" in segment:
        return "has a NUL in it"
    if _size(segment) is None:
        return "is not valid Unicode"
    return None


def _check_apart(op: str, paths: Iterable[Path]) -> None:
    """Refuse two paths of which one contains the other: the result would depend on their order."""
    for outer, inner in pairwise(sorted(paths)):
        if inner[: len(outer)] == outer:
            raise VarsError(
                f"{op}: {shown(outer)} and {shown(inner)} are both given, and one lies in the other"
            )


def _check_value(op: str, path: Path, value: Any) -> None:
    if fault := _json_fault(value):
        raise VarsError(f"{op}: the value of {shown(path)} {fault}")
    size = _size(value)
    if size is None:
        raise VarsError(f"{op}: the value of {shown(path)} cannot be written as JSON in UTF-8")
    if size > MAX_VALUE_BYTES:
        raise VarsError(
            f"{op}: the value of {shown(path)} has {size} bytes, more than {MAX_VALUE_BYTES}"
        )


def _json_fault(value: Any, level: int = 0) -> str | None:
    """Return why this is not JSON that nests to at most 16 levels; None if it is."""
    if value is None or isinstance(value, str | int):
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else "is not a finite number"
    if not isinstance(value, list | dict):
        return f"is {described(value)}, which JSON does not have"
    if level == MAX_DEPTH:
        return f"nests lists and objects to more than {MAX_DEPTH} levels"
    if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
        return "has a key in it that is not a text"
    items = value.values() if isinstance(value, dict) else value
    return next(filter(None, (_json_fault(item, level + 1) for item in items)), None)


def _size(value: Any) -> int | None:
    """Return the bytes of a text in UTF-8, or of another value as JSON in UTF-8; None if it cannot
    be encoded (an unpaired surrogate, 5,000 digits).
    """
    try:
        text = (
            value
            if isinstance(value, str)
            else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        )
        return len(text.encode())
    except ValueError:
        return None


def _check_harmless(op: str, path: Path, value: Any) -> None:
    if kind_of_secret(".".join(path)):
        raise VarsError(f"{op}: a key looks like a secret itself, and block_sensitive is on")
    for names, text in _texts(value, path):
        if kind := kind_of_secret(text, names):
            raise VarsError(
                f"{op}: the value of {shown(path)} looks like {kind}, and block_sensitive is on"
            )


def _texts(value: Any, names: Path) -> Iterator[tuple[Path, str]]:
    """Yield each text in a value, with the names on its path. Keys of objects in lists are texts as
    well.
    """
    if isinstance(value, str):
        yield names, value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, names)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield (), key
            yield from _texts(item, (*names, key))


# ---------------------------------------------------------------- words


def is_number(value: Any) -> bool:
    """Return whether this is a number that JSON has: no boolean, not infinite, no integer with
    thousands of digits.
    """
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (math.isfinite(value) if isinstance(value, float) else _size(value) is not None)
    )


def shown(path: Path) -> str:
    """Return a path for an error text."""
    text = ".".join(path)
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")


_WORDS = {
    bool: "true or false",
    str: "a text",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "nothing",
}


def described(value: Any) -> str:
    """Return the type of a value for an error text, which never shows the value."""
    if isinstance(value, float) and not math.isfinite(value):
        return "one that is not finite"
    return _WORDS.get(type(value), f"a {type(value).__name__}")
