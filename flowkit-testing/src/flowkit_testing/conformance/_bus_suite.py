"""Conformance suite for buses."""

from flowkit_testing.conformance._bus_acknowledgement import Acknowledging, Broadcasting, Rejecting
from flowkit_testing.conformance._bus_groups import Groups
from flowkit_testing.conformance._bus_members import Keeping, Members
from flowkit_testing.conformance._bus_outages import MissingTopics, Outages
from flowkit_testing.conformance._bus_outstanding import Outstanding
from flowkit_testing.conformance._bus_publication import Publishing
from flowkit_testing.conformance._bus_receipt import Receiving


class BusDeliveryConformance(
    Publishing, Outstanding, Receiving, Groups, Keeping, Acknowledging, Rejecting, Broadcasting
):
    """Part of the suite without failures."""


class BusFailureConformance(Members, MissingTopics, Outages):
    """Part of the suite in which members die and servers fail.

    It can be run separately with shorter timeouts.
    """


class BusConformance(BusDeliveryConformance, BusFailureConformance):
    """Test of each promise of :class:`flowkit.protocols.Bus`.

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

    ``open_bus`` gives further connections to the same server, not yet entered; ``closed_bus`` an
    entered bus that may not create topics; ``bus_without_dead_letters`` one that cannot store dead
    letters. ``kill_member`` and ``pause_member`` run members in other processes
    (:class:`~flowkit_testing.conformance.members.MemberProcesses` has both), ``stop_server`` and
    ``cut_connection`` make the server fail, ``count_kept`` and ``count_taken`` look into it. Supply
    those that you can: a test without its fixture is skipped and says so. ``patience``,
    ``quiet_sec``, ``silence_sec``, ``many`` and ``prefetch`` say how the server behaves.
    """
