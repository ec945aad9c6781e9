"""The faults of a simulation as values: how often and how badly each happens."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from random import Random


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities, expected numbers and largest values of all faults.

    A probability applies to one request. A number ``…_per_run`` is expected in one seed. All faults
    happen within a first period, whose length each seed draws between ``period_min_sec`` and
    ``period_sec``. After it there are no more faults.
    """

    period_sec: float = 120.0
    period_min_sec: float = 1.0
    varied: bool = False
    """If True, each seed draws its own faults: some kinds never, some as often as given, some more
    often.
    """

    # Bus faults
    publish_refused: float = 0.0
    """A publish request raises, and none of its messages arrive."""
    publish_unconfirmed: float = 0.0
    """A publish request raises, although all of its messages arrive."""
    publish_partial: float = 0.0
    """A publish request raises, and only some partitions get their messages."""
    publish_late: float = 0.0
    """A publish request raises, and its messages arrive seconds later."""
    duplicate: float = 0.0
    """A published message arrives twice."""
    delay: float = 0.0
    """Messages of a partition are delivered late, after messages that were published later."""
    delay_sec: float = 5.0
    broadcast_lost: float = 0.0
    """A message is not delivered to a listener without a group."""
    receive_fails: float = 0.0
    rebalances_per_run: float = 0.0
    """The partitions of a group are reassigned. The members are not notified and continue with the
    messages they have.
    """
    rewinds_per_run: float = 0.0
    """A group moves back to an offset before its acknowledged one."""
    tail_loss: float = 0.0
    """Published messages are confirmed and then lost before any member reads them."""
    bus_outages_per_run: float = 0.0
    bus_outage_sec: float = 30.0

    # Store faults
    read_fails: float = 0.0
    write_refused: float = 0.0
    """A write raises and is not applied."""
    write_unconfirmed: float = 0.0
    """A write raises and is applied."""
    write_late: float = 0.0
    """A write raises and is applied seconds later, if the version still matches."""
    write_rolled_back: float = 0.0
    """A commit raises. For a moment it blocks other commits, then it is rolled back."""
    conflict: float = 0.0
    """Another process changes the same record just before."""
    slow: float = 0.0
    slow_sec: float = 5.0
    stale_read: float = 0.0
    """The newest records of a stream are not visible yet, as on a server that has just become
    primary.
    """
    session_lost: float = 0.0
    """A change that is not durable, such as a worker's heartbeat, is confirmed and lost."""
    store_outages_per_run: float = 0.0
    store_outage_sec: float = 30.0
    damaged_records: float = 0.0
    """Expected number of tasks in a seed whose stored record is damaged. Each is quarantined, and
    delays no other task.
    """

    # Clock faults
    skew_sec: float = 0.0
    """The largest error of a process's wall clock at its start."""
    jumps_per_run: float = 0.0
    jump_sec: float = 300.0

    # Process faults
    crash: float = 0.0
    """A process dies at one of its first ``crash_steps`` steps, more often at early ones."""
    crash_steps: int = 1500
    crash_at_start: float = 0.0
    """A worker dies when it begins to execute a node, before it can report anything."""
    kills_per_run: float = 0.0
    restart_sec: float = 30.0
    pauses_per_run: float = 0.0
    pause_sec: float = 180.0
    stops_per_run: float = 0.0
    """A worker or coordinator is stopped in order and restarted."""
    joins_per_run: float = 0.0
    """A worker is added."""
    client_crash: float = 0.0
    """A client dies while it submits, and submits again with the same id."""

    @classmethod
    def of(cls, faults: "Faults | str | Iterable[str]") -> "Faults":
        """Return the faults of a profile, of several profiles together, or the given faults.

        Raises:
            ValueError: there is no such profile, or this is none of these.
        """
        if isinstance(faults, Faults):
            return faults
        if not isinstance(faults, Iterable):
            raise ValueError(f"faults is a profile, a list of profiles or a Faults, not {faults!r}")
        together = cls()
        for name in [faults] if isinstance(faults, str) else faults:
            if not isinstance(name, str) or name not in PROFILES:
                raise ValueError(
                    f"there is no fault profile {name!r}; there are {', '.join(PROFILES)}"
                )
            together = together.with_(PROFILES[name])
        return together

    def with_(self, other: "Faults") -> "Faults":
        """Return the combination with other faults: the worse value of each."""
        return replace(
            self,
            **{
                field.name: max(getattr(self, field.name), getattr(other, field.name))
                for field in fields(self)
            },
        )

    @property
    def any(self) -> bool:
        """Return whether any fault can happen."""
        calm = Faults()
        return any(
            getattr(self, name) != getattr(calm, name)
            for name in _PROBABILITIES + _NUMBERS + ("skew_sec", "damaged_records")
        )

    def drawn(self, chances: Random) -> "Faults":
        """Return the faults of one seed.

        If ``varied``, they differ between seeds: with all faults in every seed, no single one would
        be visible.
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
"""Sets of faults by name. ``all`` combines the others and varies from seed to seed."""
