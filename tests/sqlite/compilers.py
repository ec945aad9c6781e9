"""Libraries that tests preload into processes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMPILER = shutil.which("cc")

needs_preloading = pytest.mark.skipif(
    not sys.platform.startswith("linux") or COMPILER is None,
    reason="needs Linux and a C compiler",
)


def compiled(name: str, folder: Path) -> Path:
    """Compile a C source beside this file into a shared library in a folder."""
    assert COMPILER is not None
    path = folder / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(
        [COMPILER, "-shared", "-fPIC", "-O1", "-pthread", "-o", path, source, "-ldl"], check=True
    )
    return path
