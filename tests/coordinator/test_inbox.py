"""Handling of the messages that a coordinator receives."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

import anyio
import pytest

from flowkit._dead_letters.unusable_messages import Parking
from flowkit._engine import Event
from flowkit.coordinator._report_inbox import read_reports
from flowkit.errors import BusUnavailable, StoreUnavailable
from flowkit.messages import TaskTouched, encode
from flowkit.plugins import Plugins
from flowkit.protocols import Delivery, Message, Subscription, TopicSpec
from flowkit_testing import InMemoryBus, InMemoryStore, ManualClock

NO_PLUGINS = Plugins(discover=False)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), BusUnavailable("away")])
async def test_reports_that_could_not_be_stored_come_again(error: Exception) -> None:
    seen: list[str] = []
    failing = [error]
    clock = ManualClock()

    async def handle(touched: Collection[str], events: Mapping[str, Sequence[Event]]) -> None:
        seen.extend(touched)
        if failing:
            raise failing.pop()

    async with InMemoryBus() as bus:
        await bus.ensure_topics([TopicSpec("events")])
        async with bus.subscribe(["events"], group="g", max_unacked=1) as subscription:

            async def read() -> None:
                while True:
                    try:
                        await read_reports(
                            subscription,
                            Parking(store=InMemoryStore(), clock=clock, plugins=NO_PLUGINS),
                            clock,
                            handle,
                        )
                    except StoreUnavailable:
                        continue

            with anyio.fail_after(60):
                async with clock.auto(), anyio.create_task_group() as group:
                    group.start_soon(read)
                    for task_id in ("one", "two"):
                        await bus.publish(
                            [Message("events", encode(TaskTouched(task_id=task_id)), key="k")]
                        )
                    while len(seen) < 3:
                        await anyio.sleep(0.01)
                    group.cancel_scope.cancel()
    assert seen == ["one", "one", "two"]


class RefusesReleases:
    """A subscription whose ``release`` fails a few times, as during an outage of the bus."""

    def __init__(self, inner: Subscription, times: int) -> None:
        self._inner = inner
        self.receive, self.ack, self.reject = inner.receive, inner.ack, inner.reject
        self.left = times

    async def release(self, deliveries: Collection[Delivery]) -> None:
        if self.left:
            self.left -= 1
            raise BusUnavailable("away")
        await self._inner.release(deliveries)


@pytest.mark.parametrize(
    "error", [StoreUnavailable("away"), BusUnavailable("away"), ValueError("a defect")]
)
async def test_reports_come_again_after_a_release_that_failed(error: Exception) -> None:
    seen: list[str] = []
    failing = [error]
    clock = ManualClock()

    async def handle(touched: Collection[str], events: Mapping[str, Sequence[Event]]) -> None:
        seen.extend(touched)
        if failing:
            raise failing.pop()

    async with InMemoryBus() as bus, bus.subscribe(["events"], group="g", max_unacked=1) as inner:
        subscription = RefusesReleases(inner, 3)

        async def read() -> None:
            while True:
                with suppress(StoreUnavailable, ValueError):
                    await read_reports(
                        subscription,
                        Parking(store=InMemoryStore(), clock=clock, plugins=NO_PLUGINS),
                        clock,
                        handle,
                    )

        with anyio.fail_after(60):
            async with clock.auto(), anyio.create_task_group() as group:
                group.start_soon(read)
                for task_id in ("one", "two"):
                    await bus.publish(
                        [Message("events", encode(TaskTouched(task_id=task_id)), key="k")]
                    )
                while len(seen) < 3:
                    await anyio.sleep(0.01)
                group.cancel_scope.cancel()
    assert (seen, subscription.left) == (["one", "one", "two"], 0)
