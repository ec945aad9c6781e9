"""Scan of the artifacts of a task over all streams. It detects missing artifacts."""

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

    prefix: str = ""
    """Only batches whose uids begin with it are counted."""
    done: int = 0
    """All positions up to this one were read."""
    ahead: set[int] = field(default_factory=set)
    batches: int = 0

    def add(self, record: ArtifactRecord) -> bool:
        """Count a record. Return False if its position was read before."""
        if record.position <= self.done or record.position in self.ahead:
            return False
        self.batches += record.partial and record.uid.startswith(self.prefix)
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
    prefix: str = "",
) -> AsyncGenerator[ArtifactRecord, None]:
    """Yield the records of these nodes, in order of production. ``batches`` are the numbers of
    batches that the finished nodes have stored. With ``prefix``, only records whose uids begin with
    it are yielded and counted.

    Raises:
        NodeFailure: ``artifact_lost``; a record is missing.
    """
    read = {
        Stream(task_id, node_id, generation): _Positions(prefix)
        for node_id, generation in generations.items()
    }
    cursor = None
    while page := await artifacts.scan(task_id, after=cursor, limit=PAGE):
        cursor = page[-1][0]
        for _, record in page:
            if record.stream in read:
                read[record.stream].add(record)
                if record.uid.startswith(prefix):
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
                if positions.add(record) and record.uid.startswith(prefix):
                    yield record
        check_complete(stream, stored=stored, found=positions.batches)
