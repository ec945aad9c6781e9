"""Servers that tests start end with them, and a missing server is not taken for a failure."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.servers.kafka_fixtures import start_kafka
from tests.servers.ports import free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
STARTS_A_SERVER = """
import sys, time
from pathlib import Path
from tests.servers.processes import ServerProcess
folder = Path(sys.argv[1])
print(ServerProcess(["sleep", "60"], folder=folder, log=folder / "log").pid, flush=True)
time.sleep(60)
"""


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text(encoding="ascii").rpartition(") ")[2][0] != "Z"


def test_a_server_does_not_outlive_a_test_run_that_is_killed(tmp_path):
    around = tmp_path / "servers"
    folder = around / "one"
    folder.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_A_SERVER, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as tests:
        pid = int(tests.stdout.readline())
        assert is_running(pid)
        tests.send_signal(signal.SIGKILL)
    until = time.monotonic() + 10
    while (is_running(pid) or around.exists()) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(pid)
    assert not around.exists()


def test_the_ports_of_servers_are_none_that_clients_are_given():
    lowest_of_clients = int(
        Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0]
    )
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert max(ports) < lowest_of_clients


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)]
)
def test_a_kafka_that_cannot_be_started_skips_tests_locally_and_fails_in_ci(
    monkeypatch, tmp_path, ci, outcome
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match=r"Java|Maven"):
        start_kafka()
