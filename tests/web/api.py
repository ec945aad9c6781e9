"""The web API of a cluster in virtual time, without a server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from flowkit import Client
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster
from flowkit_web import WebConfig, create_app
from flowkit_web._tokens import Role, add_token

V1 = "/api/v1"


@handler("work")
async def work(item: Any) -> Any:
    return item


@handler("fail")
async def fail(item: Any) -> Any:
    raise ValueError("bad luck")


@handler("batches")
async def batches(item: Any) -> Any:
    for number in range(3):
        yield {"number": number}


@handler("talk")
async def talk(count: int, ctx: RunContext) -> None:
    for number in range(count):
        ctx.log.info("%d", number)


def to(app: Any, token: str | None = None, *, peer: str = "203.0.113.9") -> httpx.AsyncClient:
    """Return an HTTP client of an application."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, client=(peer, 4711)),
        base_url=f"http://127.0.0.1:8400{V1}",
        headers={} if token is None else {"Authorization": f"Bearer {token}"},
    )


@asynccontextmanager
async def serving(
    client: Client, *, role: Role = Role.ADMIN, name: str = "ann", **config: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the API of a client, and return an HTTP client with a token of this role."""
    token = await add_token(client.store.records, name, role, client.clock)
    async with to(create_app(client, config=WebConfig(**config)), token) as http:
        yield http


@asynccontextmanager
async def cluster_with_api(**config: Any) -> AsyncIterator[tuple[Cluster, httpx.AsyncClient]]:
    """Run a cluster, and serve its API."""
    async with (
        Cluster(handlers=[work, fail, batches, talk]) as cluster,
        serving(cluster.client, **config) as http,
    ):
        yield cluster, http


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and the name of a problem document."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    document = answer.json()
    assert document["status"] == answer.status_code
    return answer.status_code, document["type"].removeprefix("urn:flowkit:problem:")
