"""Limits of one evaluation: steps for time, bytes for memory."""

from collections.abc import Callable
from typing import Any

from flowkit._expressions.errors import BudgetExceeded, EvaluationError

CHARACTERS_A_STEP = 64
"""Characters that a string operation handles in about the time of one step."""
MAX_TEXT = 1024 * 1024
"""Maximum length of a string that a function processes character by character.

One call blocks the interpreter for some milliseconds at most.
"""
ELEMENT_BYTES = 64
"""Memory charged for each element of a new list and each entry of a new map."""

CONVERSION_STEPS = 10
"""Charged for formatting or parsing a number, and twice for a timestamp or duration."""
ERROR_STEPS = 20
"""Charged for an error that an operator or loop ignores, because raising it takes time."""


class Budget:
    """Limit and usage of one evaluation.

    Each iteration of a loop is charged the size of the loop's body. Each function is charged the
    elements and characters that it handles, before it handles them. Code outside of loops is
    bounded by the length of the expression and is free.


    ``pause`` is called every ``pause_every`` steps. If it raises, the evaluation ends.
    """

    __slots__ = ("_floor", "_memory", "_pause", "_pause_every", "_steps", "_total", "patterns")

    def __init__(
        self,
        steps: int,
        memory: int,
        *,
        pause: Callable[[], None] | None = None,
        pause_every: int = 5_000,
    ) -> None:
        self._total = self._steps = steps
        self._memory = memory
        self._pause = pause
        self._pause_every = pause_every
        self._floor = 0 if pause is None else max(steps - pause_every, 0)
        self.patterns: dict[str, Any] = {}
        """Patterns compiled and paid for in this evaluation."""

    @property
    def used(self) -> int:
        """Steps used so far, without those that exceeded the budget."""
        return min(self._total - self._steps, self._total)

    def spend(self, steps: int) -> None:
        """Charge steps.

        Raises:
            BudgetExceeded: fewer steps are left.
        """
        self._steps -= steps
        if self._steps < self._floor:
            self._pass_floor()

    def handle_text(self, characters: int) -> None:
        """Charge reading this many characters or bytes."""
        self.spend(1 + characters // CHARACTERS_A_STEP)

    def scan_text(self, characters: int) -> None:
        """Charge a function that processes each of these characters or bytes.

        Raises:
            EvaluationError: there are too many.
        """
        if characters > MAX_TEXT:
            raise EvaluationError(
                f"a string of {characters} characters is too long for a function; the limit is"
                f" {MAX_TEXT}"
            )
        self.handle_text(characters)

    def allocate(self, size: int) -> None:
        """Charge memory for a new value.

        Raises:
            BudgetExceeded: less memory is left.
        """
        self._memory -= size
        if self._memory < 0:
            raise BudgetExceeded("the evaluation exceeds its memory limit")

    def make_text(self, characters: int) -> None:
        """Charge a new string of this length."""
        self.spend(1 + characters // CHARACTERS_A_STEP)
        self.allocate(4 * characters)

    def make_elements(self, count: int) -> None:
        """Charge a new list or map of this many elements."""
        self.spend(count)
        self.allocate(ELEMENT_BYTES * count)

    def _pass_floor(self) -> None:
        if self._steps < 0:
            raise BudgetExceeded(f"the evaluation exceeds its limit of {self._total:,} steps")
        if self._pause is not None:
            self._pause()
        self._floor = max(self._steps - self._pause_every, 0)
