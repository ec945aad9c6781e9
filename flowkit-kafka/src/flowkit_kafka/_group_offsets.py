"""Committed offsets of consumer groups, and the ends of their topics."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import anyio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from flowkit.adapters import Backoff, retry
from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._driver_lifecycle import close_consumer, start
from flowkit_kafka._errors import DRIVER_ERRORS, translated
from flowkit_kafka._topics import described

_RETRY_PAUSE_SEC = 0.2


class GroupOffsets:
    """Reads the offsets of groups from the brokers.

    Connects at the first request, and again after an error.
    """

    def __init__(self, servers: Sequence[str], config: KafkaConfig) -> None:
        self._servers = list(servers)
        self._config = config
        self._stack: AsyncExitStack | None = None
        self._admin: AIOKafkaAdminClient
        self._consumer: AIOKafkaConsumer
        self._lock = anyio.Lock()

    async def outstanding(
        self, topic: str, group: str, *, since: float | None = None
    ) -> Mapping[int, tuple[int, int]]:
        """Return for each partition the next position of the group and the end.

        In a partition where it has read nothing, a group begins with the first message at or after
        ``since``, or with the oldest one.

        Raises:
            BusUnavailable: the brokers do not answer.
        """
        async with self._lock:
            try:
                with anyio.fail_after(self._config.patience_sec):
                    await self._connect()
                    return await self._read_with_retries(topic, group, since)
            except DRIVER_ERRORS as error:
                await self._disconnect()
                raise translated(
                    error, f"reading the offsets of group {group} in topic {topic}"
                ) from error
            except BaseException:
                await self._disconnect()
                raise

    async def close(self) -> None:
        async with self._lock:
            await self._disconnect()

    async def _read_with_retries(
        self, topic: str, group: str, since: float | None
    ) -> Mapping[int, tuple[int, int]]:
        # At the first request for any group, the brokers create the topic of the groups' offsets.
        # Until it exists, they answer with a retriable error.
        return await retry(
            lambda: self._read(topic, group, since),
            on=lambda error: isinstance(error, KafkaError) and error.retriable,
            sleep=anyio.sleep,
            backoff=Backoff(first_sec=_RETRY_PAUSE_SEC, longest_sec=_RETRY_PAUSE_SEC),
        )

    async def _read(
        self, topic: str, group: str, since: float | None
    ) -> Mapping[int, tuple[int, int]]:
        found = (await described(self._admin, [topic])).get(topic)
        if found is None:
            return {}
        partitions = [TopicPartition(topic, number) for number in range(found.partitions)]
        # In this order, a committed offset is never above the end, unless messages were lost.
        committed = await self._admin.list_consumer_group_offsets(group, partitions=partitions)
        oldest = await self._consumer.beginning_offsets(partitions)
        ends = await self._consumer.end_offsets(partitions)
        starts = oldest if since is None else await self._since(ends, since)
        offsets = {}
        for partition in partitions:
            known = committed.get(partition)
            has_begun = known is not None and known.offset >= 0
            position = known.offset if has_begun else starts[partition]
            offsets[partition.partition] = _range(position, oldest[partition], ends[partition])
        return offsets

    async def _since(
        self, ends: Mapping[TopicPartition, int], since: float
    ) -> Mapping[TopicPartition, int]:
        """Return the positions of the first messages at or after a time. They are not above the
        ends, which were read before: no message that is published meanwhile is left out.
        """
        found = await self._consumer.offsets_for_times(dict.fromkeys(ends, round(since * 1000)))
        return {
            partition: end if found[partition] is None else min(found[partition].offset, end)
            for partition, end in ends.items()
        }

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
            # Without a group and partitions: it reads no messages, it only finds the leaders.
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
    """Return the first and the last offset that a group has to read.

    A group whose offset is not in the partition starts at the oldest message.
    """
    return (committed, end) if oldest <= committed <= end else (oldest, end)
