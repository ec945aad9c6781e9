"""Load of small flows, which is checked for lost and repeated nodes afterwards."""

import uuid
from collections.abc import Awaitable, Callable

import anyio

from flowkit import Client
from flowkit.errors import StoreUnavailable
from tests.builders import chain
from tests.services.support import ends_of, events_of

FLOW = chain("work", "work", "work")
ENDS = {name: ["finished"] for name in ("n0", "n1", "n2", "")}
LIMIT_SEC = 100
"""Longest time without the end of any task."""

Disaster = Callable[[], Awaitable[object]]


class Load:
    """Clients that each submit a flow, wait for its end, and submit the next."""

    def __init__(self, client: Client, *, clients: int = 4) -> None:
        self._client = client
        self._clients = clients
        self._enough = False
        self._finished = anyio.Event()
        self.submitted: list[str] = []
        self.ended: list[str] = []
        self.outages = 0

    async def _keep_on(self) -> None:
        while not self._enough:
            task_id = uuid.uuid4().hex
            self.submitted.append(task_id)
            while True:
                try:
                    # The same id again: a task that was stored before its answer was lost is not
                    # stored twice.
                    await self._client.create_task(graph=FLOW, task_id=task_id)
                    view = await self._client.wait(task_id)
                    break
                except StoreUnavailable:
                    self.outages += 1
            assert view.status == "finished", view
            self.ended.append(task_id)
            self._finished.set()
            self._finished = anyio.Event()

    async def more(self, count: int) -> None:
        """Wait until ``count`` more tasks have finished."""
        wanted = len(self.ended) + count
        while len(self.ended) < wanted:
            with anyio.fail_after(LIMIT_SEC):
                await self._finished.wait()

    async def through(self, *disasters: Disaster) -> None:
        """Keep up the load through disasters.

        Check that tasks finish after each of them, and that each node ended exactly once.
        """
        async with anyio.create_task_group() as group:
            for _ in range(self._clients):
                group.start_soon(self._keep_on)
            for disaster in disasters:
                await self.more(10)
                await disaster()
            await self.more(25)
            self._enough = True
        assert sorted(self.ended) == sorted(self.submitted)
        for task_id in self.submitted:
            events = await events_of(self._client, task_id)
            assert ends_of(events) == ENDS, events
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
