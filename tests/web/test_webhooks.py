"""Requests of webhooks: their signatures, their addresses, and what receivers may do."""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import math
import re
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpcore
import pytest
from pydantic import ValidationError
from pydantic_core import from_json
from typer.testing import CliRunner

from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.cli._app import app
from flowkit.config import CommonConfig
from flowkit.errors import ConfigError
from flowkit.protocols import Message
from flowkit.worker import Worker
from flowkit_testing import InMemoryBus
from flowkit_web._config import WebConfig
from flowkit_web._webhook_addresses import CheckedNetwork, is_public
from flowkit_web._webhook_config import WebhookConfig, key_of
from flowkit_web._webhook_requests import NotDelivered, open_receiver
from flowkit_web._webhook_service import check_webhooks, send_webhooks
from flowkit_web._webhook_signatures import webhook_headers
from tests.builders import ONE, work
from tests.servers.kafka_security import certificate
from tests.servers.ports import free_ports
from tests.telemetry.probes import get

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""The secret of the example in the specification of Standard Webhooks."""


def config(**fields: object) -> WebhookConfig:
    return WebhookConfig.model_validate(
        {"url": "https://example.org/in", "secrets": [SECRET], **fields}
    )


# ---------------------------------------------------------------- signatures


def test_a_signature_is_the_hmac_of_id_time_and_body() -> None:
    headers = webhook_headers(b'{"seq":1}', [key_of(SECRET)], 1674087231.9)
    signed = f"{headers['webhook-id']}.1674087231.".encode() + b'{"seq":1}'
    digest = hmac.digest(base64.b64decode(SECRET.removeprefix("whsec_")), signed, "sha256")
    assert headers["webhook-timestamp"] == "1674087231"
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


def test_the_signature_of_the_specification_s_example_is_known() -> None:
    body, message_id = b'{"test": 2432232314}', "msg_p5jXN8AQM9LWM0D4loKWxJek"
    signed = f"{message_id}.1614265330.".encode() + body
    expected = "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert base64.b64encode(hmac.digest(key_of(SECRET), signed, "sha256")).decode() == expected


def test_a_copy_of_a_change_has_the_same_id_and_each_secret_signs() -> None:
    keys = [b"a" * 24, b"b" * 24]
    first, later = (webhook_headers(b"{}", keys, now) for now in (1.0, 2.0))
    assert first["webhook-id"] == later["webhook-id"]
    assert first["webhook-id"] == f"msg_{hashlib.sha256(b'{}').hexdigest()[:32]}"
    assert [one[:3] for one in first["webhook-signature"].split(" ")] == ["v1,", "v1,"]


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/in",
        "https:///in",
        "https://user@example.org/in",
        "https://example.org/in#part",
        "https://example.org/a b",
        "https://example.org:0/",
        "https://example.org:x/",
        "https://exämple.org/",
        "file:///etc/passwd",
    ],
)
def test_urls_that_are_no_plain_https_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        config(url=url)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_short", "A" * 40, "whsec_%%%", "whsec_" + "A" * 400]
)
def test_secrets_of_another_form_are_refused_and_not_shown(secret: str) -> None:
    options = {"webhooks": {"a": {"url": "https://example.org/", "secrets": [secret]}}}
    with pytest.raises(ConfigError, match=r"options\.web\.webhooks\.a\.secrets") as error:
        WebConfig.from_options(options)
    assert len(secret) < 12 or secret not in str(error.value)


@pytest.mark.parametrize("value", [math.nan, "nan"])
def test_a_time_limit_that_is_not_a_number_is_refused_as_such(value: object) -> None:
    webhook = {"url": "https://example.org/", "secrets": [SECRET], "timeout_sec": value}
    with pytest.raises(ConfigError, match=r"webhooks\.a\.timeout_sec: must be a number$"):
        WebConfig.from_options({"webhooks": {"a": webhook}})


def test_secrets_are_in_no_text_of_a_configuration() -> None:
    options = {"web": {"webhooks": {"a": {"url": "https://e.org/", "secrets": [SECRET]}}}}
    common = CommonConfig(options=options)
    shown = f"{common!r} {WebConfig.from_options(options['web'])!r}"
    assert SECRET not in shown


async def test_a_process_without_webhooks_does_not_start() -> None:
    with pytest.raises(ConfigError, match="no webhook is configured"):
        await send_webhooks(CommonConfig(bus="memory://"))


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:0a00:0001::1",
    ],
)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


async def test_a_name_of_a_private_address_is_refused_when_it_is_connected() -> None:
    network = CheckedNetwork(allow_private=False)
    with pytest.raises(httpcore.ConnectError, match="not a public address; set allow_private"):
        await network.connect_tcp("localhost", 443)


async def test_a_name_that_cannot_be_looked_up_is_a_refusal() -> None:
    async with open_receiver(config(url=f"https://{'a' * 70}.example.org/"), "a") as receiver:
        with pytest.raises(NotDelivered, match="has no address"):
            await receiver.post(b"{}", {})


# ---------------------------------------------------------------- requests


class Server:
    """A receiver on this machine that records requests, and gives one answer."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.received = anyio.Event()
        self.port = 0

    @asynccontextmanager
    async def serving(self, pem: Path) -> AsyncIterator["Server"]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pem)
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.requests.append(head + await reader.readexactly(length))
        self.received.set()
        self.received = anyio.Event()
        writer.write(self.answer)
        await writer.drain()
        writer.close()

    async def post(self, pem: Path, body: bytes = b"{}", **fields: object) -> None:
        own = {"url": f"https://127.0.0.1:{self.port}/in", "ca_file": pem, "allow_private": True}
        async with open_receiver(config(**{**own, **fields}), "a") as receiver:
            await receiver.post(body, webhook_headers(body, [key_of(SECRET)], 1.0))


def answer(status: str, *lines: str, body: bytes = b"") -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"content-length: {len(body)}", *lines, "", ""])
    return head.encode() + body


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"))


async def test_a_request_has_the_body_and_its_signature(pem: Path) -> None:
    async with Server(answer("204 No Content")).serving(pem) as server:
        await server.post(pem, b'{"seq":1}')
    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert body == b'{"seq":1}'
    assert head.startswith(b"POST /in HTTP/1.1\r\n")
    assert b"content-type: application/json" in head
    assert b"webhook-signature: v1," in head


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer("500 Internal Server Error", body=b"secret"), "it answered with status 500"),
        (answer("400 Bad Request"), "it answered with status 400"),
        (answer("302 Found", "location: https://127.0.0.1/else"), "it answered with status 302"),
        (b"nonsense\r\n\r\n", "its answer is not HTTP, or too large: illegal status line"),
        (b"", "disconnected"),
    ],
)
async def test_any_answer_but_2xx_is_a_refusal_and_no_redirect_is_followed(
    reply: bytes, reason: str, pem: Path
) -> None:
    async with Server(reply).serving(pem) as server:
        with pytest.raises(NotDelivered, match=reason) as refusal:
            await server.post(pem)
    assert "secret" not in str(refusal.value)
    assert len(server.requests) == 1


async def test_an_endless_body_of_an_answer_is_not_read(pem: Path) -> None:
    endless = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n" + b"x" * 100_000
    async with Server(endless).serving(pem) as server:
        await server.post(pem)


async def test_a_receiver_that_is_silent_is_given_up(pem: Path) -> None:
    async with Server(b"HTTP/1.1 200 OK\r\nnever: ").serving(pem) as server:
        with pytest.raises(NotDelivered):
            await server.post(pem, timeout_sec=0.2)


async def test_a_receiver_at_a_private_address_gets_no_request(pem: Path) -> None:
    async with Server(answer("204 No Content")).serving(pem) as server:
        with pytest.raises(NotDelivered, match="not a public address"):
            await server.post(pem, allow_private=False)
    assert server.requests == []


async def test_a_certificate_that_is_not_trusted_is_refused(pem: Path) -> None:
    async with Server(answer("204 No Content")).serving(pem) as server:
        with pytest.raises(NotDelivered, match="certificate"):
            await server.post(pem, ca_file=None)
    assert server.requests == []


async def test_authorities_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(ConfigError, match=r"options\.web\.webhooks\.a\.ca_file"):
        async with open_receiver(config(ca_file=empty), "a"):
            pass


async def test_the_changes_of_a_task_reach_the_receiver(pem: Path, tmp_path: Path) -> None:
    async with Server(answer("204 No Content")).serving(pem) as server:
        webhook = {
            "url": f"https://127.0.0.1:{server.port}/in",
            "secrets": [SECRET],
            "ca_file": str(pem),
            "allow_private": True,
        }
        common = {
            "db": f"sqlite:///{tmp_path}/flowkit.db",
            "options": {"web": {"webhooks": {"a": webhook}}},
        }
        async with (
            Coordinator(cfg=CoordinatorConfig(**common, publish_changes=True)) as coordinator,
            Worker(cfg=WorkerConfig(**common), handlers=[work]),
            anyio.create_task_group() as group,
        ):
            group.start_soon(send_webhooks, CommonConfig(**common))
            task_id = await coordinator.create_task(graph=ONE)
            events = [event.seq async for event in coordinator.watch(task_id)]
            with anyio.fail_after(60):
                while len(server.requests) < len(events):
                    await server.received.wait()
            group.cancel_scope.cancel()
    bodies = [from_json(one.partition(b"\r\n\r\n")[2]) for one in server.requests]
    assert [body["seq"] for body in bodies] == events
    assert (bodies[-1]["task_id"], bodies[-1]["status"]) == (task_id, "finished")


async def test_a_change_that_was_given_up_is_retried_over_the_command_line(
    pem: Path, tmp_path: Path
) -> None:
    async with Server(answer("503 Service Unavailable")).serving(pem) as server:
        webhook = {
            "url": f"https://127.0.0.1:{server.port}/in",
            "secrets": [SECRET],
            "ca_file": str(pem),
            "allow_private": True,
            "retry_for_sec": 0.01,
            "longest_pause_sec": 0.01,
        }
        db = f"sqlite:///{tmp_path}/flowkit.db"
        common = {"db": db, "options": {"web": {"webhooks": {"a": webhook}}}}
        coordinating = CoordinatorConfig(**common, publish_changes=True)
        async with Coordinator(cfg=coordinating) as coordinator, anyio.create_task_group() as group:
            group.start_soon(send_webhooks, CommonConfig(**common))
            task_id = await coordinator.create_task(graph=ONE)
            with anyio.fail_after(60):
                while not (letters := await given_up(coordinator)):
                    await anyio.sleep(0.05)
            server.answer = answer("204 No Content")
            for name, said in (
                ("b", f"{letters[0]}: not retried: no webhook 'a' is configured, only b;"),
                ("a", f"{letters[0]}: published for webhook 'a' again; the letter stays"),
            ):
                options = {"web": {"webhooks": {name: webhook}}}
                config = tmp_path / f"{name}.json"
                config.write_text(json.dumps({"db": db, "options": options}), encoding="utf-8")
                command = ["dlq", "retry", "--kind", "webhook", "--config", str(config)]
                done = await anyio.to_thread.run_sync(CliRunner().invoke, app, command)
                assert said in done.stdout
                assert done.exit_code == (0 if name == "a" else 2)
            with anyio.fail_after(60):
                while await given_up(coordinator):
                    await anyio.sleep(0.05)
            group.cancel_scope.cancel()
    assert task_id in letters[0]


async def test_the_process_shows_the_dead_letters_of_its_webhooks_at_its_metrics_port(
    tmp_path: Path,
) -> None:
    webhook = {
        "url": "https://127.0.0.1:1/in",
        "secrets": [SECRET],
        "allow_private": True,
        "retry_for_sec": 0.01,
    }
    common = {
        "db": f"sqlite:///{tmp_path}/flowkit.db",
        "options": {"web": {"webhooks": {"a": webhook}}},
    }
    config = tmp_path / "webhooks.json"
    config.write_text(json.dumps(common), encoding="utf-8")
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "flowkit.cli", "webhooks", "--config", str(config)]
    command += ["--metrics-port", str(port)]
    coordinating = CoordinatorConfig(**common, publish_changes=True)
    async with Coordinator(cfg=coordinating) as coordinator:
        process = await anyio.open_process(command, stdout=None, stderr=None)
        try:
            with anyio.fail_after(60):
                while await status_of(port, "/readyz") != 200:
                    await anyio.sleep(0.05)
                assert await letters_counted(port) == 0
                await coordinator.create_task(graph=ONE)
                while not await letters_counted(port):
                    await anyio.sleep(0.05)
                while await letters_counted(port) != len(await given_up(coordinator)):
                    await anyio.sleep(0.05)
                process.terminate()
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()


async def letters_counted(port: int) -> float:
    """Return the dead letters of webhooks that a process has counted."""
    _, text = await get(port, "/metrics")
    (line,) = re.findall(r'^flowkit_dead_letters_total{kind="webhook"} (.+)$', text, re.MULTILINE)
    return float(line)


async def status_of(port: int, path: str) -> int | None:
    """Return the status of an answer; None while the port is closed."""
    try:
        return (await get(port, path))[0]
    except OSError:
        return None


async def given_up(coordinator: Coordinator) -> list[str]:
    return [one.letter_id for one in (await coordinator.dead_letters(kind="webhook")).items]


# ---------------------------------------------------------------- checks


async def test_the_doctor_tells_how_far_a_webhook_is_behind() -> None:
    options = {"web": {"webhooks": {"a": {"url": "https://e.org/", "secrets": [SECRET]}}}}
    cfg, bus = CoordinatorConfig(options=options, publish_changes=True), InMemoryBus()
    async with bus.subscribe([cfg.changes_topic], group="flowkit.webhook.a"):
        for expected_ok, count in ((True, 1), (False, 1_000)):
            await bus.publish([Message(cfg.changes_topic, b"{}", str(n)) for n in range(count)])
            (result,) = await check_webhooks(bus, cfg)
            assert result.ok is expected_ok
    assert result.detail == "1,001 changes behind"
    assert "flowkit webhooks" in result.remedy


async def test_the_doctor_tells_that_nothing_is_published_for_a_webhook() -> None:
    options = {"web": {"webhooks": {"a": {"url": "https://e.org/", "secrets": [SECRET]}}}}
    (result,) = await check_webhooks(InMemoryBus(), CoordinatorConfig(options=options))
    assert (result.ok, result.detail) == (False, "publish_changes is off")
