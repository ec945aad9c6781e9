"""Server of the metrics and the probes of a process: a small part of HTTP/1.1."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from types import TracebackType
from typing import Self

from flowkit._user_code.containment import error_text, loggable
from flowkit.errors import ConfigError
from flowkit.protocols import METRICS_TYPE, MetricsPage

logger = logging.getLogger(__name__)

WhyNotReady = Callable[[], Awaitable[str | None]]
"""Returns why a process is not ready to work, or None if it is."""

REQUEST_SEC = 10.0
"""Time in which a request is read and answered."""
MAX_HEAD_BYTES = 8_192
MAX_CONNECTIONS = 64
PLAIN = "text/plain; charset=utf-8"

Answer = tuple[HTTPStatus, str, bytes]
"""Status, type and body of an answer."""


class ProbeServer:
    """Server of ``/metrics``, ``/healthz`` and ``/readyz``, while its context is open.

    It runs in the event loop that does the work, so ``/healthz`` answers only while that is not
    blocked. Each connection has one request.
    """

    def __init__(
        self, *, host: str, port: int, page: MetricsPage, why_not_ready: WhyNotReady
    ) -> None:
        self._host = host
        self._port = port
        self._page = page
        self._why_not_ready = why_not_ready
        self._answering: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            ConfigError: the address cannot be used.
        """
        try:
            self._server = await asyncio.start_server(
                self._accept, self._host, self._port, limit=MAX_HEAD_BYTES
            )
        except OSError as error:
            raise ConfigError(
                f"metrics_port: cannot listen on {self._host}:{self._port}:"
                f" {error.strerror or error}"
            ) from None
        logger.info(
            "Metrics are at http://%s:%d/metrics",
            *self.address,
            extra={"action": "metrics_served"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in list(self._answering):
            task.cancel()
        if self._answering:
            await asyncio.wait(self._answering)

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port on which this listens."""
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"[{host}]" if ":" in host else host, port

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._answering) >= MAX_CONNECTIONS:
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broken = (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)
        try:
            with contextlib.suppress(*broken):
                async with asyncio.timeout(REQUEST_SEC):
                    head = await reader.readuntil(b"\r\n\r\n")
                    method, _, rest = head.partition(b" ")
                    path = rest.partition(b" ")[0].partition(b"?")[0]
                    answer = await self._answer(method, path)
                    writer.write(_encoded(answer, with_body=method != b"HEAD"))
                    await writer.drain()
        finally:
            writer.close()

    async def _answer(self, method: bytes, path: bytes) -> Answer:
        if path not in (b"/metrics", b"/healthz", b"/readyz"):
            return _text(HTTPStatus.NOT_FOUND, "the paths are /metrics, /healthz and /readyz")
        if method not in (b"GET", b"HEAD"):
            return _text(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are allowed")
        if path == b"/healthz":
            return _text(HTTPStatus.OK, "ok")
        if path == b"/readyz":
            reason = await self._why_not_ready()
            return (
                _text(HTTPStatus.OK, "ok")
                if reason is None
                else _text(HTTPStatus.SERVICE_UNAVAILABLE, reason)
            )
        return await self._metrics()

    async def _metrics(self) -> Answer:
        try:
            return HTTPStatus.OK, METRICS_TYPE, await self._page.read()
        except Exception as error:
            logger.error(
                "The metrics cannot be read: %s",
                error_text(error),
                exc_info=loggable(error),
                extra={"action": "metrics_failed"},
            )
            return _text(HTTPStatus.INTERNAL_SERVER_ERROR, "the metrics cannot be read")


def _text(status: HTTPStatus, text: str) -> Answer:
    return status, PLAIN, f"{text}\n".encode()


def _encoded(answer: Answer, *, with_body: bool) -> bytes:
    status, kind, body = answer
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
