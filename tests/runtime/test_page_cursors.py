"""Cursors of pages of tasks."""

import pytest

from flowkit.adapters import page_cursor, read_page_cursor
from flowkit.errors import StoreError


def test_a_cursor_keeps_the_time_and_the_id_of_its_task():
    assert read_page_cursor(page_cursor(1.7e9 + 0.1, "a|b")) == (1.7e9 + 0.1, "a|b")


@pytest.mark.parametrize("cursor", ["", "x", "x|t", "|t", "nan|t", "inf|t", "-inf|t", "1e400|t"])
def test_a_cursor_that_is_none_is_refused(cursor: str):
    with pytest.raises(StoreError, match="invalid page cursor '"):
        read_page_cursor(cursor)
