"""The flows that are submitted under chaos. A name and a number make the same flow wherever they
are looked up.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.services.support import graph, node

# Lost workers use attempts up, so whatever is to finish has plenty.
PATIENT = {"max": 60, "backoff_sec": 0.2, "multiplier": 1.5, "max_backoff_sec": 2.0}
SHARE_OF_LONG_NODES = 0.12


@dataclass(frozen=True)
class Flow:
    """A graph, and what is to become of it."""

    graph: dict[str, Any]
    ends: frozenset[str] = frozenset({"finished"})
    """In which statuses it may end where nobody cancels it."""
    sums: dict[str, tuple[int, int]] | None = None
    """Per node with batches: how many there are, and the sum of their values."""
    increments: int | None = None
    """How often its nodes add one to ``vars.count``."""
    verb: str | None = None
    """What its client does with it besides waiting: ``cancel``, ``pause`` (and ``resume``),
    ``retry``.
    """

    @property
    def size(self) -> int:
        return len(self.graph["nodes"])

    def most_attempts(self, node_id: str) -> int:
        """How many attempts the policy allows a node."""
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
    """One node's batches are read by two others while it makes them, and those of one of them by a
    third afterwards.
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
    """Its middle fails a few times."""
    middle = [
        _work(chance, f"m{number}", "first", fails=chance.randint(1, 2)) for number in range(3)
    ]
    return Flow(graph(_work(chance, "first"), *middle, _work(chance, "last", "m0", "m1", "m2")))


def counted(chance: random.Random) -> Flow:
    """Functions of the coordinator, each of which is to take effect once."""
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
    """Fails for good, after exactly as many attempts as it may have."""
    item = {"input_inline": {"seconds": 0.05, "value": 1, "fails": 1000}}
    policy = {"max": chance.randint(0, 3), "backoff_sec": 0.1}
    return Flow(
        graph(_work(chance, "first"), node("never", "work", "first", io=item, retry_policy=policy)),
        ends=frozenset({"failed"}),
    )


def mended(chance: random.Random) -> Flow:
    """Fails for good at its first attempt; its client has it retried."""
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
    "mended": (mended, 4),
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
