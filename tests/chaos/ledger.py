"""Ledgers: logs of what a process did, kept outside FlowKit and its store."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Ledger:
    """One append-only file per process. A line is on the disk when :meth:`write` returns."""

    def __init__(self, folder: Path, kind: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{kind}-{os.getpid()}-{time.time_ns()}.jsonl"
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, what: str, **fields: Any) -> None:
        # time.time() may be shifted: some processes run with a wrong clock on purpose.
        line = {
            "at": time.clock_gettime(time.CLOCK_REALTIME),
            "what": what,
            "pid": os.getpid(),
            **fields,
        }
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")
        os.fsync(self._file)


def read_ledgers(folder: Path, kind: str) -> list[Line]:
    """Return the lines of all processes of a kind, by time, without incomplete last lines."""
    lines = [line for path in sorted(folder.glob(f"{kind}-*.jsonl")) for line in _lines(path)]
    return sorted(lines, key=lambda line: float(line["at"]))


def _lines(path: Path) -> Iterator[Line]:
    *whole, _ = path.read_bytes().split(b"\n")
    for text in whole:
        yield json.loads(text)
