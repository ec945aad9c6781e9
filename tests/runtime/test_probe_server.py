"""The server of metrics and probes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from flowkit._runtime.probe_server import MAX_CONNECTIONS, MAX_HEAD_BYTES, ProbeServer
from flowkit.errors import ConfigError


class Page:
    """A page that is given."""

    def __init__(self, data: bytes | Exception = b"jobs 1\n") -> None:
        self._data = data

    async def read(self) -> bytes:
        if isinstance(self._data, Exception):
            raise self._data
        return self._data


@asynccontextmanager
async def serving(
    *, page: Page | None = None, reason: str | None = None, port: int = 0
) -> AsyncIterator[int]:
    async def why_not_ready() -> str | None:
        return reason

    async with ProbeServer(
        host="127.0.0.1", port=port, page=page or Page(), why_not_ready=why_not_ready
    ) as server:
        yield server.address[1]


async def answer(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def get(port: int, path: str, method: str = "GET") -> bytes:
    return await answer(port, f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())


async def test_metrics_are_served_with_the_type_of_their_format() -> None:
    async with serving() as port:
        head, _, body = (await get(port, "/metrics?name=x")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n" in head
    assert b"Content-Length: 7" in head
    assert body == b"jobs 1\n"


async def test_a_process_that_is_not_ready_says_why_and_is_alive() -> None:
    async with serving(reason="the store is away") as port:
        ready, alive = await get(port, "/readyz"), await get(port, "/healthz")
    assert ready.startswith(b"HTTP/1.1 503 ")
    assert ready.endswith(b"\r\n\r\nthe store is away\n")
    assert alive.startswith(b"HTTP/1.1 200 ")


async def test_a_process_that_is_ready_says_so() -> None:
    async with serving() as port:
        assert (await get(port, "/readyz")).startswith(b"HTTP/1.1 200 ")


async def test_the_answer_to_head_has_no_body() -> None:
    async with serving() as port:
        assert (await get(port, "/metrics", "HEAD")).endswith(b"Connection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", b"404"), ("GET", "/metrics/x", b"404"), ("POST", "/metrics", b"405")],
)
async def test_other_paths_and_methods_are_refused(method: str, path: str, status: bytes) -> None:
    async with serving() as port:
        assert (await get(port, path, method)).startswith(b"HTTP/1.1 " + status)


async def test_an_error_of_the_page_is_logged_and_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(page=Page(ValueError("wrong"))) as port:
        assert b"wrong" not in await get(port, "/metrics")
        assert (await get(port, "/healthz")).startswith(b"HTTP/1.1 200 ")
    assert "The metrics cannot be read: ValueError: wrong" in caplog.text


@pytest.mark.parametrize(
    "request_head",
    [b"GET /" + b"a" * 2 * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n", b"\x16\x03\r\n\r\n"],
)
async def test_what_is_no_request_gets_no_metrics(request_head: bytes) -> None:
    async with serving() as port:
        assert b"jobs" not in await answer(port, request_head)
        assert b"jobs" in await get(port, "/metrics")


async def test_idle_connections_are_bounded_and_do_not_delay_the_end() -> None:
    async with serving() as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        assert await get(port, "/healthz") == b""
    for reader, writer in idle:
        assert await reader.read() == b""
        writer.close()


async def test_a_port_that_is_taken_is_an_error_that_names_the_field_and_the_address() -> None:
    async with serving() as port:
        with pytest.raises(ConfigError, match=rf"metrics_port: cannot listen on 127.0.0.1:{port}"):
            async with serving(port=port):
                raise AssertionError
