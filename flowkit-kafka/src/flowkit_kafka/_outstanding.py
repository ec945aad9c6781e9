"""How far a group is in a topic."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import anyio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._driver_closing import close_consumer
from flowkit_kafka._driver_start import start
from flowkit_kafka._errors import DRIVER_ERRORS, translated
from flowkit_kafka._topics import described

_PAUSE_SEC = 0.2


class Reader:
    """Asks the brokers how far groups and topics are. Connects when it is first asked, and anew
    after an error.
    """

    def __init__(self, servers: Sequence[str], config: KafkaConfig) -> None:
        self._servers = list(servers)
        self._config = config
        self._stack: AsyncExitStack | None = None
        self._admin: AIOKafkaAdminClient
        self._consumer: AIOKafkaConsumer
        self._lock = anyio.Lock()

    async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]]:
        """Per partition the first position that the group has to read, and the end.

        Raises:
            BusUnavailable: the brokers do not answer.
        """
        async with self._lock:
            try:
                with anyio.fail_after(self._config.patience_sec):
                    await self._connect()
                    return await self._patiently(topic, group)
            except DRIVER_ERRORS as error:
                await self._disconnect()
                raise translated(error, f"asking how far {group} is in {topic}") from error
            except BaseException:
                await self._disconnect()
                raise

    async def close(self) -> None:
        async with self._lock:
            await self._disconnect()

    async def _patiently(self, topic: str, group: str) -> Mapping[int, tuple[int, int]]:
        # The first question for any group makes the brokers make the topic of the groups' offsets;
        # until then nobody answers.
        while True:
            try:
                return await self._ask(topic, group)
            except KafkaError as error:
                if not error.retriable:
                    raise
                await anyio.sleep(_PAUSE_SEC)

    async def _ask(self, topic: str, group: str) -> Mapping[int, tuple[int, int]]:
        there = (await described(self._admin, [topic])).get(topic)
        if there is None:
            return {}
        partitions = [TopicPartition(topic, number) for number in range(there.partitions)]
        # In this order: what a group commits is never above the end, unless messages were lost.
        committed = await self._admin.list_consumer_group_offsets(group, partitions=partitions)
        oldest = await self._consumer.beginning_offsets(partitions)
        ends = await self._consumer.end_offsets(partitions)
        found = {}
        for partition in partitions:
            known = committed.get(partition)
            found[partition.partition] = _range(
                -1 if known is None else known.offset, oldest[partition], ends[partition]
            )
        return found

    async def _connect(self) -> None:
        if self._stack is not None:
            return
        settings: dict[str, Any] = {
            "bootstrap_servers": self._servers,
            "request_timeout_ms": round(self._config.request_timeout_sec * 1000),
            **self._config.connection(),
        }
        async with AsyncExitStack() as stack:
            self._admin = AIOKafkaAdminClient(**settings)
            stack.push_async_callback(self._close_admin, self._admin)
            await start(self._admin.start)
            # Without a group and without partitions: it reads nothing and only knows whom to ask.
            self._consumer = AIOKafkaConsumer(group_id=None, **settings)
            stack.push_async_callback(
                close_consumer, self._consumer, self._config.close_timeout_sec
            )
            await start(self._consumer.start)
            self._stack = stack.pop_all()

    async def _disconnect(self) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            with anyio.CancelScope(shield=True):
                await stack.aclose()

    async def _close_admin(self, admin: AIOKafkaAdminClient) -> None:
        with anyio.move_on_after(self._config.close_timeout_sec, shield=True):
            await admin.close()


def _range(committed: int, oldest: int, end: int) -> tuple[int, int]:
    """From where to where a group reads. One without an offset in the partition begins with the
    oldest message.
    """
    return (committed, end) if oldest <= committed <= end else (oldest, end)
