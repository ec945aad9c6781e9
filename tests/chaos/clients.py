"""Load generator, which runs as its own process until SIGTERM.

``python -m tests.chaos.clients CONFIG LEDGERS --seed N --nodes-per-sec N`` submits flows at a
constant rate and follows each to its end. It writes each request and each answer to its ledger. A
client that replaces a killed one reads the ledger and repeats the requests without an answer.
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
    """One flow to submit. Every try uses the same task id or idempotency key."""

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
    """Submit flows, follow them, and write the answers to the ledger."""

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

    def resume(self, group: TaskGroup, submissions: list[Submission]) -> None:
        """Follow the submissions that an earlier client did not finish."""
        for one in submissions:
            group.start_soon(self._follow, one, False)

    async def _follow(self, one: Submission, holds_room: bool = True) -> None:
        try:
            await self._run_to_end(one)
        except Exception:
            self._ledger.write("unexpected", submission=one.id, error=traceback.format_exc())
        finally:
            if holds_room:
                self._room.release()

    async def _run_to_end(self, one: Submission) -> None:
        client, flow = self._client, one.flow
        answers: list[str] = []

        async def submit() -> None:
            answers.append(await self._retry_outages(lambda: client.create_task(**one.arguments)))

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
        view = await self._retry_outages(lambda: client.wait(task_id))
        if flow.verb == "retry" and view.status == "failed":
            await self._ask(one, task_id, "retry", lambda: client.retry(task_id))
            view = await self._retry_outages(lambda: client.wait(task_id))
        self._ledger.write("outcome", submission=one.id, task=task_id, view=outcome(view))

    async def _ask(
        self, one: Submission, task_id: str, verb: str, call: Callable[[], Awaitable[None]]
    ) -> None:
        self._ledger.write("asking", submission=one.id, task=task_id, verb=verb)
        try:
            await self._retry_outages(call)
        except TaskRefused:
            if verb != "retry":
                raise
            # An earlier call took effect, but its client died before it got the answer.
        self._ledger.write("answered", submission=one.id, task=task_id, verb=verb)

    async def _retry_outages(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except (StoreUnavailable, BusUnavailable) as error:
                self._ledger.write("unavailable", error=str(error)[:300])
                await anyio.sleep(PAUSE_SEC)


def outcome(view: TaskView) -> dict[str, Any]:
    """Return the part of a task that the checker compares."""
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
    """Return all submissions that clients tried, by id."""
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
    """Return the submissions whose end is not in the ledger."""
    ended = {line["submission"] for line in lines if line["what"] in ("outcome", "unexpected")}
    return [one for one in submissions_of(lines).values() if one.id not in ended]


async def main(config: Path, ledgers: Path, *, seed: int, nodes_per_sec: float) -> None:
    lines = read_ledgers(ledgers, CLIENTS)
    left = unfinished(lines)
    # The seed differs from that of the client before, so that this one submits other flows.
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
            clients.resume(following, left)
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
