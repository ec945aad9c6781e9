"""The checks of ``flowkit doctor`` name what is wrong with the file and what to do."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

import anyio
import pytest
from typer.testing import CliRunner

from flowkit.cli._app import app
from flowkit.protocols import CheckResult
from flowkit_sqlite import SqliteConfig, SqliteStore
from flowkit_sqlite._connections import VERSION
from flowkit_sqlite._file_systems import SHARE, mounted_share
from tests.store_records import task

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(anyio_backend: str, path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(f"sqlite:///{path}") as store:
        yield store


async def checks(store: SqliteStore) -> dict[str, CheckResult]:
    return {result.name: result for result in await store.check()}


def faults(found: dict[str, CheckResult]) -> list[str]:
    """Return the names of the checks of the file that found a fault."""
    of_the_machine = ("sqlite disk", "sqlite file system")
    return [name for name, result in found.items() if not result.ok and name not in of_the_machine]


async def test_a_new_file_passes_every_check(store: SqliteStore, path: Path) -> None:
    found = await checks(store)
    assert set(found) == {
        "sqlite file",
        "sqlite log",
        "sqlite changes",
        "sqlite disk",
        "sqlite file system",
        "sqlite integrity",
        "sqlite records",
    }
    assert faults(found) == []
    assert str(path) in found["sqlite file"].detail


async def test_a_file_of_a_later_version_is_named(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    result = (await checks(store))["sqlite file"]
    assert not result.ok
    assert "Upgrade" in result.remedy


async def test_a_second_name_of_the_file_is_found(store: SqliteStore, path: Path) -> None:
    path.with_name("second.db").hardlink_to(path)
    found = await checks(store)
    assert faults(found) == ["sqlite file"]
    assert "2 names (hard links)" in found["sqlite file"].detail


async def test_a_lock_that_another_program_keeps_is_found(anyio_backend: str, path: Path) -> None:
    config = SqliteConfig(busy_timeout_sec=0.05)
    async with SqliteStore(f"sqlite:///{path}", config=config) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            found = await checks(store)
        assert (await checks(store))["sqlite changes"].ok
    assert faults(found) == ["sqlite changes"]
    assert "database is locked" in found["sqlite changes"].detail
    assert "end the process that has kept its transaction open" in found["sqlite changes"].remedy


async def test_damaged_pages_are_found(store: SqliteStore, path: Path) -> None:
    await store.create([task(f"t{number}", spec=b"x" * 5000) for number in range(100)])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'tasks_by_status'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    copy = path.with_name("copy.db")
    damage_page(path, copy, number=root, size=size)
    async with SqliteStore(f"sqlite:///{copy}") as damaged:
        result = (await checks(damaged))["sqlite integrity"]
    assert not result.ok
    assert "backup" in result.remedy
    assert (await checks(store))["sqlite integrity"].ok


def damage_page(path: Path, copy: Path, *, number: int, size: int) -> None:
    """Copy a file and overwrite the end of one of its pages."""
    shutil.copy(path, copy)
    with copy.open("r+b") as file:
        file.seek(number * size - size // 2)
        file.write(b"\xff" * (size // 2))


@pytest.mark.parametrize(
    ("device", "is_share"),
    [
        ("server:/export", True),
        ("user@host:", True),
        ("//server/share", True),
        ("/dev/sda1", False),
        ("/dev/disk/by-path/pci-0000:00", False),
        ("tmpfs", False),
        ("overlay", False),
    ],
)
def test_a_network_share_is_recognized_by_its_device(device: str, is_share: bool) -> None:
    assert bool(SHARE.match(device)) == is_share


MOUNTS = r"""
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 27 0:40 / /home rw shared:2 - nfs4 files:/export rw,vers=4.2
31 30 254:1 / /home/local rw - ext4 /dev/vdb rw
32 27 0:41 / /mnt/two\040words rw - fuse.sshfs ada@host: rw
33 27 0:42 / /mnt/windows rw - 9p C:\134 rw
34 27 0:43 / /mnt/bucket rw - fuse.s3fs s3fs rw
35 27 0:44 / /mnt/disk rw - fuse.ntfs-3g /dev/sda1 rw
36 27 0:45 / /mnt/over rw - cifs //host/share rw
37 36 254:2 / /mnt/over rw - ext4 /dev/vdc rw
38 27 0:46 / /mnt/new rw - newfs host:/folder rw
""".strip()


@pytest.mark.parametrize(
    ("path", "share"),
    [
        ("/var/lib/flowkit.db", None),
        ("/home/ada/flowkit.db", "files:/export (nfs4)"),
        ("/homework/flowkit.db", None),
        ("/home/local/flowkit.db", None),
        ("/mnt/two words/flowkit.db", "ada@host: (fuse.sshfs)"),
        ("/mnt/windows/flowkit.db", "C:\\ (9p)"),
        ("/mnt/bucket/flowkit.db", "s3fs (fuse.s3fs)"),
        ("/mnt/disk/flowkit.db", None),
        ("/mnt/over/flowkit.db", None),
        ("/mnt/new/flowkit.db", "host:/folder (newfs)"),
    ],
)
def test_a_network_file_system_is_recognized_by_its_mount(path: str, share: str | None) -> None:
    assert mounted_share(PurePosixPath(path), MOUNTS) == share


UNSHARE = shutil.which("unshare")
OPENING = """
import asyncio, logging, sys
from flowkit_sqlite import SqliteStore

async def main():
    async with SqliteStore("sqlite:///" + sys.argv[1]) as store:
        print([check.detail for check in await store.check() if not check.ok])

logging.basicConfig(format="%(levelname)s %(message)s")
asyncio.run(main())
"""


def may_mount() -> bool:
    """Return whether this user may mount a file system that its own processes alone see."""
    command = [UNSHARE, "-Urm", "true"]
    return UNSHARE is not None and subprocess.run(command, check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="this user may not mount file systems")
def test_a_file_on_a_mounted_share_is_opened_with_a_warning_and_is_a_fault(tmp_path: Path) -> None:
    """The file system is one in memory, but its device has the name of a share."""
    path = tmp_path / "flowkit.db"
    script = (
        f"mount -t tmpfs server:/share {tmp_path} && exec {sys.executable} -c '{OPENING}' {path}"
    )
    command = [str(UNSHARE), "-Urm", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    share = "the network share server:/share (tmpfs)"
    assert done.stdout == f"['{share}']\n", done.stderr
    assert done.stderr.startswith(f"WARNING {path} is on {share}: changes may be lost")
    assert done.stderr.count("\n") == 1


async def create(path: Path) -> None:
    async with SqliteStore(f"sqlite:///{path}"):
        pass


def test_the_command_line_shows_what_is_damaged(path: Path) -> None:
    anyio.run(create, path)
    assert run(path, "dlq", "ls").stdout == "[]\n"
    graph = path.with_name("graph.json")
    graph.write_text('{"nodes": [{"node_id": "a", "type": "work"}]}')
    assert run(path, "submit", str(graph), "--task-id", "no-json").exit_code == 0
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO tasks (namespace, task_id, version, op_id, status, created_at)"
            " VALUES ('flowkit', 't', -1, '', 'queued', 1.0)"
        )
        connection.execute(
            "INSERT INTO records VALUES"
            " ('flowkit', 'letter', 'message-1', CAST(x'ff' AS TEXT), x'', NULL, NULL)"
        )
        connection.execute("UPDATE parts SET data = x'7b' WHERE name = 'state'")
    listed, doctor = (run(path, *verb) for verb in (("dlq", "ls"), ("doctor",)))
    rows = {row["letter_id"]: row for row in json.loads(listed.stdout)}
    assert {(letter_id, row["kind"]) for letter_id, row in rows.items()} == {
        ("tasks/t", "record"),
        ("task/no-json", "record"),
        ("message-1", "message"),
        ("records/letter message-1", "record"),
    }
    assert "column 'revision'" in rows["message-1"]["fault"]
    found = {check["name"]: check for check in json.loads(doctor.stdout)["checks"]}
    assert (doctor.exit_code, found["sqlite records"]["ok"], found["tasks"]["ok"]) == (
        1,
        False,
        False,
    )
    assert "2 damaged" in found["sqlite records"]["detail"]
    assert "task 'no-json' cannot be read: Invalid JSON" in found["tasks"]["detail"]


def run(path: Path, *verb: str) -> Any:
    address = f"sqlite:///{path}"
    return CliRunner().invoke(
        app, [*verb, "--json", "--db", address, "--bus", "memory://sqlite-doctor"]
    )
