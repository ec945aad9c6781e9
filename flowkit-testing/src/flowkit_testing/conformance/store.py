"""The suite that a store has to pass."""

from ._store_archiving import Archiving, Purging
from ._store_cancelling import Cancelling
from ._store_committing import Committing, Waiting
from ._store_creating import Creating, Loading
from ._store_finding import FindingDue, Listing
from ._store_identity import Identity
from ._store_keeping import DeadLetters, Sessions
from ._store_namespaces import Namespaces
from ._store_processes import Processes


class StoreConformance(
    Creating,
    Loading,
    Committing,
    Waiting,
    Archiving,
    Purging,
    FindingDue,
    Listing,
    Sessions,
    DeadLetters,
    Identity,
    Cancelling,
    Namespaces,
    Processes,
):
    """A test for each promise of :class:`flowkit.protocols.Store`; its artifacts have :class:`ArtifactStoreConformance`.

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

    Further fixtures say what the adapter can do; the tests that need one are skipped without it:

    - ``open_store`` gives further connections to the same data, not yet entered;
    - ``open_namespace`` gives a store, not yet entered, for the namespace that it is called with;
    - ``opener`` is an :class:`Opener`: how other processes open the same data. The suite runs some, and kills them.

    ``patience`` and ``quiet_sec`` say how slow the server may be.
    """
