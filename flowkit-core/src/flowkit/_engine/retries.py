"""Whether and when a failed attempt is made again: a pure function of the policy and the
history.
"""

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
    """Seconds until the next attempt, or None if there is to be none.

    The pause before retry n is ``backoff_sec * multiplier ** (n - 1)``, at most
    ``max_backoff_sec``, spread by ``jitter`` to both sides. Where it falls in the spread is read
    off the failed attempt's ``token``, which is as good as random and the same for whoever works it
    out. ``spent_sec`` is the time since the first attempt was issued.
    """
    if permanent or reason_code in policy.permanent_on or attempts_made > policy.max:
        return None
    try:
        delay: float = policy.backoff_sec * policy.multiplier ** (attempts_made - 1)
    except OverflowError:
        delay = policy.max_backoff_sec
    delay = min(delay, policy.max_backoff_sec)
    unit = int(token[:_JITTER_DIGITS], 16) / (16**_JITTER_DIGITS - 1)
    delay = min(delay * (1 + policy.jitter * (2 * unit - 1)), policy.max_backoff_sec)
    if policy.budget_sec is not None and spent_sec + delay > policy.budget_sec:
        return None
    return delay
