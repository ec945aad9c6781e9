"""Child processes that handlers have started."""

import contextlib
import sys
from pathlib import Path


def child_processes() -> dict[int, str]:
    """Return the names of this process's children that run, by process id.

    On Linux these are all of them; elsewhere those that ``multiprocessing`` has started.
    """
    try:
        lists = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    except OSError:
        lists = []
    if lists:
        return {pid: name for pid in map(int, " ".join(lists).split()) if (name := _name_of(pid)) is not None}
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is None:
        return {}
    return {child.pid: child.name for child in multiprocessing.active_children() if child.pid is not None}


def _name_of(pid: int) -> str | None:
    """The name of a process, unless it has ended meanwhile."""
    with contextlib.suppress(OSError):
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        if not rest.lstrip().startswith("Z"):
            return name
    return None
