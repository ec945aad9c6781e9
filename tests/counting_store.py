"""A store in memory that counts what is read from it and committed to it."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from flowkit.protocols import Commit, TaskRecord
from flowkit_testing import InMemoryStore


class CountingStore(InMemoryStore):
    """Counts the records of each task that are loaded, and the commits."""

    def __init__(self) -> None:
        super().__init__()
        self.loads = Counter[str]()
        self.committed = 0

    async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
        self.loads.update(list(task_ids))
        return await super().load(task_ids)

    async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
        self.committed += len(commits)
        return await super().commit(commits)
