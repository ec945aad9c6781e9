"""Delay of the next attempt, from the retry policy and the history of a node."""

from flowkit.graph import RetryPolicy

_JITTER_DIGITS = 8


def retry_delay(
    policy: RetryPolicy,
    *,
    attempts_made: int,
    reason_code: str,
    permanent: bool,
    spent_sec: float,
    token: str,
) -> float | None:
    """Return the seconds until the next attempt, or None if there is none.

    The pause before retry n is ``backoff_sec * multiplier ** (n - 1)``, at most
    ``longest_backoff_sec``, changed at random by up to ``jitter`` in both directions. The random
    number is derived from the ``token`` of the failed attempt, so every process computes the same
    delay.
    ``spent_sec`` is the time since the first attempt was issued.
    """
    if permanent or reason_code in policy.permanent_on or attempts_made > policy.max:
        return None
    longest = policy.longest_backoff_sec
    try:
        delay: float = policy.backoff_sec * policy.multiplier ** (attempts_made - 1)
    except OverflowError:
        delay = longest
    delay = min(delay, longest)
    unit = int(token[:_JITTER_DIGITS], 16) / (16**_JITTER_DIGITS - 1)
    delay = min(delay * (1 + policy.jitter * (2 * unit - 1)), longest)
    if policy.budget_sec is not None and spent_sec + delay > policy.budget_sec:
        return None
    return delay
