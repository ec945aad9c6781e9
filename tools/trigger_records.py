"""Check a trigger on a topic of Kafka: ``python tools/trigger_records.py --records 20000``.

It starts Kafka, MongoDB and coordinators, publishes records, and kills coordinators and the broker
meanwhile. Afterwards each record must have made exactly one task. The exit status is 1 otherwise.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tools.servers import with_database

from flowkit import Client, CoordinatorConfig, Trigger
from tests.chaos.cluster import ProcessSlot
from tests.servers.kafka import KafkaServer
from tests.servers.mongod import MongoServers
from tests.servers.processes import Unavailable

TOPIC = "records"
PIPELINE = "of-records"
PARTITIONS = 8
AT_ONCE = 50
"""Records that are published together."""
BROKER_DOWN_SEC = 2.0
GRAPH = {"nodes": [{"node_id": "a", "type": "coordinator_fn", "io": {"fn": "noop"}}]}


class Campaign:
    """One run: the servers, the coordinators and the disasters."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
        self.records: int = arguments.records
        self.per_sec: float = arguments.per_sec
        self.kill_every_sec: float = arguments.kill_every_sec
        self.quiet_sec: float = arguments.quiet_sec
        self.random = random.Random(arguments.seed)
        self.kafka = stack.enter_context(KafkaServer.start())
        mongo = stack.enter_context(MongoServers())
        self.config = CoordinatorConfig(
            db=with_database(mongo.address), bus=f"kafka://{self.kafka.address}"
        )
        path = folder / "config.json"
        path.write_text(json.dumps({"db": self.config.db, "bus": self.config.bus}))
        command = [sys.executable, "-m", "flowkit.cli", "coordinator", "--config", str(path)]
        self.coordinators = [
            ProcessSlot("coordinator", number, command, folder=folder, environment={**os.environ})
            for number in range(arguments.coordinators)
        ]
        for slot in self.coordinators:
            slot.start()
            stack.callback(slot.kill)
        self.kills = Counter[str]()

    async def run(self) -> Counter[int]:
        """Return how many tasks each record has made."""
        await self._create_topic()
        async with Client(db=self.config.db, cfg=self.config) as client:
            source = f"{self.config.bus}/{TOPIC}"
            params = {"n": "${event.value}"}
            await client.put_trigger(
                Trigger("t", source=source, graph=GRAPH, params=params, pipeline=PIPELINE)
            )
            disasters = asyncio.create_task(self._disasters())
            await self._publish()
            disasters.cancel()
            await asyncio.wait([disasters])
            return await self._made(client)

    async def _create_topic(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.address)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])
        finally:
            await admin.close()

    async def _publish(self) -> None:
        async with AIOKafkaProducer(
            bootstrap_servers=self.kafka.address, enable_idempotence=True
        ) as producer:
            for first in range(0, self.records, AT_ONCE):
                numbers = range(first, min(first + AT_ONCE, self.records))
                sent = [await producer.send(TOPIC, b"%d" % number) for number in numbers]
                await asyncio.gather(*sent)
                await asyncio.sleep(AT_ONCE / self.per_sec)

    async def _disasters(self) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(0.5, 1.5) * self.kill_every_sec)
            if self.random.random() < 0.25:
                self.kills["broker"] += 1
                await asyncio.shield(asyncio.to_thread(self._kill_broker))
            else:
                self.kills["coordinator"] += 1
                slot = self.random.choice(self.coordinators)
                await asyncio.shield(asyncio.to_thread(self._kill, slot))

    def _kill_broker(self) -> None:
        self.kafka.kill()
        time.sleep(BROKER_DOWN_SEC)
        self.kafka.start_again()

    def _kill(self, slot: ProcessSlot) -> None:
        slot.kill()
        slot.start()

    async def _made(self, client: Client) -> Counter[int]:
        """Wait until each record has made a task, or no more come."""
        made, last, since = Counter[int](), -1, time.monotonic()
        while len(made) < self.records and time.monotonic() - since < self.quiet_sec:
            await asyncio.sleep(5)
            made = await _tasks_by_record(client)
            print(f"{time.strftime('%H:%M:%S')} {len(made)} of {self.records}", flush=True)
            if len(made) != last:
                last, since = len(made), time.monotonic()
        await asyncio.sleep(10)  # a second task of a record would come about now
        return await _tasks_by_record(client)


async def _tasks_by_record(client: Client) -> Counter[int]:
    made, after = Counter[int](), None
    while True:
        page = await client.list_tasks(pipeline=PIPELINE, limit=500, after=after)
        made.update(n for one in page.items if isinstance(n := one.params["n"], int))
        if page.next is None:
            return made
        after = page.next


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--per-sec", type=float, default=200, help="pace of the records")
    parser.add_argument("--coordinators", type=int, default=3)
    parser.add_argument("--kill-every-sec", type=float, default=5)
    parser.add_argument("--quiet-sec", type=float, default=120, help="limit without a new task")
    parser.add_argument("--seed", type=int, default=None, help="seed of the disasters")
    arguments = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it logs each try of a dead broker
    folder = Path(tempfile.mkdtemp(prefix="flowkit-trigger-"))
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            campaign = Campaign(arguments, folder, stack)
            made = asyncio.run(campaign.run())
    except Unavailable as error:
        sys.exit(f"cannot start the servers: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    lost = set(range(campaign.records)) - made.keys()
    twice = [number for number, count in made.items() if count > 1]
    kills = ", ".join(f"{count} of a {what}" for what, count in campaign.kills.items())
    print(
        f"{made.total()} tasks of {campaign.records} records in {time.monotonic() - began:.0f} s;"
        f" kills: {kills or 'none'}; {len(lost)} records without a task, {len(twice)} with several"
    )
    sys.exit(1 if lost or twice else 0)


if __name__ == "__main__":
    main()
