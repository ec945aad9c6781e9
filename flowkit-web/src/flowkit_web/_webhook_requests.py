"""Requests of webhooks."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
import httpcore

from flowkit import __version__
from flowkit.errors import ConfigError
from flowkit_web._webhook_addresses import CheckedNetwork
from flowkit_web._webhook_config import WebhookConfig

CONTENT = {
    "content-type": "application/json",
    "user-agent": f"flowkit/{__version__}",
    "accept-encoding": "identity",
}
LONGEST_REASON = 200


class NotDelivered(Exception):
    """A receiver did not accept a request. The text says why, without anything of the answer but
    its status.
    """


class Receiver:
    """Client of one receiver. It follows no redirects, and does not read the bodies of answers."""

    def __init__(self, config: WebhookConfig, pool: httpcore.AsyncConnectionPool) -> None:
        self._config = config
        self._pool = pool

    async def post(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Post a body.

        Raises:
            NotDelivered: the receiver cannot be reached, or does not answer with a status 2xx.
        """
        try:
            with anyio.fail_after(self._config.timeout_sec):
                status = await self._status(body, {**CONTENT, **headers})
        except TimeoutError:
            text = f"it did not answer within {self._config.timeout_sec:g} s"
            raise NotDelivered(text) from None
        except httpcore.ProtocolError as error:
            text = f"its answer is not HTTP, or too large: {error}"
            raise NotDelivered(text[:LONGEST_REASON]) from error
        except (httpcore.NetworkError, httpcore.TimeoutException) as error:
            text = str(error) or type(error).__name__
            raise NotDelivered(text[:LONGEST_REASON]) from error
        if not 200 <= status < 300:
            raise NotDelivered(f"it answered with status {status}")

    async def _status(self, body: bytes, headers: Mapping[str, str]) -> int:
        # A connection whose answer was not read to its end is closed, and not used again.
        async with self._pool.stream(
            "POST", self._config.url, headers=list(headers.items()), content=body
        ) as answer:
            return answer.status


@asynccontextmanager
async def open_receiver(config: WebhookConfig, name: str) -> AsyncIterator[Receiver]:
    """Open the client of a receiver.

    Raises:
        ConfigError: its ``ca_file`` cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"options.web.webhooks.{name}.ca_file: {error}") from None
    async with httpcore.AsyncConnectionPool(
        ssl_context=context,
        max_connections=config.max_parallel,
        keepalive_expiry=30.0,
        network_backend=CheckedNetwork(allow_private=config.allow_private),
    ) as pool:
        yield Receiver(config, pool)
