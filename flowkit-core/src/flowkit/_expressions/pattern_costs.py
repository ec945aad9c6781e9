"""Upper estimates of the cost of a regular expression, made before it is compiled.

The tokens are those of Rust's ``regex``. The engine itself rejects a pattern in which they are in
the wrong order.
"""

import re
from dataclasses import dataclass

from flowkit._expressions.errors import EvaluationError

MAX_STATES = 10_000
"""Maximum number of states of a pattern with its repetitions expanded."""
MAX_WEIGHT = 20_000
"""Maximum weight of compiling a pattern.

A weight of 1 is about a microsecond, during which the engine blocks the interpreter.
"""
PATTERN_WEIGHT = 100
"""Weight of compiling the shortest pattern."""
REPEAT_WEIGHT = 10
"""Weight of a repetition or alternative; the engine extracts literals from each."""
READ_WEIGHT = 25
"""Weight of checking the shortest pattern without compiling it."""
CLASS_WEIGHTS = {"w": 450, "W": 450, "p": 500, "P": 500, "d": 60, "D": 80, "s": 10, "S": 15}
"""Weights of classes of Unicode characters, by the letter after the backslash."""
CODES_A_WEIGHT = 200
"""Characters of a range that the engine visits per unit of weight if case is ignored."""
ALL_CODES = 0x110000
BOUNDARY_FACTOR = 4
"""Slowdown by word boundaries for a text that is not ASCII."""

_COMPLEMENTS = frozenset("WDSP")
_CODES = frozenset("xuU")
_ESCAPE = r"\\(?:([pP])(?:\{[^}]*\}|.)|([xuU])\{[^}]*\}|(.))"
_ATOM = re.compile(_ESCAPE + r"|\[(\^?)\]?|.", re.DOTALL)
_IN_CLASS = re.compile(_ESCAPE + r"|\[:\^?[a-z]*:\]|\[(\^?)\]?|.", re.DOTALL)
_GROUP = re.compile(r"\(\?P?<[^>]*>|\(\?([a-zA-Z-]*)([:)])|\(")
_REPEAT = re.compile(r"[*+?]|\{\s*([0-9]*)\s*(?:,\s*([0-9]*)\s*)?\}")
_IGNORES_CASE = re.compile(r"\(\?[a-zA-Z]*i")


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a pattern.

    ``states`` is charged for each character of a search, ``weight`` to compile the pattern, and
    ``reading`` to check it.
    """

    states: int
    states_beyond_ascii: int
    """States for each character of a text that is not ASCII."""
    weight: int
    reading: int


class _Estimate:
    """One pass over a pattern.

    A counted repetition multiplies the part before it: an atom, or a group with all its parts.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._place = 0
        self._ignores_case = _IGNORES_CASE.search(pattern) is not None
        self._groups = [(1, PATTERN_WEIGHT + 2 * len(pattern))]
        self._last = (0, 0)
        self._extra = 0
        self._has_boundary = False
        self._reading = READ_WEIGHT + len(pattern) // 4

    def cost(self) -> Cost:
        while self._place < len(self._pattern):
            if (repeat := _REPEAT.match(self._pattern, self._place)) is not None:
                self._repeat(repeat)
            elif (group := _GROUP.match(self._pattern, self._place)) is not None:
                self._open(group)
            elif self._pattern[self._place] == ")":
                self._close()
            else:
                self._atom()
        states, weight = map(sum, zip(*self._groups, strict=True))
        return Cost(
            states,
            states * BOUNDARY_FACTOR if self._has_boundary else states,
            weight + self._extra,
            self._reading,
        )

    def _repeat(self, repeat: re.Match[str]) -> None:
        self._place = repeat.end()
        self._extra += REPEAT_WEIGHT
        times = max(int(repeat[1] or 0), int(repeat[2] or 0), 1)
        states, weight = self._last
        self._add(states * (times - 1), weight * (times - 1))
        self._last = (states * times, weight * times)

    def _open(self, group: re.Match[str]) -> None:
        self._place = group.end()
        if "x" in (group[1] or ""):
            raise EvaluationError("the pattern of matches() has the flag x, which is not supported")
        self._last = (0, 0)
        if group[2] != ")":
            self._groups.append((0, 1))

    def _close(self) -> None:
        if len(self._groups) == 1:
            raise EvaluationError("the pattern of matches() is not valid: unopened group")
        self._place += 1
        self._last = self._groups.pop()
        self._add(*self._last)

    def _atom(self) -> None:
        atom = _ATOM.match(self._pattern, self._place)
        assert atom is not None
        self._place = atom.end()
        text = atom[0]
        self._has_boundary |= atom[3] is not None and atom[3] in "bB<>"
        if text == "|":
            self._extra += REPEAT_WEIGHT
        weight = self._class(atom) if text[0] == "[" else 6 if text == "." else self._weigh(atom)
        if self._ignores_case:
            weight = min(3 * weight, weight + 150)
        self._last = (1, weight)
        self._add(*self._last)

    def _class(self, opening: re.Match[str]) -> int:
        """Return the weight of a bracketed class, which may contain other classes."""
        weight, depth, codes, turns = 8 if opening[4] else 1, 1, 0, 1
        before = ""
        while depth and self._place < len(self._pattern):
            item = _IN_CLASS.match(self._pattern, self._place)
            assert item is not None
            self._place = item.end()
            text = item[0]
            if item[4] is not None:
                depth, turns, codes = depth + 1, turns + 1, codes + ALL_CODES
            turns += text in ("&", "~", "-") and text == before
            depth -= text == "]"
            codes += (
                self._width(before)
                if text == "-"
                else ALL_CODES
                if (item[1] or item[3]) in _COMPLEMENTS
                else 0
            )
            weight += (
                8
                if item[4] is not None
                or item[2] is not None
                or item[3] in _CODES
                or not text.isascii()
                else self._weigh(item)
            )
            before = text
        if self._ignores_case:
            self._extra += turns * codes // CODES_A_WEIGHT
            self._reading += turns * codes // CODES_A_WEIGHT
        return weight

    def _width(self, first: str) -> int:
        """Return the number of characters from ``first`` to the next one, if they form a range."""
        last = self._pattern[self._place : self._place + 1]
        if first[:1] == "\\" or last == "\\" or not first or not last:
            return ALL_CODES
        return max(ord(last) - ord(first[-1]), 0)

    def _weigh(self, item: re.Match[str]) -> int:
        letter = item[1] or item[3]
        if letter not in CLASS_WEIGHTS:
            return 1
        self._reading += (20 if item[1] else 5) * (10 if self._ignores_case else 1)
        return CLASS_WEIGHTS[letter]

    def _add(self, states: int, weight: int) -> None:
        self._groups[-1] = (self._groups[-1][0] + states, self._groups[-1][1] + weight)


def cost(pattern: str) -> Cost:
    """Estimate the cost of a pattern.

    Raises:
        EvaluationError: the pattern is too large or contains an unsupported part.
    """
    found = _Estimate(pattern).cost()
    if found.states > MAX_STATES or found.weight > MAX_WEIGHT:
        raise EvaluationError(
            "the pattern of matches() is too large; use fewer and smaller repetitions"
        )
    return found
