"""A test that takes too long is ended, and the tests behind it run."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HANGS = """
import asyncio
import time

import pytest


async def never_ends():
    while True:
        time.sleep(0.1)  # here the time limit interrupts it
        await asyncio.sleep(0)


@pytest.mark.timeout(1)
async def test_a_task_never_ends():
    task = asyncio.create_task(never_ends())
    await asyncio.Event().wait()


@pytest.mark.timeout(1)
async def test_it_waits_for_nothing():
    await asyncio.Event().wait()


async def test_the_next_one_runs():
    await asyncio.sleep(0)
"""


def test_a_test_ends_at_its_time_limit_though_a_task_never_ends(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nanyio_mode = auto\n")
    (tmp_path / "test_hangs.py").write_text(HANGS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("Timeout (>1.0s)") >= 2
