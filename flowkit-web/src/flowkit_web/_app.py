"""The application: the routes, what guards them, and their description."""

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from flowkit import Client, FlowKitError, __version__
from flowkit_web import _page_files as page_files
from flowkit_web import _problems as problems
from flowkit_web._access import Access
from flowkit_web._config import WebConfig
from flowkit_web._event_streams import Streams
from flowkit_web._guard import Guard
from flowkit_web._routes import ROOT_ROUTES, ROUTES, heads
from flowkit_web._routing import Route, answering, route_class
from flowkit_web._stats import StatsReader

API = "/api/v1"
_REFERENCE = "#/components/schemas/{model}"


class WebApp(FastAPI):
    """The API and the page of one client."""

    def __init__(self, client: Client, config: WebConfig, *, local: bool) -> None:
        super().__init__(
            title="FlowKit",
            version=__version__,
            openapi_url=f"{API}/openapi.json",
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            exception_handlers={
                FlowKitError: problems.on_flowkit_error,
                HTTPException: page_files.on_http_error,
                RequestValidationError: problems.on_invalid_request,
                ClientDisconnect: problems.on_disconnect,
                Exception: problems.on_bug,
            },
        )
        self.state.client = client
        self.state.config = config
        self.state.access = Access(client, config, local=local)
        self.state.streams = Streams(most=config.max_streams)
        self.state.stats = StatsReader(client)
        self.state.metrics = client.plugins.open_metrics(client)
        for route in ROUTES:
            self._add(API, route, in_description=True)
        for route in heads(ROUTES):
            self._add(API, route, in_description=False)
        for route in (*ROOT_ROUTES, *heads(ROOT_ROUTES)):
            self._add("", route, in_description=False)
        for address in page_files.ADDRESSES:
            self.router.add_route(address, page_files.get_page, methods=["GET"])
        self.router.add_route(page_files.FILES, page_files.get_page_file, methods=["GET"])

    def _add(self, prefix: str, route: Route, *, in_description: bool) -> None:
        self.router.add_api_route(
            prefix + route.path,
            answering(route.endpoint, route.status),
            methods=[route.method],
            status_code=route.status,
            responses=dict(route.responses or {}),
            operation_id=route.endpoint.__name__,
            include_in_schema=in_description,
            route_class_override=route_class(route.role),
            openapi_extra={} if route.role is None else {"x-role": str(route.role)},
        )

    def openapi(self) -> dict[str, Any]:
        """Return the description of the API, in which each error is a problem document."""
        if self.openapi_schema is None:
            self.openapi_schema = _described(
                get_openapi(title=self.title, version=self.version, routes=self.routes)
            )
        return self.openapi_schema


def _described(document: dict[str, Any]) -> dict[str, Any]:
    model = problems.ProblemDocument.model_json_schema(ref_template=_REFERENCE)
    schemas = document["components"]["schemas"]
    schemas.update(model.pop("$defs"))
    schemas["ProblemDocument"] = model
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    content = {
        problems.MEDIA_TYPE: {"schema": {"$ref": _REFERENCE.format(model="ProblemDocument")}}
    }
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {"description": "Problem", "content": content}
            if "x-role" in operation:
                operation["security"] = [{"token": []}]
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return document


def create_app(client: Client, *, config: WebConfig | None = None, local: bool = False) -> ASGIApp:
    """Return the API as an ASGI application, which uses an open client.

    With ``local``, callers on this machine need no token while the store has none, and have all
    rights. Use it only for a server that listens on a loopback address.
    """
    config = config or WebConfig()
    return guarded(WebApp(client, config, local=local), config)


def guarded(app: WebApp, config: WebConfig) -> ASGIApp:
    """Return an application with its guard in front."""
    return Guard(app, hosts=config.allow_hosts, max_body_bytes=config.max_body_bytes)
