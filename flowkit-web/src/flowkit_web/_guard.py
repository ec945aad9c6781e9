"""Guard in front of the routes: hosts, origins, types and sizes of bodies, and headers."""

from collections.abc import Collection
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowkit_web._hosts import fault_of_host, fault_of_origin
from flowkit_web._problems import Problem

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of each response. None of them admits other origins."""
LONGEST_NUMBER = 20


class Guard:
    """ASGI middleware that refuses requests before they reach a route.

    It passes the path on as it is encoded, so that an id may contain a slash.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], max_body_bytes: int) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        problem = self._fault(Headers(scope=scope), scope["method"])
        if problem is not None:
            await problem.response()(scope, receive, send_with_headers)
            return
        inner: dict[str, Any] = {**scope, "path": _encoded_path(scope)}
        await self._app(inner, self._limited(receive), send_with_headers)

    def _fault(self, headers: Headers, method: str) -> Problem | None:
        host = headers.get("host")
        if (fault := fault_of_host(host, self._hosts)) is not None:
            return Problem(421, "foreign_host", fault)
        for origin in headers.getlist("origin"):
            if (fault := fault_of_origin(origin, host)) is not None:
                return Problem(403, "foreign_origin", fault)
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < LONGEST_NUMBER):
            return Problem(400, "bad_request", "Content-Length is not a number")
        if int(length) > self._max_body_bytes:
            return self._too_large()
        has_body = int(length) > 0 or "transfer-encoding" in headers
        if has_body and _media_type(headers) != "application/json":
            detail = "the body must be JSON, with Content-Type: application/json"
            return Problem(415, "unsupported_media_type", detail)
        return None

    def _limited(self, receive: Receive) -> Receive:
        """Return a function that receives a body up to the limit."""
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                raise self._too_large()
            return message

        return receive_limited

    def _too_large(self) -> Problem:
        detail = f"the body is above the limit of {self._max_body_bytes:,} bytes"
        return Problem(413, "body_too_large", detail)


def _encoded_path(scope: Scope) -> str:
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        path: str = scope["path"]
        return path
    return raw.partition(b"?")[0].decode("ascii", "replace")


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()
