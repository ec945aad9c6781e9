"""Waiting for changes of tasks: one of the waiters queries the store for all of them."""

import sys
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import anyio


@dataclass(frozen=True, slots=True)
class State:
    """The part of a task that waiters compare."""

    version: int
    ended: bool


States = Callable[[Collection[str]], Awaitable[Mapping[str, State]]]
"""Reads the states of tasks, by id; tasks that do not exist are left out."""

GONE = State(sys.maxsize, ended=True)
"""State of a task that does not exist: all its waiters return."""
REST, LONGEST_REST_SEC = 3, 1.0
"""The pause after a query is at least this multiple of its duration, up to this time. A query that
the server did not answer for long says nothing about its cost.
"""
SLOWDOWN = 1.5


@dataclass(slots=True, eq=False)
class _Waiter:
    task_id: str
    version: int
    ended: bool
    woken: anyio.Event = field(default_factory=anyio.Event)
    """Set when the task has changed, or when this waiter has to query for all."""
    done: bool = False

    def is_met_by(self, state: State) -> bool:
        return state.version > self.version and (state.ended or not self.ended)


def rest_sec(took_sec: float) -> float:
    """Return the least pause after a query that took this long."""
    return min(REST * took_sec, LONGEST_REST_SEC)


class Changes:
    """Waiters for changes of tasks.

    For any number of waiters, there is one query at a time. Its interval grows while nothing
    changes.
    """

    def __init__(self, states: States, *, min_sec: float, max_sec: float) -> None:
        self._states = states
        self._min_sec, self._max_sec = min_sec, max_sec
        self._waiters: dict[str, dict[_Waiter, None]] = {}
        """Waiters by task, so that a change costs only as much as its own waiters."""
        self._open: dict[_Waiter, None] = {}
        """Waiters that have not been notified yet, in the order of their arrival."""
        self._newcomers: dict[_Waiter, None] = {}
        """Waiters whose tasks have not been queried yet."""
        self._querying = False
        self._fresh = anyio.Event()
        """Set when a waiter arrives or is notified."""
        self._pause = min_sec
        self._next_query = 0.0

    async def wait(self, task_id: str, version: int, *, ended: bool = False) -> None:
        """Return soon after the task's stored version is above ``version``, or the task is gone.

        With ``ended``, wait until the task has also ended.
        """
        me = _Waiter(task_id, version, ended)
        self._add(me)
        try:
            while not me.done:
                if self._querying:
                    await me.woken.wait()
                    me.woken = anyio.Event()
                else:
                    await self._query_for_all(me)
        finally:
            self._remove(me)
            if not self._querying:
                self._wake_successor()

    def committed(self, states: Iterable[tuple[str, State]]) -> None:
        """Notify the waiters in this process of commits of this process."""
        if self._open:
            self._notify(states)

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

    async def _query_for_all(self, me: _Waiter) -> None:
        self._querying = True
        try:
            while not me.done:
                self._fresh = anyio.Event()
                await self._query()
                if not me.done:
                    # Query for a newcomer at once: its change may already have happened.
                    with anyio.move_on_after(max(self._next_query - time.monotonic(), 0)):
                        await self._fresh.wait()
        finally:
            self._querying = False

    async def _query(self) -> None:
        """Query for all waiters if it is time, else for the newcomers."""
        began = time.monotonic()
        for_all = began >= self._next_query
        asked = list(self._open if for_all else self._newcomers)
        if not asked:
            return
        task_ids = {waiter.task_id for waiter in asked}
        found = await self._states(task_ids)
        for waiter in asked:
            self._newcomers.pop(waiter, None)
        changed = self._notify((task_id, found.get(task_id, GONE)) for task_id in task_ids)
        if for_all:
            self._pause = self._min_sec if changed else min(self._pause * SLOWDOWN, self._max_sec)
            ended = time.monotonic()
            self._next_query = ended + max(self._pause, rest_sec(ended - began))

    def _notify(self, states: Iterable[tuple[str, State]]) -> bool:
        """Notify the waiters whose condition is met, and return whether there were any."""
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

    def _wake_successor(self) -> None:
        successor = next(iter(self._open), None)
        if successor is not None:
            successor.woken.set()
