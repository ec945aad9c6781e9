"""What :mod:`flowkit_testing.conformance.members` runs in a process of its own.

Arguments: ``module:function`` and its arguments as JSON, a topic, a group, and how many messages to receive.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from importlib import import_module

from flowkit.protocols import Bus, Delivery


async def main(opener: str, arguments: Sequence[object], topic: str, group: str, count: int) -> None:
    """Receive messages and print them; acknowledge them and leave when a line comes in."""
    module, _, function = opener.partition(":")
    bus: Bus = getattr(import_module(module), function)(*arguments)
    async with bus, bus.subscribe([topic], group=group, max_unacked=count) as subscription:
        received: list[Delivery] = []
        while len(received) < count:
            received += await subscription.receive(max_messages=count - len(received))
        for delivery in received:
            say(delivery.message.value.hex())
        await asyncio.to_thread(sys.stdin.readline)
        await subscription.ack(received)
    say("acknowledged")


def say(line: str) -> None:
    """Tell the test something."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])))
