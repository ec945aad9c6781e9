"""The bus in an SQLite file keeps every promise of :class:`flowkit.protocols.Bus`."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from flowkit_sqlite import SqliteBus
from flowkit_testing.conformance import BusConformance
from flowkit_testing.conformance.members import MemberProcesses
from tests.conformance.openers import QUICK_SQLITE, open_sqlite_bus


class TestSqliteBus(BusConformance):
    quiet_sec = 0.1
    silence_sec = QUICK_SQLITE["lease_sec"]
    many = QUICK_SQLITE["broadcast_kept"] + 500
    prefetch = 500

    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        return str(tmp_path / "bus.db")

    @pytest.fixture
    async def bus(self, anyio_backend: str, path: str) -> AsyncIterator[SqliteBus]:
        async with open_sqlite_bus(path) as bus:
            yield bus

    @pytest.fixture
    def open_bus(self, path: str) -> Callable[[], SqliteBus]:
        return lambda: open_sqlite_bus(path)

    @pytest.fixture
    async def bus_without_dead_letters(self, bus: SqliteBus, path: str) -> AsyncIterator[SqliteBus]:
        async with open_sqlite_bus(path, topic_dlq_fmt="nowhere") as other:
            yield other

    @pytest.fixture
    def members(self, path: str) -> MemberProcesses:
        return MemberProcesses("tests.conformance.openers:open_sqlite_bus", path)

    @pytest.fixture
    def kill_member(self, members: MemberProcesses) -> object:
        return members.kill

    @pytest.fixture
    def pause_member(self, members: MemberProcesses) -> object:
        return members.pause

    @pytest.fixture
    def count_kept(self, path: str) -> object:
        async def count(topic: str) -> int:
            with closing(sqlite3.connect(path)) as db:
                (found,) = db.execute(
                    "SELECT count(*) FROM messages"
                    " JOIN partitions USING (partition_id)"
                    " JOIN topics USING (topic_id) WHERE name = ?",
                    (topic,),
                ).fetchone()
            return int(found)

        return count
