"""Offers of waiting runs: a busy worker offers them, and a worker with free slots takes them over.

The commands of a task go to one worker of each role, so its runs would wait there although others
are idle. All messages of an offer are hints: if one is lost, the runs start where they wait, or a
coordinator notices that no worker has started them.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

from anyio.abc import TaskGroup

from flowkit._runtime.concurrency import Recent, within
from flowkit._runtime.retries import notices_of
from flowkit.errors import FlowKitError
from flowkit.messages import ADDRESSEE, RequestRuns, RunNode, RunsWaiting, encode
from flowkit.protocols import Bus, Clock, Message
from flowkit.worker._commands import Attempts
from flowkit.worker._node_run import Run
from flowkit.worker._reports import acknowledge_all
from flowkit.worker._roles import Served, handler_of
from flowkit.worker._slots import Slots

logger = logging.getLogger(__name__)

OFFER_AGAIN_SEC = 1.0
"""First pause between two offers that no worker answers. The pauses double."""
KEEP_SEC = 1.0
"""Longest time for which a worker keeps slots for the runs that it has requested."""
OWN_FIRST_SEC = 0.02
"""Time for which a slot is free before runs of other workers are requested for it."""
SPREAD_SEC = 0.1
"""Time over which the requests of idle workers are spread, so that few of them are in vain."""
MAX_WORKERS = 1000
"""Workers whose offers or requests are remembered."""
MAX_COMMAND_BYTES = 64 * 1024
"""Largest command that is sent to every worker with its data."""


class Offers:
    """Offers the waiting runs of this worker, and hands them over to workers that request them."""

    def __init__(
        self,
        *,
        bus: Bus,
        topic: str,
        worker_id: str,
        attempts: Attempts,
        clock: Clock,
        longest_pause_sec: float,
    ) -> None:
        self._bus = bus
        self._topic = topic
        self._worker_id = worker_id
        self._attempts = attempts
        self._clock = clock
        self._longest_pause_sec = longest_pause_sec
        self._requests: Recent[str, RequestRuns] = Recent(MAX_WORKERS)
        self._opened = asyncio.Event()
        self._requested = asyncio.Event()

    def open(self) -> None:
        """Offer the runs that wait, if there are any. No slot has been free for a while."""
        self._opened.set()

    def request(self, request: RequestRuns) -> None:
        """Note the request of another worker."""
        if request.worker_id != self._worker_id:
            self._requests[request.worker_id] = request
            self._requested.set()
            self._opened.set()

    async def offer_runs(self) -> None:
        """Run the loop that sends offers and hands runs over.

        A lost offer is repeated. If no worker answers, all are busy, and the pauses get longer.
        """
        pause_sec = OFFER_AGAIN_SEC
        notices = notices_of(self._clock)
        while True:
            self._opened.clear()
            self._requested.clear()
            try:
                await self._offer(await self._hand_over())
            except FlowKitError as error:
                what = "Waiting runs cannot be offered to other workers"
                notices.trouble(
                    logger, "offers", what, error, action="offers_lost", level=logging.INFO
                )
            else:
                notices.over(logger, "offers")
            if not self._attempts.waiting():
                pause_sec = OFFER_AGAIN_SEC
                await self._opened.wait()
            elif await within(pause_sec, self._requested.wait, clock=self._clock):
                pause_sec = OFFER_AGAIN_SEC
            else:
                pause_sec = min(2 * pause_sec, self._longest_pause_sec)

    async def _offer(self, in_vain: Sequence[str]) -> None:
        """Offer the runs that wait. If there are none, let the workers know that got fewer than
        they have requested: they keep slots for them.
        """
        waiting = self._attempts.waiting()
        value = encode(RunsWaiting(worker_id=self._worker_id, roles=waiting))
        if waiting:
            await self._bus.publish([Message(self._topic, value, self._worker_id)])
        elif in_vain:
            addressed = [{ADDRESSEE: worker_id.encode()} for worker_id in in_vain]
            await self._bus.publish(
                [Message(self._topic, value, self._worker_id, headers) for headers in addressed]
            )

    async def _hand_over(self) -> list[str]:
        """Hand over runs that others have requested. Return the workers that got fewer of them."""
        in_vain = []
        while self._requests:
            worker_id, request = self._requests.popitem(last=False)
            runs = self._attempts.take_waiting(request.roles, request.most)
            if runs:
                await self._send(runs, worker_id)
            if len(runs) < request.most:
                in_vain.append(worker_id)
        return in_vain

    async def _send(self, runs: Sequence[Run], worker_id: str) -> None:
        """Send the commands of these runs to another worker, then acknowledge them.

        If that fails, some of them may have been sent, and wait here as well: the claim of an
        attempt lets one worker start it.
        """
        try:
            await self._bus.publish([self._message(run, worker_id) for run in runs])
        except Exception:
            self._attempts.put_back(runs)
            raise
        logger.info(
            "%d waiting runs were handed over to worker %s",
            len(runs),
            worker_id,
            extra={"action": "runs_handed_over"},
        )
        await acknowledge_all(origin for run in runs for origin in run.reports.origins)

    def _message(self, run: Run, worker_id: str) -> Message:
        """Return the message with a command. Every worker receives it, so it carries no large data:
        the worker reads them from the store.
        """
        command: RunNode = run.command
        value = encode(command)
        if len(value) > MAX_COMMAND_BYTES:
            value = encode(command.model_copy(update={"data": None, "sources": None}))
        headers = {**run.reports.headers, ADDRESSEE: worker_id.encode()}
        return Message(self._topic, value, command.task_id, headers)


@dataclass(slots=True)
class _Offer:
    """Offer of another worker, which is valid until a time by the monotonic clock."""

    runs: int
    until: float
    roles: Sequence[str]


@dataclass(slots=True, eq=False)
class _Expected:
    """Requested runs of one worker that have not come, for each of which a slot is reserved."""

    runs: int


class Requests:
    """Requests the waiting runs of busy workers while this one has free slots."""

    def __init__(
        self,
        *,
        bus: Bus,
        topic: str,
        worker_id: str,
        served: Mapping[str, Served],
        attempts: Attempts,
        group: TaskGroup,
        slots: Slots,
        clock: Clock,
        remember_sec: float,
    ) -> None:
        """Remember an offer for ``remember_sec``, for slots that are free later. ``group`` sends
        commands back that arrive too late.
        """
        self._bus = bus
        self._topic = topic
        self._worker_id = worker_id
        self._served = served
        self._attempts = attempts
        self._group = group
        self._slots = slots
        self._clock = clock
        self._remember_sec = remember_sec
        self._own_first_sec = OWN_FIRST_SEC + SPREAD_SEC * crc32(worker_id.encode()) / 2**32
        self._offers: Recent[str, _Offer] = Recent(MAX_WORKERS)
        self._expected: dict[str, _Expected] = {}
        """Requested runs that have not come, by the worker that offered them."""
        self._asks_all = False
        self._filled = asyncio.Event()
        self._stopping = False

    def ask_all(self) -> None:
        """Ask all workers for their offers: this worker may have missed some."""
        self._asks_all = True
        self._filled.set()

    def offered(self, offer: RunsWaiting) -> None:
        """Note the offer of a worker, in place of its last one. If it has no runs, none will come
        from it.
        """
        if not offer.roles:
            self._offers.pop(offer.worker_id, None)
            self._expect_no_more(offer.worker_id)
        roles = [role for role in offer.roles if role in self._served]
        if offer.worker_id != self._worker_id and roles:
            runs = sum(offer.roles[role] for role in roles)
            until = self._clock.monotonic() + self._remember_sec
            self._offers[offer.worker_id] = _Offer(runs, until, roles)
            self._filled.set()

    def accept(self, command: RunNode, headers: Mapping[str, bytes]) -> None:
        """Queue a run that was handed over to this worker. A worker that stops sends it back.

        Raises:
            DecodeError: this worker does not serve its role.
        """
        served = handler_of(command, self._served)
        if self._stopping:
            others = {name: value for name, value in headers.items() if name != ADDRESSEE}
            self._group.start_soon(self._attempts.send_back, [(command, others)])
        else:
            self._attempts.accept(command, served, headers)
        self._note_arrival()

    def _note_arrival(self) -> None:
        for worker_id, expected in self._expected.items():
            expected.runs -= 1
            if not expected.runs:
                del self._expected[worker_id]
            self._slots.release(1)
            return

    def _expect_no_more(self, worker_id: str) -> None:
        expected = self._expected.pop(worker_id, None)
        if expected is not None:
            self._slots.release(expected.runs)

    async def _expire(self, worker_id: str, expected: _Expected) -> None:
        await self._clock.sleep(KEEP_SEC)
        if self._expected.get(worker_id) is expected:
            self._expect_no_more(worker_id)

    def stop(self) -> None:
        """Request no more runs."""
        self._stopping = True

    async def request_runs(self) -> None:
        """Run the loop that sends requests."""
        notices = notices_of(self._clock)
        while True:
            await self._filled.wait()
            await self._slots.wait_until(lambda slots: slots.free > 0)
            await self._clock.sleep(self._own_first_sec)
            if self._stopping:
                return
            messages = self._due()
            if not self._offers:
                self._filled.clear()
            try:
                if messages:
                    await self._bus.publish(messages)
            except FlowKitError as error:
                what = "Waiting runs of other workers cannot be requested"
                notices.trouble(
                    logger, "requests", what, error, action="requests_lost", level=logging.INFO
                )
            else:
                notices.over(logger, "requests")

    def _due(self) -> list[Message]:
        """Return the requests for the free slots: first to workers with many waiting runs."""
        now = self._clock.monotonic()
        for worker_id in [other for other, some in self._offers.items() if some.until <= now]:
            del self._offers[worker_id]
        messages = []
        if self._asks_all:
            self._asks_all = False
            messages.append(self._message([*self._served], 0))
        free = self._slots.free
        for worker_id, offer in sorted(self._offers.items(), key=lambda item: -item[1].runs):
            most = min(free, offer.runs)
            if most <= 0 or worker_id in self._expected:
                continue
            free -= most
            offer.runs -= most
            if not offer.runs:
                del self._offers[worker_id]
            self._expected[worker_id] = expected = _Expected(most)
            self._slots.reserve(most)
            self._group.start_soon(self._expire, worker_id, expected)
            messages.append(self._message(offer.roles, most, to=worker_id))
        return messages

    def _message(self, roles: Sequence[str], most: int, to: str | None = None) -> Message:
        request = RequestRuns(worker_id=self._worker_id, roles=tuple(roles), most=most)
        headers = {} if to is None else {ADDRESSEE: to.encode()}
        return Message(self._topic, encode(request), self._worker_id, headers)
