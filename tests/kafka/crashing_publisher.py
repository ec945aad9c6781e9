"""A coordinator that is killed between the publication of a record and the commit of its node.

``python -m tests.kafka.crashing_publisher FILE BROKERS TOPIC``.
"""

import os
import signal
import sys
from typing import Any

import anyio

from flowkit import Coordinator, CoordinatorConfig
from flowkit_kafka._publish import publish
from tests.kafka.support import QUICK
from tests.sqlite.members import COORDINATOR


class Publishing:
    """A plugin with the function ``publish``, after which the process may be killed."""

    def __init__(self, *, killed: bool) -> None:
        self._killed = killed

    def flowkit_register_functions(self, register: Any) -> None:
        register("publish", self._publish)

    async def _publish(self, ctx: Any, **args: Any) -> Any:
        place = await publish(ctx, **args)
        if self._killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return place


def coordinator_on(path: str, brokers: str, topic: str, *, killed: bool) -> Coordinator:
    kafka = {**QUICK, "publish_topics": [topic], "publish_bootstrap": brokers}
    config = CoordinatorConfig(
        options={"kafka": kafka}, **{**COORDINATOR, "worker_types": ["work"]}
    )
    return Coordinator(db=f"sqlite:///{path}", cfg=config, plugins=[Publishing(killed=killed)])


async def main(path: str, brokers: str, topic: str) -> None:
    async with coordinator_on(path, brokers, topic, killed=True):
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
