"""Whatever bytes come, readers refuse them as they promise to. Each target is fuzzed for some seconds, beginning with the corpus."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS = {"message": 5, "graph": 5, "record": 4, "part": 3, "condition": 4, "text": 3}


@pytest.fixture(autouse=True)
def atheris() -> None:
    """The fuzzer, which is not there for every platform."""
    if importlib.util.find_spec("atheris") is None:
        message = "atheris is not installed: it has wheels for Linux and macOS, see the dev group in pyproject.toml"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


@pytest.mark.parametrize(("target", "seconds"), SECONDS.items(), ids=SECONDS)
def test_nothing_but_our_own_errors_is_raised(target: str, seconds: int, tmp_path: Path) -> None:
    found = tmp_path / "corpus"
    found.mkdir()
    done = subprocess.run(
        [
            sys.executable,
            str(HERE / "harness.py"),
            target,
            f"-max_total_time={seconds}",
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
        timeout=seconds + 60,
        cwd=HERE.parent.parent,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    assert "DONE" in done.stderr


def test_there_is_a_corpus_for_every_target() -> None:
    assert {path.name for path in (HERE / "corpus").iterdir()} == SECONDS.keys()
    assert all(any(path.iterdir()) for path in (HERE / "corpus").iterdir())
