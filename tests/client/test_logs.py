"""Log lines of handlers are kept with their node, and read in order."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from flowkit import LogLine, TaskNotFound, TaskView, hookimpl
from flowkit.config import LogConfig
from flowkit.errors import RecordRefused, StoreUnavailable
from flowkit.protocols import KeyedRecord, RecordChange
from flowkit.worker import Batch, BatchResult, Handler, RunContext, handler
from flowkit.worker._run_log import _formatted, _text_of
from flowkit_testing import Cluster, InMemoryStore
from flowkit_testing._cluster import UNHURRIED_WORKER
from tests.builders import graph
from tests.hooked_store import HookedStore

NODE = {"node_id": "a", "type": "work", "retry_policy": {"max": 0}}
app_logger = logging.getLogger("myapp.rows")


def keeping(**fields: Any) -> Any:
    return UNHURRIED_WORKER.model_copy(update={"logs": LogConfig(**fields)})


async def lines_of(
    cluster: Cluster, view: TaskView, node_id: str | None = None
) -> Sequence[LogLine]:
    return [line async for line in cluster.client.logs(view.id, node_id)]


async def logged(work: Any, *, store: InMemoryStore | None = None, **cfg: Any) -> list[LogLine]:
    """Return the lines of a task with one node, which runs this handler."""
    async with Cluster(handlers=[work], store=store, worker_config=keeping(**cfg)) as cluster:
        view = await cluster.run(graph(NODE))
        assert view.status == "finished", view
        return list(await lines_of(cluster, view))


# ---------------------------------------------------------------- lines


async def test_a_line_has_its_time_node_attempt_worker_level_and_fields() -> None:
    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        ctx.log.info("read %d rows", 3, extra={"table": "orders", "took": 0.5})
        await ctx.clock.sleep(2)
        ctx.log.warning("slow")

    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(graph(NODE))
        first, second = await lines_of(cluster, view)
        node = view.nodes["a"]
    assert (first.task_id, first.node_id, first.attempt) == (view.id, "a", 1)
    assert (first.worker_id, first.logger) == (node.worker_id, "flowkit.run")
    assert (first.level, first.text) == ("info", "read 3 rows")
    assert first.fields == {"table": "orders", "took": 0.5}
    assert (first.number, first.dropped, first.batch_uid, first.traceback) == (1, 0, None, None)
    assert (second.level, second.text, second.number) == ("warning", "slow", 2)
    assert (second.at - first.at).total_seconds() == pytest.approx(2)


async def test_the_level_of_the_log_of_the_process_does_not_matter() -> None:
    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        assert not logging.getLogger("flowkit.run").isEnabledFor(logging.INFO)
        ctx.log.debug("below the level")
        ctx.log.info("kept")

    logging.getLogger("flowkit.run").setLevel(logging.ERROR)
    try:
        assert [line.text for line in await logged(work)] == ["kept"]
        lines = await logged(work, level="debug")
        assert [line.level for line in lines] == ["debug", "info"]
    finally:
        logging.getLogger("flowkit.run").setLevel(logging.NOTSET)


async def test_the_place_of_a_call_is_the_users_in_the_log_of_the_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        ctx.log.warning("here")

    await logged(work)
    (record,) = [record for record in caplog.records if record.name == "flowkit.run"]
    assert (record.funcName, vars(record)["node_id"]) == ("work", "a")


async def test_an_exception_has_a_traceback_that_begins_in_the_users_code() -> None:
    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        try:
            raise KeyError("id")
        except KeyError:
            ctx.log.exception("no id")

    (line,) = await logged(work)
    assert line.level == "error"
    assert line.traceback is not None
    assert line.traceback.startswith("Traceback")
    assert line.traceback.endswith("KeyError: 'id'")
    assert "test_logs.py" in line.traceback.splitlines()[1]


async def test_a_traceback_with_a_long_text_has_the_users_frames_and_the_shortened_text() -> None:
    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        try:
            raise RuntimeError("e" * 50_000 + "\ud800")
        except RuntimeError:
            ctx.log.exception("broken")

    (line,) = await logged(work)
    first, place, *_ = str(line.traceback).splitlines()
    assert first == "Traceback (most recent call last):"
    assert "test_logs.py" in place
    assert "RuntimeError: eee" in str(line.traceback)
    assert "characters are left out" in str(line.traceback)
    assert str(line.traceback).endswith("e\\ud800")
    assert "flowkit._" not in str(line.traceback)


async def test_the_error_of_a_failed_attempt_is_kept_with_its_traceback() -> None:
    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        raise RuntimeError("broken")

    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(graph(NODE | {"retry_policy": {"max": 1, "backoff_sec": 1}}))
        first, second = await lines_of(cluster, view)
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.text == "the attempt failed: unexpected_error: RuntimeError: broken"
    assert "in work" in str(first.traceback)


async def test_secrets_in_texts_fields_and_tracebacks_are_redacted() -> None:
    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        try:
            raise ValueError("password=sesame")
        except ValueError:
            ctx.log.exception(
                "at mongodb://ann:sesame@host/db", extra={"token": "sesame", "a": {"pwd": "sesame"}}
            )

    (line,) = await logged(work)
    assert "sesame" not in line.model_dump_json()
    assert line.text == "at mongodb://***@host/db"
    assert line.fields == {"token": "***", "a": {"pwd": "***"}}


class Reversed:
    """A codec that reverses payloads."""

    @hookimpl
    def flowkit_encode_payload(self, data: bytes) -> bytes:
        return data[::-1]

    @hookimpl
    def flowkit_decode_payload(self, data: bytes) -> bytes:
        return data[::-1]


async def test_lines_are_encoded_in_the_store_if_payloads_are() -> None:
    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        ctx.log.info("a patient")

    async with Cluster(handlers=[work], plugins=[Reversed()]) as cluster:
        view = await cluster.run(graph(NODE))
        assert [line.text for line in await lines_of(cluster, view)] == ["a patient"]
        (record,) = await cluster.store.records.scan("log")
    assert b"a patient" not in record.data


class Silent:
    """An object without a text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


async def test_a_line_that_cannot_be_formatted_fails_nothing() -> None:
    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        ctx.log.info("at", extra={"it": float("nan"), "half": "\ud800"})
        logging.raiseExceptions = False
        try:
            ctx.log.info("%s", Silent())
        finally:
            logging.raiseExceptions = True

    first, second = await logged(work)
    assert first.fields == {"it": "NaN", "half": "\\ud800"}
    assert second.text == "%s (it cannot be formatted: RuntimeError: no text)"


class Huge(dict[str, int]):
    """An object of which only the beginning may be read."""

    def items(self) -> Any:
        for number in range(16_000):
            yield f"{number}", number
        raise RuntimeError("all of it was read")


def cyclic() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


TOO_LONG = "ValueError: the value is longer than 16000 bytes"
TOO_DEEP = "ValueError: the value is nested more than 50 levels deep"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (Silent(), "RuntimeError: no text"),
        (cyclic(), TOO_DEEP),
        ("z" * 16_000, TOO_LONG),
        ("ü" * 9_000, TOO_LONG),
        (b"z" * 16_000, TOO_LONG),
        (["z"] * 16_000, TOO_LONG),
        ({f"{i}": 1 for i in range(5_000)}, TOO_LONG),
        (1 << 1_000_000, TOO_LONG),
        (Huge(), TOO_LONG),
    ],
    ids=lambda value: f"{type(value)}",
)
async def test_fields_that_cannot_be_kept_are_left_out_with_the_reason(value: Any, why: str):
    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        ctx.log.info("%d rows", 3, extra={"x": value})

    (line,) = await logged(work)
    assert line.text == "3 rows"
    assert line.fields == {"left_out": why}


def test_a_text_whose_arguments_are_wrong_is_kept_as_it_is():
    assert kept_text("%d rows", "x").startswith("%d rows (it cannot be formatted: TypeError: ")
    assert kept_text("%s", Silent()) == "%s (it cannot be formatted: RuntimeError: no text)"
    assert "a message of type Silent" in kept_text(Silent())
    assert "cannot be formatted" in kept_text("%d" + "z" * 100_000, "x")


def kept_text(msg: object, *args: object) -> str:
    return _text_of(lambda: _formatted(msg, args), msg)


async def test_fields_of_any_type_are_redacted() -> None:
    @dataclass
    class Login:
        password: str

    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        ctx.log.info("at", extra={"login": Login("sesame"), "all": {Login}, "of": (1, None)})

    (line,) = await logged(work)
    assert "sesame" not in f"{line.fields}"
    assert line.fields["of"] == [1, None]


async def test_a_line_names_the_batch_that_is_processed() -> None:
    class Work(Handler):
        async def iter_batches(self, loaded: Any) -> Any:
            for number in range(2):
                yield Batch(f"b{number}", number)

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            ctx.log.info("in a batch")
            return BatchResult(True)

        async def finalize(self, ctx: RunContext) -> None:
            ctx.log.info("all done")

    async with Cluster(handlers={"work": Work}) as cluster:
        view = await cluster.run(graph(NODE))
        lines = await lines_of(cluster, view)
    assert [(line.batch_uid, line.text) for line in lines] == [
        ("b0", "in a batch"),
        ("b1", "in a batch"),
        (None, "all done"),
    ]


async def test_threads_of_a_handler_log_into_its_run() -> None:
    @handler("work")
    def work(item: Any, ctx: RunContext) -> None:
        threads = [threading.Thread(target=ctx.log.info, args=("from a thread",)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ctx.log.info("the end")

    lines = await logged(work)
    assert [line.text for line in lines] == ["from a thread"] * 3 + ["the end"]
    assert [line.number for line in lines] == [1, 2, 3, 4]


# ---------------------------------------------------------------- reading


@handler("talk")
async def talk(item: Any, ctx: RunContext) -> None:
    for _ in range(3):
        ctx.log.info("%s", ctx.node_id)
        await ctx.clock.sleep(item)


def talking(node_id: str, every_sec: float, **fields: Any) -> dict[str, Any]:
    io = {"input_inline": every_sec}
    return {"node_id": node_id, "type": "talk", "io": io, "depends_on": [], **fields}


async def test_lines_of_all_nodes_and_workers_are_ordered_by_time() -> None:
    async with Cluster(handlers=[talk], workers=3) as cluster:
        view = await cluster.run(graph(*(talking(f"n{i}", 0.1 * (i + 1)) for i in range(5))))
        lines = await lines_of(cluster, view)
        assert [line.at for line in lines] == sorted(line.at for line in lines)
        assert len(lines) == 15
        assert {line.node_id for line in await lines_of(cluster, view, "n3")} == {"n3"}


async def test_the_lines_of_a_map_are_those_of_its_children() -> None:
    mapped = talking("each", 0, io={"input_inline": "${item}"}, map={"over": [0, 0]})
    async with Cluster(handlers=[talk]) as cluster:
        view = await cluster.run(graph(mapped, talking("each2", 0)))
        assert view.status == "finished", view
        of_map = {line.node_id for line in await lines_of(cluster, view, "each")}
        of_child = {line.node_id for line in await lines_of(cluster, view, "each[1]")}
    assert of_map == {"each[0]", "each[1]"}
    assert of_child == {"each[1]"}


async def test_a_task_or_a_node_that_does_not_exist_is_an_error() -> None:
    async with Cluster(handlers=[talk]) as cluster:
        with pytest.raises(TaskNotFound):
            _ = [line async for line in cluster.client.logs("nix")]
        view = await cluster.run(graph(talking("a", 0)))
        with pytest.raises(TaskNotFound, match="nix"):
            await lines_of(cluster, view, "nix")


async def test_an_id_that_is_no_text_is_refused_by_all_verbs_that_take_one() -> None:
    async with Cluster(handlers=[talk]) as cluster:
        client: Any = cluster.client
        task_id = (await cluster.run(graph(talking("a", 0)))).id
        for wrong in (5, None, ["a"]):
            for verb in (client.get_task, client.cancel, client.pause):
                with pytest.raises(ValueError, match="the id of a task is a text, not"):
                    await verb(wrong)
            for reader in (client.logs, client.artifacts):
                with pytest.raises(ValueError, match="the id of a task is a text, not"):
                    _ = [found async for found in reader(wrong)]
        for wrong in (5, ["a"]):
            for verb in (client.get_node, client.explain):
                with pytest.raises(ValueError, match="the id of a node is a text, not"):
                    await verb(task_id, wrong)
            for reader in (client.logs, client.artifacts):
                with pytest.raises(ValueError, match="the id of a node is a text, not"):
                    _ = [found async for found in reader(task_id, wrong)]


async def test_follow_yields_lines_while_the_node_runs_and_ends_with_the_task() -> None:
    async with Cluster(handlers=[talk]) as cluster:
        wait = {"node_id": "wait", "type": "sleep", "io": {"for_sec": 86_400}}
        after = talking("b", 1, depends_on=["wait"])
        task_id = await cluster.client.create_task(graph=graph(talking("a", 60), wait, after))
        delays = [
            (cluster.clock.now_dt() - line.at).total_seconds()
            async for line in cluster.client.logs(task_id, follow=True)
        ]
        assert (await cluster.client.get_task(task_id)).status == "finished"
    assert len(delays) == 6
    assert max(delays) < 3


async def test_lines_are_deleted_with_the_task() -> None:
    async with Cluster(handlers=[talk]) as cluster:
        await cluster.run(graph(talking("a", 0)))
        records = cluster.store.records
        assert await records.scan("log")
        await cluster.store.purge(finished_before=cluster.clock.now() + 1)
        assert not await records.scan("log")


# ---------------------------------------------------------------- bounds


@handler("work")
async def chatty(item: Any, ctx: RunContext) -> None:
    for number in range(1, 1001):
        ctx.log.info("%d", number)
        if number % 30 == 0:
            await ctx.clock.sleep(1)


async def test_of_too_many_lines_the_first_and_the_newest_are_kept() -> None:
    lines = await logged(chatty, max_lines=40)
    assert [line.number for line in lines[:20]] == list(range(1, 21))
    assert 30 <= len(lines) <= 40
    assert [line.number for line in lines[20:]] == list(range(1021 - len(lines), 1001))
    assert lines[20].dropped == 1000 - len(lines)
    assert sum(line.dropped for line in lines) == lines[20].dropped


async def test_the_bytes_of_the_lines_are_bounded() -> None:
    store = InMemoryStore()
    lines = await logged(chatty, store=store, max_bytes=20_000)
    stored = sum(len(record.data) for record in await store.records.scan("log", limit=1000))
    assert stored < 25_000
    assert lines[-1].number == 1000
    assert len(lines) > 60


async def test_without_lines_to_keep_none_is_stored() -> None:
    assert not await logged(chatty, max_lines=0)


async def test_a_run_that_logs_nothing_stores_nothing() -> None:
    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        pass

    class Strict(HookedStore):
        async def before_change(self, change: RecordChange) -> None:
            assert not is_of_logs(change)

    assert not await logged(work, store=Strict())


# ---------------------------------------------------------------- troubles of the store


def is_of_logs(change: RecordChange) -> bool:
    return any(record.kind == "log" for record in change.put)


class WithoutLogs(HookedStore):
    """A store that is unavailable for log lines."""

    async def before_change(self, change: RecordChange) -> None:
        if is_of_logs(change):
            raise StoreUnavailable("away")


class Slow(HookedStore):
    """A store that takes a turn of the event loop for log lines."""

    async def before_change(self, change: RecordChange) -> None:
        if is_of_logs(change):
            await asyncio.sleep(0)


async def test_no_node_waits_for_a_store_that_takes_no_lines() -> None:
    nodes = [talking(f"n{i}", 0, depends_on=[f"n{i - 1}"] if i else []) for i in range(20)]
    async with Cluster(handlers=[talk], store=WithoutLogs()) as cluster:
        began = cluster.clock.monotonic()
        view = await cluster.run(graph(*nodes))
        assert view.status == "finished"
        # The first node waits for a second, and no other one.
        assert cluster.clock.monotonic() - began < 3


async def test_a_handler_that_cancels_its_task_after_its_end_has_finished(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        ctx.log.info("the last line")
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)

    assert len(await logged(work, store=Slow())) == 1
    assert "unexpected error" not in caplog.text


async def test_a_store_that_refuses_a_line_fails_no_node_and_keeps_the_others() -> None:
    class Refusing(HookedStore):
        async def before_change(self, change: RecordChange) -> None:
            if is_of_logs(change) and any(b'"node":"bad"' in each.data for each in change.put):
                raise RecordRefused("no")

    async with Cluster(handlers=[talk], store=Refusing()) as cluster:
        view = await cluster.run(graph(talking("bad", 1), talking("good", 1.5)))
        assert view.status == "finished"
        other = await cluster.run(graph(talking("good", 0)))
        lines = await lines_of(cluster, other)
    assert [line.number for line in lines] == [1, 2, 3]


async def test_lines_whose_confirmation_was_lost_are_stored_once() -> None:
    class Forgetful(HookedStore):
        lost = 0

        async def before_change(self, change: RecordChange) -> None:
            if is_of_logs(change) and self.lost < 3:
                self.lost += 1
                await self._records.change([change])
                raise StoreUnavailable("the answer is lost")

    assert len(await logged(chatty, store=Forgetful(), max_lines=2000)) == 1000


async def test_a_damaged_record_hides_no_other_one(caplog: pytest.LogCaptureFixture) -> None:
    class Damaged(HookedStore):
        def seen(self, record: KeyedRecord) -> KeyedRecord:
            if record.kind == "log" and b'"number":2,' in record.data:
                record.data = b"{}"
            return record

    store = Damaged()
    async with Cluster(handlers=[talk], store=store) as cluster:
        view = await cluster.run(graph(talking("a", 1)))
        lines = await lines_of(cluster, view)
    assert [(line.number, line.dropped) for line in lines] == [(1, 0), (3, 1)]
    assert "Log lines are missing" in caplog.text


# ---------------------------------------------------------------- other loggers


async def test_other_loggers_are_kept_if_they_are_named() -> None:
    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        app_logger.warning("row %d is odd", 3, extra={"row": 3})
        logging.getLogger("elsewhere").warning("not this one")
        ctx.log.warning("mine")

    assert [line.text for line in await logged(work)] == ["mine"]
    lines = await logged(work, loggers=["myapp", "myapp.rows"])
    assert [(line.logger, line.text) for line in lines] == [
        ("myapp.rows", "row 3 is odd"),
        ("flowkit.run", "mine"),
    ]
    assert lines[0].fields == {"row": 3}


async def test_the_root_logger_stands_for_all_but_those_of_flowkit() -> None:
    @handler("work")
    def work(item: Any, ctx: RunContext) -> None:
        app_logger.warning("in a thread")
        ctx.log.warning("mine")
        logging.getLogger("flowkit.worker").warning("of FlowKit")
        logging.getLogger("flowkit_sqlite").warning("of FlowKit")

    lines = await logged(work, loggers=["root"])
    assert [line.text for line in lines] == ["in a thread", "mine"]


async def test_each_line_of_another_logger_belongs_to_the_run_that_logs_it() -> None:
    @handler("talk")
    async def work(item: Any, ctx: RunContext) -> None:
        for _ in range(3):
            app_logger.warning("%s", ctx.node_id)
            await ctx.clock.sleep(item)

    cfg = keeping(loggers=["myapp"])
    async with Cluster(handlers=[work], workers=2, worker_config=cfg) as cluster:
        view = await cluster.run(graph(*(talking(f"n{i}", 1) for i in range(4))))
        app_logger.warning("of no run")
        lines = await lines_of(cluster, view)
    assert len(lines) == 12
    assert all(line.text == line.node_id for line in lines)
    assert not logging.getLogger("myapp").handlers
