"""Child processes that handlers started."""

import contextlib
import logging
import sys
from collections.abc import Collection
from pathlib import Path

logger = logging.getLogger(__name__)


def log_children(owner: str, *, except_for: Collection[int] = ()) -> None:
    """Log the child processes that still run when ``owner`` ends."""
    left = {pid: name for pid, name in child_processes().items() if pid not in except_for}
    if left:
        shown = ", ".join(f"{name} ({pid})" for pid, name in left.items())
        logger.warning(
            "Child processes of %s still run: %s", owner, shown, extra={"action": "children_left"}
        )


def child_processes() -> dict[int, str]:
    """Return the names of the running children of this process, by process id.

    On Linux these are all children; elsewhere those that ``multiprocessing`` started.
    """
    try:
        lists = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    except OSError:
        lists = []
    if lists:
        return {
            pid: name
            for pid in map(int, " ".join(lists).split())
            if (name := _name_of(pid)) is not None
        }
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is None:
        return {}
    return {
        child.pid: child.name
        for child in multiprocessing.active_children()
        if child.pid is not None
    }


def _name_of(pid: int) -> str | None:
    """Return the name of a process, or None if it has ended."""
    with contextlib.suppress(OSError):
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        if not rest.lstrip().startswith("Z"):
            return name
    return None
