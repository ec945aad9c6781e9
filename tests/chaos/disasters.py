"""What the monkey does, drawn from a seed: which disaster, to whom, for how long, and how soon after the one before."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A way in which something goes wrong."""

    target: str
    """``worker``, ``coordinator``, ``client``; ``broker``, ``topic``, ``primary``, ``secondary``; ``bus link``, ``store link``."""
    action: str
    weight: float
    seconds: tuple[float, float]
    """How long it lasts: until a killed process is started again, a stopped one goes on, a link is mended."""

    @property
    def name(self) -> str:
        return f"{self.target} {self.action}"

    @property
    def kills(self) -> bool:
        """Whether a process gets a SIGKILL."""
        return self.action == "killed"


# Longer than a lease, an election, or Kafka's patience with a member: the others have gone on when it comes back.
LONG = (3.0, 10.0)
SOON = (0.0, 4.0)

PROCESSES = (
    Kind("worker", "killed", 30, SOON),
    Kind("coordinator", "killed", 18, SOON),
    Kind("client", "killed", 3, (0.0, 2.0)),
    Kind("worker", "suspended", 5, LONG),
    Kind("coordinator", "suspended", 4, LONG),
    Kind("worker", "restarted", 3, (0.0, 0.0)),
    Kind("coordinator", "restarted", 2, (0.0, 0.0)),
    Kind("worker", "put ahead", 3, (0.0, 0.0)),
)
"""Any number of these may be hit at a time: work stops while none is left, and goes on when one is back."""

SERVERS = (
    Kind("broker", "killed", 3, (0.0, 3.0)),
    Kind("broker", "restarted", 1, (0.0, 1.0)),
    Kind("broker", "suspended", 2, (1.0, 8.0)),
    Kind("topic", "deleted", 2, (0.0, 0.0)),
    Kind("primary", "killed", 5, SOON),
    Kind("primary", "suspended", 2, (3.0, 8.0)),
    Kind("primary", "stepped down", 3, (0.0, 0.0)),
    Kind("secondary", "killed", 4, SOON),
    Kind("bus link", "slowed", 2, (2.0, 6.0)),
    Kind("bus link", "narrowed", 1, (2.0, 6.0)),
    Kind("bus link", "cut", 2, (0.0, 5.0)),
    Kind("bus link", "half open", 2, (1.0, 6.0)),
    Kind("store link", "slowed", 2, (2.0, 6.0)),
    Kind("store link", "narrowed", 1, (2.0, 6.0)),
    Kind("store link", "cut", 2, (0.0, 5.0)),
    Kind("store link", "half open", 2, (1.0, 6.0)),
)
"""One at a time: the replica set promises to survive the loss of one member."""

PAUSE_OF = {PROCESSES: (1.4, 4.2), SERVERS: (2.0, 7.0)}
"""Seconds from one process's disaster to the next, and from the end of a server's to the next."""
CALM_PAUSE = (6.0, 9.0)
"""The same where one comes after another: until everything goes on again, mostly."""


@dataclass(frozen=True, slots=True)
class Disaster:
    """One of them."""

    kind: Kind
    after_sec: float
    for_sec: float
    choice: int
    """Which of those of its kind is hit: the number of the first that is considered."""


def disasters(kinds: Sequence[Kind], pause: tuple[float, float], *, seed: int) -> Iterator[Disaster]:
    """Without end, and the same for the same seed."""
    chance = random.Random(f"{seed} {kinds[0].target}")
    weights = [kind.weight for kind in kinds]
    while True:
        (kind,) = chance.choices(kinds, weights)
        yield Disaster(kind, chance.uniform(*pause), chance.uniform(*kind.seconds), chance.randrange(1000))
