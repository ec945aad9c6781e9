"""A shop whose flows the tests of the page look at: handlers, flows and a running cluster."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from flowkit import Client, Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.errors import NodeFailure
from flowkit.worker import (
    Batch,
    BatchResult,
    FinalizeResult,
    Handler,
    RunContext,
    Worker,
    handler,
)
from flowkit_web import WebConfig
from flowkit_web._server import PageServer, listening_on, served

ORDER = {
    "nodes": [
        {"node_id": "read_order", "type": "read"},
        {"node_id": "reserve", "type": "reserve", "depends_on": ["read_order"]},
        {"node_id": "charge", "type": "charge", "depends_on": ["read_order"]},
        {"node_id": "send", "type": "send", "depends_on": ["reserve", "charge"]},
    ]
}
RELEASE = {
    "nodes": [
        {"node_id": "build", "type": "read"},
        {
            "node_id": "sign_off",
            "type": "approval",
            "depends_on": ["build"],
            "io": {
                "prompt": "Release version 2.4 to all shops?",
                "choices": ["release", "reject"],
                "form": {
                    "type": "object",
                    "properties": {
                        "share": {
                            "title": "Share of shops (%)",
                            "type": "integer",
                            "minimum": 1,
                            "maximum": 100,
                        }
                    },
                    "required": ["share"],
                },
            },
        },
        {"node_id": "roll_out", "type": "send", "depends_on": ["sign_off"]},
    ]
}
DELIVERY = {
    "nodes": [
        {"node_id": "pack", "type": "read"},
        {
            "node_id": "picked_up",
            "type": "wait_signal",
            "depends_on": ["pack"],
            "io": {"signal": "truck"},
        },
        {"node_id": "bill", "type": "send", "depends_on": ["picked_up"]},
    ]
}
REMINDER = {
    "nodes": [
        {"node_id": "pause", "type": "sleep", "io": {"for_sec": 86_400}},
        {"node_id": "remind", "type": "send", "depends_on": ["pause"]},
    ]
}
LABELS = {
    "nodes": [
        {"node_id": "parcels", "type": "list", "io": {"input_inline": 4}},
        {
            "node_id": "labels",
            "type": "label",
            "depends_on": ["parcels"],
            "io": {"start_when": "first_batch", "shards": 2},
        },
    ]
}


FLOWS = {
    "order": ORDER,
    "release": RELEASE,
    "delivery": DELIVERY,
    "reminder": REMINDER,
    "labels": LABELS,
}


class Shop:
    """The world outside of the handlers of the shop."""

    def __init__(self) -> None:
        self.bank_is_open = True
        self.refusals = 0
        """Number of charges that the bank refuses before it accepts one."""
        self.takes_sec: Mapping[str, float] = {}
        """Time that handlers take, by role. The others take none."""

    def handlers(self) -> list[Any]:
        """Return the handlers. Cards are charged while the bank is open."""

        async def take_time(role: str) -> None:
            if role in self.takes_sec:
                await anyio.sleep(self.takes_sec[role])

        @handler("read")
        async def read(item: Any, ctx: RunContext) -> Any:
            await take_time("read")
            ctx.log.info("read 3 lines of the order")
            return {"lines": 3}

        @handler("reserve")
        async def reserve(item: Any) -> Any:
            await take_time("reserve")
            return {"shelf": "B-14"}

        @handler("charge")
        async def charge(item: Any, ctx: RunContext) -> Any:
            if not self.bank_is_open:
                raise NodeFailure("the bank is closed", reason_code="bank_closed", permanent=True)
            await take_time("charge")
            if self.refusals:
                self.refusals -= 1
                raise NodeFailure("the bank is busy", reason_code="bank_busy")
            ctx.log.info("charged the card")
            return {"charged_cents": 4_990}

        @handler("send")
        async def send(item: Any) -> Any:
            await take_time("send")
            return {"parcel": "P-2291"}

        @handler("list")
        async def list_parcels(item: int) -> AsyncIterator[Any]:
            for number in range(item):
                yield {"parcel": number}

        class Label(Handler):
            role = "label"

            async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
                await take_time("label")
                return BatchResult(success=True)

            async def finalize(self, ctx: RunContext) -> FinalizeResult:
                await take_time("label end")
                return FinalizeResult(result="all have labels")

        return [read, reserve, charge, send, list_parcels, Label()]


@asynccontextmanager
async def running(shop: Shop, folder: Path) -> AsyncIterator[Client]:
    """Run a coordinator and a worker on an SQLite file."""
    address = f"sqlite:///{(folder / 'shop.db').as_posix()}"
    worker = WorkerConfig(db=address, worker_id="ada")
    async with (
        Coordinator(cfg=CoordinatorConfig(db=address)),
        Worker(cfg=worker, handlers=shop.handlers()),
        Client(db=address) as client,
    ):
        yield client


@asynccontextmanager
async def serving(client: Client) -> AsyncIterator[str]:
    """Serve the page of a client on a free port of this machine, and return its address."""
    config = WebConfig(requests_per_sec=1e6, request_burst=1_000_000)
    server = PageServer(client, config, local=True)
    with listening_on("127.0.0.1", 0) as listening:
        async with served(server, listening) as address:
            yield address
