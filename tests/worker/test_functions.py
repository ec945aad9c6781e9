"""Plain functions as handlers."""

import functools
import math
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from flowkit.errors import ConfigError, NodeFailure
from flowkit.worker import FunctionHandler, RunContext, handler
from tests.worker.bench import Bench


class Size(BaseModel):
    width: int
    height: int


async def test_a_function_is_called_once_with_the_input_and_its_return_is_the_result(
    bench: Bench,
) -> None:
    calls: list[Any] = []

    async def work(item: Any, ctx: RunContext) -> dict[str, Any]:
        calls.append(item)
        return {
            "doubled": item["n"] * 2,
            "params": ctx.params,
            "vars": ctx.vars,
            "results": ctx.results,
        }

    async with bench.worker({"work": work}):
        command = await bench.send({"n": 21}, params={"p": 1}, vars={"v": 2}, results={"up": 3})
        end = await bench.end(command)
    assert (calls, end.kind, end.metrics, end.batches) == ([{"n": 21}], "node_succeeded", {}, 0)
    assert end.result == {"doubled": 42, "params": {"p": 1}, "vars": {"v": 2}, "results": {"up": 3}}
    assert await bench.stored(command) == []


async def test_the_context_and_the_item_may_be_left_out(bench: Bench) -> None:
    async def item_only(item: Any) -> Any:
        return item

    async def nothing() -> str:
        return "called"

    async def context_only(ctx: RunContext) -> str:
        return ctx.node_id

    handlers = {
        "item": item_only,
        "nothing": nothing,
        "context": context_only,
    }
    async with bench.worker(handlers):
        assert (await bench.run(5, role="item")).result == 5
        assert (await bench.run(5, role="nothing")).result == "called"
        assert (await bench.run(5, role="context", node_id="here")).result == "here"


async def test_a_parameter_annotated_with_a_model_is_validated(bench: Bench) -> None:
    async def area(item: Size) -> int:
        return item.width * item.height

    async def areas(item: list[Size]) -> list[int]:
        return [size.width * size.height for size in item]

    async with bench.worker({"area": area, "areas": areas}):
        assert (await bench.run({"width": 3, "height": 4}, role="area")).result == 12
        assert (await bench.run([{"width": 3, "height": 4}], role="areas")).result == [12]
        end = await bench.run({"width": "wide"}, role="area")
    assert (end.kind, end.reason_code, end.permanent) == ("node_failed", "schema_mismatch", True)
    assert "width" in end.error
    assert "area" in end.error


async def test_a_returned_model_is_the_result_as_json(bench: Bench) -> None:
    async def work() -> Size:
        return Size(width=1, height=2)

    async with bench.worker({"work": work}):
        assert (await bench.run()).result == {"width": 1, "height": 2}


async def test_a_synchronous_function_runs_in_a_worker_thread(bench: Bench) -> None:
    def work(item: Any, ctx: RunContext) -> Any:
        ctx.heartbeat({"at": "work"})
        return [item, threading.current_thread() is threading.main_thread()]

    async with bench.worker({"work": work}):
        command = await bench.send("x")
        assert (await bench.end(command)).result == ["x", False]
    assert bench.kinds(command) == ["node_started", "node_progressed", "node_succeeded"]


async def test_a_plain_function_that_returns_an_awaitable_is_awaited(bench: Bench) -> None:
    async def real(item: Any) -> Any:
        return item

    async with bench.worker(
        {"lambda": lambda item: real(item), "partial": functools.partial(real)}
    ):
        assert (await bench.run(1, role="lambda")).result == 1
        assert (await bench.run(2, role="partial")).result == 2


async def test_an_object_with_call_is_a_function(bench: Bench) -> None:
    class Adder:
        def __init__(self, by: int) -> None:
            self.by = by

        async def __call__(self, item: int) -> int:
            return item + self.by

    async with bench.worker({"work": Adder(5)}):
        assert (await bench.run(1)).result == 6


async def test_an_async_generators_yields_are_batches(bench: Bench) -> None:
    async def work(item: Any) -> AsyncIterator[dict[str, Any]]:
        for number in range(item["n"]):
            yield {"number": number}

    async with bench.worker({"work": work}):
        command = await bench.send({"n": 3})
        end = await bench.end(command)
    assert (end.kind, end.result, end.batches) == ("node_succeeded", None, 3)
    records = await bench.stored(command)
    assert [(record.uid, record.meta, record.partial) for record in records] == [
        ("0", b'{"number":0}', True),
        ("1", b'{"number":1}', True),
        ("2", b'{"number":2}', True),
    ]
    assert bench.kinds(command) == ["node_started", "batch_stored", "node_succeeded"]


async def test_a_synchronous_generator_is_driven_in_a_thread(bench: Bench) -> None:
    threads: set[bool] = set()

    def work() -> Iterator[dict[str, Any]]:
        for number in range(2):
            threads.add(threading.current_thread() is threading.main_thread())
            yield {"number": number}

    async with bench.worker({"work": work}):
        command = await bench.send()
        assert (await bench.end(command)).batches == 2
    assert threads == {False}


async def test_a_generator_that_runs_again_stores_and_counts_each_batch_once(bench: Bench) -> None:
    async def work(item: Any, ctx: RunContext) -> AsyncIterator[dict[str, Any]]:
        for number in range(4):
            if number == 2 and ctx.attempt == 1:
                raise RuntimeError("not yet")
            yield {"number": number, "attempt": ctx.attempt}

    async with bench.worker({"work": work}):
        first = await bench.send(task_id="t", token="one")
        assert (await bench.end(first)).reason_code == "unexpected_error"
        second = await bench.send(task_id="t", token="two", attempt=2)
        assert (await bench.end(second)).batches == 4
    assert [record.uid for record in await bench.stored(second)] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("item", [5, "text", [1], None])
async def test_what_a_generator_yields_has_to_be_an_object(bench: Bench, item: Any) -> None:
    async def work() -> AsyncIterator[Any]:
        yield item

    async with bench.worker({"work": work}):
        end = await bench.run()
    assert (end.reason_code, end.permanent) == ("bad_result", True)


@pytest.mark.parametrize(
    "result",
    [object(), {1, 2}, b"bytes", math.nan, {"deep": [math.inf]}, {("a", "b"): 1}, "\ud800"],
    ids=["object", "set", "bytes", "nan", "infinity", "tuple key", "lone surrogate"],
)
async def test_a_result_that_is_not_json_fails_for_good(bench: Bench, result: Any) -> None:
    async def work() -> Any:
        return result

    async with bench.worker({"work": work}):
        end = await bench.run()
    assert (end.kind, end.reason_code, end.permanent) == ("node_failed", "bad_result", True)
    assert "the result is not JSON" in end.error


@pytest.mark.parametrize("depth", [100, 185, 400, 100_000])
async def test_a_result_nested_too_deeply_to_be_read_fails_for_good(
    bench: Bench, depth: int
) -> None:
    async def work() -> Any:
        nested: list[Any] = []
        for _ in range(depth):
            nested = [nested]
        return nested

    async with bench.worker({"work": work}):
        end = await bench.run()
    assert end.kind == ("node_succeeded" if depth == 100 else "node_failed")


async def test_a_result_above_the_limit_of_the_bus_fails_for_good(bench: Bench) -> None:
    async def work() -> str:
        return "x" * bench.bus.max_message_bytes

    async with bench.worker({"work": work}):
        end = await bench.run()
        assert (end.reason_code, end.permanent) == ("result_too_large", True)
        size = bench.bus.max_message_bytes
        assert end.error == (
            f"the result has {size + 2} bytes as JSON, too many for a message of at most {size}"
            " bytes; store it in an artifact or elsewhere, and return its place"
        )


async def test_with_batching_a_function_is_called_with_the_items_of_each_batch(
    bench: Bench,
) -> None:
    calls: list[Any] = []

    async def work(items: list[int]) -> dict[str, Any]:
        calls.append(items)
        return {"sum": sum(items)}

    async with bench.worker({"work": work}):
        command = await bench.send({"items": [1, 2, 3, 4, 5]}, io={"batching": {"size": 2}})
        end = await bench.end(command)
    assert calls == [[1, 2], [3, 4], [5]]
    assert (end.result, end.batches) == (None, 3)
    assert [record.meta for record in await bench.stored(command)] == [
        b'{"sum":3}',
        b'{"sum":7}',
        b'{"sum":5}',
    ]


async def test_batching_needs_a_list(bench: Bench) -> None:
    async def work(items: Any) -> None: ...

    async with bench.worker({"work": work}):
        end = await bench.run("text", io={"batching": {"size": 2}})
    assert (end.reason_code, end.permanent) == ("bad_input", True)


async def test_a_failure_raised_by_the_function_keeps_its_reason(bench: Bench) -> None:
    async def work() -> None:
        raise NodeFailure("no quota left", reason_code="quota", permanent=True)

    async with bench.worker({"work": work}):
        end = await bench.run()
    assert (end.reason_code, end.permanent, end.error) == (
        "quota",
        True,
        "no quota left",
    )


async def test_a_decorated_function_says_its_role_and_can_still_be_called(bench: Bench) -> None:
    @handler("resize")
    async def resize(item: Any) -> Any:
        """Make it smaller."""
        return item // 2

    assert isinstance(resize, FunctionHandler)
    assert (resize.role, resize.__doc__, await resize(10)) == ("resize", "Make it smaller.", 5)
    async with bench.worker([resize]) as worker:
        assert worker.roles == ("resize",)
        assert (await bench.run(10, role="resize")).result == 5


async def test_several_parameters_take_an_object_by_their_names(bench: Bench) -> None:
    async def area(size: Size, scale: int = 2, *, ctx: RunContext, unit: str = "m") -> str:
        return f"{ctx.node_id}: {size.width * size.height * scale} {unit}"

    def positional(a: int, b: int = 5, /, c: int = 7) -> list[int]:
        return [a, b, c]

    def after_the_context(ctx: Any, first: date, second: Any) -> list[Any]:
        return [ctx.attempt, first.year, second]

    handlers = {"area": area, "positional": positional, "context": after_the_context}
    size = {"width": 3, "height": 4}
    async with bench.worker(handlers):
        ends = [
            await bench.run({"size": size}, role="area"),
            await bench.run({"size": size, "unit": "km", "scale": 1}, role="area"),
            await bench.run({"a": 1, "c": 3}, role="positional"),
            await bench.run({"first": "2026-01-02", "second": None}, role="context"),
        ]
    assert [end.result for end in ends] == ["n: 24 m", "n: 12 km", [1, 5, 3], [1, 2026, None]]


@pytest.mark.parametrize(
    ("item", "error"),
    [
        (5, "an object with the keys size, scale is needed, not a number (1 fault)"),
        ({"size": {"width": 1, "height": 1}}, "scale is missing (1 fault)"),
        ({"size": {"width": "x"}, "scale": 1}, "size.width: Input should be a valid integer"),
        ({"size": {"width": 1, "height": 1}, "scale": [], "x": 1}, "'x' is not a parameter (2 f"),
    ],
)
async def test_an_object_that_does_not_fit_the_parameters_fails_permanently(
    bench: Bench, item: Any, error: str
) -> None:
    async def area(size: Size, scale: int) -> int:
        return size.width * size.height * scale

    async with bench.worker({"work": area}):
        end = await bench.run(item)
    assert (end.kind, end.reason_code, end.permanent) == ("node_failed", "schema_mismatch", True)
    assert f"the input of area does not match: {error}" in end.error


async def test_the_names_of_the_types_of_a_union_are_not_in_the_path_of_a_fault(
    bench: Bench,
) -> None:
    async def area(sizes: list[Size | dict[str, int]], scale: int) -> int:
        return scale

    async with bench.worker({"work": area}):
        end = await bench.run({"sizes": [{"width": "x", "height": 1}], "scale": 1})
    assert "does not match: sizes.0.width: Input should be a valid integer" in end.error
    assert "(2 faults)" in end.error


@pytest.mark.parametrize(("width", "error"), [(0, "a side is above 0"), (7, "a side is below 5")])
async def test_the_error_of_a_validator_is_shown_as_it_was_raised(
    bench: Bench, width: int, error: str
) -> None:
    class Checked(Size):
        @field_validator("width")
        @classmethod
        def check(cls, value: int) -> int:
            if value == 0:
                raise ValueError("a side is above 0")
            assert value < 5, "a side is below 5"
            return value

    async def area(item: Checked) -> int:
        return item.width * item.height

    async with bench.worker({"work": area}):
        end = await bench.run({"width": width, "height": 1})
    assert f"does not match: width: {error}" in end.error


async def test_a_parameter_has_the_type_of_its_annotation(bench: Bench) -> None:
    class Color(Enum):
        RED = "red"

    @dataclass
    class Point:
        x: int
        on: date

    async def dates(item: list[date]) -> list[int]:
        return [one.day for one in item]

    async def colors(item: Color) -> str:
        return item.name

    async def points(item: Point) -> int:
        return item.x + item.on.day

    async def plain(item: dict[str, int]) -> Any:
        return item

    handlers = {"dates": dates, "colors": colors, "points": points, "plain": plain}
    async with bench.worker(handlers):
        assert (await bench.run(["2026-01-02"], role="dates")).result == [2]
        assert (await bench.run("red", role="colors")).result == "RED"
        assert (await bench.run({"x": 1, "on": "2026-01-02"}, role="points")).result == 3
        assert (await bench.run("any value", role="plain")).result == "any value"
        end = await bench.run("blue", role="colors")
    assert (end.reason_code, end.permanent) == ("schema_mismatch", True)


async def test_a_result_annotated_with_a_model_is_validated(bench: Bench) -> None:
    async def size(item: Any) -> Size:
        return item

    def sizes(item: Any) -> Iterator[Size]:
        yield item

    async with bench.worker({"size": size, "sizes": sizes}):
        assert (await bench.run({"width": "3", "height": 4}, role="size")).result == {
            "width": 3,
            "height": 4,
        }
        ends = [await bench.run({"width": 3}, role=role) for role in ("size", "sizes")]
    for end in ends:
        assert (end.kind, end.reason_code, end.permanent) == ("node_failed", "bad_result", True)
        assert "does not match: height: Field required (1 fault)" in end.error


def test_an_annotation_that_cannot_be_resolved_is_refused() -> None:
    async def work(item: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigError, match="'Nowhere' of 'item' cannot be resolved"):
        FunctionHandler(work)


def test_a_handler_needs_a_role() -> None:
    with pytest.raises(ConfigError, match="role"):
        handler(lambda: None)  # type: ignore[arg-type]
