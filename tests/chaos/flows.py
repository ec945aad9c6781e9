"""Flows for chaos runs. The same name and number always give the same flow."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.builders import graph, node

# Lost workers use up attempts, so nodes that are expected to finish have many.
PATIENT = {"max": 60, "backoff_sec": 0.2, "multiplier": 1.5, "max_backoff_sec": 2.0}
SHARE_OF_LONG_NODES = 0.12


@dataclass(frozen=True)
class Flow:
    """A graph and its expected outcome."""

    graph: dict[str, Any]
    ends: frozenset[str] = frozenset({"finished"})
    """Allowed final statuses, if no client cancels the task."""
    sums: dict[str, tuple[int, int]] | None = None
    """Number of batches and sum of their values, by id of each node with batches."""
    increments: int | None = None
    """Number of nodes that add one to ``vars.count``."""
    verb: str | None = None
    """Verb that its client calls: ``cancel``, ``pause`` (then ``resume``) or ``retry``."""

    @property
    def size(self) -> int:
        return len(self.graph["nodes"])

    def most_attempts(self, node_id: str) -> int:
        """Return the number of attempts that the retry policy allows a node."""
        policy = next(each for each in self.graph["nodes"] if each["node_id"] == node_id).get(
            "retry_policy", {}
        )
        return 1 + int(policy.get("max", 2))


def _item(chance: random.Random, **fields: Any) -> dict[str, Any]:
    seconds = (
        chance.uniform(1.0, 3.0)
        if chance.random() < SHARE_OF_LONG_NODES
        else chance.uniform(0.0, 0.3)
    )
    return {
        "input_inline": {"seconds": round(seconds, 3), "value": chance.randint(0, 1000), **fields}
    }


def _work(chance: random.Random, node_id: str, *after: str, **fields: Any) -> dict[str, Any]:
    role = "block" if chance.random() < 0.1 else "work"
    return node(node_id, role, *after, io=_item(chance, **fields), retry_policy=PATIENT)


def _chain(chance: random.Random, length: int, **fields: Any) -> dict[str, Any]:
    return graph(
        *(
            _work(chance, f"n{number}", *([f"n{number - 1}"] if number else []), **fields)
            for number in range(length)
        )
    )


def chain(chance: random.Random) -> Flow:
    return Flow(_chain(chance, chance.randint(3, 8)))


def fan(chance: random.Random) -> Flow:
    branches = [_work(chance, f"b{number}", "first") for number in range(chance.randint(6, 24))]
    return Flow(
        graph(
            _work(chance, "first"),
            *branches,
            _work(chance, "last", *(branch["node_id"] for branch in branches)),
        )
    )


def stream(chance: random.Random) -> Flow:
    """Return a flow with streams.

    Two nodes read the batches of the source while it produces them; a third reads the batches of
    one of the two after it has finished.
    """
    values = [chance.randint(0, 1000) for _ in range(chance.randint(5, 25))]
    item = {"values": values, "seconds": round(chance.uniform(0.01, 0.08), 3)}
    pull: dict[str, Any] = {"input_inline": {"input_adapter": "pull.from_artifacts"}}
    readers = {"input_inline": pull["input_inline"], "start_when": "first_batch"}
    nodes = [
        node("source", "produce", io={"input_inline": item}, retry_policy=PATIENT),
        node("left", "consume", "source", io=readers, retry_policy=PATIENT),
        node("right", "consume", "source", io=readers, retry_policy=PATIENT),
        node("below", "consume", "left", io=pull, retry_policy=PATIENT),
    ]
    return Flow(graph(*nodes), sums={each["node_id"]: (len(values), sum(values)) for each in nodes})


def flaky(chance: random.Random) -> Flow:
    """Return a flow whose middle nodes fail once or twice."""
    middle = [
        _work(chance, f"m{number}", "first", fails=chance.randint(1, 2)) for number in range(3)
    ]
    return Flow(graph(_work(chance, "first"), *middle, _work(chance, "last", "m0", "m1", "m2")))


def counted(chance: random.Random) -> Flow:
    """Return a flow with coordinator functions, each of which must take effect once."""
    nodes: list[dict[str, Any]] = []
    last: tuple[str, ...] = ()
    increments = chance.randint(2, 5)
    for number in range(increments):
        io = {"fn": "vars.incr", "fn_args": {"key": "count"}}
        nodes += [
            _work(chance, f"w{number}", *last),
            node(f"c{number}", "coordinator_fn", f"w{number}", io=io, retry_policy=PATIENT),
        ]
        last = (f"c{number}",)
    return Flow(graph(*nodes), increments=increments)


def hopeless(chance: random.Random) -> Flow:
    """Return a flow that fails after all allowed attempts."""
    item = {"input_inline": {"seconds": 0.05, "value": 1, "fails": 1000}}
    policy = {"max": chance.randint(0, 3), "backoff_sec": 0.1}
    return Flow(
        graph(_work(chance, "first"), node("never", "work", "first", io=item, retry_policy=policy)),
        ends=frozenset({"failed"}),
    )


def repaired(chance: random.Random) -> Flow:
    """Return a flow that fails permanently at its first attempt; its client retries it."""
    nodes = [
        _work(chance, "first"),
        _work(chance, "broken", "first", fails=1, permanent=True),
        _work(chance, "last", "broken"),
    ]
    return Flow(graph(*nodes), ends=frozenset({"finished", "failed"}), verb="retry")


def cancelled(chance: random.Random) -> Flow:
    flow = chance.choice([chain, fan, stream])(chance)
    return Flow(flow.graph, sums=flow.sums, verb="cancel")


def paused(chance: random.Random) -> Flow:
    return Flow(_chain(chance, chance.randint(3, 6)), verb="pause")


_KINDS: dict[str, tuple[Callable[[random.Random], Flow], float]] = {
    "chain": (chain, 30),
    "fan": (fan, 20),
    "stream": (stream, 15),
    "flaky": (flaky, 8),
    "counted": (counted, 8),
    "hopeless": (hopeless, 4),
    "repaired": (repaired, 4),
    "cancelled": (cancelled, 7),
    "paused": (paused, 4),
}


def choose(chance: random.Random) -> tuple[str, int]:
    """The name and number of a flow."""
    names = list(_KINDS)
    return chance.choices(names, weights=[_KINDS[name][1] for name in names])[
        0
    ], chance.getrandbits(32)


def make(name: str, number: int) -> Flow:
    return _KINDS[name][0](random.Random(number))
