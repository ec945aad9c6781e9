"""A bus that loses messages, and a handler that counts its runs."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit.messages import ADDRESSEE, decode
from flowkit.protocols import Message, Place
from flowkit.worker import handler
from flowkit_testing import Cluster, InMemoryBus
from tests.builders import graph, node

COORDINATOR = CoordinatorConfig()


WORKER = WorkerConfig()


COMMANDS, EVENTS, CONTROL = "flowkit.cmd.work", "flowkit.events", "flowkit.control"


PARTITIONS = range(8)


class Recording(InMemoryBus):
    """A bus that records published messages, but for those for one worker: another worker hands its
    command over.

    It confirms and then loses the messages that ``loses`` selects.
    """

    def __init__(self) -> None:
        super().__init__()
        self.published: list[Any] = []
        self.loses = lambda message: False

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        places = []
        for message in messages:
            (place,) = await super().publish([message])
            decoded = decode(message.value)
            if ADDRESSEE not in message.headers:
                self.published.append(decoded)
            if place is not None and self.loses(decoded):
                self.broker.lose_tail(message.topic, place[0], 1)
            places.append(place)
        return places

    def count(self, kind: type, **fields: Any) -> int:
        return sum(
            isinstance(message, kind)
            and all(getattr(message, name) == value for name, value in fields.items())
            for message in self.published
        )


class Work:
    """A handler that takes ``seconds`` and counts its runs."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.runs: Counter[str] = Counter()
        self.cluster: Cluster

    @property
    def handlers(self) -> list[Any]:
        @handler("work")
        async def work(item: Any, ctx: Any) -> None:
            self.runs[ctx.node_id] += 1
            await self.cluster.clock.sleep(self.seconds)

        return [work]


def first(kind: Any, *, times: int = 1) -> Any:
    """Return a function that selects the first messages of a kind, ``times`` of them."""
    left = [times]

    def loses(message: Any) -> bool:
        if isinstance(message, kind) and left[0]:
            left[0] -= 1
            return True
        return False

    return loses


def cluster_of(bus: InMemoryBus, work: Work, **fields: Any) -> Cluster:
    """Return a cluster with default settings that runs ``work`` on this bus."""
    work.cluster = Cluster(
        **{
            "bus": bus,
            "handlers": work.handlers,
            "coordinator_config": COORDINATOR,
            "worker_config": WORKER,
            **fields,
        }
    )
    return work.cluster


def wide(width: int) -> dict[str, Any]:
    """Return a graph of independent nodes."""
    return graph(*(node(f"n{number}") for number in range(width)))
