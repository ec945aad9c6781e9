"""Conformance suite for stores."""

from flowkit_testing.conformance._store_archive import Archiving, Purging
from flowkit_testing.conformance._store_cancellation import Cancelling
from flowkit_testing.conformance._store_commits import Committing, Waiting
from flowkit_testing.conformance._store_creation import Creating, Loading
from flowkit_testing.conformance._store_identity import Identity
from flowkit_testing.conformance._store_keyed_records import KeyedRecords
from flowkit_testing.conformance._store_namespaces import Namespaces
from flowkit_testing.conformance._store_processes import Processes
from flowkit_testing.conformance._store_queries import FindingDue, Listing


class StoreConformance(
    Creating,
    Loading,
    Committing,
    Waiting,
    Archiving,
    Purging,
    FindingDue,
    Listing,
    KeyedRecords,
    Identity,
    Cancelling,
    Namespaces,
    Processes,
):
    """Test of each promise of :class:`flowkit.protocols.Store`.

    :class:`ArtifactStoreConformance` tests its artifacts.

    Subclass it and supply the fixture ``store``, an entered store::

        class TestMyStore(StoreConformance):
            oversize_bytes = 20_000_000

            @pytest.fixture
            async def store(self, anyio_backend):
                async with MyStore(url) as store:
                    yield store

            @pytest.fixture
            def open_store(self, store):
                return lambda: MyStore(url)

    Further fixtures are optional. A test that needs one is skipped without it:

    - ``open_store`` gives further connections to the same data, not yet entered;
    - ``open_namespace`` gives a store, not yet entered, for the namespace that it is called with;
    - ``opener`` is an :class:`Opener`, with which other processes open the same data. The suite
      starts and kills such processes.

    ``patience`` and ``quiet_sec`` set how slow the server may be.
    """
