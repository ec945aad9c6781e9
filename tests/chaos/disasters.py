"""The disasters of a seed: which, to which target, for how long, and how soon after the one
before.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A way in which something goes wrong."""

    target: str
    """``worker``, ``coordinator``, ``client``; ``broker``, ``topic``, ``primary``, ``secondary``;
    ``bus link``, ``store link``.
    """
    action: str
    times: int
    """Times that it happens in a round."""
    seconds: tuple[float, float]
    """How long it lasts: until a killed process is started again, a stopped one goes on, a link is
    mended.
    """

    @property
    def name(self) -> str:
        return f"{self.target} {self.action}"

    @property
    def kills(self) -> bool:
        """Whether a process gets a SIGKILL."""
        return self.action == "killed"


# Longer than a lease, an election, or Kafka's patience with a member: the others have gone on when
# it comes back.
LONG = (3.0, 10.0)
SOON = (0.0, 4.0)
AT_ONCE = (0.0, 0.0)

PROCESSES = (
    Kind("worker", "killed", 14, SOON),
    Kind("coordinator", "killed", 9, SOON),
    Kind("client", "killed", 1, (0.0, 2.0)),
    Kind("worker", "suspended", 2, LONG),
    Kind("coordinator", "suspended", 1, LONG),
    Kind("worker", "restarted", 1, AT_ONCE),
    Kind("coordinator", "restarted", 1, AT_ONCE),
    Kind("worker", "put ahead", 1, AT_ONCE),
    Kind("worker", "put back", 1, AT_ONCE),
    Kind("coordinator", "put ahead", 1, AT_ONCE),
    Kind("coordinator", "put back", 1, AT_ONCE),
)
"""Any number of these may be hit at a time: work stops while none is left, and goes on when one is
back.
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
"""One at a time, also while the store is in trouble."""

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
"""One at a time: the replica set promises to survive the loss of one member."""

PAUSE_OF = {PROCESSES: (1.4, 3.6), BUS: (1.5, 5.0), STORE: (1.5, 5.0)}
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
    """Which target of its kind is hit: the number of the first that is considered."""


def disasters(
    kinds: Sequence[Kind], pause: tuple[float, float], *, seed: int
) -> Iterator[Disaster]:
    """Generate disasters without end, the same for the same seed.

    They come in rounds. A round holds each kind as often as its ``times`` says, in random order: so
    a short run meets every kind as well.
    """
    chance = random.Random(f"{seed} {kinds[0].target}")
    deck = [kind for kind in kinds for _ in range(kind.times)]
    while True:
        for kind in chance.sample(deck, len(deck)):
            yield Disaster(
                kind, chance.uniform(*pause), chance.uniform(*kind.seconds), chance.randrange(1000)
            )
