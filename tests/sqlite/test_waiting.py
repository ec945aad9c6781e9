"""Tasks that wait in an SQLite file, while their processes are killed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowkit import Client
from flowkit.config import CommonConfig
from tests.services.processes import Processes
from tests.services.waiting import EXPECTED, outcome, wait_through_kills
from tests.services.waiting_patterns import (
    CASES,
    finished_through_kills,
    patterns_that_wait,
)
from tests.services.waiting_subflows import subflows_through_kills

pytestmark = pytest.mark.timeout(180)


async def test_a_task_waits_while_its_coordinators_are_killed(tmp_path: Path) -> None:
    installation: Any = SimpleNamespace(common={"db": f"sqlite:///{tmp_path / 'tasks.db'}"})
    with Processes(installation, tmp_path) as processes:
        async with Client(cfg=CommonConfig(**installation.common)) as client:
            assert outcome(await wait_through_kills(processes, client)) == EXPECTED


async def test_each_pattern_that_waits_goes_on_after_its_processes_were_killed(
    tmp_path: Path,
) -> None:
    installation: Any = SimpleNamespace(common={"db": f"sqlite:///{tmp_path / 'tasks.db'}"})
    with Processes(installation, tmp_path) as processes:
        async with Client(cfg=CommonConfig(**installation.common)) as client:
            found = await finished_through_kills(processes, client)
    assert found == [case.finishes for case in CASES]


async def test_subflows_go_on_after_the_processes_were_killed_while_their_child_tasks_waited(
    tmp_path: Path,
) -> None:
    installation: Any = SimpleNamespace(common={"db": f"sqlite:///{tmp_path / 'tasks.db'}"})
    with Processes(installation, tmp_path) as processes:
        async with Client(cfg=CommonConfig(**installation.common)) as client:
            await subflows_through_kills(processes, client)


def test_all_patterns_that_wait_are_among_the_cases() -> None:
    assert patterns_that_wait() == {case.pattern for case in CASES}
