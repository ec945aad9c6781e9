"""Times on the command line, on a machine that is not in the zone UTC."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import typer

from flowkit.cli import _options as options
from flowkit.cli._output import time_text

AT = datetime(2026, 11, 27, 10, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


def test_a_time_is_shown_in_utc_and_read_as_it_is_shown():
    assert time_text(AT) == "2026-11-27 10:05:00Z"
    assert options.time(time_text(AT), "--created-after") == AT


@pytest.mark.parametrize(
    "text", ["2026-11-27T10:05", "2026-11-27 10:05:00", "2026-11-27T12:05+02:00"]
)
def test_a_time_without_a_zone_is_in_utc(text: str):
    assert options.time(text, "--created-after") == AT


@pytest.mark.parametrize("text", ["noon", "", "1700000000", "0001-01-01T00:00+14:00"])
def test_what_is_no_time_is_refused(text: str):
    with pytest.raises(typer.BadParameter, match="expected a time such as 2026-11-27 or"):
        options.time(text, "--created-after")
