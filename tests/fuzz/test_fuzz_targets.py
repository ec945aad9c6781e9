"""Readers reject invalid bytes with the documented errors.

Each target gets a fixed number of inputs, starting with the corpus, which reaches nearly all code
that these runs reach. They are generated from a fixed seed, so that a failure is caused by a change
and not by chance. With ``FLOWKIT_TEST_FUZZ_SECONDS=600``, each target runs that long with a new
seed.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RUNS = {
    "message": 30_000,
    "graph": 4_000,
    "record": 20_000,
    "part": 20_000,
    "condition": 1_000,
    "text": 6_000,
}
SECONDS = int(os.environ.get("FLOWKIT_TEST_FUZZ_SECONDS", 0))

pytestmark = pytest.mark.timeout(SECONDS + 240)


@pytest.fixture(scope="module")
def harness() -> Iterator[subprocess.Popen[str]]:
    """Start the fuzzer, which is not available on every platform."""
    if importlib.util.find_spec("atheris") is None:
        message = (
            "atheris is not installed: it has wheels for Linux and macOS, see the dev group in"
            " pyproject.toml"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with subprocess.Popen(
        [sys.executable, str(HERE / "harness.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ if SECONDS else {**os.environ, "PYTHONHASHSEED": "0"},
        cwd=HERE.parent.parent,
        start_new_session=True,
    ) as process:
        yield process
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(("target", "runs"), RUNS.items(), ids=RUNS)
def test_nothing_but_our_own_errors_is_raised(
    target: str, runs: int, harness: subprocess.Popen[str], tmp_path: Path
) -> None:
    found, output = tmp_path / "corpus", tmp_path / "output"
    found.mkdir()
    request = [
        str(output),
        target,
        *([f"-max_total_time={SECONDS}"] if SECONDS else [f"-runs={runs}", "-seed=1"]),
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-max_len=8192",
        f"-dict={HERE / 'words.dict'}",
        f"-artifact_prefix={tmp_path}/",
        str(found),
        str(HERE / "corpus" / target),
    ]
    assert harness.stdin is not None
    assert harness.stdout is not None
    harness.stdin.write(json.dumps(request) + "\n")
    harness.stdin.flush()
    status = harness.stdout.readline().strip()
    said = output.read_text(encoding="utf-8", errors="replace")
    assert status == "0", said[-8000:]
    assert "DONE" in said


def test_there_is_a_corpus_for_every_target() -> None:
    assert {path.name for path in (HERE / "corpus").iterdir()} == RUNS.keys()
    assert all(any(path.iterdir()) for path in (HERE / "corpus").iterdir())
