"""One rule says which Python values are accepted, wherever a user gives one."""

import math
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from flowkit import GraphError, hookimpl
from flowkit.graph.values import NotJson, json_copy
from flowkit.worker import Batch, BatchResult, FinalizeResult, Handler, RunContext, handler
from flowkit_testing import Cluster


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    SMALL = 1


class Word(StrEnum):
    YES = "yes"


class Moment(Enum):
    NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Model(BaseModel):
    at: datetime
    size: Size


class Loose(BaseModel):
    value: Any


@dataclass
class Point:
    x: int
    of: Colour


AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

ACCEPTED: dict[str, tuple[Any, Any]] = {
    "text": ("größe", "größe"),
    "numbers": ([0, -1, 2**70, 1.5, True], [0, -1, 2**70, 1.5, True]),
    "nothing": ([None], [None]),
    "a tuple": ((1, (2, 3)), [1, [2, 3]]),
    "dicts of other kinds": ([OrderedDict(a=1), defaultdict(int, b=2)], [{"a": 1}, {"b": 2}]),
    "enums": ([Colour.RED, Size.SMALL, Word.YES], ["red", 1, "yes"]),
    "an enum of a moment": ([Moment.NOON], ["2026-01-01T12:00:00+00:00"]),
    "a word as a key": ({Word.YES: 1}, {"yes": 1}),
    "times": ([AT, date(2026, 1, 2), time(3, 4)], ["2026-01-02T03:04:05+00:00", "2026-01-02", "03:04:00"]),
    "a UUID": ([UUID(int=7)], ["00000000-0000-0000-0000-000000000007"]),
    "a dataclass": ([Point(1, Colour.RED)], [{"x": 1, "of": "red"}]),
    "numbers as keys of a model": ([Loose(value={1: "a"})], [{"value": {"1": "a"}}]),
    "a model": ([Model(at=AT, size=Size.SMALL)], [{"at": "2026-01-02T03:04:05Z", "size": 1}]),
}

REFUSED: dict[str, tuple[Any, str]] = {
    "keys that collide": ({1: "a", "1": "b"}, "has the key 1, which is a number; keys are strings"),
    "true as a key": ({True: "a", "true": "b"}, "has the key True, which is a boolean; keys are strings"),
    "null as a key": ({None: "a", "null": "b"}, "has the key null, which is null; keys are strings"),
    "a number as a key, below": ([{"x": {2: "a"}}], "has the key 2, which is a number; keys are strings"),
    "a tuple as a key": ({(1, 2): 3}, "keys are strings"),
    "an enum as a key": ({Colour.RED: 1}, "keys are strings"),
    "a set": ([{1, 2}], "a Python set, which JSON cannot carry"),
    "bytes": ([b"x"], "a Python bytes, which JSON cannot carry"),
    "an object": ([object()], "a Python object, which JSON cannot carry"),
    "a class": ([Point], "which JSON cannot carry"),
    "no number": ([math.nan], "not a finite number"),
    "infinity": ([-math.inf], "not a finite number"),
    "half a character": (["\ud800"], "not valid Unicode"),
    "half a character in a key": ({"\udfff": 1}, "not valid Unicode"),
    "keys that collide in a model": ([Loose(value={1: "a", "1": "b"})], "keys that are the same in JSON"),
    "no number in a model": ([Loose(value=[math.nan])], "not a finite number"),
    "too many digits": ([10**400], "a number of too many digits"),
}


async def as_params(value: Any) -> Any:
    return await _result_of("params", params={"value": value})


async def as_input(value: Any) -> Any:
    return await _result_of("input", io={"input_inline": {"value": value}})


async def as_an_argument_of_a_function(value: Any) -> Any:
    return await _result_of("coordinator_fn", io={"fn": "echo", "fn_args": {"value": value}})


async def as_the_result_of_a_handler(value: Any) -> Any:
    return await _result_of("result", value=value)


async def as_the_result_of_finalize(value: Any) -> Any:
    return await _result_of("finalize", value=value)


async def as_the_result_of_a_function(value: Any) -> Any:
    return await _result_of("coordinator_fn", value=value, io={"fn": "give"})


async def as_an_artifact(value: Any) -> Any:
    return await _result_of("artifact", value=value)


async def as_progress(value: Any) -> Any:
    return await _result_of("progress", value=value)


async def as_a_var(value: Any) -> Any:
    return await _result_of("coordinator_fn", value=value, io={"fn": "keep"})


async def _result_of(role: str, *, value: Any = None, params: Any = None, io: Any = None) -> Any:
    """Run a node that gets the value, or gives it, and return what another node reads of it.

    Raises:
        NotTakenError: the submission was refused, or the node failed.
    """

    @handler("params")
    async def read_params(item: Any, ctx: RunContext) -> Any:
        return ctx.params["value"]

    @handler("input")
    async def read_input(item: Any) -> Any:
        return item["value"]

    @handler("result")
    async def give_result(item: Any) -> Any:
        return value

    @handler("progress")
    async def give_progress(item: Any, ctx: RunContext) -> Any:
        if ctx.attempt == 1:
            await ctx.heartbeat({"value": value})
            raise OSError("again")
        return ctx.progress["value"]

    class Finalize(Handler):
        async def finalize(self, ctx: RunContext) -> FinalizeResult:
            return FinalizeResult(result=value)

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(True)

    class Artifact(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(True, artifacts_ref={"value": value})

        async def finalize(self, ctx: RunContext) -> FinalizeResult:
            (item,) = [item async for item in ctx.artifacts.read()]
            return FinalizeResult(result=item["value"])

    class Functions:
        @hookimpl
        def flowkit_register_functions(self, register: Callable[[str, Any], None]) -> None:
            async def keep(ctx: Any) -> None:
                ctx.set_vars({"kept": value})

            async def give(ctx: Any) -> Any:
                return value

            async def echo(ctx: Any, value: Any) -> Any:
                return value

            register("keep", keep)
            register("give", give)
            register("echo", echo)

    handlers = {
        **{one.role: one for one in (read_params, read_input, give_result, give_progress)},
        "finalize": Finalize,
        "artifact": Artifact,
    }
    node = {"node_id": "a", "type": role, **({"io": io} if io else {})}
    async with Cluster(plugins=[Functions()], handlers=handlers) as cluster:
        try:
            view = await cluster.run({"nodes": [node]}, params=params)
        except GraphError as error:
            raise NotTakenError("GraphError", str(error)) from None
    if view.status == "failed":
        raise NotTakenError(view.nodes["a"].reason_code or "", view.nodes["a"].error or "")
    return view.vars["kept"] if io == {"fn": "keep"} else view.nodes["a"].result


class NotTakenError(Exception):
    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason, text)
        self.reason, self.text = reason, text


ENTRANCES: dict[Callable[[Any], Awaitable[Any]], str] = {
    as_params: "GraphError",
    as_input: "GraphError",
    as_an_argument_of_a_function: "GraphError",
    as_the_result_of_a_handler: "bad_result",
    as_the_result_of_finalize: "bad_result",
    as_the_result_of_a_function: "bad_result",
    as_an_artifact: "bad_result",
    as_progress: "bad_result",
    as_a_var: "bad_input",
}


@pytest.mark.parametrize("entrance", ENTRANCES, ids=lambda entrance: entrance.__name__)
@pytest.mark.parametrize(("value", "read"), ACCEPTED.values(), ids=ACCEPTED)
async def test_a_value_is_read_as_its_json_says(entrance: Any, value: Any, read: Any) -> None:
    found = await entrance(value)
    assert found == read
    assert repr(found) == repr(read)


@pytest.mark.parametrize(("entrance", "reason"), ENTRANCES.items(), ids=[entrance.__name__ for entrance in ENTRANCES])
@pytest.mark.parametrize(("value", "sentence"), REFUSED.values(), ids=REFUSED)
async def test_a_value_that_json_cannot_carry_is_refused_with_the_reason(entrance: Any, reason: str, value: Any, sentence: str) -> None:
    with pytest.raises(NotTakenError) as caught:
        await entrance(value)
    assert caught.value.reason == reason
    assert sentence in caught.value.text


async def test_a_value_that_refers_to_itself_is_refused() -> None:
    circle: dict[str, Any] = {}
    circle["again"] = circle
    with pytest.raises(NotTakenError, match="bad_result.*levels deep"):
        await as_the_result_of_a_handler(circle)


def test_a_dataclass_that_multiplies_is_refused_before_it_does() -> None:
    bomb: Any = Point(1, Colour.RED)
    for _ in range(30):
        bomb = Point([bomb] * 10, Colour.RED)  # type: ignore[arg-type]
    with pytest.raises(NotJson, match="params is larger than 10000 bytes"):
        json_copy(bomb, "params", max_bytes=10_000)
