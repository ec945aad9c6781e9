"""The runs of scenarios, one for each seed."""

import asyncio
import gc
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit.plugins import Plugins
from flowkit_testing._broker import Broker
from flowkit_testing.simulation._cluster import COORDINATOR, WORKER, SimCluster
from flowkit_testing.simulation._faults import Faults
from flowkit_testing.simulation._guards import (
    Clockwork,
    close_awaited,
    quiet,
    sealed,
    take_apart,
    unlogged,
)
from flowkit_testing.simulation._invariants import Invariant
from flowkit_testing.simulation._loop import SimulationError
from flowkit_testing.simulation._process import Process
from flowkit_testing.simulation._report import Report, SimulationFailed
from flowkit_testing.simulation._world import World

Scenario = Callable[[SimCluster], Awaitable[object]]
"""Async function that submits tasks to a cluster and checks how they end."""

HOUR = 3600.0
SEEDS_A_COLLECTION = 20


class Stuck(AssertionError):
    """The faults have ended, and the cluster still does not finish its tasks."""


def _four_partitions() -> Broker:
    return Broker(partitions=4)


@dataclass(frozen=True, slots=True)
class Setup:
    """The settings that all seeds of a simulation share."""

    scenario: Scenario
    faults: Faults
    invariants: Sequence[Invariant] = ()
    coordinators: int = 2
    workers: int = 2
    handlers: Any = None
    plugins: Plugins = field(default_factory=Plugins)
    coordinator_config: CoordinatorConfig = COORDINATOR
    worker_config: WorkerConfig = WORKER
    converge_sec: float = HOUR
    after_sec: float = 30.0
    broker: Callable[[], Broker] = _four_partitions


@dataclass(slots=True)
class Outcome:
    """The outcome of one seed."""

    report: Report
    log: list[str]
    steps: dict[str, int]
    """The number of steps of each process."""
    error: BaseException | None = None


def run_seed(
    setup: Setup, seed: int, prepare: Callable[[World], None] | None = None, *, logs: bool = False
) -> Outcome:
    """Run one simulation.

    ``prepare`` may change the world before the start. With ``logs``, FlowKit and the handlers log
    as usual.
    """
    _check_no_loop_runs()
    world = World(seed, setup.faults)
    error: BaseException | None = None
    cluster: SimCluster | None = None
    with (
        nullcontext() if logs else unlogged(),
        sealed(seed, Clockwork(world.wall, world.monotonic)),
    ):
        try:
            cluster = world.context.run(_make_cluster, world, setup)
            if prepare is not None:
                prepare(world)
            main = world.loop.create_task(_main(world, cluster, setup), context=world.context)
            world.loop.run_until_complete(main)
        except (Exception, asyncio.CancelledError) as raised:
            error = raised
        finally:
            with quiet():
                _tear_down(world)
    report = Report(
        seeds=[seed],
        faults=world.injected,
        virtual_sec=world.loop.time(),
        steps=world.loop.steps,
        commits=cluster.invariants.checked if cluster is not None else 0,
        executions=len(world.executions),
        hashes={seed: blake2b("\n".join(world.lines).encode(), digest_size=8).hexdigest()},
    )
    if error is not None:
        report.failures[seed] = "".join(traceback.format_exception(error)).rstrip()
    return Outcome(
        report, world.lines, {process.name: process.steps for process in world.processes}, error
    )


def _check_no_loop_runs() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SimulationError(
        "a simulation has an event loop of its own: run it from a plain function, not from a"
        " coroutine"
    )


def _make_cluster(world: World, setup: Setup) -> SimCluster:
    return SimCluster(
        world,
        plugins=setup.plugins,
        workers=setup.workers,
        invariants=setup.invariants,
        coordinator_config=setup.coordinator_config,
        worker_config=setup.worker_config,
        broker=setup.broker(),
    )


async def _main(world: World, cluster: SimCluster, setup: Setup) -> None:
    async def scenario(process: Process) -> None:
        await cluster.open(process, coordinators=setup.coordinators, handlers=setup.handlers)
        await setup.scenario(cluster)
        world.note("scenario", "is over")
        await cluster.settle(setup.after_sec)

    process = world.start("scenario", scenario)
    # A process with a wrong clock may have delayed work; the others do it when their clocks reach
    # its time.
    put_off = (
        3 * (world.faults.skew_sec + 2 * world.faults.jump_sec)
        if world.faults.skew_sec or world.faults.jumps_per_run
        else 0.0
    )
    limit = setup.converge_sec + put_off + cluster.quiet_after_sec
    waiting = asyncio.ensure_future(process.ended.wait())
    await asyncio.wait([waiting], timeout=limit)
    if not process.ended.is_set():
        world.note("world", f"stuck after {limit:.0f} s")
        raise Stuck(
            f"after {limit:.0f} s, {limit - cluster.quiet_after_sec:.0f} s of them without faults,"
            " the scenario has not come to its end\n" + "\n".join(await cluster.explain_open())
        )
    if process.error is not None:
        raise process.error


def _tear_down(world: World) -> None:
    """Tear down all tasks and generators without running their cleanups."""
    loop = world.loop
    tasks, generators = list(loop.tasks), loop.generators()
    loop.power_off()
    take_apart(tasks)
    close_awaited(generators)
    loop.close()


def setup_of(
    scenario: Scenario,
    *,
    faults: Faults | str | Iterable[str] = "all",
    invariants: Collection[Invariant] = (),
    coordinators: int = 2,
    workers: int = 2,
    handlers: Any = None,
    plugins: Collection[object] | Plugins = (),
    coordinator_config: CoordinatorConfig = COORDINATOR,
    worker_config: WorkerConfig = WORKER,
    converge_sec: float = HOUR,
    after_sec: float = 30.0,
    broker: Callable[[], Broker] = _four_partitions,
) -> Setup:
    """Return the settings of a simulation, all but its seeds.

    With ``handlers``, this number of ``workers`` serve them from the start. ``invariants`` are
    called at each commit with the task before and after it. After the end of the faults, the
    scenario and every task must end within ``converge_sec`` of virtual time; then the cluster is
    watched for another ``after_sec``. ``broker`` makes the broker of each seed, such as one without
    places.
    """
    return Setup(
        scenario=scenario,
        faults=Faults.of(faults),
        invariants=list(invariants),
        coordinators=coordinators,
        workers=workers,
        handlers=handlers,
        plugins=plugins if isinstance(plugins, Plugins) else Plugins(plugins),
        coordinator_config=coordinator_config,
        worker_config=worker_config,
        converge_sec=converge_sec,
        after_sec=after_sec,
        broker=broker,
    )


def simulate(
    scenario: Scenario,
    *,
    seeds: int = 200,
    first_seed: int = 0,
    seed: int | None = None,
    faults: Faults | str | Iterable[str] = "all",
    replay: Callable[[int], str] | None = None,
    **options: Any,
) -> Report:
    """Run a scenario once for each seed, under ``faults``.

    ``scenario`` is an ``async`` function that receives a :class:`SimCluster`; an exception in it
    fails the seed. ``seed`` runs one seed alone, with logging. ``replay`` is the line that shows
    how to run one seed again. ``options`` are those of :func:`setup_of`.

    Raises:
        SimulationFailed: a seed failed; the first one ends the simulation.
        ValueError: an argument is not valid; for example, ``seeds`` is 0.
    """
    _check_whole("seeds", seeds, least=1)
    _check_whole("first_seed", first_seed)
    if seed is not None:
        _check_whole("seed", seed)
    setup = setup_of(scenario, faults=faults, **options)
    report = Report()
    for outcome in (
        outcomes(setup, range(first_seed, first_seed + seeds))
        if seed is None
        else [run_seed(setup, seed, logs=True)]
    ):
        _take(
            outcome,
            report,
            replay or (lambda failed: f"simulate({_name(scenario)}, …, seed={failed})"),
        )
    return report


def crash_everywhere(
    scenario: Scenario, *, process: str = "worker-1", every: int = 1, seed: int = 0, **options: Any
) -> Report:
    """Run a scenario once, then again with a crash at each step of one process.

    ``process`` is ``worker-1``, ``coordinator-2`` and so on, numbered in the order of their starts.
    With ``every``, only each ``every``-th step is tried. ``options`` are those of :func:`simulate`;
    by default there are no other faults.

    Raises:
        SimulationFailed: a run failed; the line that replays it has the step.
        ValueError: there is no such process, or an argument is not valid.
    """
    _check_whole("every", every, least=1)
    _check_whole("seed", seed)
    step = options.pop("step", None)
    setup = setup_of(scenario, **{"faults": "none", **options})
    report = Report()
    name = _name(scenario)
    first = run_seed(setup, seed)
    _take(first, report, lambda failed: f"simulate({name}, …, seed={failed})")
    if process not in first.steps:
        raise ValueError(f"there is no process {process!r}; there are {', '.join(first.steps)}")
    for at in range(1, first.steps[process] + 1, every) if step is None else [step]:
        outcome = run_seed(setup, seed, lambda world, at=at: world.crash_plan.update({process: at}))  # type: ignore[misc]
        _take(
            outcome,
            report,
            lambda failed, at=at: (  # type: ignore[misc]
                f"crash_everywhere({name}, process={process!r}, seed={failed}, step={at}, …)"
            ),
        )
        _collect(at)
    return report


def _check_whole(name: str, value: Any, *, least: int | None = None) -> None:
    """Raise ``ValueError`` unless an argument is a whole number, and at least ``least``."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or (least is not None and value < least):
        limit = "" if least is None else f" of at least {least}"
        raise ValueError(f"{name} is a whole number{limit}, not {value!r}")


def _take(outcome: Outcome, report: Report, replay: Callable[[int], str]) -> None:
    report.add(outcome.report)
    if outcome.error is not None:
        (failed,) = outcome.report.seeds
        raise SimulationFailed(
            failed, replay(failed), outcome.error, outcome.log, report
        ) from outcome.error


def _name(scenario: Scenario) -> str:
    return getattr(scenario, "__name__", "scenario")


def outcomes(setup: Setup, seeds: Iterable[int]) -> Iterable[Outcome]:
    """Run seeds and yield the outcome of each."""
    for number, seed in enumerate(seeds):
        yield run_seed(setup, seed)
        _collect(number)


def _collect(number: int) -> None:
    """Collect garbage from time to time, because a simulation itself never does."""
    if number % SEEDS_A_COLLECTION == 0:
        with quiet():
            gc.collect()


__all__ = [
    "Outcome",
    "Scenario",
    "Setup",
    "SimulationError",
    "Stuck",
    "crash_everywhere",
    "outcomes",
    "run_seed",
    "setup_of",
    "simulate",
]
