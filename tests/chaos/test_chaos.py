"""Chaos run with real processes and servers: all promises hold in the end.

``FLOWKIT_TEST_CHAOS_MINUTES`` sets the duration, ``FLOWKIT_TEST_CHAOS_SEED`` repeats the disasters
of a seed. ``tools/chaos.py`` has more options.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.campaign import run_campaign
from tests.chaos.report import Plan, text_of
from tests.servers.processes import Unavailable, in_ci

MINUTES_IN_CI = 1.0
MINUTES = float(os.environ.get("FLOWKIT_TEST_CHAOS_MINUTES", MINUTES_IN_CI))
SEED = int(os.environ.get("FLOWKIT_TEST_CHAOS_SEED", random.randrange(2**32)))
KILLS = round(10 * min(1.0, MINUTES / MINUTES_IN_CI))

pytestmark = [pytest.mark.services, pytest.mark.timeout(120 * MINUTES + 300)]


def test_nothing_is_lost_or_recorded_twice_when_processes_are_killed_cut_off_or_stopped(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    plan = Plan(seed=SEED, seconds=60 * MINUTES, least_kills=KILLS)
    try:
        report = run_campaign(plan, tmp_path, progress=print)
    except Unavailable as error:
        (pytest.fail if in_ci() else pytest.skip)(f"no servers: {error}")
    record_property("report", text_of(report))
    assert not report.violations, text_of(report)
    assert report.kills >= KILLS
    assert report.tasks["finished"] > 0
