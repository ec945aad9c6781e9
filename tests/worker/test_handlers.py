"""Handlers with batches: their inputs, the stored artifacts, the metrics."""

import json
import math
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from flowkit._records.letter_records import read_letters
from flowkit.errors import ConfigError, NodeFailure, RecordTooLarge
from flowkit.graph import RetryPolicy
from flowkit.protocols import ArtifactRecord
from flowkit.worker import (
    Batch,
    BatchResult,
    FinalizeResult,
    Handler,
    RoleHandler,
    RunContext,
    per_run,
)
from flowkit_testing import InMemoryArtifactStore, InMemoryStore
from tests.worker.bench import Bench


class Counting(Handler):
    """A handler that makes batches from a list and records its calls."""

    def __init__(self) -> None:
        self.processed: list[str] = []

    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        for uid in loaded["input_inline"]["uids"]:
            yield Batch(uid, {"of": uid})

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        self.processed.append(batch.batch_uid)
        return BatchResult(True, {"count": 1, "half": 0.5}, {"uid": batch.batch_uid})


def uids(*names: str) -> dict[str, Any]:
    return {"uids": list(names)}


async def test_the_methods_are_called_in_order_with_what_they_are_promised(bench: Bench) -> None:
    calls: list[Any] = []

    class Whole(RoleHandler):
        async def init(self, run_info: dict[str, Any]) -> None:
            calls.append(run_info)

        async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
            calls.append((input_ref, input_inline))
            return "loaded"

        async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
            calls.append(loaded)
            yield Batch("a", 1)

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            calls.append(batch)
            return BatchResult(success=True, metrics={"rows": 2}, artifacts_ref={"a": 1})

        async def finalize(self, ctx: RunContext) -> FinalizeResult:
            calls.append("finalize")
            return FinalizeResult(
                metrics={"files": 1}, artifacts_ref={"all": True}, result={"done": 1}
            )

    async with bench.worker({"work": Whole()}):
        command = await bench.send(
            {"x": 1}, io={"input_ref": "s3://here"}, params={"p": 1}, generation=2
        )
        end = await bench.end(command)
    info = calls.pop(0)
    assert info == {
        "task_id": command.task_id,
        "node_id": "n",
        "role": "work",
        "attempt": 1,
        "worker_id": "w",
        "generation": 2,
        "params": {"p": 1},
        "io": {"input_inline": {"x": 1}, "input_ref": "s3://here"},
    }
    assert calls == [("s3://here", {"x": 1}), "loaded", Batch("a", 1), "finalize"]
    assert (end.result, end.metrics, end.batches) == ({"done": 1}, {"rows": 2, "files": 1}, 1)
    batch, complete = await bench.stored(command)
    assert (batch.uid, batch.partial, batch.meta, batch.metrics) == (
        "a",
        True,
        b'{"a":1}',
        b'{"rows":2}',
    )
    assert (complete.partial, complete.meta) == (False, b'{"all":true}')


async def test_by_default_there_is_one_batch_of_the_whole_input(bench: Bench) -> None:
    class Default(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            assert batch.payload == {"input_ref": {"at": 1}, "input_inline": {"x": 1}}
            return BatchResult(True)

    async with bench.worker({"work": Default()}):
        command = await bench.send({"x": 1}, io={"input_ref": {"at": 1}})
        assert (await bench.end(command)).batches == 1
    assert [record.meta for record in await bench.stored(command)] == [None]


async def test_batching_cuts_the_input_of_the_default_batches(bench: Bench) -> None:
    seen: list[Any] = []

    class Default(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            seen.append((batch.batch_uid, batch.payload))
            return BatchResult(True)

    async with bench.worker({"work": Default()}):
        await bench.run([1, 2, 3], io={"batching": {"size": 2}})
        await bench.run({"items": list(range(250))}, io={"batching": {"size": 1}})
    assert seen[:2] == [("0", {"items": [1, 2]}), ("1", {"items": [3]})]
    assert [payload["items"] for _, payload in seen[2:]] == [[number] for number in range(250)]


async def test_metrics_are_the_sums_of_the_batches_with_finalizes_on_top(bench: Bench) -> None:
    class Final(Counting):
        async def finalize(self, ctx: RunContext) -> FinalizeResult:
            return FinalizeResult(metrics={"half": 7, "extra": 1})

    async with bench.worker({"work": Final()}):
        end = await bench.run(uids("a", "b", "c"))
    assert end.metrics == {"count": 3, "half": 7, "extra": 1}


async def test_metrics_whose_sum_no_float_can_tell_fail_their_own_run_only(bench: Bench) -> None:
    class Huge(Counting):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(True, {"n": 0.5 if batch.batch_uid == "last" else 10**308})

    async with bench.worker({"huge": Huge(), "work": Counting()}):
        huge = await bench.send(uids(*map(str, range(20)), "last"), role="huge")
        other = await bench.send(uids(*map(str, range(20))))
        assert (await bench.end(other)).metrics == {"count": 20, "half": 10}
        end = await bench.end(huge)
    assert (end.reason_code, end.permanent, end.metrics) == ("bad_result", True, {})
    assert "the sums of its metrics must be finite numbers by name" in end.error


async def test_a_batch_that_comes_twice_is_processed_and_counted_once(bench: Bench) -> None:
    counting = Counting()
    async with bench.worker({"work": counting}):
        end = await bench.run(uids("a", "b", "a", "b", "a"))
    assert (end.metrics["count"], end.batches, counting.processed) == (2, 2, ["a", "b"])


def repetitions(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if getattr(record, "action", None) == "batch_repeated"
    ]


async def test_a_run_warns_once_that_batches_came_twice(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.worker({"work": Counting()}):
        await bench.run(uids("a", "b", "a", "b", "a"), task_id="t")
        said = (
            "Batch 'a' of node n came more than once in one run: only the first with this uid is"
            " processed"
        )
        assert repetitions(caplog) == [said]
        await bench.run(uids("a", "b", "c"), task_id="t", token="two", attempt=2)
        assert repetitions(caplog) == [said]
        await bench.run(uids("a", "b", "a"), task_id="t", token="three", attempt=3)
        assert repetitions(caplog) == [said, said]


async def test_no_batches_are_no_error(bench: Bench) -> None:
    async with bench.worker({"work": Counting()}):
        end = await bench.run(uids())
    assert (end.kind, end.metrics, end.batches) == ("node_succeeded", {}, 0)


async def test_the_next_attempt_goes_on_where_the_last_one_failed(bench: Bench) -> None:
    class Flaky(Counting):
        async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
            async for batch in super().iter_batches(loaded):
                if batch.batch_uid == "c" and not broke:
                    broke.append(True)
                    raise RuntimeError("not yet")
                yield batch

    broke: list[bool] = []
    flaky = Flaky()
    async with bench.worker({"work": flaky}):
        first = await bench.end(
            await bench.send(uids("a", "b", "c", "d"), task_id="t", token="one")
        )
        assert (first.metrics, first.permanent) == ({"count": 2, "half": 1.0}, False)
        second = await bench.send(uids("a", "b", "c", "d"), task_id="t", token="two", attempt=2)
        end = await bench.end(second)
    assert flaky.processed == ["a", "b", "c", "d"]
    assert (end.metrics, end.batches) == ({"count": 4, "half": 2.0}, 4)
    assert bench.kinds(second) == ["node_started", "batch_stored", "node_succeeded"]


async def test_a_first_attempt_that_meets_stored_batches_counts_exactly(bench: Bench) -> None:
    """Its worker died before the start was reported, so another worker gets the same command."""
    counting = Counting()
    async with bench.worker({"work": counting}):
        await bench.run(uids("a", "b"), task_id="t", token="one")
        end = await bench.run(uids("a", "b", "c", "d"), task_id="t", token="two")
    assert (end.metrics["count"], end.batches) == (4, 4)
    assert counting.processed.count("c") == counting.processed.count("d") == 1


async def test_another_generation_begins_with_nothing(bench: Bench) -> None:
    counting = Counting()
    async with bench.worker({"work": counting}):
        await bench.run(uids("a"), task_id="t", token="one")
        end = await bench.run(uids("a"), task_id="t", token="two", generation=1)
    assert (end.batches, counting.processed) == (1, ["a", "a"])


async def test_a_long_stream_is_stored_many_batches_at_a_time(bench: Bench) -> None:
    puts: list[int] = []

    class Watched(InMemoryArtifactStore):
        async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
            puts.append(len(records))
            return await super().put(records)

    bench.store.artifacts = Watched()
    async with bench.worker({"work": Counting()}):
        end = await bench.run(uids(*map(str, range(1000))))
    assert (end.metrics["count"], end.batches) == (1000, 1000)
    assert len(puts) < 100


async def test_the_only_batch_of_a_node_fails_its_attempt_with_its_reason(bench: Bench) -> None:
    class Failing(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(False, reason_code="no_disk", error="the disk is full")

    async with bench.worker({"work": Failing()}):
        end = await bench.run({"x": 1})
    assert (end.kind, end.reason_code, end.permanent, end.error) == (
        "node_failed",
        "no_disk",
        False,
        "the disk is full",
    )
    assert await read_letters(bench.store) == []


@pytest.mark.parametrize(("permanent", "last"), [(True, False), (False, True)])
@pytest.mark.parametrize("handler", [Handler, Counting], ids=["sole", "of several"])
async def test_a_batch_that_fails_for_good_is_kept_as_a_dead_letter(
    bench: Bench, handler: type[Handler], permanent: bool, last: bool
) -> None:
    class Failing(handler):  # type: ignore[misc, valid-type]
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(
                False, reason_code="broken", permanent=permanent, error="cannot be read"
            )

    async with bench.worker({"work": Failing()}):
        policy = RetryPolicy(max=0 if last else 2)
        command = await bench.send(uids("0"), retry_policy=policy)
        assert (await bench.end(command)).permanent is True
        await bench.run(uids("0"), task_id=command.task_id, retry_policy=policy)
    (letter,) = await read_letters(bench.store, task_id=command.task_id)
    assert (letter.kind, letter.node_id, letter.uid, letter.attempt) == ("batch", "n", "0", 1)
    assert (letter.reason_code, letter.error) == ("broken", "cannot be read")
    assert b'"0"' in letter.data
    assert letter.size == len(letter.data)


async def test_an_error_is_reported_and_stored_in_a_form_that_any_store_can_write(
    bench: Bench,
) -> None:
    class Nameless(Counting):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            raise ValueError("no such file: \udc80.txt" + "\udc80" * 10_000)

    async with bench.worker({"work": Nameless()}):
        end = await bench.run(uids("a"))
    (letter,) = await read_letters(bench.store)
    assert end.error == letter.error
    assert letter.error.startswith("ValueError: no such file: \\udc80.txt\\udc80")
    assert len(letter.error.encode()) == 4000


async def test_a_payload_that_is_no_json_leaves_a_dead_letter_without_data(bench: Bench) -> None:
    class Failing(Handler):
        async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
            yield Batch("a", object())

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            raise ValueError("bad row")

    async with bench.worker({"work": Failing()}):
        await bench.run()
    (letter,) = await read_letters(bench.store)
    assert (letter.data, letter.error) == (b"", "ValueError: bad row")


@pytest.mark.parametrize(
    ("error", "reason", "permanent"),
    [
        (TypeError("x"), "bad_input", True),
        (ValueError("x"), "bad_input", True),
        (KeyError("x"), "bad_input", True),
        (RuntimeError("x"), "unexpected_error", False),
        (json.JSONDecodeError("x", "{", 1), "unexpected_error", False),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), "unexpected_error", False),
        (IndexError("x"), "unexpected_error", False),
        (SystemExit(3), "unexpected_error", False),
        (NodeFailure("x", reason_code="mine", permanent=True), "mine", True),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_errors_are_classified(
    bench: Bench, error: BaseException, reason: str, permanent: bool
) -> None:
    class Raising(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            raise error

    async with bench.worker({"work": Raising()}):
        end = await bench.run()
    assert (end.reason_code, end.permanent) == (reason, permanent)
    kind = "" if isinstance(error, NodeFailure) else f"{type(error).__name__}: "
    assert end.error == f"{kind}{error}"


async def test_a_handler_classifies_its_own_errors(bench: Bench) -> None:
    class Own(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            raise RuntimeError("x" * 10_000)

        def classify_error(self, exc: BaseException) -> tuple[str, bool]:
            assert isinstance(exc, RuntimeError)
            return "mine", True

    async with bench.worker({"work": Own()}):
        end = await bench.run()
    assert (end.reason_code, end.permanent, len(end.error)) == ("mine", True, 4000)


@pytest.mark.parametrize("answer", [None, "text", (1, True), RuntimeError("inside")])
async def test_a_classification_that_fails_is_an_unexpected_error(
    bench: Bench, answer: Any
) -> None:
    class Broken(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            raise ValueError("x")

        def classify_error(self, exc: BaseException) -> tuple[str, bool]:
            if isinstance(answer, Exception):
                raise answer
            return answer  # type: ignore[no-any-return]

    async with bench.worker({"work": Broken()}):
        end = await bench.run()
    assert (end.reason_code, end.permanent) == ("unexpected_error", False)


async def test_a_reason_named_in_permanent_on_is_permanent(bench: Bench) -> None:
    class Failing(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(False, reason_code="quota")

    async with bench.worker({"work": Failing()}):
        assert (
            await bench.run(retry_policy=RetryPolicy(permanent_on=("quota",)))
        ).permanent is True
        assert (
            await bench.run(retry_policy=RetryPolicy(permanent_on=("other",)))
        ).permanent is False


async def test_a_plugin_may_classify_before_the_handler(bench: Bench) -> None:
    class Plugin:
        __name__ = "classifier"

        def flowkit_classify_error(
            self, error: BaseException, node: Any
        ) -> tuple[str, bool] | None:
            assert (node.node_id, node.type, node.io.input_inline) == ("n", "work", {"x": 1})
            if isinstance(error, OSError):
                raise RuntimeError("the plugin is broken")
            return ("by_plugin", True) if isinstance(error, RuntimeError) else None

    async def work(item: Any, ctx: RunContext) -> None:
        raise {"RuntimeError": RuntimeError, "OSError": OSError, "KeyError": KeyError}[
            ctx.params["raises"]
        ]("x")

    async with bench.worker({"work": work}, plugins=[Plugin()]):
        ends = [
            await bench.run({"x": 1}, params={"raises": name})
            for name in ("RuntimeError", "KeyError", "OSError")
        ]
    assert [(end.reason_code, end.permanent) for end in ends] == [
        ("by_plugin", True),
        ("bad_input", True),
        ("unexpected_error", False),
    ]


class Odd(Handler):
    """A handler that returns the value of the test."""

    def __init__(self, batches: Any = None, result: Any = None, final: Any = None) -> None:
        self.batches, self.result, self.final = (
            batches or [Batch("a")],
            result or BatchResult(True),
            final,
        )

    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        for batch in self.batches:
            yield batch

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return self.result  # type: ignore[no-any-return]

    async def finalize(self, ctx: RunContext) -> FinalizeResult | None:
        return self.final  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (Odd(batches=["text"]), "batches must be flowkit.worker.Batch objects, not str"),
        (Odd(batches=[Batch("")]), "a batch_uid must be a string of 1 to"),
        (Odd(batches=[Batch(5)]), "a batch_uid must be a string of 1 to"),  # type: ignore[arg-type]
        (Odd(batches=[Batch("x" * 1001)]), "a batch_uid must be a string of 1 to"),
        (
            Odd(batches=[Batch("file-\udc80")]),
            "a batch_uid must be valid Unicode, not 'file-\\udc80'",
        ),
        (Odd(batches=[Batch("__complete__")]), "no batch may have the uid"),
        (Odd(result={"success": True}), "process_batch must return a BatchResult, not dict"),
        (Odd(result=BatchResult(True, {"n": math.nan})), "'n' is nan"),
        (Odd(result=BatchResult(True, {"n": 10**400})), "'n' is an integer of 1329 bits"),
        (Odd(result=BatchResult(True, {"n": 10**5000})), "'n' is an integer of 16610 bits"),
        (Odd(result=BatchResult(True, {"n": "3"})), "'n' is '3'"),  # type: ignore[dict-item]
        (Odd(result=BatchResult(True, [1])), "numbers by name, not list"),  # type: ignore[arg-type]
        (
            Odd(result=BatchResult(True, {}, [1])),
            "the artifact of batch 'a' must be a JSON object or None, not list",
        ),  # type: ignore[arg-type]
        (
            Odd(result=BatchResult(True, {}, {"n": math.inf})),
            "the artifact of batch 'a' is not JSON",
        ),
        (Odd(final={"result": 1}), "finalize must return a FinalizeResult or None, not dict"),
        (Odd(final=FinalizeResult(result=object())), "the result is not JSON"),
        (Odd(final=FinalizeResult(metrics={"n": math.inf})), "the metrics of finalize"),
        (
            Odd(final=FinalizeResult(artifacts_ref={"x": object()})),
            "the artifact of the node is not JSON",
        ),
    ],
)
async def test_what_cannot_be_used_fails_for_good(bench: Bench, odd: Odd, message: str) -> None:
    async with bench.worker({"work": odd}):
        end = await bench.run()
    assert (end.reason_code, end.permanent) == ("bad_result", True)
    assert message in end.error


async def test_iter_batches_may_be_an_ordinary_function(bench: Bench) -> None:
    class Listed(Counting):
        async def iter_batches(self, loaded: Any) -> Any:  # type: ignore[override]
            return [Batch("a"), Batch("b")]

    class Wrong(Counting):
        def iter_batches(self, loaded: Any) -> Any:
            return 5

    async with bench.worker({"list": Listed(), "wrong": Wrong()}):
        assert (await bench.run(role="list")).batches == 2
        assert (await bench.run(role="wrong")).reason_code == "bad_result"


async def test_an_artifact_above_the_stores_limit_fails_its_own_run_only(bench: Bench) -> None:
    class Small(InMemoryArtifactStore):
        async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
            if any(len(record.meta or b"") > 100 for record in records):
                raise RecordTooLarge("above 100 bytes")
            return await super().put(records)

    async def work(item: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"x": item}
        yield {"last": True}

    bench.store.artifacts = Small()
    async with bench.worker({"work": work}):
        small, large = await bench.send("x"), await bench.send("x" * 200)
        assert (await bench.end(small)).batches == 2
        end = await bench.end(large)
    assert (end.reason_code, end.permanent) == ("artifact_too_large", True)
    (letter,) = await read_letters(bench.store)
    assert letter.uid == "0"


async def test_an_artifact_that_cannot_be_stored_fails_its_own_run_only(bench: Bench) -> None:
    together: list[int] = []

    class Picky(InMemoryArtifactStore):
        async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
            if any(b"odd" in (record.meta or b"") for record in records):
                together.append(len({record.stream for record in records}))
                raise RuntimeError("cannot be written")
            return await super().put(records)

    async def work(item: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"x": item}
        yield {"last": True}

    bench.store.artifacts = Picky()
    async with bench.worker({"work": work}):
        commands = [await bench.send(item) for item in ("one", "odd", "two")]
        ends = [await bench.end(command) for command in commands]
    assert together[0] > 1
    assert together[-1] == 1
    assert [end.kind for end in ends] == ["node_succeeded", "node_failed", "node_succeeded"]
    assert (ends[0].batches, ends[2].batches) == (2, 2)
    assert (ends[1].reason_code, ends[1].error) == (
        "unexpected_error",
        "RuntimeError: cannot be written",
    )


async def test_an_error_of_the_artifact_store_fails_the_run(bench: Bench) -> None:
    class Broken(InMemoryArtifactStore):
        async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
            raise RuntimeError("a bug")

    class Final(Counting):
        async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
            for batch in ():
                yield batch

        async def finalize(self, ctx: RunContext) -> FinalizeResult:
            return FinalizeResult(artifacts_ref={"x": 1})

    bench.store.artifacts = Broken()
    async with bench.worker({"work": Counting(), "final": Final()}):
        assert (await bench.run(uids("a"))).error == "RuntimeError: a bug"
        assert (await bench.run(role="final")).error == "RuntimeError: a bug"


async def test_an_instance_is_shared_and_a_class_or_factory_is_made_per_run(bench: Bench) -> None:
    made: list[Handler] = []

    class Own(Handler):
        def __init__(self) -> None:
            made.append(self)

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(True)

    async with bench.worker({"shared": Own(), "class": Own, "factory": per_run(lambda: Own())}):
        for role, expected in (("shared", 1), ("class", 3), ("factory", 5)):
            await bench.run(role=role)
            await bench.run(role=role)
            assert len(made) == expected


def test_the_base_class_alone_is_no_handler(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="Handler cannot be a handler: it has no process_batch"):
        bench.worker({"work": Handler()})


@pytest.mark.parametrize(
    ("handlers", "message"),
    [
        (None, "at least one handler"),
        ({}, "at least one handler"),
        ({"": Handler()}, "a role must be a name"),
        ({"a": 5}, "the value for role 'a' is not a handler: 5"),
        ({"a": int}, "the value for role 'a' is not a handler"),
        ("text", "expected a mapping of roles to handlers"),
        ([lambda: None], "has no role"),
    ],
)
def test_wrong_handlers_are_refused(handlers: Any, message: str) -> None:
    from flowkit.worker import Worker

    with pytest.raises(ConfigError, match=message):
        Worker(store=InMemoryStore(), handlers=handlers)


async def test_a_batch_that_is_stored_after_the_end_was_reported_adds_nothing_to_it(
    bench: Bench,
) -> None:
    """It was being stored when the run was cut off."""
    arrived, go_on = anyio.Event(), anyio.Event()

    class Slow(InMemoryArtifactStore):
        async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
            if records[0].partial:
                arrived.set()
                await go_on.wait()
            return await super().put(records)

    bench.store.artifacts = Slow()
    async with bench.worker({"work": Counting()}, cancel_grace_sec=0):
        command = await bench.send(uids("a", "b"))
        await arrived.wait()
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"
        go_on.set()
        await bench.clock.sleep(10)
    assert bench.kinds(command) == ["node_started", "node_stopped"]


class Blocking(Counting):
    """A handler that blocks the event loop in each batch and never awaits."""

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        time.sleep(0.006)  # noqa: ASYNC251 - this is the blocking call
        return await super().process_batch(batch, ctx)


async def blocking(item: Any) -> AsyncIterator[dict[str, Any]]:
    for number in range(item["count"]):
        time.sleep(0.006)  # noqa: ASYNC251 - this is the blocking call
        yield {"number": number}


@pytest.mark.parametrize(
    ("handler", "inline"),
    [(Blocking, uids(*map(str, range(30)))), (blocking, {"count": 30})],
    ids=["class", "generator"],
)
async def test_other_tasks_run_between_the_batches_of_a_handler_that_never_waits(
    bench: Bench, handler: Any, inline: Any
) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with bench.worker({"work": handler}), anyio.create_task_group() as group:
        command = await bench.send(inline)
        await bench.started(command)
        before = turns
        group.start_soon(count_turns)
        await bench.end(command)
        assert turns - before >= 10
        group.cancel_scope.cancel()
