"""What the suites share: their settings, and unique names."""

import uuid
from collections.abc import Collection
from typing import ClassVar

import pytest

from flowkit.protocols import CheckResult


class Conformance:
    """The root of the suites. Its attributes are set by a subclass whose server is slower than
    memory.
    """

    pytestmark: ClassVar[pytest.MarkDecorator] = pytest.mark.anyio

    patience: ClassVar[float] = 30.0
    """Seconds to wait for what has to happen."""

    quiet_sec: ClassVar[float] = 0.3
    """Seconds to wait for what must not happen."""

    @pytest.fixture(scope="session")
    @classmethod
    def anyio_backend(cls) -> str:
        """The suites run on asyncio, also where the tests around them run on something else."""
        return "asyncio"

    @pytest.fixture
    def unique(self) -> str:
        """A name that no other test uses, so that tests can share a server."""
        return uuid.uuid4().hex[:16]


def assert_well_formed(results: object) -> None:
    """What ``check`` answers is a sequence of named results, and one that is not well says why."""
    assert isinstance(results, list | tuple)
    for result in results:
        assert isinstance(result, CheckResult)
        assert result.name
        assert result.ok or result.detail


def assert_new(page: Collection[object], seen: Collection[object]) -> None:
    """Check that a page repeats nothing of the pages before it, so that reading page by page
    ends.
    """
    repeated = [item for item in page if item in seen]
    assert not repeated, f"a page repeats {repeated}"
