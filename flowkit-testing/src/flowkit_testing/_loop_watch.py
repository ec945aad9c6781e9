"""Detection of work of an asyncio event loop other than waiting for virtual time."""

import asyncio
import threading
from asyncio import futures
from typing import Any

import anyio.to_thread

_SLEEP_WITHIN_SEC = 30.0
_DEADLINE_WITHIN_SEC = 0.25


class LoopWatch:
    """Inspector of an event loop.

    asyncio has no public way to ask what a loop waits for. All private attributes that are read are
    in this module, and each is optional: without one (as in uvloop), that part of the answer is
    "nothing" or "unknown".
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Any = loop
        self._descriptors = self._open_descriptors()

    def something_can_run(self) -> bool | None:
        """Tell whether other callbacks wait to run; None if this is unknown."""
        ready = getattr(self._loop, "_ready", None)
        return None if ready is None else bool(ready)

    def something_real_is_going_on(self) -> bool:
        """Tell whether a timer, a thread, a socket or a subprocess will soon wake the loop."""
        return (
            self._timer_is_near()
            or anyio.to_thread.current_default_thread_limiter().borrowed_tokens > 0
            or self._executor_works()
            or bool(self._open_descriptors() - self._descriptors)
            # Python 3.11 waits for subprocesses in this way; later versions have a file descriptor
            # for each. Its first releases named the threads without "asyncio-".
            or any("waitpid-" in thread.name for thread in threading.enumerate())
        )

    def _timer_is_near(self) -> bool:
        """Tell whether a timer is a sleep in progress.

        A deadline around a whole test does not count, unless it is about to expire.
        """
        sleep: Any = getattr(futures, "_set_result_unless_cancelled", None)
        now = self._loop.time()
        for handle in getattr(self._loop, "_scheduled", ()):
            if not handle.cancelled():
                within = (
                    _SLEEP_WITHIN_SEC
                    if getattr(handle, "_callback", None) is sleep
                    else _DEADLINE_WITHIN_SEC
                )
                if handle.when() - now < within:
                    return True
        return False

    def _executor_works(self) -> bool:
        executor = getattr(self._loop, "_default_executor", None)
        idle = getattr(getattr(executor, "_idle_semaphore", None), "_value", None)
        return idle is not None and len(getattr(executor, "_threads", ())) > idle

    def _open_descriptors(self) -> set[int]:
        selector = getattr(self._loop, "_selector", None)
        get_map = getattr(selector, "get_map", None)
        return set(get_map() or ()) if get_map is not None else set()
