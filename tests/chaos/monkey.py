"""Chaos monkey: inflicts the disasters of a seed and logs them."""

import asyncio
import json
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, Self

from aiokafka.admin import AIOKafkaAdminClient
from pymongo.errors import PyMongoError

from tests.chaos.cluster import Cluster, ProcessSlot
from tests.chaos.disasters import (
    BUS,
    CALM_PAUSE,
    PAUSE_OF,
    PROCESSES,
    STORE,
    Disaster,
    Kind,
    disasters,
)
from tests.chaos.proxy import CLEAR, Behaviour, Link
from tests.servers.mongod import Mongod
from tests.services.clocks import DAY_SEC

POLL_SEC = 0.5
SHIFTS = {"put ahead": 40 * DAY_SEC, "put back": -40 * DAY_SEC}
"""Offset of a process's wall clock after such a disaster. A second one corrects the clock."""
BAD_LINKS = {
    "slowed": Behaviour(delay_sec=0.15),
    "narrowed": Behaviour(bytes_per_sec=40_000),
    "cut": Behaviour(cut=True),
    "half open": Behaviour(swallow=True),
}


class Monkey:
    """Threads that inflict disasters, from entering until :meth:`stop`, which repairs everything.

    With ``calm``, one disaster ends before the next begins.
    """

    def __init__(self, cluster: Cluster, *, seed: int, calm: bool = False) -> None:
        self._cluster = cluster
        self._seed = seed
        at_once = [
            self._disturb_processes,
            partial(self._disturb_servers, BUS),
            partial(self._disturb_servers, STORE),
        ]
        self._works = [self._supervise, *([self._disturb_calmly] if calm else at_once)]
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="monkey")
        self._running: list[Future[None]] = []
        self.log: list[dict[str, Any]] = []
        """One entry per disaster: ``at``, ``until``, ``name``, ``target``, and details."""
        self._file = (cluster.folder / "monkey.jsonl").open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        self._running += [self._pool.submit(work) for work in self._works]
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        self._pool.shutdown()
        self._file.close()

    def stop(self) -> None:
        """Stop inflicting disasters, and return when everything runs again.

        Raises:
            Exception: a disaster could not be inflicted or repaired.
        """
        self._stopping.set()
        for task in tuple(self._running):
            task.result()

    @property
    def kills(self) -> int:
        return sum(entry["kills"] for entry in self.log)

    def counts(self) -> dict[str, int]:
        """Return the number of disasters, by name."""
        return dict(Counter(entry["name"] for entry in self.log))

    def check(self) -> None:
        """Raise the error of a disaster that failed."""
        for task in tuple(self._running):
            if task.done():
                task.result()

    # ------------------------------------------------ threads

    def _disturb_processes(self) -> None:
        for disaster in disasters(PROCESSES, PAUSE_OF[PROCESSES], seed=self._seed):
            if self._stopping.wait(disaster.after_sec):
                return
            slot = self._free_slot(disaster)
            if slot is not None:
                self._running.append(self._pool.submit(self._hit_process, disaster, slot))

    def _disturb_servers(self, kinds: tuple[Kind, ...]) -> None:
        for disaster in disasters(kinds, PAUSE_OF[kinds], seed=self._seed):
            if self._stopping.wait(disaster.after_sec):
                return
            self._hit_server(disaster)

    def _disturb_calmly(self) -> None:
        processes, bus, store = (
            disasters(kinds, CALM_PAUSE, seed=self._seed) for kinds in (PROCESSES, BUS, STORE)
        )
        for disaster in chain.from_iterable(zip(processes, bus, processes, store, strict=False)):
            if self._stopping.wait(disaster.after_sec):
                return
            if disaster.kind not in PROCESSES:
                self._hit_server(disaster)
            elif (slot := self._free_slot(disaster)) is not None:
                self._hit_process(disaster, slot)

    def _free_slot(self, disaster: Disaster) -> ProcessSlot | None:
        """Return a process to hit, locked; None if all candidates are busy."""
        slots = self._cluster.slots_of(disaster.kind.target)
        first = disaster.choice % len(slots)
        return next(
            (slot for slot in slots[first:] + slots[:first] if slot.lock.acquire(blocking=False)),
            None,
        )

    def _supervise(self) -> None:
        while not self._stopping.wait(POLL_SEC):
            for slot in self._cluster.slots:
                slot.restart_if_ended()

    def _note(self, kind: Kind, target: str, began: float, **more: Any) -> None:
        entry = {
            "at": began,
            "until": time.time(),
            "name": kind.name,
            "target": target,
            "kills": kind.kills,
            **more,
        }
        self.log.append(entry)
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    # ------------------------------------------------ processes

    def _hit_process(self, disaster: Disaster, slot: ProcessSlot) -> None:
        began, pid, more = time.time(), slot.pid, {}
        try:
            match disaster.kind.action:
                case "killed":
                    slot.kill()
                    self._stopping.wait(disaster.for_sec)
                    slot.start()
                case "restarted":
                    more["status"] = slot.stop()
                    slot.start()
                case "put ahead" | "put back" as direction:
                    more["status"] = slot.stop()
                    shift = SHIFTS[direction]
                    slot.clock_ahead_sec = 0.0 if slot.clock_ahead_sec == shift else shift
                    slot.start()
                case "suspended":
                    slot.suspend()
                    self._stopping.wait(disaster.for_sec)
                    slot.resume()
        finally:
            slot.lock.release()
        self._note(disaster.kind, slot.name, began, pid=pid, **more)

    # ------------------------------------------------ servers

    def _hit_server(self, disaster: Disaster) -> None:
        match disaster.kind.target:
            case "broker":
                self._hit_broker(disaster)
            case "topic":
                self._hit_topic(disaster)
            case "bus link":
                self._hit_link(disaster, self._cluster.bus_link, "the broker's")
            case "store link":
                number = disaster.choice % len(self._cluster.store_links)
                self._hit_link(disaster, self._cluster.store_links[number], f"member {number}'s")
            case _:
                self._hit_member(disaster)

    def _hit_broker(self, disaster: Disaster) -> None:
        kafka, began = self._cluster.kafka, time.time()
        match disaster.kind.action:
            case "killed":
                kafka.kill()
                self._stopping.wait(disaster.for_sec)
                kafka.start_again()
            case "restarted":
                kafka.restart(down_sec=disaster.for_sec)
            case "suspended":
                kafka.suspend()
                self._stopping.wait(disaster.for_sec)
                kafka.resume()
        self._note(disaster.kind, "broker", began, back=time.time())

    def _hit_topic(self, disaster: Disaster) -> None:
        topics, began = self._cluster.topics(), time.time()
        topic = topics[disaster.choice % len(topics)]
        asyncio.run(_delete(self._cluster.kafka.address, topic))
        self._note(disaster.kind, topic, began, back=time.time())

    def _hit_member(self, disaster: Disaster) -> None:
        primary = self._cluster.mongo.primary()
        others = [member for member in self._cluster.mongo.members if member is not primary]
        member = (
            primary if disaster.kind.target == "primary" else others[disaster.choice % len(others)]
        )
        name = f"member {self._cluster.mongo.members.index(member)}"
        began = time.time()
        match disaster.kind.action:
            case "killed":
                member.kill()
                self._stopping.wait(disaster.for_sec)
                member.start()
            case "suspended":
                member.process.suspend()
                self._stopping.wait(disaster.for_sec)
                member.process.resume()
            case "stepped down":
                # It is refused while the secondaries lag, and it closes its own connection.
                with suppress(PyMongoError):
                    member.command({"replSetStepDown": 10, "secondaryCatchUpPeriodSecs": 5})
        back = time.time()
        self._wait_until_all_members_serve()
        self._note(disaster.kind, name, began, back=back)

    def _wait_until_all_members_serve(self) -> None:
        """Return when the replica set has a primary and all other members are secondaries."""
        primary = self._cluster.mongo.primary()
        primary.wait_until(lambda: all(map(_serves, self._cluster.mongo.members)))

    def _hit_link(self, disaster: Disaster, link: Link, whose: str) -> None:
        began = time.time()
        link.behave(BAD_LINKS[disaster.kind.action])
        try:
            self._stopping.wait(disaster.for_sec)
        finally:
            link.behave(CLEAR)
        back = time.time()
        if link is not self._cluster.bus_link:
            self._wait_until_all_members_serve()
        self._note(disaster.kind, whose, began, back=back)


async def _delete(kafka: str, topic: str) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await client.start()
    try:
        await client.delete_topics([topic])
    finally:
        await client.close()


def _serves(member: Mongod) -> bool:
    hello = member.command({"hello": 1})
    return bool(hello.get("isWritablePrimary") or hello.get("secondary"))
