"""Waiting for changes of tasks, which this process or another makes."""

import asyncio
import sqlite3
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import anyio

from flowkit.errors import FlowKitError
from flowkit.protocols import Commit
from flowkit_sqlite._column_forms import COLUMNS
from flowkit_sqlite._context import Context
from flowkit_sqlite._jobs import is_brief
from flowkit_sqlite._wakeups import Listener

STATE = "SELECT version, finished_at FROM tasks WHERE namespace = ? AND task_id = ?"
OWN_CHANGE = "a change of this process"
"""News for watchers. The one in this process ignores them."""
REST = 3
"""The pause after a look at the waiters' tasks is this multiple of its duration."""
LONGEST_REST_SEC = 1.0


@dataclass(frozen=True, slots=True)
class State:
    """The part of a task that waiters compare."""

    version: int
    ended: bool


@dataclass(slots=True)
class _Batch:
    """Tasks whose states are read together."""

    task_ids: set[str] = field(default_factory=set)
    states: dict[str, State] | None = None


@dataclass(slots=True, eq=False)
class _Waiter:
    version: int
    ended: bool
    listener: Listener
    is_met: bool = False
    """Whether the watcher has found that the wait is over."""

    def is_met_by(self, state: State | None) -> bool:
        """Return whether the wait is over. It is for a task that does not exist."""
        return state is None or (state.version > self.version and (state.ended or not self.ended))


def notify_commits(context: Context, commits: Collection[Commit]) -> None:
    """Wake the waiters for applied commits. Call it in the job that applies them."""
    if commits:
        _notify_others(context)
    for commit in commits:
        context.database.notify(_channel(context, commit.task_id, ended=False))
        if commit.finished_at is not None:
            context.database.notify(_channel(context, commit.task_id, ended=True))


def notify_purge(context: Context, task_ids: Iterable[str]) -> None:
    """Wake the waiters for deleted tasks. Call it in the job that deletes them."""
    _notify_others(context)
    for task_id in task_ids:
        for ended in (False, True):
            context.database.notify(_channel(context, task_id, ended=ended))


def _notify_others(context: Context) -> None:
    """Notify the watchers of other processes that tasks have changed."""
    context.database.notify(_watched_channel(context), OWN_CHANGE)


def _watched_channel(context: Context) -> str:
    return f"tasks:{context.namespace}"


def _channel(context: Context, task_id: str, *, ended: bool) -> str:
    return f"{'end' if ended else 'task'}:{context.namespace}:{task_id}"


class Changes:
    """Waiters for changes of tasks.

    A commit of this process wakes the waiters for its task. After commits of tasks by other
    processes, one query looks at the tasks of all waiters.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiters: defaultdict[str, set[_Waiter]] = defaultdict(set)
        self._watcher: asyncio.Task[None] | None = None
        self._next = _Batch()
        self._reading = anyio.Lock()

    async def __aenter__(self) -> Self:
        self._watcher = asyncio.create_task(self._watch(), name="flowkit-sqlite-changes")
        return self

    async def __aexit__(self, *exc: object) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher

    async def wait(self, task_id: str, version: int, *, ended: bool) -> None:
        """Return soon after the task's stored version is above ``version``, or the task is gone.

        With ``ended``, wait until the task has also ended.
        """
        channel = _channel(self._context, task_id, ended=ended)
        with self._context.database.listen(channel, others=False) as listener:
            waiter = _Waiter(version, ended, listener)
            with self._added(task_id, waiter):
                while not (waiter.is_met or waiter.is_met_by(await self._state(task_id))):
                    await listener.wait()

    @contextmanager
    def _added(self, task_id: str, waiter: _Waiter) -> Iterator[None]:
        self._waiters[task_id].add(waiter)
        try:
            yield
        finally:
            self._waiters[task_id].discard(waiter)
            if not self._waiters[task_id]:
                del self._waiters[task_id]

    async def _state(self, task_id: str) -> State | None:
        """Return a task's state, read together with those that are requested meanwhile."""
        batch = self._next
        batch.task_ids.add(task_id)
        async with self._reading:
            if batch.states is None:
                if batch is self._next:
                    self._next = _Batch()
                batch.states = await self._read(batch.task_ids)
        return batch.states.get(task_id)

    async def _read(self, task_ids: Collection[str]) -> dict[str, State]:
        namespace = self._context.namespace
        return await self._context.read(
            partial(_states, namespace=namespace, task_ids=task_ids), brief=is_brief(len(task_ids))
        )

    async def _watch(self) -> None:
        """Wake the waiters whose tasks other processes have changed.

        They do not read the states again, so those of a task go on in the same turn of the event
        loop, and read the task together.
        """
        database, channel = self._context.database, _watched_channel(self._context)
        # The channels of single tasks wake the waiters of this process for its own commits.
        with database.listen(channel, named=True, deliver=lambda _: True) as listener:
            while True:
                await listener.wait()
                began = time.monotonic()
                if self._waiters:
                    await self._wake_changed()
                took = time.monotonic() - began
                await asyncio.sleep(min(took * REST, LONGEST_REST_SEC))

    async def _wake_changed(self) -> None:
        task_ids = set(self._waiters)
        states: dict[str, State] | None
        try:
            states = await self._read(task_ids)
        except FlowKitError:
            # Each waiter then reads the state of its task, and raises its own error.
            states = None
        for task_id in task_ids:
            for waiter in self._waiters.get(task_id, ()):
                if states is not None:
                    waiter.is_met = waiter.is_met_by(states.get(task_id))
                if states is None or waiter.is_met:
                    waiter.listener.wake()


def _states(
    connection: sqlite3.Connection, *, namespace: str, task_ids: Collection[str]
) -> dict[str, State]:
    """Return the states of the tasks that exist.

    A task whose version is damaged is left out, so that its waiters load it and see the fault.
    """
    found = {}
    for task_id in task_ids:
        row = connection.execute(STATE, (namespace, task_id)).fetchone()
        if row is not None and COLUMNS["tasks"]["version"].fits(row[0]):
            found[task_id] = State(row[0], row[1] is not None)
    return found
