"""Fields of schedules: each wrong one is refused by name."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from flowkit import Schedule

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)
OUT_OF_RANGE = "is not between 0001-01-03T00:00:00Z and 9999-12-29T23:59:59Z"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "exactly one of cron, every_sec and at, not none of them"),
        ({"cron": "@daily", "every_sec": 5}, "not cron and every_sec"),
        ({"cron": "0 0 * *"}, "cron.*has 4 fields"),
        ({"cron": f"{'0,' * 500}0 * * * *"}, "cron.*at most 1000 characters"),
        ({"cron": "@daily", "timezone": "Moon/Base"}, "timezone.*not a known time zone"),
        ({"every_sec": 0.5}, "every_sec"),
        ({"every_sec": "5"}, "every_sec"),
        ({"every_sec": float("nan")}, "every_sec"),
        ({"every_sec": 5, "timezone": "Europe/Berlin"}, "timezone has no effect with every_sec"),
        ({"at": NEW_YEAR, "end_at": NEW_YEAR}, "end_at has no effect with at"),
        ({"at": datetime(2027, 1, 1)}, "at.*timezone"),
        ({"at": 1_700_000_000}, "at.*a time with a zone"),
        ({"at": "soon"}, "at"),
        ({"at": "9999-12-31T23:59:59-14:00"}, f"at.*{OUT_OF_RANGE}"),
        ({"at": "9999-12-29T23:59:59.5Z"}, f"at.*{OUT_OF_RANGE}"),
        ({"at": "0001-01-01T00:00:00+14:00"}, f"at.*{OUT_OF_RANGE}"),
        ({"every_sec": 5, "start_at": "0001-01-02T23:59:59Z"}, f"start_at.*{OUT_OF_RANGE}"),
        ({"cron": "@daily", "end_at": "9999-12-31T23:59:59Z"}, f"end_at.*{OUT_OF_RANGE}"),
        ({"every_sec": 5, "start_at": NEW_YEAR, "end_at": "2026-01-01T00:00:00Z"}, "before start"),
        ({"every_sec": 5, "overlap": "maybe"}, "overlap"),
        ({"every_sec": 5, "catch_up": "some"}, "catch_up"),
        ({"every_sec": 5, "catch_up": "none", "catch_up_window_sec": 9}, "catch_up_window_sec"),
        ({"every_sec": 5, "jitter_sec": -1}, "jitter_sec"),
        ({"every_sec": 5, "jitter_sec": 1e6}, "jitter_sec"),
        ({"every_sec": 5, "paused": "yes"}, "paused"),
        ({"every_sec": 5, "priority": 1.5}, "priority"),
        ({"every_sec": 5, "deadline_sec": 0}, "deadline_sec"),
        ({"every_sec": 5, "labels": {"a": 1}}, "labels"),
        ({"every_sec": 5, "labels": {"a=b": "c"}}, "labels.*'a=b' cannot be the key of a label"),
        (
            {"every_sec": 5, "labels": {"day": "${schedule.at}"}},
            "expressions .* not supported here",
        ),
        ({"every_sec": 5, "pipeline": "p-${params.x}"}, "expressions .* not supported here"),
        ({"every_sec": 5, "flow": "nightly"}, "exactly one of graph and flow"),
        ({"every_sec": 5, "graph": None}, "exactly one of graph and flow"),
        ({"every_sec": 5, "version": 2}, "version has no effect without flow"),
        ({"every_sec": 5, "graph": None, "flow": "a", "version": 0}, "version"),
        ({"every_sec": 5, "grape": {}}, "grape"),
        ({"every_sec": 5, "id": ""}, "id"),
        ({"every_sec": 5, "id": "x" * 161}, "id"),
        ({"every_sec": 5, "id": "a\nb"}, "id.*cannot be printed"),
        ({"every_sec": 5, "id": ".."}, "id.*cannot be parts of a URL"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s){why}"):
        Schedule(**{"id": "s", "graph": {}, **fields})


def test_the_id_is_the_first_argument_and_times_may_be_texts() -> None:
    first = Schedule("s", graph={}, at=NEW_YEAR)
    assert first == Schedule(id="s", graph={}, at="2027-01-01T01:00:00+01:00")
