"""Detection of network file systems, on which processes cannot share a file safely."""

import re
import shutil
import subprocess
from pathlib import Path

DF_SEC = 5.0
SHARE = re.compile(r"//|[^/]+:/?")
"""Device of a network share, as ``df`` names it: ``//host/share`` or ``host:/folder``."""


def network_share(path: Path) -> str | None:
    """Return the network share on which a file is, None if it is local or cannot be found out."""
    drive = path.resolve().drive
    if drive.startswith("\\\\"):
        return drive
    device = _device(path)
    return device if device is not None and SHARE.match(device) else None


def _device(path: Path) -> str | None:
    """Return the device of a file as ``df`` names it, None if that fails."""
    command = shutil.which("df")
    if command is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603
            [command, "-P", str(path.resolve())],
            capture_output=True,
            text=True,
            timeout=DF_SEC,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    *_, line = answer.stdout.splitlines() or [""]
    return line.split(" ", 1)[0]
