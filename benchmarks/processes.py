"""Processor time, memory and files of processes, as the kernel knows them."""

import os
from collections.abc import Iterable
from pathlib import Path

TICKS_A_SEC = os.sysconf("SC_CLK_TCK")
PARENT, USED = 1, slice(11, 15)
"""Places of the parent's id and of the processor times after the name of a program, see proc(5).

The times are of the process and of the children that it has waited for, in and outside the kernel.
"""


def fields(pid: int) -> list[str]:
    """Return what the kernel knows about a process after its name; nothing if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def parents() -> dict[int, int]:
    """Return the parent of each process."""
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
    found = {pid: fields(pid) for pid in pids}
    return {pid: int(known[PARENT]) for pid, known in found.items() if known}


def children(pid: int) -> set[int]:
    return {child for child, parent in parents().items() if parent == pid}


def with_descendants(pids: Iterable[int], parents: dict[int, int]) -> set[int]:
    """Return processes, their children, the children of these, and so on."""
    found: set[int] = set()
    added = set(pids)
    while added:
        found |= added
        added = {pid for pid, parent in parents.items() if parent in added} - found
    return found


def processor_seconds(pids: Iterable[int]) -> float:
    """Return the processor time that processes and all their descendants have used."""
    everyone = with_descendants(pids, parents())
    ticks = sum(sum(map(int, fields(pid)[USED])) for pid in everyone)
    return ticks / TICKS_A_SEC


def resident_mb(pid: int) -> float:
    """Return the memory of a process, in MB of 2**20 bytes; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files(pid: int) -> int:
    """Return the number of files and connections that a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
