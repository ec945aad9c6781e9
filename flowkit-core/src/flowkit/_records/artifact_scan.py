"""Artifacts of a task over all streams, or of one stream. Missing artifacts are detected."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

from flowkit._records.queries import artifact_lost, artifact_page, check_complete
from flowkit.protocols import ArtifactRecord, ArtifactStore, Stream

PAGE = 500


@dataclass(slots=True)
class _Positions:
    """Positions of one stream that were read. A scan is ordered by time, so positions may come out
    of order.
    """

    done: int = 0
    """All positions up to this one were read."""
    ahead: set[int] = field(default_factory=set)
    batches: int = 0

    def add(self, record: ArtifactRecord) -> bool:
        """Count a record. Return False if its position was read before."""
        if record.position <= self.done or record.position in self.ahead:
            return False
        self.batches += record.partial
        self.ahead.add(record.position)
        while self.done + 1 in self.ahead:
            self.done += 1
            self.ahead.discard(self.done)
        return True


async def scan_artifacts(
    artifacts: ArtifactStore,
    task_id: str,
    *,
    generations: Mapping[str, int],
    batches: Mapping[str, int],
) -> AsyncGenerator[ArtifactRecord, None]:
    """Yield the records of these nodes, in order of production. ``batches`` are the numbers of
    batches that the finished nodes have stored.

    Raises:
        NodeFailure: ``artifact_lost``; a record is missing.
    """
    read = {
        Stream(task_id, node_id, generation): _Positions()
        for node_id, generation in generations.items()
    }
    cursor = None
    while page := await artifacts.scan(task_id, after=cursor, limit=PAGE):
        cursor = page[-1][0]
        for _, record in page:
            if record.stream in read:
                read[record.stream].add(record)
                yield record
    for stream, positions in read.items():
        stored = batches.get(stream.node_id, 0)
        while positions.ahead or positions.batches < stored:
            more = await artifact_page(
                artifacts, stream, after=positions.done, limit=PAGE, latest=True
            )
            if not more and positions.ahead:
                raise artifact_lost(
                    stream,
                    f"artifact {positions.done + 1} of the node is missing, though later ones are"
                    " stored",
                )
            if not more:
                break
            for record in more:
                if positions.add(record):
                    yield record
        check_complete(stream, stored=stored, found=positions.batches)


async def stream_artifacts(
    artifacts: ArtifactStore, stream: Stream, *, batches: int, prefix: str = ""
) -> AsyncGenerator[ArtifactRecord, None]:
    """Yield the records of one stream by position, as readers get them. ``batches`` is the number
    of batches that its node has stored, if it has finished, or else 0. With ``prefix``, only
    records whose uids begin with it are yielded and counted.

    Raises:
        NodeFailure: ``artifact_lost``; a record is missing.
    """
    position = found = 0
    while True:
        page = await artifact_page(artifacts, stream, after=position, limit=PAGE)
        if not page and found < batches:
            page = await artifact_page(artifacts, stream, after=position, limit=PAGE, latest=True)
        if not page:
            break
        position = page[-1].position
        for record in page:
            if record.uid.startswith(prefix):
                found += record.partial
                yield record
    check_complete(stream, stored=batches, found=found)
