"""Requests to the port of metrics and probes."""

import asyncio
import re

import pytest

ADDRESS = re.compile(r"Metrics are at http://127.0.0.1:(\d+)/metrics")


def ports(caplog: pytest.LogCaptureFixture) -> list[int]:
    """Return the ports that were opened, as the log names them."""
    return [int(port) for port in ADDRESS.findall(caplog.text)]


async def get(port: int, path: str) -> tuple[int, str]:
    """Return the status and the text of a path."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body.strip()
