"""Routes: the rows of the table of all routes, and how a request to one is handled."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, get_args, get_origin
from urllib.parse import unquote

from fastapi import Depends, Request, Response
from fastapi import Path as PathParameter
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator
from pydantic_core import to_json

from flowkit import Client
from flowkit.adapters import DocumentError, read_document, redacted, while_readable
from flowkit_web._access import Access, Caller
from flowkit_web._problems import Problem, invalid_request, status_of
from flowkit_web._tokens import Role

logger = logging.getLogger(__name__)

Endpoint = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """Row of the table of routes."""

    method: str
    path: str
    role: Role | None
    """Lowest role that may use it. None: anyone, without a token."""
    endpoint: Endpoint
    status: int = 200
    responses: Mapping[int | str, dict[str, Any]] | None = None
    """Description of a response that is no JSON."""


# ---------------------------------------------------------------- parameters of endpoints


def _decoded(text: Any) -> Any:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8, percent-encoded") from None


Id = Annotated[str, PathParameter(description="Percent-encoded."), BeforeValidator(_decoded)]
"""Part of a path. The guard leaves paths encoded, so that an id may contain a slash."""


def _client(request: Request) -> Client:
    client: Client = request.app.state.client
    return client


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


OfClient = Annotated[Client, Depends(_client)]
OfCaller = Annotated[Caller, Depends(_caller)]


# ---------------------------------------------------------------- handling


def answering(endpoint: Endpoint, status: int) -> Endpoint:
    """Return an endpoint whose answer is written as the command line writes it with ``--json``."""

    @wraps(endpoint)
    async def answer(**arguments: Any) -> Response:
        value = await endpoint(**arguments)
        if isinstance(value, Response):
            return value
        if value is None:
            return Response(status_code=204)
        return Response(to_json(value), status, media_type="application/json")

    return answer


class _StrictRequest(Request):
    """Request whose JSON is read as other documents of users: a key given twice is an error."""

    async def json(self) -> Any:
        try:
            body = await self.body()  # of an accepted length, see Guard
            return read_document(body, syntax="JSON", max_bytes=len(body))
        except DocumentError as error:
            raise Problem(400, "invalid_json", redacted(str(error))) from None


def route_class(role: Role | None) -> type[APIRoute]:
    """Return the class of the routes that need a role.

    The caller is checked before the body is read, and each change is logged with its caller. A
    request that the store does not answer is refused after some seconds.
    """

    class CheckedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()
            known = dict(_query_names(self))

            async def checked(request: Request) -> Response:
                access: Access = request.app.state.access
                caller = request.state.caller = await access.check(request, role)
                _check_query(request, known)
                strict = _StrictRequest(request.scope, request.receive)
                await strict.body()
                client = _client(request)
                handled = while_readable(
                    lambda: handle(strict), store=client.store, clock=client.clock
                )
                if request.method in ("GET", "HEAD"):
                    return await handled
                return await _logged(request, caller, handled)

            return checked

    return CheckedRoute


def _check_query(request: Request, known: Mapping[str, bool]) -> None:
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in known:
            raise invalid_request(
                f"unknown query parameter: {name!r}; those of this request are"
                f" {', '.join(known) or 'none'}"
            )
        if count > 1 and not known[name]:
            raise invalid_request(f"query parameter {name!r} is given {count} times")


def _query_names(route: APIRoute) -> Iterator[tuple[str, bool]]:
    """Yield the names of the query parameters of a route, and whether they may be repeated."""
    for field in route.dependant.query_params:
        model = field.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            for name, part in model.model_fields.items():
                yield name, any(get_origin(kind) is list for kind in get_args(part.annotation))
        else:
            yield field.alias, False


async def _logged(request: Request, caller: Caller, handled: Awaitable[Response]) -> Response:
    """Log who asked for a change, and how it ended. The body, which may hold secrets, is not
    logged.
    """
    status = 500
    try:
        response = await handled
        status = response.status_code
        return response
    except Exception as error:
        status = status_of(error)
        raise
    finally:
        logger.info(
            "%s: %s %s -> %d",
            caller.name,
            request.method,
            request.url.path,
            status,
            extra={
                "action": "web_change",
                "by": caller.name,
                "role": str(caller.role),
                "method": request.method,
                "path": request.url.path,
                "status": status,
                "peer": request.client.host if request.client is not None else None,
            },
        )
