"""Tasks that wait in an SQLite file, while their processes are killed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowkit import Client
from flowkit.config import CommonConfig
from tests.services.processes import Processes
from tests.services.waiting import EXPECTED, outcome, wait_through_kills

pytestmark = pytest.mark.timeout(180)


async def test_a_task_waits_while_its_coordinators_are_killed(tmp_path: Path) -> None:
    installation: Any = SimpleNamespace(common={"db": f"sqlite:///{tmp_path / 'tasks.db'}"})
    with Processes(installation, tmp_path) as processes:
        async with Client(cfg=CommonConfig(**installation.common)) as client:
            assert outcome(await wait_through_kills(processes, client)) == EXPECTED
