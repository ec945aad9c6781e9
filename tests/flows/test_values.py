"""One rule defines the accepted Python values, for all places in which a user can pass one."""

import asyncio
import math
import sys
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_serializer, model_serializer
from pydantic.dataclasses import dataclass as pydantic_dataclass

from flowkit import Graph, GraphError, hookimpl
from flowkit._json.values import NotJson, json_copy
from flowkit.graph._models import NodeIO
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


class Renamed(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = Field(alias="x")


class Aliased(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)
    a: int = Field(1, serialization_alias="b")
    b: int = 2


class Labelled(BaseModel):
    """A value whose serializers decide its form, also the one for JSON alone."""

    tags: set[str]
    data: bytes
    private: int = Field(1, exclude=True)

    @field_serializer("tags")
    def sort(self, tags: set[str]) -> list[str]:
        return sorted(tags)

    @field_serializer("data", when_used="json")
    def encode(self, data: bytes) -> str:
        return data.hex()


class Whole(BaseModel):
    x: int

    @model_serializer
    def write(self) -> dict[Any, Any]:
        return {"1": self.x, **({1: self.x} if self.x > 1 else {})}


class JsonNumber(BaseModel):
    x: float

    @field_serializer("x", when_used="json-unless-none")
    def write(self, x: float) -> float:
        return x


@pydantic_dataclass
class Checked:
    at: timedelta

    @field_serializer("at")
    def write(self, at: timedelta) -> float:
        return at.total_seconds()


@dataclass
class Unset:
    x: int = field(init=False)


class Identity(str):
    """A value that equals itself alone."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class Table(Enum):
    ROWS = {1: "a", "1": "b"}  # noqa: RUF012 - the value of a member


@dataclass
class HostileData:
    """A value that runs the code of a test when it is read, as the classes below do."""

    x: int = field(init=False)

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def __getattr__(self, name: str) -> Any:
        return self.act()


class HostileDict(dict[str, int]):
    def __init__(self, act: Callable[[], Any]) -> None:
        super().__init__(a=1)
        self.act = act

    def items(self) -> Any:
        return self.act()


class HostileList(list[int]):
    def __init__(self, act: Callable[[], Any]) -> None:
        super().__init__([1])
        self.act = act

    def __iter__(self) -> Any:
        return self.act()


class HostileModel(BaseModel):
    act: Any

    @model_serializer
    def write(self) -> Any:
        return self.act()


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
    "times": (
        [AT, date(2026, 1, 2), time(3, 4)],
        ["2026-01-02T03:04:05+00:00", "2026-01-02", "03:04:00"],
    ),
    "a UUID": ([UUID(int=7)], ["00000000-0000-0000-0000-000000000007"]),
    "a dataclass": ([Point(1, Colour.RED)], [{"x": 1, "of": "red"}]),
    "a model": ([Model(at=AT, size=Size.SMALL)], [{"at": "2026-01-02T03:04:05Z", "size": 1}]),
}

REFUSED: dict[str, tuple[Any, str]] = {
    "keys that collide": ({1: "a", "1": "b"}, "has the key 1, which is a number; keys are strings"),
    "true as a key": (
        {True: "a", "true": "b"},
        "has the key True, which is a boolean; keys are strings",
    ),
    "null as a key": (
        {None: "a", "null": "b"},
        "has the key null, which is null; keys are strings",
    ),
    "a number as a key, below": (
        [{"x": {2: "a"}}],
        "has the key 2, which is a number; keys are strings",
    ),
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
    "keys that collide in a model": (
        [Loose(value={1: "a", "1": "b"})],
        "has the key 1, which is a number; keys are strings",
    ),
    "a name twice in a model": (
        [Renamed(x=1, a=2)],
        "a Python Renamed that writes the key 'a' twice",
    ),
    "an object that cannot be read": (
        [Unset()],
        "cannot be read: AttributeError: 'Unset' object has no attribute 'x'",
    ),
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
    """Run a node that receives or returns the value. Return what another node reads of it.

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


@pytest.mark.parametrize(
    ("entrance", "reason"), ENTRANCES.items(), ids=[entrance.__name__ for entrance in ENTRANCES]
)
@pytest.mark.parametrize(("value", "sentence"), REFUSED.values(), ids=REFUSED)
async def test_a_value_that_json_cannot_carry_is_refused_with_the_reason(
    entrance: Any, reason: str, value: Any, sentence: str
) -> None:
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


LOST: dict[str, tuple[Any, str]] = {
    "a field and an extra": (Renamed(x=1, a=2), "writes the key 'a' twice"),
    "two fields with one alias": (Aliased(), "writes the key 'b' twice"),
    "below other models": (Loose(value=[{"x": (Aliased(),)}]), "writes the key 'b' twice"),
    "an enum in a model": (Loose(value=Table.ROWS), "keys are strings"),
    "an enum": (Table.ROWS, "keys are strings"),
    "what a serializer returned": (Whole(x=2), "keys are strings"),
    "keys of a class of their own": ({Identity("a"): 1, Identity("a"): 2}, "has the key 'a' twice"),
    "the same in a model": (
        Loose(value={Identity("a"): 1, Identity("a"): 2}),
        "has the key 'a' twice",
    ),
    "a set in a model": (Loose(value={1}), "value is a Python set"),
    "bytes in a model": (Loose(value=[b"x"]), r"value\[0\] is a Python bytes"),
    "bytes in a dataclass in a model": (
        Loose(value=Point(b"x", Colour.RED)),
        "value.x is a Python bytes",
    ),  # type: ignore[arg-type]
    "no number for a serializer of JSON": (JsonNumber(x=math.nan), "not a finite number"),
    "a dataclass without a value": (Unset(), "is a Python Unset that cannot be read"),
}


@pytest.mark.parametrize(("value", "sentence"), LOST.values(), ids=LOST)
def test_a_value_of_which_a_part_would_be_lost_is_refused(value: Any, sentence: str) -> None:
    with pytest.raises(NotJson, match=sentence):
        json_copy(value, "params")


WRITTEN: dict[str, tuple[Any, Any]] = {
    "serializers of fields": (
        Labelled(tags={"b", "a"}, data=b"\x01"),
        {"tags": ["a", "b"], "data": "01"},
    ),
    "the serializer of a model": (Whole(x=1), {"1": 1}),
    "a serializer for JSON": (JsonNumber(x=1.5), {"x": 1.5}),
    "a dataclass of pydantic": (Checked(at=timedelta(minutes=1)), {"at": 60.0}),
    "one key of a class of its own": ({Identity("a"): Identity("b")}, {"a": "b"}),
    "an extra field": (Renamed(x=1, b=2), {"a": 1, "b": 2}),
}


@pytest.mark.parametrize(("value", "read"), WRITTEN.values(), ids=WRITTEN)
def test_a_model_is_read_as_its_serializers_write_it(value: Any, read: Any) -> None:
    assert json_copy(value, "params") == read


def leave() -> None:
    raise KeyboardInterrupt


def cancel_the_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    raise asyncio.CancelledError


@pytest.mark.parametrize("act", [leave, sys.exit, cancel_the_task])
@pytest.mark.parametrize(
    "kind", [HostileData, HostileDict, HostileList, lambda act: HostileModel(act=act)]
)
async def test_code_that_runs_when_a_value_is_read_ends_nothing(
    kind: Any, act: Callable[[], Any]
) -> None:
    async with Cluster() as cluster:
        with pytest.raises(GraphError, match="params.p is a Python Hostile.* that cannot be read"):
            await cluster.client.create_task(
                graph={"nodes": [{"node_id": "a", "type": "noop"}]}, params={"p": kind(act)}
            )
        node = {"node_id": "a", "type": "noop", "io": {"input_inline": kind(act)}}
        with pytest.raises(
            GraphError, match="io.input_inline is a Python Hostile.* that cannot be read"
        ):
            await cluster.client.create_task(graph={"nodes": [node]})


@pytest.mark.parametrize("act", [leave, cancel_the_task])
async def test_params_and_labels_that_cannot_be_read_are_faults(act: Callable[[], Any]) -> None:
    graph = {"nodes": [{"node_id": "a", "type": "noop"}]}
    async with Cluster() as cluster:
        with pytest.raises(GraphError, match="params cannot be read"):
            await cluster.client.create_task(graph=graph, params=HostileDict(act))
        with pytest.raises(GraphError, match="cannot read the graph"):
            await cluster.client.create_task(graph=HostileData(act))
        with pytest.raises(
            GraphError, match="the graph is a Python HostileDict that cannot be read"
        ):
            await cluster.client.create_task(graph=HostileDict(act))


def test_a_model_given_to_a_graph_that_is_built_is_written_as_elsewhere() -> None:
    graph = Graph()
    graph.node("a", "noop", input_inline=JsonNumber(x=0.5), io=NodeIO(input_ref={"x": Whole(x=1)}))
    assert graph.to_dict()["nodes"][0]["io"] == {
        "input_inline": {"x": 0.5},
        "input_ref": {"x": {"1": 1}},
    }
    graph.node("b", "noop", input_inline=Aliased())
    with pytest.raises(GraphError, match="writes the key 'b' twice"):
        graph.to_dict()


METRICS: dict[str, tuple[Any, str]] = {
    "a name twice": ({Identity("n"): 1, Identity("n"): 2}, "has the key 'n' twice"),
    "unreadable": (HostileDict(leave), "cannot be read: KeyboardInterrupt"),
}


@pytest.mark.parametrize(("metrics", "sentence"), METRICS.values(), ids=METRICS)
async def test_metrics_that_cannot_be_stored_are_a_bad_result(metrics: Any, sentence: str) -> None:
    class Counts(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(True, metrics=metrics)

    async with Cluster(handlers={"count": Counts}) as cluster:
        node = (await cluster.run({"nodes": [{"node_id": "a", "type": "count"}]})).nodes["a"]
    assert node.reason_code == "bad_result"
    assert sentence in (node.error or "")


@pytest.mark.parametrize("payload", [{1: "a", "1": "b"}, {"x": b"y"}, HostileDict(leave)])
async def test_a_dead_letter_holds_no_payload_that_json_cannot_carry(payload: Any) -> None:
    class Fails(Handler):
        async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
            yield Batch("u", payload)

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            raise TypeError("no")

    async with Cluster(handlers={"fail": Fails}) as cluster:
        await cluster.run({"nodes": [{"node_id": "a", "type": "fail", "retry_policy": {"max": 0}}]})
        (letter,) = (await cluster.client.dead_letters(kind="batch")).items
    assert (letter.uid, letter.data, letter.size) == ("u", b"", 0)
