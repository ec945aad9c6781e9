"""Settings of the suites, and unique names."""

import uuid
from collections.abc import Collection
from typing import ClassVar

import pytest

from flowkit.protocols import CheckResult


class Conformance:
    """Base of all suites. A subclass sets the attributes if its server is slower than memory."""

    pytestmark: ClassVar[pytest.MarkDecorator] = pytest.mark.anyio

    patience: ClassVar[float] = 30.0
    """Seconds to wait for an expected result."""

    quiet_sec: ClassVar[float] = 0.3
    """Seconds to wait before a test concludes that nothing more happens."""

    @pytest.fixture(scope="session")
    @classmethod
    def anyio_backend(cls) -> str:
        """Run the suites on asyncio, even if the tests around them run on another backend."""
        return "asyncio"

    @pytest.fixture
    def unique(self) -> str:
        """Return a name that no other test uses, so that tests can share a server."""
        return uuid.uuid4().hex[:16]


def assert_well_formed(results: object) -> None:
    """Check that the results of ``check`` have names, and that failed ones have a reason."""
    assert isinstance(results, list | tuple)
    for result in results:
        assert isinstance(result, CheckResult)
        assert result.name
        assert result.ok or result.detail


def assert_new(page: Collection[object], seen: Collection[object]) -> None:
    """Check that a page repeats no item of earlier pages, so that reading all pages ends."""
    repeated = [item for item in page if item in seen]
    assert not repeated, f"a page repeats {repeated}"
