"""Failed batches: their separate retries, those given up, and the outcome of the node."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from flowkit._records.letter_records import read_letters
from flowkit.errors import NodeFailure
from flowkit.graph import RetryPolicy
from flowkit.messages import BatchRetries
from flowkit.worker import Batch, BatchResult, Handler, RunContext
from tests.worker.bench import Bench

STEADY = RetryPolicy(max=2, backoff_sec=10, multiplier=3, max_backoff_sec=20, jitter=0)


class Work(Handler):
    """A handler whose batches fail in a given number of tries."""

    def __init__(self, fails: dict[str, int], error: Exception | None = None) -> None:
        self.fails = fails
        self.error = error or RuntimeError("not now")
        self.seen: list[tuple[str, int, float]] = []

    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        for uid in loaded["input_inline"]:
            yield Batch(uid, {"of": uid})

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        self.seen.append((batch.batch_uid, ctx.attempt, ctx.clock.monotonic()))
        if self.tries(batch.batch_uid) <= self.fails.get(batch.batch_uid, 0):
            raise self.error
        return BatchResult(True, {"count": 1}, {"uid": batch.batch_uid})

    def tries(self, uid: str) -> int:
        return sum(seen == uid for seen, _, _ in self.seen)


async def letters(bench: Bench) -> list[str | None]:
    return [letter.uid for letter in await read_letters(bench.store)]


# ---------------------------------------------------------------- trying again


async def test_a_batch_that_fails_is_tried_again_alone_while_the_others_go_on(bench: Bench) -> None:
    work = Work({"b": 2})
    async with bench.worker({"work": work}):
        command = await bench.send(list("abcd"), retry_policy=STEADY)
        end = await bench.end(command)
    assert (end.kind, end.metrics, end.batches, end.skipped) == (
        "node_succeeded",
        {"count": 4},
        4,
        0,
    )
    began = work.seen[0][2]
    assert [(uid, attempt, round(at - began)) for uid, attempt, at in work.seen] == [
        ("a", 1, 0),
        ("b", 1, 0),
        ("c", 1, 0),
        ("d", 1, 0),
        ("b", 2, 10),
        ("b", 3, 30),
    ]
    assert await letters(bench) == []


@pytest.mark.parametrize("retries", [0, 1, 4])
async def test_max_bounds_the_tries_of_a_batch_exactly(bench: Bench, retries: int) -> None:
    work = Work({"b": 99})
    async with bench.worker({"work": work}):
        end = await bench.run(list("abc"), retry_policy=STEADY.model_copy(update={"max": retries}))
    assert work.tries("b") == retries + 1
    assert (end.kind, end.reason_code, end.permanent) == ("node_failed", "unexpected_error", True)
    assert end.error == "RuntimeError: not now"
    assert await letters(bench) == ["b"]


@pytest.mark.parametrize("policy", [RetryPolicy(), RetryPolicy(permanent_on=("busy",))])
async def test_a_permanent_failure_of_a_batch_is_not_tried_again(
    bench: Bench, policy: RetryPolicy
) -> None:
    error = NodeFailure("no", reason_code="busy", permanent=not policy.model_fields_set)
    work = Work({"b": 99}, error)
    async with bench.worker({"work": work}):
        end = await bench.run(list("abc"), retry_policy=policy)
    assert (work.tries("b"), end.reason_code, end.permanent) == (1, "busy", True)
    assert await letters(bench) == ["b"]


async def test_the_budget_of_a_batch_counts_from_its_first_try(bench: Bench) -> None:
    work = Work({"b": 99})
    policy = STEADY.model_copy(update={"max": 9, "budget_sec": 45.0})
    async with bench.worker({"work": work}):
        await bench.run(list("ab"), retry_policy=policy)
    assert [round(at) for uid, _, at in work.seen if uid == "b"] == [0, 10, 30]


async def test_the_pauses_of_batches_are_spread(bench: Bench) -> None:
    names = [str(number) for number in range(20)]
    work = Work(dict.fromkeys(names, 1))
    policy = RetryPolicy(backoff_sec=10, max_backoff_sec=100, jitter=0.5)
    async with bench.worker({"work": work}):
        await bench.run(names, retry_policy=policy)
    again = [at for _, attempt, at in work.seen if attempt == 2]
    assert len(set(again)) > 15
    assert all(5 <= at <= 15 for at in again)


async def test_many_failed_batches_hold_up_the_input(bench: Bench) -> None:
    names = [str(number) for number in range(200)]
    work = Work(dict.fromkeys(names, 1))
    async with bench.worker({"work": work}):
        end = await bench.run(names, retry_policy=STEADY)
    assert end.batches == 200
    assert max(Counter(uid for uid, _, _ in work.seen).values()) == 2
    first_again = next(place for place, (_, attempt, _) in enumerate(work.seen) if attempt == 2)
    assert first_again < 100


async def test_a_function_is_tried_again_for_the_batch_that_failed(bench: Bench) -> None:
    calls: list[tuple[Any, int]] = []

    async def work(items: list[int], ctx: RunContext) -> dict[str, Any]:
        calls.append((items, ctx.attempt))
        if items == [2] and ctx.attempt < 3:
            raise RuntimeError("not yet")
        return {"items": items}

    async with bench.worker({"work": work}):
        end = await bench.run([1, 2, 3], io={"batching": {"size": 1}})
    assert calls == [([1], 1), ([2], 1), ([3], 1), ([2], 2), ([2], 3)]
    assert end.batches == 3


async def test_a_generator_that_is_tried_again_for_a_batch_stores_each_yield_once(
    bench: Bench,
) -> None:
    async def work(items: list[int], ctx: RunContext) -> AsyncIterator[dict[str, Any]]:
        yield {"half": items}
        if items == [1] and ctx.attempt == 1:
            raise RuntimeError("not yet")
        yield {"whole": items}

    async with bench.worker({"work": work}):
        command = await bench.send([1, 2], io={"batching": {"size": 1}})
        end = await bench.end(command)
    assert end.batches == 4
    assert sorted(record.uid for record in await bench.stored(command)) == [
        "0#0",
        "0#1",
        "1#0",
        "1#1",
    ]


# ---------------------------------------------------------------- time, and being cancelled


async def test_while_a_batch_waits_the_worker_sends_heartbeats(bench: Bench) -> None:
    work = Work({"b": 1})
    async with bench.worker({"work": work}):
        command = await bench.send(list("ab"), retry_policy=STEADY, heartbeat_sec=6.0)
        await bench.end(command)
    said = [
        round(report.at - bench.reports[0].at)
        for report in bench.of(command)
        if report.kind == "batches_retried"
    ]
    assert said == [2, 4, 6, 8, 10]


async def test_a_run_is_cancelled_while_a_batch_waits(bench: Bench) -> None:
    work = Work({"b": 1})
    async with bench.worker({"work": work}):
        command = await bench.send(list("ab"), retry_policy=RetryPolicy(backoff_sec=50))
        await bench.started(command)
        while not work.tries("b"):
            await anyio.lowlevel.checkpoint()
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"
        assert bench.clock.monotonic() < 5
    assert work.tries("b") == 1
    assert await letters(bench) == []


# ---------------------------------------------------------------- across attempts


async def test_a_further_try_is_announced_before_it_is_made(bench: Bench) -> None:
    told: list[list[str]] = []

    class Watched(Work):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            if ctx.attempt > 1:
                await anyio.wait_all_tasks_blocked()
                told.append(
                    [
                        str(report.retries.tries)
                        for report in bench.reports
                        if report.kind == "batches_retried"
                    ]
                )
            return await super().process_batch(batch, ctx)

    async with bench.worker({"work": Watched({"b": 2})}):
        await bench.run(list("ab"), retry_policy=STEADY)
    assert told == [["{'b': 1}"], ["{'b': 1}", "{'b': 2}"]]


async def test_tries_of_a_lost_attempt_count(bench: Bench) -> None:
    work = Work({"b": 99})
    known = BatchRetries(number=1, tries={"b": 1})
    async with bench.worker({"work": work}):
        await bench.run(
            list("ab"),
            attempt=2,
            earlier_attempts=1,
            retries=known,
            retry_policy=STEADY.model_copy(update={"max": 3}),
        )
    assert [attempt for uid, attempt, _ in work.seen if uid == "b"] == [3, 4]


async def test_a_batch_whose_last_try_was_lost_is_given_up_untried(bench: Bench) -> None:
    work = Work({})
    known = BatchRetries(number=2, tries={"b": 2})
    async with bench.worker({"work": work}):
        end = await bench.run(
            list("ab"),
            attempt=2,
            earlier_attempts=1,
            retries=known,
            retry_policy=STEADY,
            on_batch_failure="skip",
        )
    assert (work.tries("b"), end.batches, end.skipped) == (0, 1, 1)
    (letter,) = await read_letters(bench.store)
    assert letter.reason_code == "worker_lost"


async def test_what_is_handed_back_does_not_count_the_try_that_was_cut_off(bench: Bench) -> None:
    gate = anyio.Event()

    class Stuck(Work):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            if ctx.attempt == 3:
                gate.set()
                await anyio.sleep_forever()
            return await super().process_batch(batch, ctx)

    worker = bench.worker({"work": Stuck({"b": 99})}, cancel_grace_sec=0)
    await worker.start()
    command = await bench.send(list("ab"), retry_policy=STEADY)
    await gate.wait()
    await worker.stop(0)
    end = await bench.end(command)
    assert (end.kind, end.retries) == ("node_released", BatchRetries(number=3, tries={"b": 1}))


# ---------------------------------------------------------------- giving up


async def test_a_node_that_skips_goes_on_without_the_batch_and_says_how_many(bench: Bench) -> None:
    work = Work({"b": 99, "d": 99})
    async with bench.worker({"work": work}):
        end = await bench.run(list("abcde"), retry_policy=STEADY, on_batch_failure="skip")
    assert (end.kind, end.metrics, end.batches, end.skipped) == (
        "node_succeeded",
        {"count": 3},
        3,
        2,
    )
    assert set(await letters(bench)) == {"b", "d"}


async def test_the_only_batch_of_a_node_can_be_skipped(bench: Bench) -> None:
    class Failing(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            raise ValueError("no")

    async with bench.worker({"work": Failing()}):
        end = await bench.run({"x": 1}, on_batch_failure="skip")
    assert (end.kind, end.batches, end.skipped) == ("node_succeeded", 0, 1)
    (letter,) = await read_letters(bench.store)
    assert letter.data == b'{"input_ref":null,"input_inline":{"x":1}}'


async def test_the_budget_of_an_only_batch_is_that_of_the_node(bench: Bench) -> None:
    class Failing(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            raise RuntimeError("no")

    policy = RetryPolicy(backoff_sec=10, jitter=0, budget_sec=30)
    async with bench.worker({"work": Failing()}):
        early = await bench.run(
            {"x": 1}, retry_policy=policy, first_issued_at=bench.clock.now() - 19
        )
        late = await bench.run(
            {"x": 1}, retry_policy=policy, first_issued_at=bench.clock.now() - 21
        )
    assert (early.permanent, late.permanent) == (False, True)
    assert len(await read_letters(bench.store)) == 1


async def test_a_later_attempt_leaves_out_what_was_given_up_in_this_run(bench: Bench) -> None:
    work = Work({"b": 99})
    again: dict[str, Any] = {"task_id": "t", "retry_policy": STEADY, "on_batch_failure": "skip"}
    async with bench.worker({"work": work}):
        await bench.run(list("abc"), **again)
        end = await bench.run(list("abcd"), attempt=2, earlier_attempts=1, **again)
    assert (work.tries("b"), end.batches, end.skipped) == (3, 3, 1)


async def test_a_new_run_of_the_node_tries_again_and_takes_back_the_letter(bench: Bench) -> None:
    work = Work({"b": 3})
    async with bench.worker({"work": work}):
        first = await bench.run(list("abc"), task_id="t", retry_policy=STEADY)
        assert first.kind == "node_failed"
        assert await letters(bench) == ["b"]
        end = await bench.run(list("abc"), task_id="t", attempt=2, retry_policy=STEADY)
    assert (end.kind, end.batches) == ("node_succeeded", 3)
    assert Counter(uid for uid, _, _ in work.seen) == {"a": 1, "b": 4, "c": 1}
    assert await letters(bench) == []


async def test_a_batch_that_fails_in_the_new_run_as_well_leaves_one_letter(bench: Bench) -> None:
    work = Work({"b": 99})
    async with bench.worker({"work": work}):
        await bench.run(list("ab"), task_id="t", retry_policy=STEADY)
        await bench.run(list("ab"), task_id="t", attempt=2, retry_policy=STEADY)
    (letter,) = await read_letters(bench.store)
    assert (letter.uid, letter.attempt) == ("b", 2)
