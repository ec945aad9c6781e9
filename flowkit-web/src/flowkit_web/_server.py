"""The server of the command ``flowkit web``."""

import contextlib
import logging
import socket
from collections.abc import Iterator

import uvicorn

from flowkit import Client, CoordinatorConfig
from flowkit.cli.verbs import stopped_by_signals
from flowkit.errors import ConfigError
from flowkit_web._access import is_loopback
from flowkit_web._app import WebApp, guarded
from flowkit_web._config import WebConfig
from flowkit_web._tokens import list_tokens

logger = logging.getLogger(__name__)

STOP_SEC = 5
"""Time for open requests to end when the server stops."""


class _Server(uvicorn.Server):
    """Server that leaves signals to FlowKit, and logs its address when it accepts connections."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        logger.info("Serving http://%s:%d", f"[{host}]" if ":" in host else host, port)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(cfg: CoordinatorConfig, *, host: str, port: int) -> None:
    """Serve the API until a signal arrives.

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
        app = WebApp(client, config, local=local)
        settings = uvicorn.Config(
            guarded(app, config),
            access_log=False,
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_SEC,
            ws="none",
        )
        server = _Server(settings)

        def stop() -> None:
            app.state.streams.stopping.set()
            server.should_exit = True

        with (
            stopped_by_signals(stop, patience_sec=2 * STOP_SEC),
            listening_on(host, port, settings.backlog) as listening,
        ):
            await server.serve(sockets=[listening])


@contextlib.contextmanager
def listening_on(host: str, port: int, backlog: int) -> Iterator[socket.socket]:
    """Listen on an address. uvicorn itself would log an error and exit the process."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(backlog)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
        yield listening


def _place(host: str, config: WebConfig) -> str:
    return ", ".join(config.allow_hosts) if is_loopback(host) else host
