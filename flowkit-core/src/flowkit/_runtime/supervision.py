"""The loops of coordinators and workers: they are restarted if they break, and only their owner
ends them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio

from flowkit._runtime.backoff import Backoff
from flowkit._runtime.outage_notices import notices_of
from flowkit._user_code.containment import Escaped, awaited, is_cancelled
from flowkit.protocols import Clock

logger = logging.getLogger(__name__)


def owner_leaves(scope: anyio.CancelScope) -> Callable[[], bool]:
    """Return a function that says whether the owner of the current task cancels it.

    The owner cancels ``scope``, or is the task that calls this and is cancelled itself. Any other
    cancellation is foreign code's.
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
    """Run a loop to its end. A loop that breaks is restarted after a pause, except while ``once``
    returns True.

    ``ending`` says whether the loop's owner cancels it; nothing that the loop calls does.
    """
    backoff, notices = Backoff(), notices_of(clock)
    while True:
        try:
            return await awaited(loop(), ending=ending)
        except Exception as error:
            if once():
                raise
            what = f"The {name} loop broke and is restarted"
            notices.trouble(
                logger, ("loop", name), what, error, action="loop_restarted", level=logging.ERROR
            )
            with suppress(Escaped):
                await awaited(clock.sleep(backoff.next_sec()), ending=ending)
