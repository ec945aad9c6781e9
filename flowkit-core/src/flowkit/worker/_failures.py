"""Failures of attempts and batches: their reason codes, and the retries of failed batches."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from heapq import heappop, heappush
from math import inf
from typing import Any

from flowkit._dead_letters.letters import batch_letter, first_attempt
from flowkit._engine import retry_delay
from flowkit._records.letter_records import drop_letters, park_letters, read_letters
from flowkit._runtime.concurrency import within
from flowkit._runtime.retries import patiently
from flowkit._user_code.containment import awaited, contained, error_text, message, origin
from flowkit._user_code.failure_logs import log_failure
from flowkit._user_code.reason_codes import (
    carried_reason,
    checked_reason,
    default_classification,
    shown_reason,
)
from flowkit.errors import NodeFailure
from flowkit.graph import NodeSpec
from flowkit.measures import Measure
from flowkit.messages import BatchRetries, RunNode
from flowkit.plugins import Plugins
from flowkit.task import DeadLetter
from flowkit.worker._batches import StoredBatches
from flowkit.worker._context import RunContext, Services
from flowkit.worker._handlers import Batch, Handler
from flowkit.worker._lanes import Lanes
from flowkit.worker._reports import RunReports, heartbeat_every_sec
from flowkit.worker._slots import REST_AFTER_SEC, Slot
from flowkit.worker._surroundings import surrounded

logger = logging.getLogger(__name__)

Classify = Callable[[BaseException], tuple[str, bool]]
MAX_WAITING = 64
"""Failed batches in memory. While there are more, no new batch is started."""
LETTERS_A_PAGE = 500
TELL_AFTER_SEC = 1.0
"""Time after which a run reports that it waits for a reader of its artifacts."""

Process = Callable[[Batch, RunContext], Awaitable[None]]


class BatchFailure(NodeFailure):
    """A failure that ``process_batch`` returned as its result."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The reported part of a failure."""

    reason_code: str
    permanent: bool
    error: str


class BatchFailed(Exception):
    """The failure of a batch that fails the attempt of the node.

    The handler's error is the cause.
    """

    def __init__(self, verdict: Verdict, *, parked: bool) -> None:
        """``parked`` says that the batch is stored as a dead letter."""
        super().__init__(verdict.error)
        self.verdict = verdict
        self.parked = parked


Judge = Callable[[BaseException], Awaitable[Verdict]]


def judge(
    raised: BaseException,
    command: RunNode,
    *,
    io: dict[str, Any],
    plugins: Plugins,
    classify: Classify | None,
) -> Verdict:
    """Return the verdict about an error.

    The reason code is the error's own if it has one, else a plugin's, else the handler's, else that
    of its type. The first three may also make it permanent. For its type only ``permanent_on``
    decides, which contains ``bad_input`` by default.
    """
    error = origin(raised)
    reason, permanent = (
        carried_reason(error)
        or _by_plugins(error, command, io, plugins)
        or _by_handler(error, command, classify, plugins)
    )
    # NodeFailure says nothing to users; its reason code is shown beside its text.
    is_plain = isinstance(error, BatchFailure) or type(error) is NodeFailure
    text = (message(raised) if is_plain else "") or error_text(raised)
    return Verdict(
        shown_reason(reason), permanent or reason in command.retry_policy.permanent_on, text
    )


def _by_plugins(
    error: BaseException, command: RunNode, io: dict[str, Any], plugins: Plugins
) -> tuple[str, bool] | None:
    if not plugins.asks("flowkit_classify_error"):
        return None
    try:
        answer = plugins.first(
            "flowkit_classify_error",
            check=checked_reason,
            error=error,
            node=node_of(command, io),
        )
    except Exception as failed:
        log_failure(
            logger,
            plugins,
            "No plugin could classify the error",
            text=error_text(failed),
            error=failed,
            level=logging.ERROR,
            extra={"action": "classify_failed", "task_id": command.task_id},
        )
        return None
    return None if answer is None else answer.value


def node_of(command: RunNode, io: dict[str, Any]) -> NodeSpec:
    """Return the node of a command as plugins see it."""
    return NodeSpec.model_validate({"node_id": command.node_id, "type": command.role, "io": io})


def own_classification(handler: object) -> Classify | None:
    """Return the ``classify_error`` that a handler overrides, if it does."""
    classify = handler.classify_error if isinstance(handler, Handler) else None
    return None if getattr(classify, "__func__", None) is Handler.classify_error else classify


def _by_handler(
    error: BaseException, command: RunNode, classify: Classify | None, plugins: Plugins
) -> tuple[str, bool]:
    if classify is None:
        return default_classification(error)[0], False
    try:
        return contained(lambda: checked_reason(classify(error)))
    except Exception as failed:
        log_failure(
            logger,
            plugins,
            "classify_error of role %s raised",
            command.role,
            text=error_text(failed),
            error=origin(failed),
            level=logging.ERROR,
            extra={"action": "classify_failed", "task_id": command.task_id},
        )
        return "unexpected_error", False


def unclassified(error: BaseException) -> Verdict:
    """Return the verdict about an error that could not be classified."""
    return Verdict("unexpected_error", False, error_text(error))


def keep_failure(
    context: RunContext, what: str, verdict: Verdict, error: BaseException | None
) -> None:
    """Keep a failure among the log lines of its run. That of FlowKit itself has no traceback."""
    context._run_log.keep(  # noqa: SLF001 - the worker's side of the context
        logging.ERROR,
        "flowkit.worker",
        lambda: f"{what}: {verdict.reason_code}: {verdict.error}",
        error=None if isinstance(error, NodeFailure) else error,
        raw=what,
    )


@dataclass(order=True, slots=True)
class _Failed:
    """A failed batch that waits for its retry."""

    due_at: float
    order: int
    batch: Batch
    first_at: float


class BatchProcessor:
    """Processes batches, and retries those that fail.

    Each attempt of the node includes one try of each batch. Every further try is announced before
    it starts, so that it counts even if this worker dies. Attempts and further tries together never
    exceed the retry policy.
    """

    def __init__(
        self,
        command: RunNode,
        *,
        context: RunContext,
        reports: RunReports,
        stored: StoredBatches,
        judge: Judge,
        ending: Callable[[], bool],
        services: Services,
        slot: Slot,
        parallel: int,
        shards: int,
    ) -> None:
        """``ending`` says whether the worker cancels the run. Up to ``parallel`` batches are in
        process at the same time. ``shards`` is the number of shards of the node.
        """
        self._command = command
        self._context = context
        self._reports = reports
        self._stored = stored
        self._judge = judge
        self._ending = ending
        self._services = services
        self._slot = slot
        self._waiting: list[_Failed] = []
        self._failures = 0
        known = command.retries
        self._number = 0 if known is None else known.number
        self._further = {} if known is None else dict(known.tries)
        """Further tries of the batches that are not done, by batch uid."""
        self._tried = False
        self._trying: set[str] = set()
        self._parallel = parallel
        self._shards = shards
        self._heartbeat_every_sec = heartbeat_every_sec(command)
        self._heartbeat_at = float("-inf")
        self._expected = command.readers
        """Readers that the run has to wait for from its first batch on."""
        self._given_up: set[str] = set()
        self._outdated: dict[str, str] = {}
        """Dead letters of earlier runs of the node, by batch uid."""

    @property
    def skipped(self) -> int:
        """The number of batches that were given up and that the node goes on without."""
        return len(self._given_up)

    def retries(self) -> BatchRetries | None:
        """Return the further tries for the worker that continues this attempt.

        The tries that are cut off do not count.
        """
        if not self._further:
            return None
        tries = dict(self._further)
        for uid in self._trying & tries.keys():
            tries[uid] -= 1
        return BatchRetries(number=self._number + 1, tries=tries)

    async def process_all(
        self, batches: AsyncGenerator[Batch | None, None], process: Process
    ) -> None:
        """Process all batches. None stands for a pause in the input.

        Raises:
            BatchFailed: a batch was given up.
        """
        process = await self._begin(process)
        clock = self._services.clock
        async with (
            Lanes(self._context, self._parallel, slot=self._slot, ending=self._ending) as lanes,
            aclosing(batches) as all_batches,
        ):
            async for batch in all_batches:
                if batch is not None and batch.batch_uid not in self._given_up:
                    if self._tried:
                        await self._services.turns.give()
                    self._tried = True
                    await self.wait_for_readers(self._context)
                    await lanes.start(partial(self._try, self._first_try(batch), process))
                lanes.check()
                while self._waiting and (
                    len(self._waiting) > MAX_WAITING or self._waiting[0].due_at <= clock.monotonic()
                ):
                    await self._go_on(lanes, process)
            while self._waiting or lanes.busy:
                await self._go_on(lanes, process)
        await self._hold_slot(self._context)
        await self._end()

    async def process_sole(self, batches: Sequence[Batch], process: Process) -> None:
        """Process the batch that is the whole input, unless it is done already. If it fails, the
        node is retried instead.

        Raises:
            BatchFailed: the batch failed.
        """
        process = await self._begin(process)
        for batch in batches:
            if batch.batch_uid not in self._given_up:
                self._context.raise_if_cancelled()
                await self._try(self._first_try(batch), process, self._context, sole=True)
        await self._end()

    async def _begin(self, process: Process) -> Process:
        """Read which batches were given up before. Return the process with what surrounds it."""
        if self._command.attempt > 1 or self._command.resumed:
            await self._read_letters()
        if self._services.plugins.surrounds_batches:
            return partial(self._process_surrounded, process)
        return process

    async def _end(self) -> None:
        await self._stored.flush()
        await self.give_up_refused()
        if self._outdated:
            await self._drop(list(self._outdated.values()))

    def _first_try(self, batch: Batch) -> _Failed:
        now = self._services.clock.monotonic()
        return _Failed(now, 0, batch, now)

    # ------------------------------------------------ one try

    async def _process_surrounded(
        self, process: Process, batch: Batch, context: RunContext
    ) -> None:
        plugins = self._services.plugins
        async with surrounded(plugins, "flowkit_around_batch", batch=batch, ctx=context):
            await process(batch, context)

    async def _try(
        self, item: _Failed, process: Process, context: RunContext, *, sole: bool = False
    ) -> None:
        if not self._slot.work(context):
            await self._hold_slot(context)
        batch, further = item.batch, self._further.get(item.batch.batch_uid, 0)
        number = self._command.earlier_attempts + 1 + further
        if number > self._command.retry_policy.max + 1:
            lost = "the worker was lost during its last try"
            await self._give_up(
                batch, Verdict("worker_lost", True, f"batch {batch.batch_uid!r}: {lost}"), None
            )
            return
        context.attempt, context.batch_uid = self._command.attempt + further, batch.batch_uid
        self._trying.add(batch.batch_uid)
        try:
            await awaited(process(batch, context), ending=self._ending)
        except BatchFailed:
            raise
        except Exception as error:
            if context.cancelled():
                raise
            await self._failed(item, number, error, context, sole=sole)
        else:
            self._further.pop(batch.batch_uid, None)
        self._trying.discard(batch.batch_uid)
        context.attempt, context.batch_uid = self._command.attempt, None
        if self._stored.refused:
            await self.give_up_refused()

    async def _failed(
        self, item: _Failed, number: int, error: BaseException, context: RunContext, *, sole: bool
    ) -> None:
        command, batch, clock = self._command, item.batch, self._services.clock
        verdict = await self._judge(error)
        keep_failure(context, f"batch {batch.batch_uid!r} failed", verdict, origin(error))
        spent = clock.monotonic() - item.first_at
        if sole and command.first_issued_at:
            spent = clock.now() - command.first_issued_at
        delay = retry_delay(
            command.retry_policy,
            attempts_made=number,
            reason_code=verdict.reason_code,
            permanent=verdict.permanent,
            spent_sec=spent,
            token=sha256(f"{command.token}.{number}.{batch.batch_uid}".encode()).hexdigest(),
        )
        if delay is None:
            await self._give_up(batch, verdict, error)
        elif sole:
            raise BatchFailed(verdict, parked=False) from origin(error)
        else:
            log_failure(
                logger,
                self._services.plugins,
                "Batch %s of node %s failed, next try in %.1f s, %s",
                batch.batch_uid,
                command.node_id,
                delay,
                verdict.reason_code,
                text=verdict.error,
                extra={"action": "batch_failed", "task_id": command.task_id},
            )
            self._failures += 1
            heappush(
                self._waiting,
                _Failed(clock.monotonic() + delay, self._failures, batch, item.first_at),
            )

    async def _go_on(self, lanes: Lanes, process: Process) -> None:
        """Make the next further try if it is due. Otherwise wait until it is, or a lane is free."""
        clock, every_sec = self._services.clock, self._heartbeat_every_sec
        left = self._waiting[0].due_at - clock.monotonic() if self._waiting else inf
        if left <= 0:
            await self._try_again(heappop(self._waiting), lanes, process)
            return
        step = left if every_sec is None else min(left, every_sec)
        await self._context.cancellable(lanes.wait(step, clock))
        if step < left:
            await self.keep_alive()

    async def _try_again(self, item: _Failed, lanes: Lanes, process: Process) -> None:
        uid = item.batch.batch_uid
        self._trying.add(uid)
        self._further[uid] = self._further.get(uid, 0) + 1
        self._number += 1
        await self._context.cancellable(self._announce())
        await lanes.start(partial(self._try, item, process))

    async def keep_alive(self) -> None:
        """Send a heartbeat if it is time, while the run waits and no handler can send any."""
        if not self._trying:
            await self._beat()

    async def wait_for_readers(self, context: RunContext) -> None:
        """Wait while a running node that reads the artifacts of this one is too far behind.

        The wait needs no slot. A longer one is reported.
        """
        readers, clock = self._services.readers, self._services.clock
        if self._expected and self._stored.produced:
            readers.expect(self._stored.stream, self._expected, self._shards)
            self._expected = {}
        since = clock.monotonic()
        rest_at, tell_at, has_waited = since + REST_AFTER_SEC, since + TELL_AFTER_SEC, False
        while behind := readers.behind(
            self._stored.stream, self._stored.produced, self._command.shard
        ):
            now = clock.monotonic()
            if not has_waited:
                has_waited = True
                self._slot.pause(context)
            if now >= tell_at:
                self._reports.held_up(behind.reader, behind.batches)
                tell_at = inf
            if now >= rest_at:
                self._slot.rest(context)
                rest_at = inf
            step = min(min(behind.until, rest_at, tell_at) - now, self._heartbeat_every_sec or inf)
            await self._context.cancellable(within(step, readers.wait, clock=clock))
            await self._beat()
        if tell_at == inf:
            self._reports.held_up(None)
        if has_waited:
            await self._hold_slot(context)

    async def _hold_slot(self, part: RunContext) -> None:
        """Return when the run holds its slot, for a part of it that goes on."""
        self._slot.work(part)
        while not self._slot.is_held:
            if self._heartbeat_every_sec is None:
                await self._context.cancellable(self._slot.wait_held())
            else:
                wait = within(
                    self._heartbeat_every_sec, self._slot.wait_held, clock=self._services.clock
                )
                await self._context.cancellable(wait)
                await self._beat()

    async def _beat(self) -> None:
        now, every_sec = self._services.clock.monotonic(), self._heartbeat_every_sec
        if every_sec is not None and now - self._heartbeat_at >= every_sec:
            self._heartbeat_at = now
            await self._context.cancellable(self._announce())

    async def _announce(self) -> None:
        await self._reports.announce_retries(BatchRetries(number=self._number, tries=self._further))

    # ------------------------------------------------ giving up

    async def give_up_refused(self) -> None:
        """Give up the processed batches that the store refused."""
        while self._stored.refused:
            batch, error = self._stored.refused.pop()
            verdict = await self._judge(error)
            keep_failure(self._context, f"batch {batch.batch_uid!r} failed", verdict, error)
            await self._give_up(batch, verdict, error)

    async def _give_up(self, batch: Batch, verdict: Verdict, error: BaseException | None) -> None:
        """Store the batch as a dead letter. The node fails too, unless it skips failed batches."""
        command, uid = self._command, batch.batch_uid
        now = self._services.clock.now()
        letter = batch_letter(
            command,
            uid,
            batch.payload,
            reason_code=verdict.reason_code,
            error=verdict.error,
            at=now,
        )
        store = self._services.store
        await patiently(
            lambda: park_letters(store, [letter]),
            clock=self._services.clock,
            what="park a dead letter",
        )
        self._services.plugins.measure(Measure("dead_letters", 1, {"kind": "batch"}))
        self._further.pop(uid, None)
        if uid in self._outdated:
            await self._drop([self._outdated.pop(uid)])
        log_failure(
            logger,
            self._services.plugins,
            "Batch %s of node %s is given up, %s",
            uid,
            command.node_id,
            verdict.reason_code,
            text=verdict.error,
            extra={"action": "batch_given_up", "task_id": command.task_id},
        )
        if command.on_batch_failure == "fail":
            raise BatchFailed(Verdict(verdict.reason_code, True, verdict.error), parked=True) from (
                error and origin(error)
            )
        self._given_up.add(uid)

    async def _read_letters(self) -> None:
        """Read which batches were given up in earlier attempts of this run, and in earlier runs."""
        command, after = self._command, ""
        while page := await self._letters(after):
            after = page[-1].letter_id
            for letter in page:
                if (letter.node_id, letter.generation) != (
                    command.node_id,
                    command.generation,
                ) or letter.uid is None:
                    continue
                if letter.attempt < first_attempt(command):
                    self._outdated[letter.uid] = letter.letter_id
                elif command.on_batch_failure == "skip":
                    self._given_up.add(letter.uid)

    async def _letters(self, after: str) -> Sequence[DeadLetter]:
        store, task_id = self._services.store, self._command.task_id
        return await patiently(
            lambda: read_letters(
                store, task_id=task_id, kind="batch", after=after, limit=LETTERS_A_PAGE
            ),
            clock=self._services.clock,
            what="read dead letters",
        )

    async def _drop(self, letter_ids: list[str]) -> None:
        store = self._services.store
        await patiently(
            lambda: drop_letters(store, letter_ids),
            clock=self._services.clock,
            what="drop dead letters",
        )
