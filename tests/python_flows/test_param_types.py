"""Params of any type that pydantic reads from JSON: defaults, and arguments of run and submit."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from flowkit import flow
from flowkit.flows import Flow
from flowkit.worker import handler
from flowkit_testing import Cluster
from tests.python_flows.handlers import note


class Size(Enum):
    SMALL = "s"


class Order(BaseModel):
    id: int = 1
    wait: timedelta = timedelta(hours=1)
    price: Decimal = Decimal("1.50")


class Renamed(BaseModel):
    order_id: int = Field(alias="orderId")


class Place(NamedTuple):
    number: int
    wait: timedelta


@dataclass
class Basket:
    owners: set[str] = field(default_factory=lambda: set("dehlo wrt"))


DEFAULTS: dict[str, tuple[Any, Any, Any]] = {
    "duration": (timedelta, timedelta(minutes=90), "PT1H30M"),
    "part of a second": (timedelta, timedelta(milliseconds=500), "PT0.5S"),
    "negative duration": (timedelta, -timedelta(days=1), "-P1D"),
    "decimal": (Decimal, Decimal("1.50"), "1.50"),
    "date": (date, date(2026, 1, 2), "2026-01-02"),
    "time": (datetime, datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
    "time of day": (time, time(8, 30), "08:30:00"),
    "UUID": (UUID, UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    "enum": (Size, Size.SMALL, "s"),
    "model": (Order, Order(), {"id": 1, "wait": "PT1H", "price": "1.50"}),
    "model with an alias": (Renamed, Renamed(orderId=3), {"orderId": 3}),
    "named tuple": (Place, Place(1, timedelta(2)), [1, "P2D"]),
    "dataclass": (Basket, Basket(), {"owners": [" ", "d", "e", "h", "l", "o", "r", "t", "w"]}),
    "set": (set[str], set("dehlo wrt"), [" ", "d", "e", "h", "l", "o", "r", "t", "w"]),
    "tuple": (tuple[int, timedelta], (1, timedelta(1)), [1, "P1D"]),
    "bytes": (bytes, b"abc", "abc"),
    "path": (PurePosixPath, PurePosixPath("/data/x"), "/data/x"),
    "object": (dict[str, list[Decimal]], {"a": [Decimal(2)]}, {"a": ["2"]}),
}


def flow_of(kind: Any, *default: Any) -> Flow[...]:
    def one(value: Any) -> None:
        note(f"{value}")

    one.__annotations__["value"] = kind
    one.__defaults__ = default
    return flow(one)


@pytest.mark.parametrize(("kind", "default", "written"), DEFAULTS.values(), ids=DEFAULTS)
def test_a_default_is_written_as_its_type_is(kind: Any, default: Any, written: Any) -> None:
    schema = flow_of(kind, default).build_graph().to_dict()["params"]
    assert schema["properties"]["value"]["default"] == written


@pytest.mark.parametrize(("kind", "default", "written"), DEFAULTS.values(), ids=DEFAULTS)
async def test_an_argument_is_written_as_its_type_is(
    kind: Any, default: Any, written: Any, flowkit_cluster: Cluster
) -> None:
    task_id = await flow_of(kind).submit(flowkit_cluster.client, value=default)
    assert (await flowkit_cluster.client.get_task(task_id)).params == {"value": written}


@handler("later")
async def later(at: datetime, pause: timedelta, owners: set[str], price: Decimal) -> str:
    return f"{(at + pause).isoformat()} {sorted(owners)} {price * 2}"


async def test_a_handler_gets_values_of_its_types(flowkit_cluster: Cluster) -> None:
    @flow
    def postponed(at: datetime, pause: timedelta = timedelta(days=400)) -> None:
        later(at, pause, {"b", "a"}, Decimal("0.1"))

    params = {"at": "2026-01-02T00:00:00Z"}
    view = await flowkit_cluster.run(postponed, handlers={"later": later}, params=params)
    assert view.nodes["later"].result == "2027-02-06T00:00:00+00:00 ['a', 'b'] 0.2"
