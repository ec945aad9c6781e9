"""Sources of triggers in the simulation: processes that read them die."""

from flowkit.config import CommonConfig
from flowkit_testing.simulation._process import Process, State, current_process
from tests.triggers.memory_source import MemorySource, Reader, Readers


class SimulatedSource(MemorySource):
    """A source whose readers may die. Then their events go to others, as those of a member of a
    consumer group whose session has ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.living: list[tuple[Readers, Reader, Process | None]] = []

    def joined(self, readers: Readers, reader: Reader) -> None:
        super().joined(readers, reader)
        self.living.append((readers, reader, current_process()))

    def left(self, readers: Readers, reader: Reader) -> None:
        super().left(readers, reader)
        self.living = [one for one in self.living if one[1] is not reader]

    def expire(self) -> None:
        """Give back the events of readers that have died."""
        for readers, reader, process in self.living:
            if process is not None and process.state is State.DEAD:
                self.left(readers, reader)


class SimulatedSources:
    """Plugin with a source for each run of a scenario, at ``mem://NAME``."""

    def __init__(self) -> None:
        self.open: dict[str, SimulatedSource] = {}

    def flowkit_open_trigger(self, source: str, config: CommonConfig) -> SimulatedSource | None:
        return self.open.get(source)


SOURCES = SimulatedSources()
