"""The example that reports on the standard library, in a terminal: it ends with its page."""

import json
import os
import re
import shutil
import signal
import sys
import sysconfig
import urllib.request
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="needs a terminal of Unix")

CTRL_C = b"\x03"
ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "examples.stdlib_report")


@pytest.mark.timeout(60)
def test_in_a_terminal_it_ends_with_the_address_of_a_page_that_shows_the_run(
    tmp_path: Path,
) -> None:
    shutil.copytree(Path(sysconfig.get_paths()["stdlib"]) / "json", tmp_path / "library")
    params = json.dumps({"root": str(tmp_path / "library"), "output": str(tmp_path / "out.csv")})
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # pytest-xdist ignores it, and so would this
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        os.execve(sys.executable, [*COMMAND, params], environment)
    shown = b""
    while (found := re.search(rb"(http://\S+)/tasks/report\?tab=timeline\s", shown)) is None:
        shown += os.read(terminal, 65_536)
    with urllib.request.urlopen(f"{found[1].decode()}/api/v1/tasks/report/history") as answer:
        events = json.loads(answer.read())["items"]
    os.write(terminal, CTRL_C)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown.decode()
    assert {one["status"] for one in events} >= {"finished"}
