"""Ports of servers that are started at the same time."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.ports import free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
PORTS_OF_ANOTHER_PROCESS = """
import random
from tests.servers.ports import free_ports
random.seed(5)
print(*free_ports(3))
"""


@pytest.fixture(autouse=True)
def _own_random_numbers() -> Iterator[None]:
    state = random.getstate()
    yield
    random.setstate(state)


def ports_of_seed(seed: int) -> list[int]:
    random.seed(seed)
    return free_ports(3)


def test_a_port_is_given_once_as_long_as_the_process_runs() -> None:
    assert not set(ports_of_seed(3)) & set(ports_of_seed(3))


def test_two_processes_get_different_ports() -> None:
    own = ports_of_seed(5)
    command = [sys.executable, "-c", PORTS_OF_ANOTHER_PROCESS]
    others = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert len(others.split()) == 3
    assert not set(own) & set(map(int, others.split()))
