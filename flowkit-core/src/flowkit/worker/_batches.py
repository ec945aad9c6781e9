"""Batches of one run: stored in order, each counted once."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from flowkit._json.limits import MAX_UID_CHARS
from flowkit._json.values import is_unicode
from flowkit._runtime.deadlines import Recent, Signal
from flowkit.errors import NodeFailure
from flowkit.messages import RunNode
from flowkit.protocols import ArtifactRecord, Clock, Stream
from flowkit.worker._artifacts import COMPLETE_UID, ArtifactReader, ArtifactWriter
from flowkit.worker._handler_values import (
    Numbers,
    add_numbers,
    bad_result,
    dump,
    json_object,
    numbers,
)
from flowkit.worker._handlers import Batch
from flowkit.worker._reports import RunReports
from flowkit.worker._streams import StreamHints

logger = logging.getLogger(__name__)

MAX_UNSTORED = 64


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums of the metrics of a node's batches, and their number."""

    metrics: Numbers
    batches: int


class StoredBatches:
    """The batches that this run and earlier attempts of the node have stored.

    Results are stored while the next batches are processed, at most ``MAX_UNSTORED`` of them at a
    time. A first attempt that finds no stored batch adds up its own; any other attempt counts the
    batches in the store.
    """

    def __init__(
        self,
        command: RunNode,
        *,
        writer: ArtifactWriter,
        reader: ArtifactReader,
        reports: RunReports,
        hints: StreamHints,
        clock: Clock,
    ) -> None:
        self.stream = Stream(command.task_id, command.node_id, command.generation)
        self._streamed = command.streamed
        self._writer = writer
        self._reader = reader
        self._reports = reports
        self._hints = hints
        self._clock = clock
        self._fresh = command.attempt == 1 and not command.resumed
        self._recent = Recent(1000)
        self._warned = False
        self._sums: Numbers = {}
        self._stored = 0
        self._unstored = 0
        self._change = Signal()
        self._error: Exception | None = None
        self._reported = False
        self.refused: list[tuple[Batch, NodeFailure]] = []
        """Batches that the store refused and that are not given up yet."""

    async def unprocessed(self, batches: Sequence[Batch]) -> list[Batch]:
        """Return the batches that are not processed yet, each uid once."""
        for batch in batches:
            _check(batch)
        known: set[str] = set()
        if not self._fresh:
            known = await self._reader.known(self.stream, [batch.batch_uid for batch in batches])
            if known:
                self._report()
        todo = []
        for batch in batches:
            if batch.batch_uid in self._recent:
                self._warn_repeated(batch.batch_uid)
                continue
            self._recent.add(batch.batch_uid)
            if batch.batch_uid not in known:
                todo.append(batch)
        return todo

    def _warn_repeated(self, uid: str) -> None:
        """Warn once that a uid was repeated in this run.

        Other content under the same uid is never processed.
        """
        if not self._warned:
            self._warned = True
            logger.warning(
                "Batch %r of node %s came more than once in one run: only the first with this uid"
                " is processed",
                uid,
                self.stream.node_id,
                extra={"action": "batch_repeated", "task_id": self.stream.task_id},
            )

    async def add(self, uid: str, artifact: Any, metrics: Any = None) -> None:
        """Store a processed batch in the background. Wait only while too many are not stored."""
        counted = numbers(metrics, f"the metrics of batch {uid!r}")
        record = self._record(uid, artifact, counted, partial=True)

        def stored(answer: bool | Exception) -> None:
            self._unstored -= 1
            if isinstance(answer, NodeFailure):
                self.refused.append((Batch(uid), answer))
            elif isinstance(answer, Exception):
                self._error = self._error or answer
            else:
                if answer:
                    self._stored += 1
                    add_numbers(self._sums, counted)
                else:
                    self._fresh = False
                self._report()
                if self._streamed:
                    self._hints.moved(self.stream, self._reports.headers)
            self._change.set()

        while self._unstored >= MAX_UNSTORED and self._error is None:
            await self._change.wait()
        self._raise_error()
        self._unstored += 1
        self._writer.add(record, stored)

    async def complete(self, artifact: Any) -> None:
        """Store the node's complete artifact."""
        outcome: list[bool | Exception] = []

        def stored(answer: bool | Exception) -> None:
            outcome.append(answer)
            self._change.set()

        self._writer.add(self._record(COMPLETE_UID, artifact, {}, partial=False), stored)
        while not outcome:
            await self._change.wait()
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        if self._streamed:
            self._hints.moved(self.stream, self._reports.headers)

    async def flush(self) -> None:
        """Return when all added batches are stored."""
        while self._unstored and self._error is None:
            await self._change.wait()
        self._raise_error()

    async def totals(self) -> Totals:
        """Return the sums of the metrics of the node's batches, and the number of batches."""
        if self._fresh:
            return Totals(dict(self._sums), self._stored)
        sums: Numbers = {}
        count = 0
        async for record in self._reader.records(self.stream):
            if record.partial:
                count += 1
                add_numbers(sums, from_json(record.metrics))
        return Totals(sums, count)

    def _record(
        self, uid: str, artifact: Any, metrics: Mapping[str, float | int], *, partial: bool
    ) -> ArtifactRecord:
        return ArtifactRecord(
            stream=self.stream,
            uid=uid,
            partial=partial,
            meta=self._reader.encoded(
                json_object(
                    artifact, f"the artifact of {'batch ' + repr(uid) if partial else 'the node'}"
                )
            ),
            metrics=dump(metrics),
            created_at=self._clock.now(),
        )

    def _report(self) -> None:
        if not self._reported:
            self._reported = True
            self._reports.batch_stored()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error


def _check(batch: Any) -> None:
    if not isinstance(batch, Batch):
        raise bad_result(
            f"batches must be flowkit.worker.Batch objects, not {type(batch).__name__}"
        )
    uid = batch.batch_uid
    if not isinstance(uid, str) or not 0 < len(uid) <= MAX_UID_CHARS:
        raise bad_result(
            f"a batch_uid must be a string of 1 to {MAX_UID_CHARS} characters, not {uid!r:.200}"
        )
    if not is_unicode(uid):
        raise bad_result(
            f"a batch_uid must be valid Unicode, not {uid!r:.200}, which has a lone surrogate"
        )
    if uid == COMPLETE_UID:
        raise bad_result(
            f"no batch may have the uid {COMPLETE_UID!r}: it is reserved for the node's complete"
            " artifact"
        )
