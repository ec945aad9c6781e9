"""Carries disasters out, and writes down what it did."""

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

from tests.chaos.cluster import Cluster, Post
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

LOOK_SEC = 0.5
SHIFTS = {"put ahead": 40 * DAY_SEC, "put back": -40 * DAY_SEC}
"""How far the wall clock of a process is ahead after such a disaster. The same disaster puts it
right again.
"""
BAD_LINKS = {
    "slowed": Behaviour(delay_sec=0.15),
    "narrowed": Behaviour(bytes_per_sec=40_000),
    "cut": Behaviour(cut=True),
    "half open": Behaviour(swallow=True),
}


class Monkey:
    """Works in threads between entering and :meth:`stop`, which mends everything. ``calm`` is one
    disaster after another.
    """

    def __init__(self, cluster: Cluster, *, seed: int, calm: bool = False) -> None:
        self._cluster = cluster
        self._seed = seed
        at_once = [
            self._disturb_processes,
            partial(self._disturb_servers, BUS),
            partial(self._disturb_servers, STORE),
        ]
        self._works = [self._look_after, *([self._disturb_calmly] if calm else at_once)]
        self._enough = threading.Event()
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="monkey")
        self._running: list[Future[None]] = []
        self.log: list[dict[str, Any]] = []
        """One entry per disaster: ``at``, ``until``, ``name``, ``target``, and what else there is
        to say of it.
        """
        self._file = (cluster.folder / "monkey.jsonl").open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        self._running += [self._pool.submit(work) for work in self._works]
        return self

    def __exit__(self, *exc: object) -> None:
        self._enough.set()
        self._pool.shutdown()
        self._file.close()

    def stop(self) -> None:
        """Disturb nothing any more, and return when everything runs again.

        Raises:
            Exception: what kept a disaster from being carried out or mended.
        """
        self._enough.set()
        for task in tuple(self._running):
            task.result()

    @property
    def kills(self) -> int:
        return sum(entry["kills"] for entry in self.log)

    def counts(self) -> dict[str, int]:
        """How many disasters there were, by name."""
        return dict(Counter(entry["name"] for entry in self.log))

    def check(self) -> None:
        """Raise what went wrong with a disaster."""
        for task in tuple(self._running):
            if task.done():
                task.result()

    # ------------------------------------------------ what goes on

    def _disturb_processes(self) -> None:
        for disaster in disasters(PROCESSES, PAUSE_OF[PROCESSES], seed=self._seed):
            if self._enough.wait(disaster.after_sec):
                return
            post = self._free_post(disaster)
            if post is not None:
                self._running.append(self._pool.submit(self._to_post, disaster, post))

    def _disturb_servers(self, kinds: tuple[Kind, ...]) -> None:
        for disaster in disasters(kinds, PAUSE_OF[kinds], seed=self._seed):
            if self._enough.wait(disaster.after_sec):
                return
            self._to_server(disaster)

    def _disturb_calmly(self) -> None:
        processes, bus, store = (
            disasters(kinds, CALM_PAUSE, seed=self._seed) for kinds in (PROCESSES, BUS, STORE)
        )
        for disaster in chain.from_iterable(zip(processes, bus, processes, store, strict=False)):
            if self._enough.wait(disaster.after_sec):
                return
            if disaster.kind not in PROCESSES:
                self._to_server(disaster)
            elif (post := self._free_post(disaster)) is not None:
                self._to_post(disaster, post)

    def _free_post(self, disaster: Disaster) -> Post | None:
        """The process to be hit, locked; None if something is being done to each that could be."""
        posts = self._cluster.posts_of(disaster.kind.target)
        first = disaster.choice % len(posts)
        return next(
            (post for post in posts[first:] + posts[:first] if post.lock.acquire(blocking=False)),
            None,
        )

    def _look_after(self) -> None:
        while not self._enough.wait(LOOK_SEC):
            for post in self._cluster.posts:
                post.look_after()

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

    def _to_post(self, disaster: Disaster, post: Post) -> None:
        began, pid, more = time.time(), post.pid, {}
        try:
            match disaster.kind.action:
                case "killed":
                    post.kill()
                    self._enough.wait(disaster.for_sec)
                    post.start()
                case "restarted":
                    more["status"] = post.stop()
                    post.start()
                case "put ahead" | "put back" as direction:
                    more["status"] = post.stop()
                    shift = SHIFTS[direction]
                    post.clock_ahead_sec = 0.0 if post.clock_ahead_sec == shift else shift
                    post.start()
                case "suspended":
                    post.suspend()
                    self._enough.wait(disaster.for_sec)
                    post.resume()
        finally:
            post.lock.release()
        self._note(disaster.kind, post.name, began, pid=pid, **more)

    # ------------------------------------------------ servers

    def _to_server(self, disaster: Disaster) -> None:
        match disaster.kind.target:
            case "broker":
                self._to_broker(disaster)
            case "topic":
                self._to_topic(disaster)
            case "bus link":
                self._to_link(disaster, self._cluster.bus_link, "the broker's")
            case "store link":
                number = disaster.choice % len(self._cluster.store_links)
                self._to_link(disaster, self._cluster.store_links[number], f"member {number}'s")
            case _:
                self._to_member(disaster)

    def _to_broker(self, disaster: Disaster) -> None:
        kafka, began = self._cluster.kafka, time.time()
        match disaster.kind.action:
            case "killed":
                kafka.kill()
                self._enough.wait(disaster.for_sec)
                kafka.start_again()
            case "restarted":
                kafka.restart(down_sec=disaster.for_sec)
            case "suspended":
                kafka.suspend()
                self._enough.wait(disaster.for_sec)
                kafka.resume()
        self._note(disaster.kind, "broker", began, back=time.time())

    def _to_topic(self, disaster: Disaster) -> None:
        topics, began = self._cluster.topics(), time.time()
        topic = topics[disaster.choice % len(topics)]
        asyncio.run(_delete(self._cluster.kafka.address, topic))
        self._note(disaster.kind, topic, began, back=time.time())

    def _to_member(self, disaster: Disaster) -> None:
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
                self._enough.wait(disaster.for_sec)
                member.start()
            case "suspended":
                member.process.suspend()
                self._enough.wait(disaster.for_sec)
                member.process.resume()
            case "stepped down":
                # Refused while the others lag behind, and cut off by the change of office itself.
                with suppress(PyMongoError):
                    member.command({"replSetStepDown": 10, "secondaryCatchUpPeriodSecs": 5})
        back = time.time()
        self._until_whole()
        self._note(disaster.kind, name, began, back=back)

    def _until_whole(self) -> None:
        """Return when the set has a primary, and every other member follows it."""
        primary = self._cluster.mongo.primary()
        primary.wait_until(lambda: all(map(_serves, self._cluster.mongo.members)))

    def _to_link(self, disaster: Disaster, link: Link, whose: str) -> None:
        began = time.time()
        link.behave(BAD_LINKS[disaster.kind.action])
        try:
            self._enough.wait(disaster.for_sec)
        finally:
            link.behave(CLEAR)
        back = time.time()
        if link is not self._cluster.bus_link:
            self._until_whole()
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
