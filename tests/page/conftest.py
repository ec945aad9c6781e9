"""Fixtures of the tests of the page."""

import pytest

from tests.page.built import built_page


@pytest.fixture(scope="session", autouse=True)
def _current_page() -> None:
    """Build the page after a change of its sources."""
    built_page()
