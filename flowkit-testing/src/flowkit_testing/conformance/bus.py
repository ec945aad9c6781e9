"""The suite that a bus has to pass."""

from ._bus_acknowledging import Acknowledging, Broadcasting, Rejecting
from ._bus_groups import Groups
from ._bus_outstanding import Outstanding
from ._bus_publishing import Publishing
from ._bus_receiving import Receiving


class BusConformance(Publishing, Outstanding, Receiving, Groups, Acknowledging, Rejecting, Broadcasting):
    """A test for each promise of :class:`flowkit.protocols.Bus`.

    Subclass it and supply the fixture ``bus``, an entered bus::

        class TestMyBus(BusConformance):
            dead_letter_topic = "my.dlq"

            @pytest.fixture
            async def bus(self, anyio_backend):
                async with MyBus(dead_letter_topic="my.dlq") as bus:
                    yield bus

            @pytest.fixture
            def open_bus(self, bus):
                return lambda: MyBus(dead_letter_topic="my.dlq")

    ``open_bus`` gives further connections to the same server, not yet entered; ``closed_bus`` an entered bus that may not create topics.
    Without these two the tests that need them are skipped. ``patience`` and ``quiet_sec`` say how slow the server may be.
    """
