"""Reading of an export file, in parts of bounded size."""

from typing import BinaryIO

from flowkit._exports.line_texts import decode_header, decode_line
from flowkit._exports.lines import (
    AnyLine,
    ArchivedPartLine,
    ArtifactLine,
    DeadLetterLine,
    EndLine,
    FlowVersionLine,
    HeaderLine,
    ScheduleLine,
    TaskLine,
    TriggerEventLine,
    TriggerLine,
)
from flowkit.errors import InvalidExport

LONGEST_HEADER = 10_000
LONGEST_LINE = 500_000_000
BATCH_BYTES = 4_000_000
BATCH_LINES = 2_000

DEFINITIONS = (FlowVersionLine, ScheduleLine, TriggerEventLine, TriggerLine)
"""Lines that belong to no task."""

Batch = list[tuple[int, AnyLine]]
"""Lines with their numbers in the file."""


class ExportReader:
    """The lines of an export, which are checked for damage, order and completeness."""

    def __init__(self, file: BinaryIO, *, batch_lines: int = BATCH_LINES) -> None:
        self._file = file
        self._batch_lines = batch_lines
        self._number = 0
        self._missing = _Missing()
        self._fault: InvalidExport | None = None
        self._complete = False

    def header(self) -> HeaderLine:
        """Read the first line.

        Raises:
            InvalidExport: it is not the beginning of an export.
        """
        self._number = 1
        return decode_header(self._file.readline(LONGEST_HEADER))

    def batch(self) -> Batch:
        """Read the next lines; none after the end.

        Raises:
            InvalidExport: the next line is damaged or missing. The lines before it were returned.
        """
        if self._fault is not None:
            raise self._fault
        lines: Batch = []
        size = 0
        try:
            while not self._complete and size < BATCH_BYTES and len(lines) < self._batch_lines:
                text = self._file.readline(LONGEST_LINE)
                size += len(text)
                if (line := self._next(text)) is not None:
                    lines.append((self._number, line))
        except ValueError as error:
            self._fault = InvalidExport(f"line {self._number}: {error}")
            if not lines:
                raise self._fault from None
        return lines

    def _next(self, text: bytes) -> AnyLine | None:
        """Return the next line, or None at the end.

        Raises:
            ValueError: the file is damaged.
        """
        self._number += 1
        if not text:
            raise ValueError("the export is incomplete: its last line is missing")
        line = decode_line(text)
        self._missing.check(line)
        if not isinstance(line, EndLine):
            return line
        if line.lines != self._number:
            raise ValueError(f"the export had {line.lines} lines when it was written")
        if self._file.readline(1):
            self._number += 1
            raise ValueError("the export continues after its end")
        self._complete = True
        return None


class _Missing:
    """Lines that belong to the last task and were not read yet."""

    def __init__(self) -> None:
        self._task_id = ""
        self._counts: dict[type[AnyLine], int] = {}
        self._stream: tuple[str, int] | None = None
        self._position = 0

    def check(self, line: AnyLine) -> None:
        """Check that a line may follow.

        Raises:
            ValueError: other lines are missing before it.
        """
        if isinstance(line, (TaskLine, *DEFINITIONS, EndLine)):
            self._check_none_left()
        elif self._counts.get(type(line)) and line.task_id == self._task_id:
            self._counts[type(line)] -= 1
        elif isinstance(line, DeadLetterLine):
            self._check_none_left()
        else:
            raise ValueError(f"the record does not belong to task {self._task_id!r:.100}")
        if isinstance(line, ArtifactLine):
            self._check_position(line)
        if isinstance(line, TaskLine):
            self._task_id, self._stream = line.task_id, None
            self._counts = {
                ArchivedPartLine: line.archived_parts,
                ArtifactLine: line.artifacts,
                DeadLetterLine: line.dead_letters,
            }

    def _check_position(self, line: ArtifactLine) -> None:
        """Check that an artifact follows the one before it in its stream."""
        if self._stream != (line.node_id, line.generation):
            self._stream, self._position = (line.node_id, line.generation), 0
        self._position += 1
        if line.position != self._position:
            raise ValueError(
                f"artifact {self._position} of node {line.node_id!r:.100} is missing before"
                f" artifact {line.position}"
            )

    def _check_none_left(self) -> None:
        if count := sum(self._counts.values()):
            raise ValueError(
                f"{count} records of task {self._task_id!r:.100} are missing before it"
            )
