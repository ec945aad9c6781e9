"""Operations of coordinator functions on the vars of a task. Each is checked, and all are applied
together.

A key is a path of segments with dots between them. These limits hold for every operation:

- 256 keys. Each value inside a nested object counts; a list counts as one value.
- Paths of 16 segments and 512 characters, segments of 128 characters. A segment is not empty, has
  no ``.`` and no NUL, and does not begin with ``$``. Objects inside lists are data, not paths:
  their keys may be any text.
- 64 KiB for each value. A text is measured in UTF-8, any other value as its JSON text in UTF-8, a
  list as a whole. Lists nest to 16 levels.
- Values that JSON has: no NaN, no infinities, no unpaired surrogates.

Errors name keys, and never show a value.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from flowkit._engine.vars_arguments import (
    Path,
    Step,
    described,
    is_number,
    read_incr,
    read_merge,
    read_set,
    read_unset,
    shown,
)
from flowkit.errors import VarsError


@dataclass(frozen=True, slots=True)
class VarsOp:
    """Operation on vars, with the arguments of the coordinator function ``vars.<name>``.

    - ``set`` (``kv``, ``block_sensitive``): each value replaces the value at its path, objects too.
      Missing parents are created. A path below a value that is no object is refused, and so are two
      paths of which one contains the other.
    - ``merge`` (``data``, ``block_sensitive``): objects are merged into objects at every level,
      where keys may have dots too. Any other value replaces the old one.
    - ``incr`` (``key``, ``by``): adds to a number. A missing number counts as 0.
    - ``unset`` (``keys``, one or a list): removes values. Missing ones are ignored. Parents that
      become empty are removed as well.
    """

    name: Literal["set", "merge", "incr", "unset"]
    args: Mapping[str, Any]


def check(op: VarsOp) -> None:
    """Check that an operation keeps the limits.

    Raises:
        VarsError: it breaks a limit; the message names the key.
    """
    _steps(op)


def apply(vars: Mapping[str, Any], ops: Sequence[VarsOp]) -> dict[str, Any]:  # noqa: A002 - the name that they have everywhere
    """Return the vars after these operations: a new dict, which shares unchanged values.

    Raises:
        VarsError: an operation breaks a limit or does not fit the present values. None is applied.
    """
    draft = _Draft(vars)
    for op in ops:
        for path, *arguments in _steps(op):
            _OPERATIONS[op.name].change(draft, path, *arguments)
    return draft.root


def _steps(op: VarsOp) -> list[Step]:
    """Return the steps of an operation."""
    if op.name not in _OPERATIONS:
        raise VarsError(f"there is no operation {op.name!r} on vars")
    return _OPERATIONS[op.name].read(f"vars.{op.name}", op.args)


# ---------------------------------------------------------------- changing


class _Draft:
    """Copy of vars that is being changed. A dict is copied before its first change."""

    __slots__ = ("_own", "root")

    def __init__(self, vars: Mapping[str, Any]) -> None:  # noqa: A002
        self.root = dict(vars)
        self._own = {id(self.root): self.root}

    def set(self, path: Path, value: Any) -> None:
        self._parent(path, "vars.set")[path[-1]] = value

    def merge(self, path: Path, value: Any) -> None:
        parent = self._parent(path, None)
        if value != {} or not isinstance(parent.get(path[-1]), dict):
            parent[path[-1]] = value

    def incr(self, path: Path, by: float) -> None:
        parent = self._parent(path, "vars.incr")
        old = parent.get(path[-1], 0)
        if not is_number(old):
            raise VarsError(f"vars.incr: {shown(path)} holds {described(old)}, not a finite number")
        try:
            new = old + by
        except OverflowError:
            new = math.inf
        if not is_number(new):
            raise VarsError(f"vars.incr: the sum for {shown(path)} is too large for a number")
        parent[path[-1]] = new

    def unset(self, path: Path) -> None:
        here: Any = self.root
        for segment in path:
            if not isinstance(here, dict) or segment not in here:
                return
            here = here[segment]
        while path:
            parent = self._parent(path, None)
            del parent[path[-1]]
            path = () if parent else path[:-1]

    def _parent(self, path: Path, refuse: str | None) -> dict[str, Any]:
        """Return the dict of the last segment, which may be changed.

        A value on the way that is no object is replaced, or refused in the name of an operation.
        """
        here = self.root
        for depth, segment in enumerate(path[:-1], 1):
            child = here.get(segment, {})
            if not isinstance(child, dict):
                if refuse:
                    raise VarsError(
                        f"{refuse}: {shown(path)} has no place: {shown(path[:depth])} holds"
                        f" {described(child)}, not an object"
                    )
                child = {}
            child = self._owned(child)
            here[segment] = child
            here = child
        return here

    def _owned(self, value: dict[str, Any]) -> dict[str, Any]:
        if id(value) not in self._own:
            value = dict(value)
            self._own[id(value)] = value
        return value


class _Operation(NamedTuple):
    read: Callable[[str, Mapping[str, Any]], list[Step]]
    change: Callable[..., None]


_OPERATIONS = {
    "set": _Operation(read_set, _Draft.set),
    "merge": _Operation(read_merge, _Draft.merge),
    "incr": _Operation(read_incr, _Draft.incr),
    "unset": _Operation(read_unset, _Draft.unset),
}
