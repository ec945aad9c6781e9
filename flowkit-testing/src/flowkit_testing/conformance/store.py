"""The suite that a store has to pass."""

from ._store_archiving import Archiving, Purging
from ._store_committing import Committing, Waiting
from ._store_creating import Creating, Loading
from ._store_finding import FindingDue, Listing
from ._store_keeping import DeadLetters, Sessions


class StoreConformance(Creating, Loading, Committing, Waiting, Archiving, Purging, FindingDue, Listing, Sessions, DeadLetters):
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

    ``open_store`` gives further connections to the same data, not yet entered; without it the tests that need one are skipped.
    ``patience`` and ``quiet_sec`` say how slow the server may be.
    """
