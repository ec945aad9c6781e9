"""Faults of a whole cluster: processes that stop, servers that go down, damaged records."""

from collections.abc import Callable
from random import Random

from flowkit_testing.simulation._bus import BusServer
from flowkit_testing.simulation._process import Process, State
from flowkit_testing.simulation._store import StoreServer
from flowkit_testing.simulation._world import World


class FaultInjector:
    """Injects the cluster-wide faults of one seed, and then ends them all."""

    def __init__(
        self,
        world: World,
        bus: BusServer,
        store: StoreServer,
        *,
        stop: Callable[[], None],
        join: Callable[[], None],
        heal: Callable[[], None],
    ) -> None:
        """Create the injector from three actions.

        ``stop`` stops a worker or coordinator in order, ``join`` adds a worker, and ``heal``
        restarts every process that is missing.
        """
        self._world = world
        self._bus = bus
        self._store = store
        self._heal = heal
        self._outages = {"bus": 0, "store": 0}
        faults = world.faults
        self.period = world.between(faults.period_min_sec, faults.period_sec) if faults.any else 0.0
        for kind, happens in (
            ("rebalances_per_run", bus.shuffle_group),
            ("rewinds_per_run", bus.rewind),
            ("bus_outages_per_run", self._bus_outage),
            ("store_outages_per_run", self._store_outage),
            ("jumps_per_run", self._jump),
            ("kills_per_run", self._kill),
            ("pauses_per_run", self._pause),
            ("stops_per_run", stop),
            ("joins_per_run", join),
        ):
            expected = getattr(faults, kind)
            for _ in range(self._how_many(expected)):
                # Place most faults early: many scenarios are short.
                world.call(self.period * world.chances.random() ** 3, self._if_active, happens)
        self._plan_damage()
        if faults.any:
            world.call(self.period, self.quiet)

    def _plan_damage(self) -> None:
        """Plan which records are damaged.

        This has its own random generator, so the other faults of a seed stay the same with and
        without damage.
        """
        world, chances = self._world, Random(f"damage of {self._world.seed}")
        expected = world.faults.damaged_records
        for _ in range(int(chances.uniform(0, 2 * expected) + 0.5)):
            world.call(
                self.period * chances.random(), self._if_active, lambda: self._store.damage(chances)
            )

    def _how_many(self, expected: float) -> int:
        whole = int(2 * expected)
        return self._world.chances.randint(0, whole) + (
            self._world.chances.random() < expected - whole / 2
        )

    def _if_active(self, happens: Callable[[], object]) -> None:
        if self._world.active:
            happens()

    def quiet(self) -> None:
        """Stop all faults."""
        world = self._world
        if not world.active:
            return
        world.active = False
        world.note("world", "no more faults")
        self._bus.heal()
        self._store.down = False
        for process in world.processes:
            process.crash_at = None
            process.clock.skew = 0.0
            if process.state is State.PAUSED:
                self._resume(process)
        self._heal()

    # ------------------------------------------------------------ servers

    def _bus_outage(self) -> None:
        self._outages["bus"] += 1
        length = self._world.between(0.05, self._world.faults.bus_outage_sec)
        self._world.inject("bus_outage", "bus", f"{length:.2f} s")
        self._bus.down = True
        self._world.call(length, self._bus_back, self._outages["bus"])

    def _bus_back(self, number: int) -> None:
        if number == self._outages["bus"] and self._world.active:
            self._world.note("bus", "is back")
            self._bus.down = False
            for seat in self._bus.seats:
                self._bus.look(seat)

    def _store_outage(self) -> None:
        self._outages["store"] += 1
        length = self._world.between(0.05, self._world.faults.store_outage_sec)
        self._world.inject("store_outage", "store", f"{length:.2f} s")
        self._store.go_down()
        self._world.call(length, self._store_back, self._outages["store"])

    def _store_back(self, number: int) -> None:
        if number == self._outages["store"] and self._world.active:
            self._world.note("store", "is back")
            self._store.down = False

    # ------------------------------------------------------------ processes

    def _one(self) -> Process | None:
        running = self._world.running("worker", "coordinator")
        return self._world.chances.choice(running) if running else None

    def _kill(self) -> None:
        process = self._one()
        if process is not None:
            self._world.crash(process, "killed")

    def _jump(self) -> None:
        process = self._one()
        if process is not None:
            by = self._world.chances.uniform(-1, 1) * self._world.faults.jump_sec
            self._world.inject("clock_jump", process.name, f"{by:+.1f} s")
            process.clock.skew += by

    def _pause(self) -> None:
        process = self._one()
        if process is not None:
            length = self._world.between(0.05, self._world.faults.pause_sec)
            self._world.inject("pause", process.name, f"{length:.2f} s")
            process.pause()
            self._bus.paused(process, self._world.now() + length)
            self._world.call(length, self._resume, process)

    def _resume(self, process: Process) -> None:
        if process.state is State.PAUSED:
            self._world.note(process.name, "continues")
            process.resume()
            for seat in process.subscriptions:
                self._bus.look(seat)
