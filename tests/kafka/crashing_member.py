"""A member of a group in its own process, which a test kills or suspends.

Arguments: address, topic, group, and the number of messages to acknowledge.
"""

import asyncio
import sys

from tests.kafka.support import bus_at


async def main(address: str, topic: str, group: str, acknowledge: int) -> None:
    # It commits so rarely that its acknowledged messages are not committed when it is stopped.
    async with (
        bus_at(address, commit_interval_sec=60) as bus,
        bus.subscribe([topic], group=group) as subscription,
    ):
        count = 0
        while True:
            batch = await subscription.receive(max_messages=1)
            count += 1
            if count <= acknowledge:
                await subscription.ack(batch)
            print(batch[0].message.value.decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
