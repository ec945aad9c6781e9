"""Readers reject invalid bytes with the documented errors.

Each target gets a fixed number of inputs, starting with the corpus. They are generated from a fixed
seed, so that a failure is caused by a change and not by chance. With
``FLOWKIT_TEST_FUZZ_SECONDS=600``, each target runs that long with a new seed.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RUNS = {
    "message": 150_000,
    "graph": 20_000,
    "record": 100_000,
    "part": 100_000,
    "condition": 5_000,
    "text": 30_000,
}
SECONDS = int(os.environ.get("FLOWKIT_TEST_FUZZ_SECONDS", 0))

pytestmark = pytest.mark.timeout(SECONDS + 240)


@pytest.fixture(autouse=True)
def atheris() -> None:
    """Return the fuzzer, which is not available on every platform."""
    if importlib.util.find_spec("atheris") is None:
        message = (
            "atheris is not installed: it has wheels for Linux and macOS, see the dev group in"
            " pyproject.toml"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


@pytest.mark.parametrize(("target", "runs"), RUNS.items(), ids=RUNS)
def test_nothing_but_our_own_errors_is_raised(target: str, runs: int, tmp_path: Path) -> None:
    found = tmp_path / "corpus"
    found.mkdir()
    done = subprocess.run(
        [
            sys.executable,
            str(HERE / "harness.py"),
            target,
            *([f"-max_total_time={SECONDS}"] if SECONDS else [f"-runs={runs}", "-seed=1"]),
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-max_len=8192",
            f"-dict={HERE / 'words.dict'}",
            f"-artifact_prefix={tmp_path}/",
            str(found),
            str(HERE / "corpus" / target),
        ],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS + 200,
        env=os.environ if SECONDS else {**os.environ, "PYTHONHASHSEED": "0"},
        cwd=HERE.parent.parent,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    assert "DONE" in done.stderr


def test_there_is_a_corpus_for_every_target() -> None:
    assert {path.name for path in (HERE / "corpus").iterdir()} == RUNS.keys()
    assert all(any(path.iterdir()) for path in (HERE / "corpus").iterdir())
