"""Inbox of the reports of workers and the hints of clients."""

import logging
from collections.abc import Awaitable, Callable, Collection, Container, Mapping, Sequence
from functools import partial

from flowkit._dead_letters.unusable_messages import Parking
from flowkit._engine import Event
from flowkit._runtime.retries import notices_of, retry
from flowkit._user_code.containment import awaited, error_text, is_cancelled
from flowkit.errors import BusError, DecodeError
from flowkit.messages import (
    AskRun,
    CancelRun,
    RequestRuns,
    RunNode,
    RunsWaiting,
    ScheduleTouched,
    StreamMoved,
    StreamRead,
    TaskTouched,
    decode,
)
from flowkit.protocols import Clock, Delivery, Subscription

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 1000
PAUSE_SEC = 1.0
_FOR_WORKERS = (RunNode, CancelRun, AskRun, StreamMoved, StreamRead, RunsWaiting, RequestRuns)

Handle = Callable[[Collection[str], Mapping[str, Sequence[Event]]], Awaitable[None]]


async def read_reports(
    subscription: Subscription,
    parking: Parking,
    clock: Clock,
    handle: Handle,
    *,
    read_schedules: Callable[[], None] = lambda: None,
    ending: Callable[[], bool] = is_cancelled,
) -> None:
    """Pass reports and hints to ``handle``, and acknowledge them once they are stored. Park
    messages that cannot be decoded.

    ``read_schedules`` is called for hints that schedules were changed. Messages that were not
    stored are released, so that they are delivered again. ``ending`` returns
    True while the coordinator cancels this.
    """
    notices = notices_of(clock)
    while True:
        deliveries: Sequence[Delivery] = ()
        parked = set[int]()
        try:
            deliveries = await subscription.receive(max_messages=MOST_AT_ONCE)
            if notices.open:
                notices.over(logger, "reports")
            touched, events, refused, schedules = _sort(deliveries)
            if schedules:
                read_schedules()
            if refused:
                kept = await parking.keep(refused)
                for delivery, reason in refused:
                    await parking.reject(subscription, delivery, reason, kept=kept)
                    parked.add(id(delivery))
            await awaited(handle(touched, events), ending=ending)
            await subscription.ack(_without(parked, deliveries) if parked else deliveries)
        except BusError as error:
            notices.trouble(
                logger,
                "reports",
                "Reports cannot be read from the bus",
                error,
                action="bus_unavailable",
            )
            await clock.sleep(PAUSE_SEC)
            await _release(subscription, _without(parked, deliveries), clock)
        except Exception:
            await _release(subscription, _without(parked, deliveries), clock)
            raise


def _without(parked: Container[int], deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
    """Return the deliveries whose ids, as objects, are not in ``parked``."""
    return [delivery for delivery in deliveries if id(delivery) not in parked]


async def _release(
    subscription: Subscription, deliveries: Collection[Delivery], clock: Clock
) -> None:
    """Release deliveries, and try again until the bus accepts that.

    Deliveries that are neither acknowledged nor released would stay with this coordinator, unread,
    until it stops.
    """
    if not deliveries:
        return

    def log(error: Exception) -> None:
        logger.warning(
            "%d reports could not be released: %s",
            len(deliveries),
            error_text(error),
            extra={"action": "release_failed"},
        )

    await retry(
        partial(subscription.release, deliveries),
        on=lambda _: True,
        sleep=clock.sleep,
        on_retry=log,
    )


def _sort(
    deliveries: Sequence[Delivery],
) -> tuple[dict[str, None], dict[str, list[Event]], list[tuple[Delivery, str]], bool]:
    """Return the tasks with hints, the reports by task, the refused messages with reasons, and
    whether schedules were changed.
    """
    schedules = False
    touched: dict[str, None] = {}
    events: dict[str, list[Event]] = {}
    refused: list[tuple[Delivery, str]] = []
    for delivery in deliveries:
        try:
            message = decode(delivery.message.value)
        except DecodeError as error:
            refused.append((delivery, str(error)))
            continue
        if isinstance(message, TaskTouched):
            touched[message.task_id] = None
        elif isinstance(message, ScheduleTouched):
            schedules = True
        elif isinstance(message, _FOR_WORKERS):
            refused.append((delivery, f"a {message.kind} is not a report"))
        else:
            reports = events.get(message.task_id)
            if reports is None:
                reports = events[message.task_id] = []
            reports.append(message)
    return touched, events, refused, schedules
