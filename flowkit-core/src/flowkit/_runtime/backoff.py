"""Retry loop with backoff."""

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

FIRST_PAUSE_SEC = 0.05
LONGEST_PAUSE_SEC = 5.0


class Backoff:
    """Pauses that double up to a longest one."""

    __slots__ = ("_first", "_full_jitter", "_longest", "_next")

    def __init__(
        self,
        *,
        first_sec: float = FIRST_PAUSE_SEC,
        longest_sec: float = LONGEST_PAUSE_SEC,
        full_jitter: bool = False,
    ) -> None:
        """With ``full_jitter``, each pause is a random part of its length, so that many clients do
        not retry at the same moment.
        """
        self._next = self._first = first_sec
        self._longest = longest_sec
        self._full_jitter = full_jitter

    def reset(self) -> None:
        """Continue with the first pause."""
        self._next = self._first

    def next_sec(self) -> float:
        """Return the length of the next pause."""
        pause = self._next
        self._next = min(pause * 2, self._longest)
        return random.uniform(0, pause) if self._full_jitter else pause


async def retry(
    call: Callable[[], Awaitable[T]],
    *,
    on: Callable[[Exception], bool],
    sleep: Callable[[float], Awaitable[None]],
    backoff: Backoff | None = None,
    patience_sec: float | None = None,
    max_calls: int | None = None,
    on_retry: Callable[[Exception], None] | None = None,
) -> T:
    """Return the result of a call, which is repeated after each error for which ``on`` is true.

    Args:
        call: It must be harmless to repeat.
        on: Whether to call again after this error; any other error is raised.
        sleep: Pause between two calls: ``sleep`` of the clock that the caller was given.
        backoff: The lengths of the pauses.
        patience_sec: Raise the error once the pauses together are this long.
        max_calls: Raise the error of this call.
        on_retry: Called with each error before the pause that follows it.
    """
    paused_sec, calls = 0.0, 0
    while True:
        calls += 1
        try:
            return await call()
        except Exception as error:
            is_last = calls == max_calls or (
                patience_sec is not None and paused_sec >= patience_sec
            )
            if is_last or not on(error):
                raise
            if on_retry is not None:
                on_retry(error)
        if backoff is None:
            backoff = Backoff()
        pause = backoff.next_sec()
        await sleep(pause)
        paused_sec += pause


__all__ = ["Backoff", "retry"]
