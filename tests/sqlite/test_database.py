"""The file: transactions that jobs share, reads beside them, wake-ups, and errors at opening."""

import asyncio
import ctypes
import os
import resource
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from string import ascii_lowercase

import pytest

from flowkit.errors import ConfigError, RecordRefused, StoreError, StoreUnavailable
from flowkit_sqlite import SqliteConfig
from flowkit_sqlite._connections import check_sqlite
from flowkit_sqlite._database import Database
from flowkit_sqlite._group_commit import LONGEST_TURN_SEC
from flowkit_sqlite._open_file import MOST_AT_ONCE, MOST_READS
from flowkit_sqlite._wakeups import HOST, open_doorbell

pytestmark = pytest.mark.anyio
PATIENCE_SEC = 30
NO_OWN_ADDRESS = "192.0.2.1"  # reserved for documentation: no machine has it


def insert(word: str):
    return lambda db: db.execute("INSERT INTO words VALUES (?)", (word,)).rowcount


def words(db: sqlite3.Connection) -> list[str]:
    return [word for (word,) in db.execute("SELECT word FROM words ORDER BY word")]


class Gate:
    """Job that keeps the writer's thread busy until the gate is opened."""

    def __init__(self) -> None:
        self._entered, self._open = threading.Event(), threading.Event()

    def __call__(self, db: sqlite3.Connection) -> None:
        self._entered.set()
        assert self._open.wait(PATIENCE_SEC)

    async def entered(self) -> None:
        await asyncio.to_thread(self._entered.wait, PATIENCE_SEC)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
async def gate(database):
    """A job that is running: jobs that are submitted now wait for the next transaction."""
    gate = Gate()
    task = asyncio.create_task(database.write(gate))
    await gate.entered()
    yield gate
    gate.open()
    await task


async def submit(database, *jobs):
    """Submit jobs in this order, and return their tasks."""
    tasks = [asyncio.create_task(database.write(job)) for job in jobs]
    await asyncio.sleep(0)
    return tasks


# ---------------------------------------------------------------- transactions


async def test_a_write_returns_the_result_of_its_job(database):
    assert await database.write(insert("a")) == 1
    assert await database.read(words) == ["a"]


async def test_jobs_that_wait_share_a_transaction(database, gate, path):
    seen = []

    def look(db):
        other = sqlite3.connect(path)
        seen.append(words(other))
        other.close()

    tasks = await submit(database, insert("a"), look, insert("b"), look)
    gate.open()
    await asyncio.gather(*tasks)
    assert seen == [[], []]
    assert await database.read(words) == ["a", "b"]


async def test_the_first_brief_jobs_of_a_turn_that_do_not_wait_for_the_disk_run_at_once(database):
    posted = [
        database.post(insert(word), durable=False, brief=True)
        for word in ascii_lowercase[: MOST_AT_ONCE + 2]
    ]
    assert [each.done() for each in posted] == [True] * MOST_AT_ONCE + [False] * 2
    await asyncio.gather(*posted)
    assert len(await database.read(words)) == MOST_AT_ONCE + 2


async def test_a_brief_job_does_not_overtake_one_that_was_submitted_before(database):
    order = []
    first = database.post(lambda db: order.append("durable"), brief=True)
    second = database.post(lambda db: order.append("brief"), durable=False, brief=True)
    assert not order
    await asyncio.gather(first, second)
    assert order == ["durable", "brief"]


async def test_a_task_that_writes_without_a_pause_lets_others_run(database):
    async def write_forever():
        while True:
            await database.write(lambda db: None, durable=False, brief=True)

    writer = asyncio.create_task(write_forever())
    for _ in range(10):
        await asyncio.sleep(0)
    writer.cancel()
    await asyncio.wait([writer])
    assert writer.cancelled()


async def test_a_job_that_fails_rolls_back_alone(database, gate):
    def failing(db):
        insert("undone")(db)
        raise KeyError("of the job")

    tasks = await submit(database, insert("a"), failing, insert("a"), insert("b"))
    gate.open()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert list(map(type, results)) == [int, KeyError, RecordRefused, int]
    assert await database.read(words) == ["a", "b"]


async def test_a_single_job_that_fails_leaves_nothing(database):
    def failing(db):
        insert("undone")(db)
        raise KeyError("of the job")

    with pytest.raises(KeyError):
        await database.write(failing)
    await database.write(insert("a"))
    assert await database.read(words) == ["a"]


async def test_an_error_that_ends_the_transaction_fails_the_jobs_in_it_and_no_later_one(
    database, gate
):
    def ending(db):
        db.execute("INSERT OR ROLLBACK INTO words VALUES ('a')")

    tasks = await submit(database, insert("a"), ending, insert("b"))
    gate.open()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert list(map(type, results)) == [StoreUnavailable, RecordRefused, int]
    assert await database.read(words) == ["b"]


async def test_a_job_that_raises_stop_iteration_does_not_hang_its_caller(database):
    with pytest.raises(RuntimeError, match="StopIteration"):
        await database.write(lambda db: next(iter(())))


async def test_a_cancelled_caller_affects_no_other_job(database, gate):
    first, second, third = await submit(database, insert("a"), insert("b"), insert("c"))
    second.cancel()
    gate.open()
    await asyncio.gather(first, third)
    assert second.cancelled()
    assert await database.read(words) == ["a", "c"]


async def test_the_changes_of_a_running_job_are_stored_though_its_caller_is_cancelled(database):
    gate = Gate()

    def job(db):
        insert("a")(db)
        gate(db)

    task = asyncio.create_task(database.write(job))
    await gate.entered()
    task.cancel()
    gate.open()
    await asyncio.wait([task])
    await database.write(insert("b"))
    assert await database.read(words) == ["a", "b"]


async def test_many_jobs_of_many_tasks_are_all_stored(database):
    await asyncio.gather(*(database.write(insert(f"{number:04}")) for number in range(2000)))
    assert len(await database.read(words)) == 2000


# ---------------------------------------------------------------- a file that is moved


async def test_a_file_that_is_moved_is_neither_read_nor_changed_until_it_is_back(
    database, path, tmp_path
):
    path.rename(tmp_path / "elsewhere")
    for call in (database.write(insert("a")), database.read(words)):
        with pytest.raises(StoreUnavailable, match=r"was moved or deleted .*move it back"):
            await call
    (tmp_path / "elsewhere").rename(path)
    await database.write(insert("b"))
    assert await database.read(words) == ["b"]


async def test_a_file_is_not_confused_with_another_one_at_its_path(database, path, tmp_path):
    path.rename(tmp_path / "elsewhere")
    path.write_bytes(b"")
    for call in (database.write(insert("a")), database.read(words, brief=True)):
        with pytest.raises(StoreUnavailable, match=r"was replaced by another file .*start them"):
            await call
    path.unlink()
    (tmp_path / "elsewhere").rename(path)
    assert await database.read(words) == []


async def test_a_change_that_waited_while_the_file_was_moved_is_refused(
    database, gate, path, tmp_path
):
    [waiting] = await submit(database, insert("a"))
    path.rename(tmp_path / "elsewhere")
    gate.open()
    with pytest.raises(StoreUnavailable, match="was moved"):
        await waiting
    (tmp_path / "elsewhere").rename(path)
    assert await database.read(words) == []


def break_the_sync(database) -> None:
    """Put a pipe in place of the open log: no pipe can be synced."""
    ends = os.pipe()
    os.dup2(ends[1], database._open_file()._log._file)
    for end in ends:
        os.close(end)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
@pytest.mark.parametrize(
    ("synchronous", "durable", "syncs"),
    [("full", True, True), ("full", False, False), ("normal", True, False)],
)
@pytest.mark.parametrize("brief", [True, False])
async def test_only_durable_changes_wait_for_the_disk(path, synchronous, durable, syncs, brief):
    async with Database(path, SqliteConfig(synchronous=synchronous)) as database:
        await database.write(lambda db: db.execute("CREATE TABLE words (word)"))
        break_the_sync(database)
        job = insert("a")
        if syncs:
            with pytest.raises(StoreUnavailable, match="-wal: .*check the disk"):
                await database.write(job, durable=durable, brief=brief)
        else:
            assert await database.write(job, durable=durable, brief=brief) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
async def test_a_failed_sync_fails_only_the_durable_jobs_of_a_transaction(database):
    gate = Gate()
    first = asyncio.create_task(database.write(gate, durable=False))
    await gate.entered()
    tasks = [
        asyncio.create_task(database.write(insert(word), durable=word == "b")) for word in "abc"
    ]
    await asyncio.sleep(0)
    break_the_sync(database)
    gate.open()
    await first
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert list(map(type, results)) == [int, StoreUnavailable, int]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
async def test_after_a_failed_sync_no_change_is_confirmed_until_the_file_is_opened_again(path):
    async with Database(path, SqliteConfig()) as database:
        await database.write(lambda db: db.execute("CREATE TABLE words (word)"))
        log = database._open_file()._log._file
        kept = os.dup(log)
        break_the_sync(database)
        with pytest.raises(StoreUnavailable):
            await database.write(insert("a"))
        os.dup2(kept, log)
        os.close(kept)
        with pytest.raises(StoreUnavailable, match="restart this process"):
            await database.write(insert("b"))
    async with Database(path, SqliteConfig()) as database:
        assert await database.write(insert("c")) == 1


# ---------------------------------------------------------------- brief jobs


async def test_brief_jobs_run_in_the_event_loop_and_long_ones_do_not(database):
    threads = {
        (kind, brief): await call(lambda db: threading.get_ident(), brief=brief)
        for kind, call in (("read", database.read), ("write", database.write))
        for brief in (True, False)
    }
    own = threading.get_ident()
    assert {key: found == own for key, found in threads.items()} == {
        ("read", True): True,
        ("read", False): False,
        ("write", True): True,
        ("write", False): False,
    }


async def test_a_brief_job_leaves_the_event_loop_while_another_process_holds_the_lock(
    database, path
):
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    write = asyncio.create_task(database.write(insert("a"), brief=True))
    # The loop is free, and a brief read does not wait for the change.
    assert await database.read(words, brief=True) == []
    other.execute("ROLLBACK")
    other.close()
    assert await write == 1
    assert await database.read(words, brief=True) == ["a"]


async def test_jobs_run_in_the_order_in_which_they_were_submitted(database, gate):
    order = []
    tasks = [
        asyncio.create_task(database.write(lambda db, n=n: order.append(n), brief=n % 2 == 0))
        for n in range(10)
    ]
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(*tasks)
    assert order == list(range(10))


async def test_a_brief_read_sees_one_state_and_the_confirmed_changes(database, path):
    await database.write(insert("a"), brief=True)

    def job(db):
        before = words(db)
        other = sqlite3.connect(path)
        other.execute("INSERT INTO words VALUES ('b')")
        other.commit()
        other.close()
        return before, words(db)

    assert await database.read(job, brief=True) == (["a"], ["a"])
    assert await database.read(words, brief=True) == ["a", "b"]


async def test_brief_reads_of_a_turn_share_one_state(database, path):
    def job(db):
        words(db)
        other = sqlite3.connect(path)
        other.execute("INSERT INTO words VALUES ('a')")
        other.commit()
        other.close()

    def fail(db):
        raise ValueError("a fault of this one")

    jobs = [database.read(call, brief=True) for call in (job, fail, words)]
    _, failure, found = await asyncio.gather(*jobs, return_exceptions=True)
    assert str(failure) == "a fault of this one"
    assert found == []
    assert await database.read(words, brief=True) == ["a"]


async def test_many_brief_reads_at_once_do_not_keep_the_event_loop(database):
    done = []

    async def count():
        done.append(await database.read(lambda db: len(done), brief=True))

    await asyncio.gather(*(count() for _ in range(3 * MOST_READS)))
    assert len(set(done)) > 1


async def test_many_brief_jobs_at_once_do_not_keep_the_event_loop(database):
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    def slow(db):
        time.sleep(LONGEST_TURN_SEC)

    counter = asyncio.create_task(count_turns())
    await asyncio.gather(*(database.write(slow, brief=True) for _ in range(20)))
    counter.cancel()
    assert turns >= 15


# ---------------------------------------------------------------- reading


async def test_a_read_does_not_wait_for_a_writer(database, gate):
    assert await database.read(words) == []


async def test_a_read_sees_one_state_of_the_file(database):
    first, second = Gate(), []

    def job(db):
        second.append(words(db))
        first(db)
        second.append(words(db))

    task = asyncio.create_task(database.read(job))
    await first.entered()
    await database.write(insert("a"))
    first.open()
    await task
    assert second == [[], []]


async def test_more_reads_than_readers_all_finish(database):
    await database.write(insert("a"))
    found = await asyncio.gather(*(database.read(words) for _ in range(100)))
    assert found == [["a"]] * 100


async def test_a_read_cannot_change_the_file(database):
    with pytest.raises(StoreUnavailable, match="readonly"):
        await database.read(insert("a"))
    assert await database.read(words) == []


# ---------------------------------------------------------------- opening and closing


async def test_users_of_one_file_share_its_database(path):
    shared = Database.at(path, SqliteConfig())
    assert Database.at(path.parent / "." / path.name, SqliteConfig()) is shared
    async with shared:
        async with shared:
            pass
        await shared.write(lambda db: None)
    with pytest.raises(StoreError, match="not open"):
        await shared.read(words)
    async with shared:
        await shared.write(lambda db: None)


async def test_closing_finishes_what_was_submitted_and_leaves_one_file(path):
    async with Database(path, SqliteConfig()) as database:
        await database.write(lambda db: db.execute("CREATE TABLE words (word)"))
        await database.read(words)
        (task,) = await submit(database, insert("a"))
    await task
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    async with database:
        assert await database.read(words) == ["a"]


def test_a_database_may_be_used_in_one_event_loop_after_another(path):
    database = Database.at(path, SqliteConfig())

    async def use():
        async with database:
            await database.write(lambda db: db.execute("CREATE TABLE IF NOT EXISTS words (word)"))
            await database.write(insert("a"))
            return len(await database.read(words))

    assert [asyncio.run(use()), asyncio.run(use())] == [1, 2]


def test_a_database_may_be_used_in_two_event_loops_at_once(path):
    database = Database.at(path, SqliteConfig())
    together = threading.Barrier(2)
    heard = []

    async def use(number):
        async with database:
            await database.write(lambda db: db.execute("CREATE TABLE IF NOT EXISTS words (word)"))
            with database.listen("words") as listener:
                await asyncio.to_thread(together.wait, PATIENCE_SEC)

                def job(db):
                    insert(str(number))(db)
                    database.notify("words")

                await database.write(job)
                while len(await database.read(words)) < 2:
                    await listener.wait(PATIENCE_SEC)
                heard.append(number)

    threads = [threading.Thread(target=asyncio.run, args=(use(number),)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(heard) == [0, 1]


async def test_a_new_file_can_give_back_space_and_has_a_mark(path):
    async with Database(path, SqliteConfig()) as database:
        found = await database.read(
            lambda db: [
                db.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("auto_vacuum", "journal_mode", "application_id", "user_version")
            ]
        )
    assert found == [2, "wal", 0x464C4F57, 2]


async def test_many_processes_may_create_the_file_at_once(path):
    databases = [Database(path, SqliteConfig()) for _ in range(8)]
    await asyncio.gather(*(each.__aenter__() for each in databases))
    await asyncio.gather(*(each.__aexit__() for each in databases))


async def refusal(path: Path, kind, **config) -> str:
    with pytest.raises(kind) as caught:
        async with Database(path, SqliteConfig(**config)):
            pass
    assert str(path) in str(caught.value)
    return str(caught.value)


async def test_a_missing_folder_is_named(tmp_path):
    path = tmp_path / "missing" / "flowkit.db"
    assert "create it" in await refusal(path, ConfigError)


async def test_a_folder_in_place_of_the_file_is_named(tmp_path):
    assert "is a folder" in await refusal(tmp_path, ConfigError)


async def test_a_device_in_place_of_the_file_is_named():
    assert "is not a file" in await refusal(Path(os.devnull), ConfigError)


async def test_a_path_that_the_system_refuses_is_named(tmp_path):
    path = tmp_path / ("n" * 300)
    assert "cannot be used: File name too long" in await refusal(path, ConfigError)


async def test_symbolic_links_in_a_circle_are_named(path):
    path.symlink_to(path)
    assert str(Database.at(path, SqliteConfig()).path) == str(path)
    assert "SQLITE_CANTOPEN" in await refusal(path, StoreUnavailable)


async def test_a_file_that_is_not_a_database_is_named_and_not_changed(path):
    path.write_bytes(b"a letter to a friend\n" * 100)
    assert "not a SQLite database" in await refusal(path, ConfigError)
    assert path.read_bytes() == b"a letter to a friend\n" * 100


@pytest.mark.parametrize("statement", ["CREATE TABLE t (x)", "PRAGMA application_id = 7"])
async def test_a_database_of_another_program_is_named_and_not_changed(path, statement):
    sqlite3.connect(path).executescript(statement).connection.close()
    before = path.read_bytes()
    assert "another program" in await refusal(path, ConfigError)
    assert path.read_bytes() == before


async def test_a_file_of_a_later_version_is_named(path):
    async with Database(path, SqliteConfig()):
        pass
    sqlite3.connect(path).execute("PRAGMA user_version = 3").connection.close()
    assert "later version" in await refusal(path, ConfigError)


async def test_a_file_of_an_earlier_version_is_named_and_left_as_it_is(path):
    async with Database(path, SqliteConfig()):
        pass
    sqlite3.connect(path).execute("PRAGMA user_version = 1").connection.close()
    before = path.read_bytes()
    assert "an earlier version of flowkit-sqlite (format 1, this one knows 2); name another" in (
        await refusal(path, ConfigError)
    )
    assert path.read_bytes() == before


async def test_a_damaged_file_is_named(path):
    async with Database(path, SqliteConfig()):
        pass
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 2000)
    assert "restore the file from a backup" in await refusal(path, StoreError)


async def test_a_locked_file_is_named_after_the_configured_time(path):
    async with Database(path, SqliteConfig()):
        pass
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    assert "busy_timeout_sec" in await refusal(path, StoreUnavailable, busy_timeout_sec=0.05)
    other.close()


async def test_a_file_that_another_process_keeps_locked_is_opened_read_and_left_at_once(path):
    async with Database(path, SqliteConfig()) as database:
        await database.write(lambda db: db.execute("CREATE TABLE words (word)"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    async with Database(path, SqliteConfig(busy_timeout_sec=PATIENCE_SEC)) as database:
        assert await database.read(words) == []
    assert time.monotonic() - began < PATIENCE_SEC
    other.close()


async def test_a_change_of_a_locked_file_is_refused_and_later_ones_are_not(path):
    async with Database(path, SqliteConfig(busy_timeout_sec=0.05)) as database:
        await database.write(lambda db: db.execute("CREATE TABLE words (word)"))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="busy_timeout_sec"):
            await database.write(insert("a"))
        other.execute("ROLLBACK")
        other.close()
        await database.write(insert("b"))
        assert await database.read(words) == ["b"]


def obey_permissions() -> None:
    """Take from root the capability to write all files. Call it before a program is executed."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(24, 1)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


@pytest.mark.skipif(sys.platform != "linux", reason="root may write all files")
async def test_a_file_without_the_right_to_write_says_what_to_do(path):
    async with Database(path, SqliteConfig()):
        pass
    path.chmod(stat.S_IRUSR)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "flowkit.cli", "ls", "--db", f"sqlite:///{path}"],
        preexec_fn=obey_permissions,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SEC,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {path} may not be written; give this user the right to write the file and its"
        " folder, on a file system that is not mounted read-only, or copy the file to a folder"
        " where this user may write\n"
    )


async def test_a_limit_of_the_size_of_files_says_what_to_do(database, path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(StoreUnavailable) as caught:
            await database.write(lambda db: db.execute("INSERT INTO words VALUES (zeroblob(2e6))"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value).startswith(f"{path}: ")
    assert "ulimit -f" in str(caught.value)
    await database.write(insert("a"))
    assert await database.read(words) == ["a"]


async def test_a_file_whose_tables_another_program_has_deleted_says_what_to_do(database, path):
    with pytest.raises(StoreError, match=f"{path}: no such table: gone .*from a backup"):
        await database.read(lambda db: db.execute("SELECT * FROM gone"))


def test_an_old_sqlite_is_refused():
    with pytest.raises(ConfigError, match=r"uses SQLite 3\.36\.9, but .* needs 3\.37\.0"):
        check_sqlite((3, 36, 9))
    check_sqlite()


# ---------------------------------------------------------------- wake-ups


async def test_a_commit_wakes_the_listeners_of_its_channel_alone(database):
    def job(db):
        insert("a")(db)
        database.notify("words")

    with database.listen("words") as words_, database.listen("other") as other:
        await database.write(job)
        assert await words_.wait(PATIENCE_SEC)
        assert not await other.wait(0)
        assert not await words_.wait(0)


async def test_a_commit_gives_its_news_to_listeners_that_take_them(database):
    heard = []

    def take(news):
        heard.append(news)
        return news != "look"

    with (
        database.listen("words", deliver=take) as taker,
        database.listen("words") as looker,
    ):
        await database.write(lambda db: [database.notify("words", each) for each in (1, 2)])
        assert heard == [1, 2]
        assert not await taker.wait(0)
        assert await looker.wait(PATIENCE_SEC)
        await database.write(lambda db: database.notify("words", "look"))
        assert await taker.wait(PATIENCE_SEC)
        await database.write(lambda db: database.notify("words"))
        assert await taker.wait(PATIENCE_SEC)
    assert heard == [1, 2, "look"]


async def own_port(database) -> int:
    (port,) = await database.read(lambda db: db.execute("SELECT port FROM processes").fetchone())
    return port


async def test_a_listener_may_ignore_other_processes_and_channels_that_it_does_not_name(database):
    port = await own_port(database)
    other = await open_doorbell(lambda *_: None, HOST)
    with (
        database.listen("words", others=False) as own,
        database.listen("words", named=True) as named,
        database.listen("words") as any_,
    ):
        other.ring([port], ["letters"])
        assert await any_.wait(PATIENCE_SEC)
        assert not await named.wait(0)
        other.ring([port], ["letters", "words"])
        assert await named.wait(PATIENCE_SEC)
        assert not await own.wait(0)
    other.close()


async def test_a_process_that_opens_the_file_is_notified_by_the_others_at_once(path):
    # Polling cannot wake the listener within the time that the test waits.
    config = SqliteConfig(poll_interval_ms=PATIENCE_SEC * 2000)
    async with Database(path, config) as first, Database(path, config) as second:
        with second.listen("words", named=True) as listener:
            async with asyncio.timeout(PATIENCE_SEC):
                while not await listener.wait(0.01):
                    await first.write(lambda db: first.notify("words"))


async def test_a_failed_job_wakes_no_listener(database, gate):
    def failing(db):
        database.notify("words")
        raise KeyError

    with database.listen("words") as listener:
        tasks = await submit(database, insert("a"), failing, insert("b"))
        gate.open()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not await listener.wait(0)


async def test_a_cancelled_wait_loses_no_wake_up(database):
    with database.listen("words") as listener:
        wait = asyncio.create_task(listener.wait())
        await asyncio.sleep(0)
        await database.write(lambda db: database.notify("words"))
        wait.cancel()
        await asyncio.wait([wait])
        assert await listener.wait(0) if wait.cancelled() else wait.result()


async def start(*arguments: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.sqlite.other_process",
        *map(str, arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


async def step(process: asyncio.subprocess.Process) -> None:
    process.stdin.write(b"\n")
    assert await process.stdout.readline() == b"done\n"


async def test_a_commit_of_another_process_wakes_by_a_datagram(path):
    # Polling cannot wake the listener within the time that the test waits.
    config = SqliteConfig(poll_interval_ms=PATIENCE_SEC * 2000)
    async with Database(path, config) as database:
        await database.write(lambda db: db.execute("CREATE TABLE words (word)"))
        other = await start("one_by_one", path, "words", 3)
        with database.listen("anything") as listener:
            for count in range(1, 4):
                await step(other)
                while len(await database.read(words)) < count or not await listener.wait(
                    PATIENCE_SEC
                ):
                    pass
        await other.communicate()


async def test_a_commit_is_noticed_by_polling_if_its_datagram_is_lost(path):
    async with Database(path, SqliteConfig(poll_interval_ms=5)) as database:
        await database.write(lambda db: db.execute("CREATE TABLE words (word)"))
        with database.listen("words") as listener:
            await listener.wait(0.05)
            foreign = sqlite3.connect(path)
            foreign.execute("INSERT INTO words VALUES ('a')")
            foreign.commit()
            foreign.close()
            assert await listener.wait(PATIENCE_SEC)


async def test_a_process_that_cannot_bind_a_socket_polls_at_short_intervals(path):
    # Polls at the configured interval come too late for the test.
    config = SqliteConfig(poll_interval_ms=PATIENCE_SEC * 2000)
    async with Database(path, config, wakeup_host=NO_OWN_ADDRESS) as database:
        await database.write(lambda db: db.execute("CREATE TABLE words (word)"))
        assert await database.read(
            lambda db: db.execute("SELECT count(*) FROM processes").fetchone()
        ) == (0,)
        with database.listen("words") as listener:
            await listener.wait(0)
            other = await start("append", path, "words", 1)
            assert await listener.wait(PATIENCE_SEC)
            while not await database.read(words):
                assert await listener.wait(PATIENCE_SEC)
        await other.communicate()


async def test_own_commits_do_not_wake_all_listeners(path):
    async with Database(path, SqliteConfig(poll_interval_ms=1)) as database:
        await database.write(lambda db: db.execute("CREATE TABLE words (word)"))
        with database.listen("other") as listener:
            for number in range(20):
                await database.write(insert(str(number)))
                assert not await listener.wait(0.002)


async def test_a_forged_datagram_causes_no_more_than_a_look(database):
    port = await own_port(database)
    with database.listen("words") as listener:
        for content in (b"", b"x" * 1001):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
                forger.sendto(content, ("127.0.0.1", port))
            assert await listener.wait(PATIENCE_SEC)


# ---------------------------------------------------------------- several processes


async def test_processes_write_at_the_same_time(database, path):
    others = [await start("append", path, "words", 30) for _ in range(2)]
    for number in range(30):
        await database.write(insert(str(number)))
    for other in others:
        await other.communicate()
        assert other.returncode == 0
    assert len(await database.read(words)) == 90


async def test_a_killed_process_loses_only_what_was_not_committed(database, path):
    other = await start("hold", path)
    assert await other.stdout.readline() == b"done\n"
    other.kill()
    await other.wait()
    await database.write(insert("next"))
    assert await database.read(words) == ["kept", "next"]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be suspended")
async def test_a_process_that_is_suspended_in_a_transaction_is_reported_and_loses_nothing(
    database, path
):
    patient = Database(path, SqliteConfig(busy_timeout_sec=PATIENCE_SEC))
    impatient = Database(path, SqliteConfig(busy_timeout_sec=0.05))
    async with patient, impatient:
        other = await start("hold", path)
        assert await other.stdout.readline() == b"done\n"
        other.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable, match="suspended") as refused:
            await impatient.write(insert("refused"))
        assert str(path) in str(refused.value)
        assert await impatient.read(words) == ["kept"]
        (waiting,) = await submit(patient, insert("patient"))
        other.send_signal(signal.SIGCONT)
        await other.communicate(b"\n")
        await waiting
        await impatient.write(insert("later"))
    assert await database.read(words) == ["kept", "later", "lost", "patient"]


async def test_the_port_of_a_killed_process_is_deleted_when_its_lease_is_not_valid(path):
    ports = "SELECT port FROM processes ORDER BY port"
    async with Database(path, SqliteConfig()) as database:
        await database.write(
            lambda db: db.executemany(
                "INSERT INTO processes VALUES (?, ?)",
                [(1, time.time() - 1), (2, time.time() + 20), (3, time.time() + 1000)],
            )
        )
        async with Database(path, SqliteConfig()):
            found = await database.read(lambda db: db.execute(ports).fetchall())
    assert [port for (port,) in found if port <= 3] == [2]


# ---------------------------------------------------------------- the end of the event loop


def test_tasks_that_are_cancelled_with_the_event_loop_use_the_file_until_they_end(path):
    found, tasks = [], set()
    opened = asyncio.Event()

    async def use() -> None:
        async with Database(path, SqliteConfig()) as database:
            await database.write(lambda db: db.execute("CREATE TABLE words (word)"))
            try:
                opened.set()
                await asyncio.sleep(PATIENCE_SEC)
            finally:
                await asyncio.sleep(0.01)
                await database.write(insert("late"))
                found.extend(await database.read(words))

    async def main() -> None:
        tasks.add(asyncio.create_task(use()))
        await opened.wait()

    asyncio.run(main())
    assert found == ["late"]


def test_a_file_that_is_being_opened_may_be_left_with_the_event_loop(path):
    tasks = []

    async def use() -> None:
        async with Database(path, SqliteConfig()):
            pass

    async def main() -> None:
        tasks.append(asyncio.create_task(use()))
        await asyncio.sleep(0)

    asyncio.run(main())
    assert tasks[0].cancelled()


def test_a_file_that_is_never_closed_does_not_keep_the_event_loop(path):
    async def main() -> None:
        await Database(path, SqliteConfig()).__aenter__()

    asyncio.run(main())
