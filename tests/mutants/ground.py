"""A copy of the packages with one mutant applied, and commands that run on it."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from tests.mutants.places import ROOT, SOURCES, Mutant, mutated

ONE_PARSER = threading.Lock()
"""Python 3.11 fails now and then when two threads parse code at once."""


def prepare(mutant: Mutant | None, folder: Path) -> dict[str, str]:
    """Copy the packages and apply the mutant.

    Return the environment variables with which Python imports the copy.
    """
    for source in SOURCES:
        # Compiled modules are copied too, and Python uses those whose source has not changed.
        # Files named "*.pyc.NUMBER" are being written by another process.
        shutil.copytree(
            source,
            folder,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("*.egg-info", "*.pyc.*"),
        )
    if mutant is not None:
        with ONE_PARSER:
            path, text = mutated(mutant)
        target = folder / path
        target.write_text(text, encoding="utf-8")
        for compiled in target.parent.glob(f"__pycache__/{target.stem}.*.pyc"):
            compiled.unlink()
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run(
    command: list[str], environment: dict[str, str], *, limit_sec: float
) -> subprocess.CompletedProcess[str]:
    """Run a Python module in the prepared environment."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=limit_sec,
        check=False,
    )
