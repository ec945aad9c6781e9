"""The bus in a file: what is stored, what is deleted, and what happens when the file is locked."""

import asyncio
import sqlite3
import time
from contextlib import closing, contextmanager

import pytest

from flowkit import CoordinatorConfig
from flowkit.errors import BusError, BusUnavailable, ConfigError
from flowkit.plugins import Plugins
from flowkit.protocols import Message, TopicSpec
from flowkit_sqlite import SqliteBus
from flowkit_sqlite._acknowledgements import MOST_EXPIRED, delete_expired

pytestmark = pytest.mark.anyio
PATIENCE_SEC = 30
TOPIC, BROADCAST, LETTERS = TopicSpec("t"), TopicSpec("b", broadcast=True), TopicSpec("flowkit.dlq")


def bus_at(path, **options) -> SqliteBus:
    return SqliteBus(f"sqlite:///{path}", CoordinatorConfig(options={"sqlite": options}))


@pytest.fixture
async def bus(anyio_backend, path):
    async with bus_at(path, partitions=2) as bus:
        await bus.ensure_topics([TOPIC, BROADCAST, LETTERS])
        yield bus


def query(path, statement: str, *arguments) -> list:
    with closing(sqlite3.connect(path)) as db:
        found = db.execute(statement, arguments).fetchall()
        db.commit()
    return found


def kept(path) -> list[bytes]:
    return [value for (value,) in query(path, "SELECT value FROM messages ORDER BY value")]


@contextmanager
def locked(path):
    """Hold the lock for changes, as another process may."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


def message(value: str, key: str = "k", topic: str = "t") -> Message:
    return Message(topic, value.encode(), key)


async def take(subscription, count: int) -> list:
    got = []
    async with asyncio.timeout(PATIENCE_SEC):
        while len(got) < count:
            got += await subscription.receive(max_messages=count - len(got))
    return got


def values(deliveries) -> list[str]:
    return [each.message.value.decode() for each in deliveries]


async def until(condition) -> None:
    async with asyncio.timeout(PATIENCE_SEC):
        while not condition():
            await asyncio.sleep(0.005)


# ---------------------------------------------------------------- addresses and settings


def test_the_plugin_opens_addresses_of_files(path):
    config = CoordinatorConfig(options={"sqlite": {"partitions": 3}})
    assert isinstance(Plugins().open_bus(f"sqlite:///{path}", config), SqliteBus)


def test_a_wrong_setting_is_named():
    with pytest.raises(ConfigError, match=r"options\.sqlite\.partition: .*did you mean 'partit"):
        bus_at("bus.db", partition=3)


async def test_a_bus_that_cannot_be_opened_raises_a_bus_error(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        async with bus_at(tmp_path / "missing" / "bus.db"):
            pass
    (tmp_path / "bus.db").write_bytes(b"no database")
    with pytest.raises(ConfigError, match="not a SQLite database"):
        async with bus_at(tmp_path / "bus.db"):
            pass


async def test_a_bus_that_is_not_open_says_so_and_its_check_does_not_raise(path):
    bus = bus_at(path)
    with pytest.raises(BusError, match="not open"):
        await bus.publish([message("m")])
    (result,) = await bus.check([TOPIC])
    assert not result.ok


async def test_a_topic_that_does_not_exist_is_named(bus):
    with pytest.raises(BusError, match="topic 'nowhere' does not exist"):
        await bus.publish([message("m", topic="nowhere")])
    with pytest.raises(BusError, match="topic 'nowhere' does not exist"):
        async with bus.subscribe(["nowhere"], group="g"):
            pass


async def test_a_key_that_sqlite_cannot_store_stores_nothing(bus, path):
    with pytest.raises(BusError):
        await bus.publish([message("m"), message("n", key="\ud800")])
    assert kept(path) == []


async def test_check_counts_the_messages_that_are_kept(bus):
    await bus.publish([message("m"), message("n", key="other")])
    found = {result.name: result for result in await bus.check([TOPIC, TopicSpec("missing")])}
    assert found["topic t"].detail == "partitions: 2, messages kept: 2"
    assert "does not exist" in found["topic missing"].detail
    assert all(result.ok for result in found.values())


# ---------------------------------------------------------------- what is kept


async def test_messages_are_deleted_when_all_groups_have_acknowledged_them(bus, path):
    async with bus.subscribe(["t"], group="a") as first, bus.subscribe(["t"], group="b") as second:
        await bus.publish([message("m"), message("n")])
        await first.ack(await take(first, 2))
        got = await take(second, 2)
        await second.ack(got[:1])
        await until(lambda: kept(path) == [b"n"])
        await second.ack(got[1:])
        await until(lambda: kept(path) == [])
    assert query(path, "SELECT count(*) FROM acknowledged") == [(0,)]


async def test_acknowledgements_above_an_open_message_are_remembered(bus, path):
    await bus.publish([message(str(number)) for number in range(5)])
    async with bus.subscribe(["t"], group="g") as first:
        got = await take(first, 5)
        await first.ack(got[2:4])
    async with bus.subscribe(["t"], group="g") as second:
        again = await take(second, 3)
        assert values(again) == ["0", "1", "4"]
        await second.ack(again)
    assert kept(path) == []
    assert query(path, "SELECT count(*) FROM acknowledged") == [(0,)]


async def test_positions_are_not_used_again_after_messages_were_deleted(bus):
    async with bus.subscribe(["t"], group="g") as subscription:
        places = []
        for _ in range(3):
            places += await bus.publish([message("m")])
            await subscription.ack(await take(subscription, 1))
    async with bus.subscribe(["t"], group="g"):
        places += await bus.publish([message("m")])
    assert [position for _, position in places] == [0, 1, 2, 3]


async def test_a_broadcast_topic_keeps_its_newest_messages(path):
    async with bus_at(path, broadcast_kept=3) as bus:
        await bus.ensure_topics([BROADCAST])
        for number in range(5):
            await bus.publish([message(str(number), topic="b")])
        async with bus.subscribe(["b"], group="g") as subscription:
            await subscription.ack(await take(subscription, 3))
        assert kept(path) == [b"2", b"3", b"4"]


async def test_messages_of_any_topic_are_deleted_when_they_are_too_old(bus, path):
    await bus.publish([message("old"), message("old", topic="flowkit.dlq")])
    await bus.publish([message("new")])
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE messages SET published_at = 10 WHERE value = ?", (b"old",))
        delete_expired(db, before=11)
        db.commit()
    assert kept(path) == [b"new"]
    ((first, end),) = [each for each in (await bus.outstanding("t", "g")).values() if each[1]]
    assert (first, end) == (1, 2)


async def test_old_messages_are_deleted_in_steps(bus, path):
    await bus.publish([message(str(number)) for number in range(MOST_EXPIRED + 10)])
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE messages SET published_at = 10")
        delete_expired(db, before=11)
        db.commit()
    assert len(kept(path)) == 10


async def test_an_empty_group_that_is_new_starts_behind_what_others_acknowledged(bus):
    async with bus.subscribe(["t"], group="a") as first:
        await bus.publish([message("m")])
        await first.ack(await take(first, 1))
    async with bus.subscribe(["t"], group="new") as second:
        await bus.publish([message("n")])
        assert values(await take(second, 1)) == ["n"]


# ---------------------------------------------------------------- reading


async def test_a_backlog_above_the_inbox_is_delivered_in_order(path):
    async with bus_at(path, partitions=1, prefetch=4) as bus:
        await bus.ensure_topics([TOPIC])
        await bus.publish([message(str(number)) for number in range(50)])
        async with bus.subscribe(["t"], group="g") as subscription:
            await bus.publish([message(str(number)) for number in range(50, 60)])
            assert values(await take(subscription, 60)) == list(map(str, range(60)))


async def test_a_member_reads_a_bounded_number_of_messages_ahead(path):
    async with bus_at(path, prefetch=4) as bus:
        await bus.ensure_topics([TOPIC])
        async with bus.subscribe(["t"], group="g", max_unacked=1) as subscription:
            await bus.publish([message(str(number), str(number)) for number in range(50)])
            for number in range(50):
                await bus.publish([message(str(50 + number), str(number))])
            await take(subscription, 1)
            assert len(subscription._inbox._queue) <= 4


async def test_a_bus_that_is_entered_twice_says_so_and_stays_open(bus):
    with pytest.raises(BusError, match="open already"):
        await bus.__aenter__()
    await bus.publish([message("m")])


async def test_large_messages_are_read_in_parts(path):
    async with bus_at(path, partitions=1) as bus:
        await bus.ensure_topics([TOPIC])
        for number in range(20):
            await bus.publish([Message("t", b"%02d" % number + b"x" * 999_000)])
        async with bus.subscribe(["t"], group="g") as subscription:
            got = await take(subscription, 20)
        assert [each.message.value[:2] for each in got] == [b"%02d" % each for each in range(20)]


async def test_messages_arrive_in_order_whether_they_are_read_or_come_directly(path):
    async with bus_at(path, partitions=1) as bus, bus_at(path, partitions=1, prefetch=8) as other:
        await bus.ensure_topics([TOPIC])
        got = []
        async with other.subscribe(["t"], group="g") as subscription:
            for number in range(300):
                publisher = (bus, other)[number // 7 % 2]
                await publisher.publish([message(str(number))])
                if number % 3 == 0:
                    got += await take(subscription, 1)
            got += await take(subscription, 300 - len(got))
        assert values(got) == list(map(str, range(300)))


async def test_a_message_whose_headers_another_program_damaged_is_delivered_without_them(bus, path):
    await bus.publish([Message("t", b"m", "k", {"trace": b"1"})])
    query(path, "UPDATE messages SET headers = '[' ")
    async with bus.subscribe(["t"], group="g") as subscription:
        (delivery,) = await take(subscription, 1)
    assert (delivery.message.value, delivery.message.headers) == (b"m", {})


async def test_an_unexpected_error_while_reading_is_raised_to_the_caller(bus, path):
    async with bus.subscribe(["t"], group="g") as subscription:
        query(path, "ALTER TABLE messages RENAME TO away")
        query(path, "UPDATE partitions SET next_position = 1")
        with pytest.raises(BusError, match="no such table: messages"):
            await take(subscription, 1)


# ---------------------------------------------------------------- groups and leases


async def test_members_keep_their_partitions_when_another_joins_and_leaves(bus, path):
    owners = "SELECT progress_id, member_id, epoch FROM progress ORDER BY progress_id"
    async with bus.subscribe(["t"], group="g"):
        async with bus.subscribe(["t"], group="g"):
            shared = query(path, owners)
            async with bus.subscribe(["t"], group="g"):
                assert query(path, owners) == shared
            assert query(path, owners) == shared
        assert len({member for _, member, _ in query(path, owners)}) == 1
    assert {member for _, member, _ in query(path, owners)} == {None}
    assert query(path, "SELECT count(*) FROM members") == [(0,)]


@pytest.mark.parametrize("seen", [-1000, 1000], ids=["silent", "before the clock was set back"])
async def test_the_partitions_of_a_member_without_a_valid_lease_go_to_the_next(path, seen):
    async with bus_at(path, lease_sec=10) as bus:
        await bus.ensure_topics([TOPIC])
        await bus.publish([message("m")])
        async with bus.subscribe(["t"], group="g") as dead:
            await take(dead, 1)
            query(path, "UPDATE members SET renewed_at = ?", time.time() + seen)
            async with bus.subscribe(["t"], group="g") as second:
                assert values(await take(second, 1)) == ["m"]


async def test_a_member_that_lost_its_lease_joins_again_and_continues(path):
    async with bus_at(path, lease_sec=0.1, ack_interval_sec=0.01) as bus:
        await bus.ensure_topics([TOPIC])
        await bus.publish([message("m")])
        async with bus.subscribe(["t"], group="g") as subscription:
            stale = await take(subscription, 1)
            query(path, "UPDATE progress SET member_id = NULL, epoch = epoch + 1")
            query(path, "DELETE FROM members")
            query(path, "DELETE FROM member_topics")
            assert values(await take(subscription, 1)) == ["m"]
            await subscription.ack(stale)
        assert kept(path) == [b"m"]


async def test_a_dead_letter_of_a_message_that_went_to_another_member_is_not_stored(bus, path):
    await bus.publish([message("m")])
    async with bus.subscribe(["t"], group="g") as subscription:
        got = await take(subscription, 1)
        query(path, "UPDATE progress SET epoch = epoch + 1")
        await subscription.reject(got, "bad")
        assert kept(path) == [b"m"]


async def test_a_cancelled_subscription_leaves_no_member(bus, path, caplog):
    for turns in range(12):

        async def enter():
            async with bus.subscribe(["t"], group="g"):
                await asyncio.sleep(PATIENCE_SEC)

        task = asyncio.create_task(enter())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    await bus.publish([message("m")])
    async with bus.subscribe(["t"], group="g") as subscription:
        assert query(path, "SELECT count(*) FROM members") == [(1,)]
        assert values(await take(subscription, 1)) == ["m"]
    assert not caplog.records


async def test_a_renewal_removes_the_members_of_killed_processes(path):
    async with bus_at(path, lease_sec=0.1) as bus:
        await bus.ensure_topics([TOPIC])
        async with bus.subscribe(["t"], group="g"):
            query(
                path,
                "INSERT INTO members SELECT 7, group_id, 0, 10 FROM groups",
            )
            await until(lambda: query(path, "SELECT 1 FROM members WHERE member_id = 7") == [])


# ---------------------------------------------------------------- a locked file


async def test_what_needs_the_lock_raises_while_another_process_holds_it(path):
    async with bus_at(path, busy_timeout_sec=0.05) as bus:
        await bus.ensure_topics([TOPIC, LETTERS])
        await bus.publish([message("m")])
        async with bus.subscribe(["t"], group="g") as subscription:
            got = await take(subscription, 1)
            with locked(path):
                for call in (
                    lambda: bus.publish([message("n")]),
                    lambda: bus.ensure_topics([TopicSpec("new")]),
                    lambda: subscription.reject(got, "bad"),
                    bus.subscribe(["t"], group="h").__aenter__,
                ):
                    with pytest.raises(BusUnavailable, match="busy_timeout_sec"):
                        await call()
                assert (await bus.outstanding("t", "g"))[got[0].partition] == (0, 1)
                await subscription.ack(got)
            await bus.publish([message("n")])
            assert values(await take(subscription, 1)) == ["n"]
        assert kept(path) == [b"n"]


async def test_acknowledgements_are_stored_after_the_file_was_locked(path, caplog):
    async with bus_at(path, busy_timeout_sec=0.02, ack_interval_sec=0.01) as bus:
        await bus.ensure_topics([TOPIC])
        await bus.publish([message("m")])
        async with bus.subscribe(["t"], group="g") as subscription:
            with locked(path):
                await subscription.ack(await take(subscription, 1))
                await until(lambda: "is interrupted" in caplog.text)
            await until(lambda: kept(path) == [])


async def test_a_member_that_cannot_leave_loses_its_messages_when_its_lease_is_over(path, caplog):
    async with bus_at(path, busy_timeout_sec=0.02, lease_sec=0.1) as bus:
        await bus.ensure_topics([TOPIC])
        await bus.publish([message("m")])
        leaving = bus.subscribe(["t"], group="g")
        await take(await leaving.__aenter__(), 1)
        with locked(path):
            await leaving.__aexit__(None, None, None)
        assert "could not leave group g" in caplog.text
        assert "busy_timeout_sec" in caplog.text
        async with bus.subscribe(["t"], group="g") as second:
            assert values(await take(second, 1)) == ["m"]
