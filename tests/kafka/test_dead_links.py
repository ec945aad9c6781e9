"""Connections that are lost silently: no answer and no close ever arrives over them."""

from collections.abc import Iterator

import anyio
import pytest

from flowkit.errors import BusUnavailable
from flowkit.protocols import Message, TopicSpec
from tests.chaos.proxy import CLEAR, Behaviour, Link, Proxy
from tests.kafka.support import bus_at, contents, take, unique
from tests.servers.kafka import KafkaServer

pytestmark = pytest.mark.services

WITHIN_SEC = 60


@pytest.fixture(scope="module")
def link() -> Iterator[Link]:
    """Yield a proxy of a broker that advertises the proxy's address to its clients."""
    with Proxy() as proxy:
        link = proxy.link()
        with KafkaServer.start(advertised_listeners=f"PLAINTEXT://127.0.0.1:{link.port}") as server:
            link.target = int(server.address.rpartition(":")[2])
            yield link


async def test_a_producer_on_a_dead_connection_is_replaced_also_where_the_topic_is_new_to_it(
    link: Link,
) -> None:
    known, new = unique("known"), unique("new")
    async with bus_at(f"127.0.0.1:{link.port}", request_timeout_sec=6.0, patience_sec=60) as bus:
        await bus.ensure_topics([TopicSpec(known), TopicSpec(new)])
        await bus.publish([Message(known, b"over a living connection")])
        link.behave(Behaviour(swallow=True))
        link.behave(CLEAR)
        with anyio.fail_after(WITHIN_SEC):
            while True:
                try:
                    await bus.publish([Message(new, b"after it died")])
                    break
                except BusUnavailable:
                    continue
        async with bus.subscribe([new], group=unique("readers")) as subscription:
            assert b"after it died" in contents(await take(subscription, 1))
