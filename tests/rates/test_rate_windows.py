"""Windows of rates: which attempts count as begun, and for how long, also if clocks are wrong."""

from typing import Any

import pytest

from flowkit._engine.key_places import (
    FREE,
    MOST_TIMES,
    MOST_UNBEGUN,
    Begun,
    Candidate,
    Claimant,
    Holder,
    KeyState,
)
from flowkit._records.key_records import key_record, key_state
from flowkit.clock import StoreClock, SystemClock
from flowkit.coordinator._key_work import Answer, Ask, KeyWork, Step, step
from flowkit.coordinator._rate_windows import RateWindows


def claim(name: str, *, limit: int = 2, per_sec: float = 60.0, at: float = 0.0) -> Candidate:
    return Candidate(True, 0, at, Claimant(name, 0, 1), limit, per_sec=per_sec)


class MachineClock(SystemClock):
    """A clock that is advanced by hand, whose wall time is wrong by ``skew`` seconds."""

    def __init__(self) -> None:
        self.elapsed = self.skew = 0.0

    def now(self) -> float:
        return self.elapsed + self.skew

    def monotonic(self) -> float:
        return self.elapsed

    def advance(self, seconds: float) -> None:
        self.elapsed += seconds


class Coordinator:
    """The windows of one coordinator, with its own clock."""

    def __init__(self, clock: Any = None) -> None:
        self.clock = MachineClock() if clock is None else clock
        self.windows = RateWindows(self.clock)
        self._names = iter(range(1_000_000))

    def step(
        self, state: KeyState, *names: str, begun: tuple[str, ...] = (), **fields: Any
    ) -> Step:
        """Let claims ask for places, and attempts begin that have a place."""
        claimants = {Claimant(name, 0, 1) for name in begun}
        asks = [Ask(claim(name, **fields), waits=True, queued=True) for name in names]
        work = KeyWork(asks, returned=claimants, begun=set(claimants))
        state = self.windows.renewed("r", state, work, (), f"{id(self)}.{next(self._names)}")
        counter = self.windows.counter("r", state)
        return step(work, state, (), self.clock.now(), counter)

    def uses_up(self, state: KeyState, *names: str, **fields: Any) -> KeyState:
        """Grant places, and let the attempts begin."""
        return self.step(self.step(state, *names, **fields).state, begun=names).state


def granted(done: Step) -> list[str]:
    return [
        ask.candidate.claimant.task_id for ask, answer in done.answers if answer is Answer.GRANTED
    ]


def test_a_place_is_held_until_the_attempt_has_begun_and_then_for_the_window() -> None:
    one = Coordinator()
    held = one.step(FREE, "a", "b").state
    one.clock.advance(1_000)
    assert granted(one.step(held, "c")) == []
    state = one.step(held, begun=("a",)).state
    assert [begun.attempts for begun in state.begun] == [1]
    one.clock.advance(59.9)
    assert granted(one.step(state, "c")) == []
    one.clock.advance(0.2)
    assert granted(one.step(state, "c")) == ["c"]


def test_a_place_that_was_not_used_is_free_at_once() -> None:
    one = Coordinator()
    held = one.step(FREE, "a", "b").state
    state = step(KeyWork(returned={Claimant("a", 0, 1)}), held, (), 0.0).state
    assert granted(one.step(state, "c")) == ["c"]


def test_the_record_is_free_when_the_window_is_over() -> None:
    one = Coordinator()
    state = one.uses_up(FREE, "a", "b")
    assert one.windows.next_at("r", state, None) == pytest.approx(one.clock.now() + 60, abs=0.01)
    one.clock.advance(60)
    assert one.step(state).state == FREE


@pytest.mark.parametrize("skew", [-300.0, 0.0, 300.0])
def test_clocks_that_disagree_do_not_exceed_a_rate(skew: float) -> None:
    one, other = Coordinator(), Coordinator()
    other.clock.skew = skew
    state = one.uses_up(FREE, "a", "b")
    assert granted(other.step(state, "c")) == []
    other.clock.skew += 1_000
    other.clock.advance(59.9)
    assert granted(other.step(state, "c")) == []
    other.clock.advance(0.2)
    assert granted(other.step(state, "c")) == ["c"]


async def test_a_new_coordinator_with_the_clock_of_the_store_knows_how_old_a_begin_is() -> None:
    uptime = 100.0

    class Server:
        async def server_time(self) -> float:
            return uptime + 1_000.0

    clock = StoreClock(uptime=lambda: uptime)
    await clock.measure(Server())
    state = Coordinator(clock).uses_up(FREE, "a", "b")
    uptime = 160.9
    assert granted(Coordinator(clock).step(state, "c")) == []
    uptime = 161.1
    assert granted(Coordinator(clock).step(state, "c")) == ["c"]


def test_the_limits_of_the_node_that_asks_decide() -> None:
    one = Coordinator()
    state = one.uses_up(FREE, "a", "b")
    one.clock.advance(10)
    assert granted(one.step(state, "c", limit=3)) == ["c"]
    assert granted(one.step(state, "c", per_sec=9.0)) == ["c"]
    assert granted(one.step(state, "c", per_sec=11.0)) == []


def test_the_next_place_is_awaited_for_the_first_claim_in_the_queue() -> None:
    one = Coordinator()
    state = one.uses_up(FREE, "a")
    one.clock.advance(20)
    state = one.uses_up(state, "b")
    done = one.step(state, "c")
    assert done.waiting is not None
    assert one.windows.next_at("r", state, done.waiting) == pytest.approx(
        one.clock.now() + 40, abs=0.01
    )


def test_a_high_limit_makes_no_large_record() -> None:
    one, state, limit = Coordinator(), FREE, 10_000
    for round_number in range(150):
        names = [f"a{round_number}.{number}" for number in range(10)]
        state = one.uses_up(state, *names, limit=limit, per_sec=3_600.0)
        one.clock.advance(10)
    assert (len(state.begun), sum(begun.attempts for begun in state.begun)) == (MOST_TIMES, 1_500)
    record = key_record("rate", "r", state, "", 0.0)
    assert len(record.data) < 10_000
    assert key_state(record) == state


def test_attempts_that_count_together_count_from_the_later_time() -> None:
    begun = tuple(Begun(f"n{number}", 10.0 * number, 1) for number in range(MOST_TIMES))
    state = KeyState((), begun=begun).with_begun(Begun("last", 10.0 * MOST_TIMES - 9, 1))
    assert state.begun[-1] == Begun("last", 10.0 * MOST_TIMES - 9, 2)
    assert state.begun[:-1] == begun[:-1]


def test_not_too_many_nodes_have_a_place_at_a_time() -> None:
    holders = tuple(Holder(Claimant(f"h{number}", 0, 1), 0.0) for number in range(MOST_UNBEGUN))
    one = Coordinator()
    assert granted(one.step(KeyState(holders), "c", limit=1_000)) == []
    assert granted(one.step(KeyState(holders[1:]), "c", limit=1_000)) == ["c"]
