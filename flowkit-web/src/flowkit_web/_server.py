"""The server of the command ``flowkit web``."""

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterator

import anyio
import uvicorn

from flowkit import Client, CoordinatorConfig
from flowkit.cli.verbs import stopped_by_signals
from flowkit.config import CommonConfig
from flowkit.errors import ConfigError
from flowkit_web._access import is_loopback
from flowkit_web._app import WebApp, guarded
from flowkit_web._config import WebConfig
from flowkit_web._tokens import list_tokens

logger = logging.getLogger(__name__)

HOST, PORT = "127.0.0.1", 8400
"""Address at which the page is usually served."""
BACKLOG = 2048
STOP_SEC = 5
"""Time for open requests to end when the server stops."""


class PageServer(uvicorn.Server):
    """Server of one client, which leaves signals to FlowKit, and logs its address when it accepts
    connections.
    """

    def __init__(self, client: Client, config: WebConfig, *, local: bool) -> None:
        """With ``local``, callers on this machine need no token while the store has none."""
        self._app = WebApp(client, config, local=local)
        super().__init__(
            uvicorn.Config(
                guarded(self._app, config),
                access_log=False,
                lifespan="off",
                log_config=None,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=STOP_SEC,
                ws="none",
            )
        )

    def stop(self) -> None:
        """Let the server end: streams end at once, and other requests have time to."""
        self._app.state.streams.stopping.set()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        logger.info("Serving %s", address_of((sockets or [])[0]))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(cfg: CoordinatorConfig, *, host: str, port: int) -> None:
    """Serve the page and the API until a signal arrives.

    Raises:
        ConfigError: the address is not of this machine alone, and there are no tokens; or it
            cannot be used.
    """
    config = WebConfig.from_options(cfg.options.get("web", {}))
    local = is_loopback(host)
    async with Client(cfg=cfg) as client:
        if not (local and not config.allow_hosts) and not await list_tokens(client.store.records):
            raise ConfigError(
                f"without tokens only this machine may use the API, and not {_place(host, config)};"
                " add a token with: flowkit token add NAME --role ROLE"
            )
        server = PageServer(client, config, local=local)
        with (
            stopped_by_signals(server.stop, patience_sec=2 * STOP_SEC),
            listening_on(host, port) as listening,
        ):
            await server.serve(sockets=[listening])


@contextlib.asynccontextmanager
async def serving_page(cfg: CommonConfig) -> AsyncIterator[str]:
    """Serve the page to this machine, and yield its address. If another process uses the usual
    port, it has another one.
    """
    config = WebConfig.from_options(cfg.options.get("web", {}))
    async with Client(cfg=cfg) as client:
        server = PageServer(client, config, local=not config.allow_hosts)
        with contextlib.ExitStack() as stack:
            try:
                listening = stack.enter_context(listening_on(HOST, PORT))
            except ConfigError:
                listening = stack.enter_context(listening_on(HOST, 0))
            async with served(server, listening) as address:
                yield address


@contextlib.asynccontextmanager
async def served(server: PageServer, listening: socket.socket) -> AsyncIterator[str]:
    """Run a server until the end of the block, and yield its address."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listening])
        try:
            yield address_of(listening)
        finally:
            server.stop()


def address_of(listening: socket.socket) -> str:
    """Return the address of a server, as a browser writes it."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextlib.contextmanager
def listening_on(host: str, port: int) -> Iterator[socket.socket]:
    """Listen on an address. uvicorn itself would log an error and exit the process."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(BACKLOG)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
        yield listening


def _place(host: str, config: WebConfig) -> str:
    return ", ".join(config.allow_hosts) if is_loopback(host) else host
