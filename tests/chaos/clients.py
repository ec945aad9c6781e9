"""The load, a process of its own: ``python -m tests.chaos.clients CONFIG LEDGERS --seed N
--nodes-per-sec N``, until SIGTERM.

Flows are submitted at a constant rate, and each is followed to its end. What is asked and what is
answered is written down, so a client that was killed goes on where it was: it asks again for
whatever it has no answer to.
"""

import argparse
import random
import signal
import traceback
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

from flowkit import Client, TaskView
from flowkit.config import CommonConfig
from flowkit.errors import BusUnavailable, StoreUnavailable, TaskRefused
from tests.chaos.flows import Flow, choose, make
from tests.chaos.ledger import Ledger, Line, read_ledgers

CLIENTS = "client"
MOST_AT_A_TIME = 120
PAUSE_SEC = 0.3

T = TypeVar("T")


@dataclass(frozen=True)
class Submission:
    """What is to be submitted, under the same names each time it is tried."""

    id: str
    flow_name: str
    number: int
    by_key: bool
    twice: bool

    @property
    def flow(self) -> Flow:
        return make(self.flow_name, self.number)

    @property
    def arguments(self) -> dict[str, Any]:
        named = {"idempotency_key" if self.by_key else "task_id": self.id}
        return {"graph": self.flow.graph, "labels": {"submission": self.id}, **named}


class Clients:
    """Submits, follows, and writes down what it was told."""

    def __init__(
        self, client: Client, ledger: Ledger, chance: random.Random, *, nodes_per_sec: float
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._chance = chance
        self._nodes_per_sec = nodes_per_sec
        self._room = anyio.Semaphore(MOST_AT_A_TIME)

    async def submit_all_the_time(self, group: TaskGroup) -> None:
        chance = self._chance
        while True:
            name, number = choose(chance)
            one = Submission(
                uuid.uuid4().hex,
                name,
                number,
                by_key=chance.random() < 0.3,
                twice=chance.random() < 0.1,
            )
            self._ledger.write(
                "submitting",
                submission=one.id,
                flow=name,
                number=number,
                by_key=one.by_key,
                twice=one.twice,
                verb=one.flow.verb,
            )
            await self._room.acquire()
            group.start_soon(self._follow, one)
            await anyio.sleep(one.flow.size / self._nodes_per_sec)

    def go_on(self, group: TaskGroup, submissions: list[Submission]) -> None:
        """Follow those that a client before this one left."""
        for one in submissions:
            group.start_soon(self._follow, one, False)

    async def _follow(self, one: Submission, holds_room: bool = True) -> None:
        try:
            await self._to_the_end(one)
        except Exception:
            self._ledger.write("unexpected", submission=one.id, error=traceback.format_exc())
        finally:
            if holds_room:
                self._room.release()

    async def _to_the_end(self, one: Submission) -> None:
        client, flow = self._client, one.flow
        answers: list[str] = []

        async def submit() -> None:
            answers.append(await self._patiently(lambda: client.create_task(**one.arguments)))

        async with anyio.create_task_group() as group:
            for _ in range(1 + one.twice):
                group.start_soon(submit)
        task_id = answers[0]
        self._ledger.write("submitted", submission=one.id, task=task_id, answers=answers)
        match flow.verb:
            case "cancel":
                await anyio.sleep(self._chance.uniform(0.0, 2.5))
                await self._ask(one, task_id, "cancel", lambda: client.cancel(task_id, "enough"))
            case "pause":
                await self._ask(one, task_id, "pause", lambda: client.pause(task_id))
                await anyio.sleep(self._chance.uniform(0.5, 3.0))
                await self._ask(one, task_id, "resume", lambda: client.resume(task_id))
        view = await self._patiently(lambda: client.wait(task_id))
        if flow.verb == "retry" and view.status == "failed":
            await self._ask(one, task_id, "retry", lambda: client.retry(task_id))
            view = await self._patiently(lambda: client.wait(task_id))
        self._ledger.write("told", submission=one.id, task=task_id, view=told(view))

    async def _ask(
        self, one: Submission, task_id: str, verb: str, call: Callable[[], Awaitable[None]]
    ) -> None:
        self._ledger.write("asking", submission=one.id, task=task_id, verb=verb)
        try:
            await self._patiently(call)
        except TaskRefused:
            if verb != "retry":
                raise
            # It took effect before: that this client, or the one before it, was not told does not
            # undo it.
        self._ledger.write("answered", submission=one.id, task=task_id, verb=verb)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except (StoreUnavailable, BusUnavailable) as error:
                self._ledger.write("unavailable", error=str(error)[:300])
                await anyio.sleep(PAUSE_SEC)


def told(view: TaskView) -> dict[str, Any]:
    """What is compared of a task."""
    return {
        "status": str(view.status),
        "vars": view.vars,
        "result": view.result,
        "nodes": {
            node.node_id: [str(node.status), node.result, node.metrics]
            for node in view.nodes.values()
        },
    }


def submissions_of(lines: list[Line]) -> dict[str, Submission]:
    """All that clients meant to submit."""
    return {
        line["submission"]: Submission(
            line["submission"],
            line["flow"],
            line["number"],
            by_key=line["by_key"],
            twice=line["twice"],
        )
        for line in lines
        if line["what"] == "submitting"
    }


def unfinished(lines: list[Line]) -> list[Submission]:
    """Those whose client has not been told their end."""
    ended = {line["submission"] for line in lines if line["what"] in ("told", "unexpected")}
    return [one for one in submissions_of(lines).values() if one.id not in ended]


async def main(config: Path, ledgers: Path, *, seed: int, nodes_per_sec: float) -> None:
    lines = read_ledgers(ledgers, CLIENTS)
    left = unfinished(lines)
    # A client that follows another is not to submit the same flows again.
    chance = random.Random(f"{seed} {len(lines)}")
    ledger = Ledger(ledgers, CLIENTS)
    client = Client(cfg=CommonConfig.load(config))
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        ledger.write("listening")
        while True:
            try:
                await client.start()
                break
            except (StoreUnavailable, BusUnavailable) as error:
                ledger.write("unavailable", error=str(error)[:300])
                await anyio.sleep(PAUSE_SEC)
        async with client, anyio.create_task_group() as following:
            clients = Clients(client, ledger, chance, nodes_per_sec=nodes_per_sec)
            clients.go_on(following, left)
            with anyio.CancelScope() as submitting:
                async with anyio.create_task_group() as group:
                    group.start_soon(clients.submit_all_the_time, following)
                    async for _ in signals:
                        submitting.cancel()
        ledger.write("done")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("ledgers", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--nodes-per-sec", type=float, required=True)
    arguments = parser.parse_args()
    anyio.run(
        lambda: main(
            arguments.config,
            arguments.ledgers,
            seed=arguments.seed,
            nodes_per_sec=arguments.nodes_per_sec,
        )
    )
