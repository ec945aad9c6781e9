"""Report of an import: numbers, and sentences about what was not imported."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Imported:
    """Numbers of what was imported, and of what was there already or differs."""

    tasks: int = 0
    artifacts: int = 0
    dead_letters: int = 0
    flow_versions: int = 0
    schedules: int = 0
    triggers: int = 0
    trigger_events: int = 0
    skipped: int = 0
    """Tasks, versions of flows, schedules and triggers that were there already."""
    refused: int = 0


class ImportReport:
    """Counts what is imported. ``report`` is called with a sentence about what is not."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self.done = Imported()

    def refuse(self, what: str, why: object, *, line: int | None = None) -> None:
        """Report that ``what`` is not imported."""
        self.done.refused += 1
        place = "" if line is None else f"line {line}: "
        self._report(f"{place}{what} is not imported: {why}")
