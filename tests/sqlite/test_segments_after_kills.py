"""Segments on one file, while their processes are killed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flowkit import Client
from flowkit.config import CommonConfig
from tests.services.processes import Processes
from tests.services.segment_kills import a_chain_goes_on_after_its_processes_were_killed
from tests.services.support import Installation

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("mode", ["safe", "eager"])
async def test_a_segment_goes_on_after_worker_and_coordinator_were_killed(
    anyio_backend: str, path: Path, tmp_path: Path, mode: str
) -> None:
    address = f"sqlite:///{path}"
    common: dict[str, Any] = {
        "db": address,
        "bus": address,
        "options": {"sqlite": {"lease_sec": 1.0}},
    }
    installation = cast("Installation", SimpleNamespace(common=common))
    async with Client(cfg=CommonConfig(**common)) as client:
        with Processes(installation, tmp_path) as processes:
            await a_chain_goes_on_after_its_processes_were_killed(client, processes, mode)
