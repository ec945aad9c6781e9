"""A forked process is what ``python -m`` would make of it."""

import json
import signal
from pathlib import Path

from tests.forks import Fork

PATIENCE_SEC = 90
PROGRAM = """
import json, os, sys, time

print(json.dumps([__name__, sys.argv[1:], os.getcwd(), dict(os.environ), sys.stdin.read()]))
sys.stdout.flush()
print("late", file=sys.stderr)
if "wait" in sys.argv:
    time.sleep(600)
sys.exit(3)
"""


def test_a_fork_has_its_own_program_arguments_folder_environment_streams_and_end(tmp_path: Path):
    (tmp_path / "program.py").write_text(PROGRAM)
    output, errors = tmp_path / "out", tmp_path / "err"

    def forked(*arguments: str) -> Fork:
        return Fork(
            "program",
            arguments,
            folder=tmp_path,
            environment={"A": "1"},
            stdout=output,
            stderr=errors,
        )

    assert forked("x", "y").wait(PATIENCE_SEC) == 3
    assert json.loads(output.read_text()) == [
        *("__main__", ["x", "y"], str(tmp_path)),
        *({"A": "1"}, ""),
    ]
    assert errors.read_text() == "late\n"
    killed = forked("wait")
    assert killed.poll() is None
    killed.kill()
    assert killed.wait(PATIENCE_SEC) == -signal.SIGKILL
    killed.kill()  # it has ended, so nothing happens
