"""Log lines of one run: which of them are kept."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from flowkit.config import LogConfig


class Line(NamedTuple):
    """A line of a run, as JSON."""

    run: "RunLines"
    at: float
    data: bytes


class RunLines:
    """The lines of one run.

    The first half of the lines that are kept are its first lines, and the other half its newest
    ones. So the beginning and the end of a run that logs too much remain, wherever it stops. The
    newest lines are in records of their own, of which old ones are deleted.
    """

    def __init__(self, task_id: str, number: int, cfg: LogConfig) -> None:
        self.task_id = task_id
        self.number = number
        """Number of the run among those of the worker that have logged."""
        self.lines = 0
        """The number of lines so far, with those that are not kept."""
        self.unsettled = 0
        """The number of lines that are neither stored nor dropped."""
        self._first_lines = cfg.max_lines // 2
        self._first_bytes = cfg.max_bytes // 2
        self._most_lines = cfg.max_lines - self._first_lines
        self._most_bytes = cfg.max_bytes - self._first_bytes
        self._first: list[Line] = []
        self._newest: deque[Line] = deque()
        self._newest_bytes = 0
        self._stored: deque[tuple[str, int, int]] = deque()
        """Key of each record of newest lines, and the number and the bytes of its lines."""
        self._stored_lines = self._stored_bytes = 0

    def add(self, line: Line) -> list[Line]:
        """Add a line to those that wait. Return older ones that have to go."""
        size = len(line.data)
        if self._first_lines > 0 and size <= self._first_bytes:
            self._first_lines -= 1
            self._first_bytes -= size
            self._first.append(line)
            return []
        self._first_lines = 0
        self._newest.append(line)
        self._newest_bytes += size
        gone = []
        while len(self._newest) > 1 and (
            len(self._newest) > self._most_lines or self._newest_bytes > self._most_bytes
        ):
            gone.append(self._newest.popleft())
            self._newest_bytes -= len(gone[-1].data)
        return gone

    def take(self) -> tuple[list[Line], list[Line]]:
        """Return the lines that wait: the first ones of the run, and the newest."""
        first, newest = self._first, list(self._newest)
        self._first = []
        self._newest.clear()
        self._newest_bytes = 0
        return first, newest

    def parts(self, newest: Sequence[Line]) -> Iterator[Sequence[Line]]:
        """Cut newest lines into those of records.

        A record has at most half of the newest lines that are kept. So half of them remain when the
        oldest record is deleted.
        """
        return cut(newest, max(self._most_lines // 2, 1), max(self._most_bytes // 2, 1))

    def note_stored(self, key: str, lines: Sequence[Line]) -> list[str]:
        """Record that newest lines are stored under a key. Return the keys to delete."""
        size = size_of(lines)
        self._stored.append((key, len(lines), size))
        self._stored_lines += len(lines)
        self._stored_bytes += size
        old = []
        while len(self._stored) > 1 and (
            self._stored_lines > self._most_lines or self._stored_bytes > self._most_bytes
        ):
            oldest, number, size = self._stored.popleft()
            self._stored_lines -= number
            self._stored_bytes -= size
            old.append(oldest)
        return old


def cut(lines: Sequence[Line], most_lines: int, most_bytes: int) -> Iterator[Sequence[Line]]:
    """Cut lines into parts of at most so many lines and bytes, or of one line."""
    begin = size = 0
    for end, line in enumerate(lines):
        size += len(line.data)
        if end > begin and (end - begin >= most_lines or size > most_bytes):
            yield lines[begin:end]
            begin, size = end, len(line.data)
    if begin < len(lines):
        yield lines[begin:]


def size_of(lines: Sequence[Line]) -> int:
    """Return the length of lines as JSON, in bytes."""
    return sum(len(line.data) for line in lines)
