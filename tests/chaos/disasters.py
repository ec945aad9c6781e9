"""Random disasters from a seed: kind, target, duration, and pause before each."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of disaster."""

    target: str
    """``worker``, ``coordinator``, ``client``; ``broker``, ``topic``, ``primary``, ``secondary``;
    ``bus link``, ``store link``.
    """
    action: str
    times: int
    """Occurrences in each round."""
    seconds: tuple[float, float]
    """Bounds of the duration: until a killed process is restarted, a suspended one is resumed, or a
    link works again.
    """

    @property
    def name(self) -> str:
        return f"{self.target} {self.action}"

    @property
    def kills(self) -> bool:
        """Whether a process gets a SIGKILL."""
        return self.action == "killed"


# Longer than a lease, an election or a Kafka session timeout: others have taken over when the
# process comes back.
LONG = (3.0, 10.0)
SOON = (0.0, 4.0)
AT_ONCE = (0.0, 0.0)

PROCESSES = (
    Kind("worker", "killed", 8, SOON),
    Kind("coordinator", "killed", 5, SOON),
    Kind("client", "killed", 1, (0.0, 2.0)),
    Kind("worker", "suspended", 1, LONG),
    Kind("coordinator", "suspended", 1, LONG),
    Kind("worker", "restarted", 1, AT_ONCE),
    Kind("coordinator", "restarted", 1, AT_ONCE),
    Kind("worker", "put ahead", 1, AT_ONCE),
    Kind("worker", "put back", 1, AT_ONCE),
    Kind("coordinator", "put ahead", 1, AT_ONCE),
    Kind("coordinator", "put back", 1, AT_ONCE),
)
"""Disasters of processes. Any number may happen at once: while no process of a kind is left, work
pauses until one is back.
"""

BUS = (
    Kind("broker", "killed", 2, (0.0, 3.0)),
    Kind("broker", "restarted", 1, (0.0, 1.0)),
    Kind("broker", "suspended", 1, (1.0, 8.0)),
    Kind("topic", "deleted", 2, AT_ONCE),
    Kind("bus link", "slowed", 1, (2.0, 6.0)),
    Kind("bus link", "narrowed", 1, (2.0, 6.0)),
    Kind("bus link", "cut", 1, (0.0, 5.0)),
    Kind("bus link", "half open", 1, (1.0, 6.0)),
)
"""Disasters of the bus: one at a time, also during a disaster of the store."""

STORE = (
    Kind("primary", "killed", 2, SOON),
    Kind("primary", "suspended", 1, (3.0, 8.0)),
    Kind("primary", "stepped down", 1, AT_ONCE),
    Kind("secondary", "killed", 2, SOON),
    Kind("store link", "slowed", 1, (2.0, 6.0)),
    Kind("store link", "narrowed", 1, (2.0, 6.0)),
    Kind("store link", "cut", 1, (0.0, 5.0)),
    Kind("store link", "half open", 1, (1.0, 6.0)),
)
"""Disasters of the store: one at a time, as the replica set survives the loss of one member."""

PAUSE_OF = {PROCESSES: (1.4, 3.6), BUS: (1.5, 5.0), STORE: (1.5, 5.0)}
"""Bounds of the pause in seconds: for processes from start to start, for servers from the end of a
disaster to the next start.
"""
CALM_PAUSE = (6.0, 9.0)
"""Bounds of the pause in a calm run: usually long enough for everything to recover."""


@dataclass(frozen=True, slots=True)
class Disaster:
    """One disaster, drawn from the seed."""

    kind: Kind
    after_sec: float
    for_sec: float
    choice: int
    """Number of the first candidate among the targets of this kind."""


def disasters(
    kinds: Sequence[Kind], pause: tuple[float, float], *, seed: int
) -> Iterator[Disaster]:
    """Generate disasters without end, the same for the same seed.

    They come in rounds. A round holds each kind ``times`` times, in random order, so that a short
    run meets every kind.
    """
    chance = random.Random(f"{seed} {kinds[0].target}")
    deck = [kind for kind in kinds for _ in range(kind.times)]
    while True:
        for kind in chance.sample(deck, len(deck)):
            yield Disaster(
                kind, chance.uniform(*pause), chance.uniform(*kind.seconds), chance.randrange(1000)
            )
