"""Processors of events without the services around them."""

from flowkit._engine import EngineSettings
from flowkit._tasks.event_processor import EventProcessor
from flowkit.plugins import Plugins
from flowkit_testing import InMemoryStore, ManualClock


def processor_of(
    store: InMemoryStore, *, sends: bool = True, clock: ManualClock | None = None
) -> EventProcessor:
    """Return a processor like that of a coordinator, or of a client if it ``sends`` nothing."""
    return EventProcessor(
        store=store,
        clock=clock or ManualClock(),
        plugins=Plugins(),
        settings=EngineSettings(sends=sends),
        keep_nodes=100,
        keep_settled_sec=10,
        patience_sec=0,
    )
