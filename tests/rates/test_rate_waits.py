"""Estimates of how long a node waits for its rate."""

from flowkit._engine.key_places import Begun, Candidate, Claimant, Holder, KeyState
from flowkit._records.key_waits import rate_wait_sec

NOW = 1_000.0


def claims(*rates: tuple[int, float]) -> list[Candidate]:
    """Return claims to a rate, each with its limit and its ``per_sec``."""
    return [
        Candidate(True, 0, NOW, Claimant("t", number, 1), limit, per_sec=per_sec)
        for number, (limit, per_sec) in enumerate(rates)
    ]


def begun(*ago: float) -> KeyState:
    return KeyState(begun=tuple(Begun(f"{sec}", NOW - sec, 1) for sec in ago), window_sec=60)


def test_a_claim_waits_for_the_attempts_in_its_window_and_for_those_ahead() -> None:
    state = begun(50, 20)
    assert rate_wait_sec(state, claims((2, 60)), NOW) == 10
    assert rate_wait_sec(state, claims((2, 60), (2, 60)), NOW) == 40
    assert rate_wait_sec(state, claims((2, 60), (2, 60), (2, 60)), NOW) == 70


def test_a_claim_waits_for_its_own_limit_and_its_own_window() -> None:
    state = begun(50, 20, 5)
    assert rate_wait_sec(state, claims((3, 30)), NOW) == 0
    assert rate_wait_sec(state, claims((2, 30)), NOW) == 10
    assert rate_wait_sec(state, claims((1, 60)), NOW) == 55


def test_each_claim_ahead_has_a_limit_of_its_own() -> None:
    assert rate_wait_sec(begun(5), claims((1, 10), (5, 60)), NOW) == 5
    assert rate_wait_sec(begun(5), claims((5, 60), (1, 10)), NOW) == 10


def test_attempts_that_are_about_to_begin_count_as_begun() -> None:
    state = KeyState((Holder(Claimant("t", 9, 1), NOW - 1),))
    assert rate_wait_sec(state, claims((1, 60)), NOW) == 60
    assert rate_wait_sec(state, claims((2, 60)), NOW) == 0
