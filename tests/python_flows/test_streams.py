"""``handler.stream(...)``: nodes that read artifacts as they are stored, in flows in Python."""

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import date, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, model_validator

from flowkit import first, flow, sleep
from flowkit.flows.functions import vars_incr
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster
from tests.python_flows.handlers import (
    HANDLERS,
    Tenant,
    add,
    alert,
    double,
    numbers,
    square,
    wait,
)
from tests.python_flows.mistakes import Mistakes, check_mistake

faulty = Mistakes()


class Number(BaseModel):
    number: int


class Picky(BaseModel):
    number: int

    @model_validator(mode="before")
    @classmethod
    def has_it(cls, value: Any) -> Any:
        return {"number": value["number"]}


@handler("total")
async def total(items: list[Number]) -> dict[str, int]:
    return {"number": sum(item.number for item in items)}


@handler("any_of")
async def any_of(items) -> dict[str, int]:  # type: ignore[no-untyped-def]
    return {"number": len(items)}


@handler("picky")
async def picky(item: Picky, ctx: RunContext) -> Picky:
    return item


@handler("pair")
async def pair(number: int, unit: str = "m") -> dict[str, str]:
    return {"text": f"{number} {unit}"}


@handler("split")
async def split(items: Sequence[Number]) -> AsyncIterator[dict[str, int]]:
    for item in items:
        yield {"number": item.number}


@handler("known")
async def known(embedded: Any, ctx: RunContext) -> list[Any]:
    return [meta["number"] async for meta in ctx.artifacts.read("total")]


OWN = [total, any_of, picky, pair, split, known]
ALL = [*HANDLERS, *OWN]


async def numbers_of(cluster: Cluster, task_id: str, node_id: str) -> list[int]:
    return [one.meta["number"] async for one in cluster.client.artifacts(task_id, node_id)]


# ---------------------------------------------------------------- graphs


def test_a_stream_has_sources_and_windows() -> None:
    @flow
    def streaming(upto: int) -> None:
        several = double.stream(numbers(upto), numbers.options(node_id="more")(2))
        total.stream(several, size=64, max_wait_sec=5, parallel=4, shards=2, max_ahead=9)

    document = streaming.build_graph().to_dict()
    assert [node["io"] for node in document["nodes"][2:]] == [
        {
            "input_inline": {
                "input_adapter": "pull.from_artifacts",
                "input_args": {"from_nodes": ["numbers", "more"]},
            }
        },
        {
            "batching": {"size": 64, "max_wait_sec": 5.0},
            "parallel": 4,
            "shards": 2,
            "max_ahead": 9,
            "input_inline": {
                "input_adapter": "pull.from_artifacts",
                "input_args": {"from_nodes": ["double"]},
            },
        },
    ]
    assert [(edge["from"], edge["to"], edge["trigger"]) for edge in document["edges"]] == [
        ("numbers", "double", "on_batch"),
        ("more", "double", "on_batch"),
        ("double", "total", "on_batch"),
    ]


# ---------------------------------------------------------------- runs


async def test_a_function_gets_artifacts_or_windows_of_them(flowkit_cluster: Cluster) -> None:
    @flow
    def streaming(upto: int) -> None:
        source = numbers(upto)
        pair.stream(picky.stream(source))
        total.stream(split.stream(source, size=2), size=3)
        any_of.stream(source, numbers(2), size=100)

    view = await flowkit_cluster.run(streaming, handlers=ALL, params={"upto": 7})
    assert view.status == "finished", view.error
    assert await numbers_of(flowkit_cluster, view.id, "picky") == [*range(7)]
    assert await numbers_of(flowkit_cluster, view.id, "split") == [*range(7)]
    assert await numbers_of(flowkit_cluster, view.id, "total") == [3, 12, 6]
    assert await numbers_of(flowkit_cluster, view.id, "any_of") == [9]


async def test_a_node_that_takes_the_value_of_a_stream_reads_its_artifacts_when_it_has_ended(
    flowkit_cluster: Cluster,
) -> None:
    """The value itself is null, as the node has no result."""

    @flow
    def streaming(upto: int) -> Any:
        return known(total.stream(numbers(upto), size=2))

    view = await flowkit_cluster.run(streaming, handlers=ALL, params={"upto": 3})
    assert view.result == [1, 2]
    assert view.nodes["total"].result is None


@pytest.mark.parametrize("by", ["arrow", "condition"])
async def test_a_stream_may_wait_for_the_end_of_other_nodes(
    flowkit_cluster: Cluster, by: str
) -> None:
    @flow
    def streaming() -> None:
        waited = wait(100)
        if by == "arrow":
            waited >> double.stream(numbers(3), numbers(2))
        else:
            double.options(when=waited > 99).stream(numbers(3), numbers(2))

    view = await flowkit_cluster.run(streaming, handlers=ALL)
    assert view.status == "finished", view.error
    began, ended = view.nodes["double"].started_at, view.nodes["wait"].finished_at
    assert began is not None
    assert ended is not None
    assert began >= ended
    assert sorted(await numbers_of(flowkit_cluster, view.id, "double")) == [0, 0, 2, 2, 4]


async def test_a_stream_begins_with_the_first_artifact_of_any_node(
    flowkit_cluster: Cluster,
) -> None:
    @flow
    def streaming() -> None:
        double.stream(numbers(3), numbers.options(when=wait(100) > 99)(2))

    view = await flowkit_cluster.run(streaming, handlers=ALL)
    began, second = view.nodes["double"].started_at, view.nodes["numbers_2"].started_at
    assert began is not None
    assert second is not None
    assert (second - began).total_seconds() == 100


class Rows(BaseModel):
    total: int
    day: str = ""


async def test_the_whole_pipeline_of_maps_branches_and_streams_runs(
    flowkit_cluster: Cluster,
) -> None:
    indexed: list[list[int]] = []

    @handler("extract", retry_policy={"max": 5}, timeouts={"start_to_close_sec": 600})
    async def extract(tenant: Tenant) -> Rows:
        return Rows(total=len(tenant.name))

    @handler("of_day")
    async def of_day(rows: list[Rows]) -> Rows:
        return Rows(total=sum(one.total for one in rows))

    @handler("merge")
    async def merge(rows: list[Rows], day: date) -> AsyncIterator[Rows]:
        for number in range(sum(one.total for one in rows)):
            yield Rows(total=number, day=day.isoformat())

    @handler("load")
    async def load(rows: Any, ctx: RunContext) -> int:
        return len([meta async for meta in ctx.artifacts.read("merge")])

    @handler("publish")
    async def publish() -> str:
        return "published"

    @handler("parse")
    async def parse(rows: Rows) -> dict[str, Any]:
        return {"text": f"{rows.day} {rows.total}"}

    @handler("embed")
    async def embed(texts: list[dict[str, str]]) -> dict[str, list[int]]:
        return {"vectors": [len(one["text"]) for one in texts]}

    @handler("index")
    async def index(embedded: Any, ctx: RunContext) -> int:
        indexed.extend([meta["vectors"] async for meta in ctx.artifacts.read("embed")])
        return len(indexed)

    @flow
    def etl(tenants: list[Tenant], day: date = date(2026, 1, 1)) -> None:
        rows = extract.map(tenants, max_parallel=8)
        rows_a, rows_b = of_day(rows), of_day([rows[0]])
        merged = merge(first(2, rows_a, rows_b, rest="cancel"), day)
        load(merged).on_success(publish).on_failure(alert)
        index(embed.stream(parse.stream(merged), size=64))

    tenants = [{"name": "a" * 60}, {"name": "b" * 7}]
    handlers = [extract, of_day, merge, load, publish, alert, parse, embed, index]
    view = await flowkit_cluster.run(etl, handlers=handlers, params={"tenants": tenants})
    assert view.status == "finished", view.error
    assert (view.nodes["load"].result, view.nodes["index"].result) == (127, 2)
    assert [len(window) for window in indexed] == [64, 63]
    assert (view.nodes["publish"].status, view.nodes["alert"].status) == ("finished", "skipped")


# ---------------------------------------------------------------- mistakes


@faulty("double.stream: give the nodes whose artifacts it reads")
def a_stream_of_nothing() -> None:
    double.stream()  # type: ignore[call-overload]  # here


@faulty("double.stream reads the artifacts of a node, not int; give it the value of a call")
def a_stream_of_a_constant() -> None:
    double.stream(3)  # type: ignore[call-overload]  # here


@faulty("double.stream reads the artifacts of a node, not FunctionHandler; give it the value of")
def a_stream_of_a_handler() -> None:
    double.stream(numbers)  # type: ignore[call-overload]  # here


@faulty("double.stream reads the artifacts of a node, not params.upto; give it the value of a call")
def a_stream_of_a_param(upto: int) -> None:
    double.stream(upto)  # type: ignore[call-overload]  # here


@faulty("double.stream reads the artifacts of a node, not results.square.items; give it the value")
def a_stream_of_a_field() -> None:
    double.stream(square(3).items)  # here


@faulty("not a list; several nodes are given one by one, as in double.stream(a, b)")
def a_stream_of_a_list_of_nodes() -> None:
    double.stream([numbers(3), numbers(4)])  # type: ignore[call-overload]  # here


@faulty("double.stream: a node is given twice; it is read once")
def a_stream_of_a_node_twice() -> None:
    source = numbers(3)
    double.stream(source, source)  # here


@faulty("add.stream: 'sleep' is a node of the type 'sleep', which stores no artifacts")
def a_stream_of_a_sleep() -> None:
    add.stream(sleep(3))  # here


@faulty("add.stream: 'vars_incr' is a node of the type 'coordinator_fn', which stores no artifacts")
def a_stream_of_a_coordinator_function() -> None:
    add.stream(vars_incr("n"))  # here


@faulty("add.stream: the map 'square' has no artifacts of its own; give its value to a call")
def a_stream_of_a_map() -> None:
    add.stream(square.map([1, 2]))  # here


@faulty("vars_incr.stream: only handlers read artifacts as they are stored, and vars_incr is none")
def a_coordinator_function_that_streams() -> None:
    vars_incr.stream(numbers(3))  # type: ignore[attr-defined]  # here


@flow
def inner(n: int) -> None:
    square(n)


@faulty("inner.stream: only handlers read artifacts as they are stored, and inner is none")
def a_flow_that_streams() -> None:
    inner.stream(numbers(3))  # type: ignore[attr-defined]  # here


@faulty("alert.stream: alert has no parameter for the artifacts")
def a_stream_into_a_function_without_parameter() -> None:
    alert.stream(numbers(3))  # here


@faulty("total.stream has no option 'sise'; did you mean 'size'?")
def a_misspelt_option() -> None:
    total.stream(numbers(3), sise=3)  # type: ignore[call-overload]  # here


@faulty("node 'total': io.parallel must be at least 1, not 0")
def no_artifacts_at_once() -> None:
    total.stream(numbers(3), size=3, parallel=0)  # here


@faulty("node 'total': io.batching.size must be at least 1, not 0")
def windows_of_no_artifacts() -> None:
    total.stream(numbers(3), size=0)  # here


@faulty("node 'total': io.batching.size must be")
def a_size_that_is_no_number() -> None:
    total.stream(numbers(3), size="3")  # type: ignore[call-overload]  # here


@faulty("node 'total': io.batching.max_wait_sec must be")
def a_negative_time() -> None:
    total.stream(numbers(3), size=3, max_wait_sec=-1)  # here


@faulty("max_wait_sec is a number of seconds; give 60")
def a_time_of_another_type() -> None:
    minute: Any = timedelta(minutes=1)
    total.stream(numbers(3), size=3, max_wait_sec=minute)  # here


@faulty("size is fixed when the flow is built; give it a plain value")
def a_size_that_is_a_param(size: int) -> None:
    total.stream(numbers(3), size=size)  # here


@faulty("double.stream: max_wait_sec needs the size of the windows")
def a_time_without_a_size() -> None:
    double.stream(numbers(3), max_wait_sec=5)  # type: ignore[call-overload]  # here


@faulty("double.stream: with a size, the argument 'item' of double is a list of artifacts; it is")
def windows_for_a_function_of_one_artifact() -> None:
    double.stream(numbers(3), size=3)  # here


@faulty(
    "it is declared as list[tests.python_flows.test_streams.Number]; for lists of artifacts, give"
)
def artifacts_for_a_function_of_windows() -> None:
    total.stream(numbers(3))  # here


@faulty("the argument 'n' of square is an artifact, which is an object; it is declared as int (")
def artifacts_for_a_function_of_numbers() -> None:
    square.stream(numbers(3))  # here


@faulty("pair.stream: with a size, it is called with a list, and it has the parameters number, un")
def windows_for_a_function_of_several_parameters() -> None:
    pair.stream(numbers(3), size=3)  # here


@faulty("the node_id 'numbers' is already in use by an expression")
def a_new_id_for_the_source_of_a_stream() -> None:
    source = numbers(3)
    double.stream(source)
    source.options(node_id="x")  # here


@faulty("the node 'double' stores artifacts and has no result; let a handler read them")
def a_field_of_a_stream() -> None:
    square(double.stream(numbers(3)).number)  # here


@faulty("the node 'numbers' stores artifacts and has no result; let a handler read them")
def an_item_of_a_generator() -> None:
    square(numbers(3)[0])  # here


@pytest.mark.parametrize(("function", "error"), faulty.table.values(), ids=faulty.table)
def test_a_mistake_is_an_error_that_names_its_line(
    function: Callable[..., Any], error: str
) -> None:
    check_mistake(function, error)
