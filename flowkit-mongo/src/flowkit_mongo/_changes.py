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
    done: bool = False

    def is_met_by(self, state: State) -> bool:
        return state[0] > self.version and (state[1] or not self.ended)


class Changes:
    """Who waits for what. However many wait, there is one query at a time, at a pace that slows
    down while nothing changes.
    """

    def __init__(self, states: States, *, min_sec: float, max_sec: float) -> None:
        self._states = states
        self._min_sec, self._max_sec = min_sec, max_sec
        self._waiters: dict[str, dict[_Waiter, None]] = {}
        """Those who wait, by the task, so that a change costs what its own waiters cost."""
        self._open: dict[_Waiter, None] = {}
        """Those who have not been told yet, in the order in which they came."""
        self._newcomers: dict[_Waiter, None] = {}
        """Those whose tasks were not asked for yet."""
        self._looking = False
        self._fresh = anyio.Event()
        self._pause = min_sec
        self._next_look = 0.0

    async def wait(self, task_id: str, version: int, *, ended: bool = False) -> None:
        """Return soon after the stored version is above ``version`` (and the task has ended, if
        asked), or there is no such task.
        """
        me = _Waiter(task_id, version, ended)
        self._add(me)
        try:
            while not me.done:
                if self._looking:
                    await me.woken.wait()
                    me.woken = anyio.Event()
                else:
                    await self._look_for_all(me)
        finally:
            self._remove(me)
            if not self._looking:
                self._wake_heir()

    def committed(self, states: Iterable[tuple[str, State]]) -> None:
        """Tell those in this process who wait for a change that was made in it."""
        if self._open:
            self._tell(states)

    def _add(self, waiter: _Waiter) -> None:
        self._waiters.setdefault(waiter.task_id, {})[waiter] = None
        self._open[waiter] = self._newcomers[waiter] = None
        self._fresh.set()

    def _remove(self, waiter: _Waiter) -> None:
        others = self._waiters.get(waiter.task_id, {})
        others.pop(waiter, None)
        if not others:
            self._waiters.pop(waiter.task_id, None)
        self._open.pop(waiter, None)
        self._newcomers.pop(waiter, None)

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
        asked = list(self._open if everybody else self._newcomers)
        if not asked:
            return
        task_ids = {waiter.task_id for waiter in asked}
        found = await self._states(task_ids)
        for waiter in asked:
            self._newcomers.pop(waiter, None)
        changed = self._tell((task_id, found.get(task_id, GONE)) for task_id in task_ids)
        if everybody:
            self._pause = self._min_sec if changed else min(self._pause * 1.5, self._max_sec)
            ended = time.monotonic()
            self._next_look = ended + max(self._pause, REST * (ended - began))

    def _tell(self, states: Iterable[tuple[str, State]]) -> bool:
        changed = [
            waiter
            for task_id, state in states
            for waiter in self._waiters.get(task_id, ())
            if not waiter.done and waiter.is_met_by(state)
        ]
        for waiter in changed:
            waiter.done = True
            waiter.woken.set()
            self._open.pop(waiter, None)
            self._newcomers.pop(waiter, None)
        if changed:
            self._fresh.set()
        return bool(changed)

    def _wake_heir(self) -> None:
        heir = next(iter(self._open), None)
        if heir is not None:
            heir.woken.set()
