"""``flowkit web`` and ``flowkit token``."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from typer.testing import CliRunner

from flowkit import Client, CoordinatorConfig
from flowkit.cli._app import app
from flowkit.errors import ConfigError
from flowkit_web._server import listening_on, serving_page
from tests.builders import graph, node
from tests.cli.installations import Installation

LIMIT_SEC = 60


def cli(*args: object) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_tokens_are_added_listed_and_removed() -> None:
    db = Installation().address
    first = cli("token", "add", "ann", "--role", "operator", "--db", db)
    assert re.fullmatch(r"fk_[\w-]{43}\n", first.stdout)
    second = json.loads(cli("token", "add", "bob", "--db", db, "--json").stdout)
    assert (second["name"], second["role"]) == ("bob", "viewer")
    taken = cli("token", "add", "ann", "--db", db)
    assert (taken.exit_code, "there is a token 'ann'" in taken.stderr) == (2, True)
    listed = json.loads(cli("token", "ls", "--db", db, "--json").stdout)
    assert [(one["name"], one["role"]) for one in listed] == [
        ("ann", "operator"),
        ("bob", "viewer"),
    ]
    assert "operator" in cli("token", "ls", "--db", db).stdout
    assert cli("token", "rm", "ann", "--db", db).exit_code == 0
    gone = cli("token", "rm", "ann", "--db", db)
    assert (gone.exit_code, "there is no token 'ann'" in gone.stderr) == (2, True)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_without_tokens_other_addresses_than_those_of_this_machine_are_refused(host: str) -> None:
    result = cli("web", "--host", host, "--port", 0, "--db", Installation().address)
    assert result.exit_code == 2
    assert "without tokens only this machine may use the API" in result.stderr
    assert "flowkit token add" in result.stderr


def test_a_setting_that_does_not_exist_is_named(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[options.web]\nallow_host = ['x']\n")
    result = cli("web", "--port", 0, "--db", Installation().address, "--config", config)
    assert (result.exit_code, "options.web.allow_host" in result.stderr) == (2, True)


@pytest.mark.parametrize("verb", ["web", "webhooks"])
def test_a_field_is_set_on_the_command_line(verb: str) -> None:
    given = 'options={"web": {"allow_host": []}}'
    result = cli(verb, "--db", Installation().address, "--set", given)
    assert (result.exit_code, "options.web.allow_host" in result.stderr) == (2, True)


def test_a_port_that_is_in_use_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = cli("web", "--port", port, "--db", Installation().address)
    text = f"cannot listen on 127.0.0.1:{port}: {os.strerror(errno.EADDRINUSE)}"
    assert (result.exit_code, text in result.stderr) == (2, True)


def test_a_host_that_is_no_address_of_this_machine_is_an_error() -> None:
    text = f"cannot listen on 192.0.2.1:0: {os.strerror(errno.EADDRNOTAVAIL)}"
    with pytest.raises(ConfigError, match=text), listening_on("192.0.2.1", 0):
        pass


async def test_the_page_has_another_port_where_its_usual_one_is_in_use() -> None:
    cfg = CoordinatorConfig(db=Installation().address)
    async with serving_page(cfg) as one, serving_page(cfg) as other, httpx.AsyncClient() as http:
        assert one != other
        for address in (one, other):
            assert (await http.get(f"{address}/healthz")).json() == {"status": "ok"}


# ---------------------------------------------------------------- a process


@contextmanager
def server(db: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start ``flowkit web``, and return its process and address when it serves."""
    command = [sys.executable, "-m", "flowkit.cli", "web", "--port", "0", "--db", db]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"Serving (http://\S+)", line):
                yield process, found[1]
                return
        raise AssertionError("it did not start")
    finally:
        process.kill()
        process.wait(LIMIT_SEC)
        process.stderr.close()


def test_a_server_reads_a_file_follows_a_task_and_stops_in_order(tmp_path: Path) -> None:
    db = f"sqlite:///{tmp_path / 'flowkit.db'}"

    async def submit() -> None:
        async with Client(db=db) as client:
            for task_id in ("a/b", "open"):
                await client.create_task(graph=graph(node("a", "work")), task_id=task_id)

    anyio.run(submit)
    with (
        server(db) as (process, address),
        httpx.Client(base_url=address, timeout=LIMIT_SEC) as http,
    ):
        assert http.get("/api/v1/tasks/a%2Fb").json()["status"] == "queued"
        with http.stream("GET", "/api/v1/tasks/a%2Fb/events") as events:
            lines = events.iter_lines()
            assert next(lines) == "id: 1"
            assert http.post("/api/v1/tasks/a%2Fb/cancel").status_code == 204
            assert any('"cancelled"' in line for line in lines)
        with http.stream("GET", "/api/v1/tasks/open/events") as events:
            assert next(events.iter_lines()) == "id: 1"
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT_SEC) == 0
