"""After a power failure, each confirmed write is in the file, and the file is sound.

A shared library that is preloaded into a process keeps a copy of each file as of its last sync. The
process is killed while it writes. What a disk holds after a power failure is each sector as of the
last sync, or as it was written later: the tests build such files at random, and open them.
"""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import anyio
import pytest

from flowkit._records.queries import load_task
from flowkit.messages import NodeSucceeded, decode
from flowkit.task import Mark
from flowkit_sqlite import SqliteStore
from tests.sqlite.chains_runner import LENGTH
from tests.sqlite.compilers import compiled, needs_preloading
from tests.sqlite.versions_writer import STREAM

ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(4)
IMAGES = 6
"""Files that are built after each kill."""
SECTOR = 512
CONFIRMED = (30, 200)
FILES = ("flowkit.db", "flowkit.db-wal")

pytestmark = needs_preloading


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the library that keeps the synced files."""
    return compiled("synced_files", tmp_path_factory.mktemp("library"))


@dataclass(frozen=True, slots=True)
class Written:
    """The files of a process that was killed, those as of their last syncs, and the last confirmed
    version if it wrote versions.
    """

    last: Path
    synced: Path
    confirmed: int = 0


@contextmanager
def writing(
    library: Path, folder: Path, module: str, *arguments: str
) -> Iterator[tuple[subprocess.Popen[str], Path, Path]]:
    """Run a program; yield its process and the folders of its files and of those that it synced.

    It is killed at the end.
    """
    last, synced = folder / "last", folder / "synced"
    for each in (last, synced):
        each.mkdir()
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "FLOWKIT_TEST_SYNCED_OF": str(last / FILES[0]),
        "FLOWKIT_TEST_SYNCED_TO": str(synced),
    }
    command = [
        sys.executable,
        "-m",
        f"tests.sqlite.{module}",
        str(last / FILES[0]),
        *arguments,
    ]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process, last, synced
        finally:
            process.kill()


def kill_while_it_writes(
    library: Path, folder: Path, *, synchronous: str, confirmed: int
) -> Written:
    with writing(library, folder, "versions_writer", synchronous) as (process, last, synced):
        lines = lines_until_killed(process, confirmed)
    return Written(last, synced, int(lines[-1]))


def lines_until_killed(process: subprocess.Popen[str], least: int) -> list[str]:
    """Kill a process when it has printed so many lines, and return all that it printed."""
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(least)]
    process.kill()
    lines += process.stdout.readlines()
    whole = [line for line in lines if line.endswith("\n")]
    assert len(whole) >= least, "the process ended by itself"
    return whole


def images(written: Written, folder: Path, chance: random.Random) -> Iterator[Path]:
    """Yield databases that the disk may hold: all unsynced writes lost, and some of them lost."""
    for number in range(IMAGES):
        share = 0.0 if number == 0 else chance.random()
        image = folder / f"image-{number}"
        image.mkdir()
        for name in FILES:
            synced = read(written.synced / name)
            last = read(written.last / name) if share else synced
            if data := mixed(synced, last, share, chance):
                (image / name).write_bytes(data)
        yield image / FILES[0]


def read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def mixed(synced: bytes, last: bytes, share: float, chance: random.Random) -> bytes:
    """Return a file with a share of the sectors that were written after the last sync."""
    length = len(last) if chance.random() < share else len(synced)
    synced, last = (data.ljust(length, b"\0")[:length] for data in (synced, last))
    return b"".join(
        (last if chance.random() < share else synced)[at : at + SECTOR]
        for at in range(0, length, SECTOR)
    )


def check_image(path: Path, confirmed: int) -> None:
    """Check that the file is sound and has the confirmed version, whole, with its artifacts."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    async def check_task() -> None:
        async with SqliteStore(f"sqlite:///{path}") as store:
            record = (await store.load(["t"]))["t"]
            assert record.version >= confirmed
            assert record.parts["state"] == b"%d" % (record.version - 1)
            found = await store.artifacts.read(STREAM, limit=1_000_000)
            assert [item.position for item in found] == [*range(1, len(found) + 1)]
            assert record.version - 1 - len(found) in (0, 1)

    anyio.run(check_task)


@pytest.mark.parametrize("seed", SEEDS)
def test_confirmed_writes_survive_a_power_failure(library: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    written = kill_while_it_writes(
        library, tmp_path, synchronous="full", confirmed=chance.randint(*CONFIRMED)
    )
    for image in images(written, tmp_path, chance):
        check_image(image, written.confirmed)


def test_with_synchronous_normal_a_power_failure_may_lose_the_last_writes_but_not_the_file(
    library: Path, tmp_path: Path
) -> None:
    chance = random.Random(0)
    written = kill_while_it_writes(library, tmp_path, synchronous="normal", confirmed=100)
    lost, *some_lost = images(written, tmp_path, chance)
    with closing(sqlite3.connect(lost)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        has_tasks = connection.execute(
            "SELECT 1 FROM sqlite_schema WHERE name = 'tasks'"
        ).fetchall()
        versions = connection.execute("SELECT version FROM tasks").fetchall() if has_tasks else []
    # This also shows that the library keeps what was synced, and nothing else.
    assert max((version for (version,) in versions), default=0) < written.confirmed
    for image in some_lost:
        with closing(sqlite3.connect(image)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_commit_that_is_not_durable_is_on_the_disk_a_moment_later(
    library: Path, tmp_path: Path
) -> None:
    with writing(library, tmp_path, "versions_writer", "full", "--once") as (process, _, synced):
        assert process.stdout is not None
        assert process.stdout.readline() == "2\n"
        for attempt in count():
            image = tmp_path / f"image-{attempt}"
            shutil.copytree(synced, image)
            with closing(sqlite3.connect(image / FILES[0])) as connection:
                if connection.execute("SELECT version FROM tasks").fetchall() == [(2,)]:
                    break
            assert process.poll() is None
            time.sleep(0.05)


def successes_in(path: Path) -> dict[str, set[int]]:
    """Return the nodes by task whose successes a coordinator will read from the bus in a file."""
    found = defaultdict[str, set[int]](set)
    with closing(sqlite3.connect(path)) as connection:
        for (value,) in connection.execute("SELECT value FROM messages"):
            message = decode(value)
            if isinstance(message, NodeSucceeded):
                found[message.task_id].add(message.index)
    return found


@pytest.mark.parametrize("segments", ["off", "safe"])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_led_to_a_handler_survives_a_power_failure_after_the_handler_began(
    library: Path, tmp_path: Path, seed: int, segments: str
) -> None:
    chance = random.Random(seed)
    with writing(library, tmp_path, "chains_runner", segments) as (process, last, synced):
        lines = lines_until_killed(process, chance.randint(*CONFIRMED))
    reached: dict[str, int] = {}
    for line in lines:
        task_id, number = line.split()
        reached[task_id] = int(number)

    async def check_tasks(path: Path) -> None:
        reported = successes_in(path)
        async with SqliteStore(f"sqlite:///{path}") as store:
            for task_id, number in reached.items():
                task = await load_task(store, task_id)
                lost = {
                    index for index in range(number) if task.marks[index] != Mark.FINISHED
                } - reported[task_id]
                assert not lost
                assert task.terminal or number < LENGTH

    for image in images(Written(last, synced), tmp_path, chance):
        anyio.run(check_tasks, image)
