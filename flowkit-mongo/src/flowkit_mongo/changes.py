"""Waiting for tasks to change: one of those who wait looks for all of them."""

import sys
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import anyio

State = tuple[int, bool]
"""The version of a task, and whether it has ended."""
States = Callable[[Collection[str]], Awaitable[Mapping[str, State]]]

GONE: State = (sys.maxsize, True)
REST = 3
"""A look is followed by a pause of at least so many times its length."""


@dataclass(slots=True, eq=False)
class _Waiter:
    task_id: str
    version: int
    ended: bool
    woken: anyio.Event = field(default_factory=anyio.Event)
    """Set when the task has changed, or when this waiter is to look for all."""
    asked: bool = False
    done: bool = False

    def is_met_by(self, state: State | None) -> bool:
        return state is not None and state[0] > self.version and (state[1] or not self.ended)


class Changes:
    """Who waits for what. However many wait, there is one query at a time, at a pace that slows down while nothing changes."""

    def __init__(self, states: States, *, min_sec: float, max_sec: float) -> None:
        self._states = states
        self._min_sec, self._max_sec = min_sec, max_sec
        self._waiters: dict[_Waiter, None] = {}
        self._looking = False
        self._fresh = anyio.Event()
        self._pause = min_sec
        self._next_look = 0.0

    async def wait(self, task_id: str, version: int, *, ended: bool = False) -> None:
        """Return soon after the stored version is above ``version`` (and the task has ended, if asked), or there is no such task."""
        me = _Waiter(task_id, version, ended)
        self._waiters[me] = None
        self._fresh.set()
        try:
            while not me.done:
                if self._looking:
                    await me.woken.wait()
                    me.woken = anyio.Event()
                else:
                    await self._look_for_all(me)
        finally:
            del self._waiters[me]
            if not self._looking:
                self._wake_heir()

    def committed(self, states: Iterable[tuple[str, State]]) -> None:
        """Tell those in this process who wait for a change that was made in it."""
        if self._waiters:
            self._tell(dict(states))

    async def _look_for_all(self, me: _Waiter) -> None:
        self._looking = True
        try:
            while not me.done:
                self._fresh = anyio.Event()
                await self._look()
                if not me.done:
                    # A newcomer is looked for at once: what it waits for may have happened already.
                    with anyio.move_on_after(max(self._next_look - time.monotonic(), 0)):
                        await self._fresh.wait()
        finally:
            self._looking = False

    async def _look(self) -> None:
        """Ask for everybody if it is time, else for the newcomers."""
        began = time.monotonic()
        everybody = began >= self._next_look
        asked = [waiter for waiter in self._waiters if everybody or not waiter.asked]
        if not asked:
            return
        found = await self._states({waiter.task_id for waiter in asked})
        for waiter in asked:
            waiter.asked = True
        changed = self._tell({waiter.task_id: found.get(waiter.task_id, GONE) for waiter in asked})
        if everybody:
            self._pause = self._min_sec if changed else min(self._pause * 1.5, self._max_sec)
            ended = time.monotonic()
            self._next_look = ended + max(self._pause, REST * (ended - began))

    def _tell(self, states: Mapping[str, State]) -> bool:
        changed = [waiter for waiter in self._waiters if not waiter.done and waiter.is_met_by(states.get(waiter.task_id))]
        for waiter in changed:
            waiter.done = True
            waiter.woken.set()
        if changed:
            self._fresh.set()
        return bool(changed)

    def _wake_heir(self) -> None:
        heir = next((waiter for waiter in self._waiters if not waiter.done), None)
        if heir is not None:
            heir.woken.set()
