"""History of a task: its changes, which are in its record and in its archive."""

from bisect import bisect_right
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass

from flowkit._records.record_parts import decode_log
from flowkit.protocols import Store, TaskRecord
from flowkit.task import LogEntry

PAGE = 500
"""Parts of the archive that are read at a time."""
STEP = 1_000
"""Changes by which the search for the first part to read goes back at first."""


@dataclass(slots=True)
class HistoryReader:
    """Reader of the history of a task, and its position."""

    store: Store
    seq: int = 0
    """The number of the last change that was read."""
    part: str = ""
    """The last part of the archive that was read. Changes that were read from the record since then
    may be in the archive by now, under an earlier name.
    """

    async def read(
        self, record: TaskRecord, last: int
    ) -> AsyncGenerator[tuple[int, LogEntry], None]:
        """Yield the changes that were not read before, with their numbers, from a record whose
        ``last`` change has this number.

        Raises:
            CorruptRecord: a part is damaged.
        """
        task_id = record.header.task_id
        live = sorted(name for name in record.parts if name[0] == "e")
        if self.seq < last and (not live or int(live[0][1:]) > self.seq + 1):
            self.part = self.part or await self._name_before(task_id)
            while page := await self.store.scan_archive(
                task_id, prefix="e", after=self.part, limit=PAGE
            ):
                for name, data in page:
                    for change in self._new_in(name, data, task_id):
                        yield change
                    self.part = name
        for name in self._unread(live):
            for change in self._new_in(name, record.parts[name], task_id):
                yield change

    def _unread(self, names: Sequence[str]) -> Sequence[str]:
        """Return the names of the parts from that with the next change on. A part is named for its
        first change, and ends where the next one begins.
        """
        return names[max(0, bisect_right(names, f"e{self.seq + 1:010d}") - 1) :]

    async def _name_before(self, task_id: str) -> str:
        """Return a name below that of the part with the next change, and not far below it.

        A part is named for its first change, and the store finds only the parts above a name. So
        the search goes back in growing steps, until a part begins with the next change or before.
        """
        step = STEP
        while self.seq > step:
            name = f"e{self.seq - step:010d}"
            found = await self.store.scan_archive(task_id, prefix="e", after=name, limit=1)
            if found and int(found[0][0][1:]) <= self.seq + 1:
                return name
            step *= 4
        return ""

    def _new_in(self, name: str, data: bytes, task_id: str) -> Iterator[tuple[int, LogEntry]]:
        for seq, entry in decode_log(name, data, task_id):
            if seq > self.seq:
                self.seq = seq
                yield seq, entry
