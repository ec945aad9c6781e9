"""Supervision of background loops: a loop that breaks is restarted, and only its owner ends it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio

from flowkit._runtime.backoff import retry
from flowkit._runtime.outage_notices import notices_of
from flowkit._user_code.containment import Escaped, awaited, is_cancelled
from flowkit.protocols import Clock

logger = logging.getLogger(__name__)


def owner_leaves(scope: anyio.CancelScope) -> Callable[[], bool]:
    """Return a function that tests whether the owner of the current task cancels it.

    The owner cancels ``scope``, or is the task that calls this and is cancelled itself. Any other
    cancellation comes from foreign code.
    """
    owner = asyncio.current_task()
    return lambda: (
        is_cancelled() and (scope.cancel_called or (owner is not None and owner.cancelling() > 0))
    )


async def keep_alive(
    name: str,
    loop: Callable[[], Awaitable[None]],
    *,
    clock: Clock,
    ending: Callable[[], bool],
    once: Callable[[], bool] = lambda: False,
) -> None:
    """Run a loop to its end, and restart it after a pause when it breaks.

    Args:
        name: The name of the loop in log lines.
        loop: The loop.
        clock: Measures the pauses.
        ending: Whether the owner of the loop cancels it. Nothing that the loop calls can end it.
        once: While this returns True, an error of the loop is raised and the loop not restarted.
    """
    notices = notices_of(clock)

    async def pause(seconds: float) -> None:
        with suppress(Escaped):
            await awaited(clock.sleep(seconds), ending=ending)

    def log(error: Exception) -> None:
        notices.trouble(
            logger,
            ("loop", name),
            f"The {name} loop broke and is restarted",
            error,
            action="loop_restarted",
            level=logging.ERROR,
        )

    await retry(
        lambda: awaited(loop(), ending=ending), on=lambda _: not once(), sleep=pause, on_retry=log
    )
