"""Windows over the artifacts that a node pulls: ``io.batching`` on a stream."""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from flowkit._records.queries import artifact_lost
from flowkit._records.windows import Bounds, windows_of, windows_record, windows_stream
from flowkit.messages import RunNode
from flowkit.protocols import Clock, Stream
from flowkit.worker._artifacts import ArtifactReader, ArtifactWriter
from flowkit.worker._handlers import Batch
from flowkit.worker._inputs import InputRequest, Pulled, pulled_pages, ranges_uid


class WindowLog:
    """The windows that the attempts of a node have decided on, in order."""

    def __init__(
        self, command: RunNode, *, reader: ArtifactReader, writer: ArtifactWriter, clock: Clock
    ) -> None:
        self.stream = windows_stream(command.task_id, command.node_id, command.generation)
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._number = 0
        # Before a first attempt, none has stored windows.
        self._is_read = command.attempt == 1 and not command.resumed

    async def next(self, decide: Callable[[], Sequence[Bounds]]) -> Sequence[Bounds]:
        """Return the next windows: those that another attempt has stored, or else, once they are
        stored, those that ``decide`` returns.
        """
        if not self._is_read:
            if stored := await self._stored():
                return stored
            self._is_read = True
        decided = decide()
        if not decided:
            return ()
        record = windows_record(self.stream, self._number + 1, decided, at=self._clock.now())
        if await self._writer.put(record):
            self._number += 1
            return decided
        # Another attempt, which may run at the same time, was first.
        return await self._stored()

    async def _stored(self) -> list[Bounds]:
        page = await self._reader.page(self.stream, after=self._number, to_the_end=True)
        self._number += len(page)
        return [bounds for record in page for bounds in windows_of(record)]


class Windows:
    """Cuts the artifacts that a run reads into windows.

    A window has ``size`` artifacts, or fewer if ``max_wait_sec`` have passed since the run took its
    first one, or if the streams have ended.
    """

    def __init__(self, batching: Mapping[str, Any], log: WindowLog, clock: Clock) -> None:
        self._size: int = batching["size"]
        self._max_wait_sec: float | None = batching.get("max_wait_sec")
        self._log = log
        self._clock = clock
        self._pending: list[Pulled] = []
        self._read: Bounds = {}
        self._taken: Bounds = {}
        self._decided: deque[Bounds] = deque()
        """Windows whose artifacts are not all read."""
        self._due_at: float | None = None

    def due_at(self) -> float | None:
        """Return the time by the monotonic clock at which the present window ends.

        The time begins here: the run is about to wait, or has more artifacts for the window.
        """
        if not self._pending or self._decided or self._max_wait_sec is None:
            return None
        if self._due_at is None:
            self._due_at = self._clock.monotonic() + self._max_wait_sec
        return self._due_at

    async def add(self, page: Sequence[Pulled]) -> list[Batch]:
        """Add artifacts, and return the windows that are complete."""
        self._pending += page
        for item in page:
            self._read[item.from_node] = item.position
        self.due_at()
        return await self._complete(ended=False)

    async def close(self, task_id: str) -> list[Batch]:
        """Return the last windows, when the streams have ended.

        Raises:
            NodeFailure: ``artifact_lost``; an artifact that an earlier attempt has read is missing.
        """
        batches = await self._complete(ended=True)
        if self._decided:
            node_id, position = self._unread(self._decided[0])[0]
            raise artifact_lost(
                Stream(task_id, node_id),
                f"artifact {position}, which an earlier attempt has read, is missing",
            )
        return batches

    async def _complete(self, *, ended: bool) -> list[Batch]:
        batches: list[Batch] = []
        decide = partial(self._due, ended=ended)
        while self._decided or await self._extend(decide):
            if self._unread(self._decided[0]):
                break
            batches.append(self._cut(self._decided.popleft()))
        return batches

    async def _extend(self, decide: Callable[[], Sequence[Bounds]]) -> bool:
        self._decided += await self._log.next(decide)
        return bool(self._decided)

    def _due(self, *, ended: bool) -> list[Bounds]:
        """Return the bounds of the windows that are full, or end now."""
        size, pending = self._size, self._pending
        is_over = self._due_at is not None and self._due_at <= self._clock.monotonic()
        ends_early = ended or (is_over and len(pending) < size)
        due = len(pending) if ends_early else len(pending) // size * size
        windows = (pending[first : first + size] for first in range(0, due, size))
        return [{item.from_node: item.position for item in window} for window in windows]

    def _unread(self, bounds: Bounds) -> list[tuple[str, int]]:
        return [one for one in bounds.items() if self._read.get(one[0], 0) < one[1]]

    def _cut(self, bounds: Bounds) -> Batch:
        """Take a window from the artifacts that were read: those of one node after the other."""
        items = [item for item in self._pending if item.position <= bounds.get(item.from_node, 0)]
        self._pending = [
            item for item in self._pending if item.position > bounds.get(item.from_node, 0)
        ]
        self._due_at = None
        order = {node_id: place for place, node_id in enumerate(bounds)}
        items.sort(key=lambda item: order[item.from_node])
        uid = ranges_uid(
            (node_id, self._taken.get(node_id, 0) + 1, last) for node_id, last in bounds.items()
        )
        self._taken |= bounds
        return Batch(uid, {"items": [item.meta for item in items]})


async def pull_windows(
    request: InputRequest, windows: Windows
) -> AsyncGenerator[Sequence[Batch], None]:
    """Yield one batch per window: ``{"items"}``, the ``meta`` of its artifacts.

    The arguments are those of ``pull.from_artifacts``.
    """
    context = request.context
    async with aclosing(await pulled_pages(request, wake_at=windows.due_at)) as pages:
        async for page in pages:
            yield await context.cancellable(windows.add(page))
    yield await context.cancellable(windows.close(context.task_id))
