"""What goes wrong in a simulation: how often and how badly, as values."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from random import Random


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities, expected numbers and largest values of everything that can go wrong.

    A probability is that of one request, a number ``…_per_run`` is expected in one seed. Everything
    happens within a first period, whose length each seed draws between ``period_min_sec`` and
    ``period_sec``; after it the cluster is left in peace.
    """

    period_sec: float = 120.0
    period_min_sec: float = 1.0
    varied: bool = False
    """Each seed has faults of its own: some kinds never, some as often as is said here, some more
    often.
    """

    # The bus
    publish_refused: float = 0.0
    """Nothing of a publish arrives, and it raises."""
    publish_unconfirmed: float = 0.0
    """All of it arrives, and it raises all the same."""
    publish_partial: float = 0.0
    """Some partitions get their messages, the others do not, and it raises."""
    publish_late: float = 0.0
    """It raises, and arrives seconds later."""
    duplicate: float = 0.0
    """What is published arrives twice."""
    delay: float = 0.0
    """A partition's messages are handed out late, after those of others that were published
    later.
    """
    delay_sec: float = 5.0
    broadcast_lost: float = 0.0
    """A message without a group is not delivered to a listener."""
    receive_fails: float = 0.0
    rebalances_per_run: float = 0.0
    """A group's partitions change hands; who had them learns it from nobody and goes on with what
    it has.
    """
    rewinds_per_run: float = 0.0
    """A group goes back behind what it has acknowledged."""
    tail_loss: float = 0.0
    """What was published is confirmed, and gone before anybody has read it."""
    bus_outages_per_run: float = 0.0
    bus_outage_sec: float = 30.0

    # The store
    read_fails: float = 0.0
    write_refused: float = 0.0
    """A write raises and is not applied."""
    write_unconfirmed: float = 0.0
    """A write raises and is applied."""
    write_late: float = 0.0
    """A write raises and is applied seconds later, if it still fits."""
    write_rolled_back: float = 0.0
    """A commit raises; for a moment it stands in the way of others, then it is gone."""
    conflict: float = 0.0
    """Somebody else commits just before."""
    slow: float = 0.0
    slow_sec: float = 5.0
    stale_read: float = 0.0
    """The newest of a stream is not seen yet, as on a server that has just taken over."""
    session_lost: float = 0.0
    """A worker's sign of life is confirmed, and lost."""
    store_outages_per_run: float = 0.0
    store_outage_sec: float = 30.0
    damaged_records: float = 0.0
    """So many tasks are expected in a seed whose stored record is damaged: each is put aside, and
    hinders no other.
    """

    # Clocks
    skew_sec: float = 0.0
    """How wrong a process's wall clock is at most when it starts."""
    jumps_per_run: float = 0.0
    jump_sec: float = 300.0

    # Processes
    crash: float = 0.0
    """A process dies at one of its first ``crash_steps`` steps, early ones more often."""
    crash_steps: int = 1500
    crash_at_start: float = 0.0
    """A worker dies as it begins to execute a node, before it can report anything of it."""
    kills_per_run: float = 0.0
    restart_sec: float = 30.0
    pauses_per_run: float = 0.0
    pause_sec: float = 180.0
    stops_per_run: float = 0.0
    """A worker or coordinator is stopped in order, and started again."""
    joins_per_run: float = 0.0
    """One more worker comes."""
    client_crash: float = 0.0
    """A client dies while it submits, and asks again with the same id."""

    @classmethod
    def of(cls, faults: "Faults | str | Iterable[str]") -> "Faults":
        """A profile's faults by its name, those of several together, or the faults themselves.

        Raises:
            ValueError: there is no such profile.
        """
        if isinstance(faults, Faults):
            return faults
        together = cls()
        for name in [faults] if isinstance(faults, str) else faults:
            if name not in PROFILES:
                raise ValueError(
                    f"there is no fault profile {name!r}; there are {', '.join(PROFILES)}"
                )
            together = together.with_(PROFILES[name])
        return together

    def with_(self, other: "Faults") -> "Faults":
        """Both together: of each fault the worse."""
        return replace(
            self,
            **{
                field.name: max(getattr(self, field.name), getattr(other, field.name))
                for field in fields(self)
            },
        )

    @property
    def any(self) -> bool:
        """Whether anything can go wrong."""
        calm = Faults()
        return any(
            getattr(self, name) != getattr(calm, name)
            for name in _PROBABILITIES + _NUMBERS + ("skew_sec", "damaged_records")
        )

    def drawn(self, chances: Random) -> "Faults":
        """Those of one seed: where many things go wrong all the time, none of them is seen by
        itself.
        """
        if not self.varied:
            return self
        odds = {
            name: min(0.5, getattr(self, name) * chances.choice(_FACTORS))
            for name in _PROBABILITIES
            if name != "crash"
        }
        numbers = {name: getattr(self, name) * chances.choice(_FACTORS) for name in _NUMBERS}
        return replace(
            self,
            **odds,
            **numbers,
            crash=chances.choice([0.0, self.crash]),
            skew_sec=chances.choice([0.0, 0.0, self.skew_sec]),
        )


_FACTORS = (0.0, 1.0, 1.0, 4.0)
_NUMBERS = tuple(field.name for field in fields(Faults) if field.name.endswith("_per_run"))
_PROBABILITIES = tuple(
    field.name
    for field in fields(Faults)
    if field.name not in _NUMBERS
    and not field.name.endswith(("_sec", "_steps"))
    and field.name not in ("varied", "damaged_records")
)

_BUS = Faults(
    publish_refused=0.04,
    publish_unconfirmed=0.04,
    publish_partial=0.04,
    publish_late=0.02,
    duplicate=0.08,
    delay=0.1,
    broadcast_lost=0.2,
    receive_fails=0.02,
    rebalances_per_run=2.0,
    rewinds_per_run=1.5,
    tail_loss=0.01,
    bus_outages_per_run=0.7,
)
_LOSSES = Faults(tail_loss=0.05)
_STORE = Faults(
    read_fails=0.02,
    write_refused=0.04,
    write_unconfirmed=0.05,
    write_late=0.03,
    write_rolled_back=0.02,
    conflict=0.06,
    slow=0.05,
    stale_read=0.05,
    session_lost=0.1,
    store_outages_per_run=0.7,
)
_CRASHES = Faults(crash=0.7, crash_at_start=0.05, kills_per_run=1.0, client_crash=0.3)
_PAUSES = Faults(pauses_per_run=2.0)
_CLOCKS = Faults(skew_sec=120.0, jumps_per_run=1.5)
_STAFF = Faults(stops_per_run=1.0, joins_per_run=0.5)
_DAMAGE = Faults(damaged_records=0.5)

PROFILES: dict[str, Faults] = {
    "none": Faults(),
    "bus": _BUS,
    "store": _STORE,
    "crashes": _CRASHES,
    "pauses": _PAUSES,
    "clocks": _CLOCKS,
    "staff": _STAFF,
    "losses": _LOSSES,
    "damage": _DAMAGE,
    "all": replace(
        _BUS.with_(_STORE)
        .with_(_CRASHES)
        .with_(_PAUSES)
        .with_(_CLOCKS)
        .with_(_STAFF)
        .with_(_LOSSES)
        .with_(_DAMAGE),
        varied=True,
    ),
}
"""The named profiles: ``all`` is the others together, varied from seed to seed."""
