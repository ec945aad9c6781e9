"""The retry loop."""

import pytest

from flowkit._runtime.retries import Backoff, retry


class Calls:
    """A call that fails with each of ``errors`` and then succeeds, and a clock that counts.

    Each call takes ``seconds``.
    """

    def __init__(self, *errors: Exception, seconds: float = 0) -> None:
        self.errors = list(errors)
        self.pauses: list[float] = []
        self._seconds = seconds
        self._count = 0

    def monotonic(self) -> float:
        return sum(self.pauses) + self._count * self._seconds

    async def __call__(self) -> str:
        self._count += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


def is_os_error(error: Exception) -> bool:
    return isinstance(error, OSError)


async def test_a_call_that_succeeds_is_made_once_and_without_a_pause() -> None:
    calls = Calls()
    assert await retry(calls, on=is_os_error, sleep=calls.sleep) == "done"
    assert calls.pauses == []


async def test_the_pauses_between_retries_double_up_to_the_longest() -> None:
    calls = Calls(*[OSError()] * 5)
    backoff = Backoff(first_sec=1, longest_sec=5)
    assert await retry(calls, on=is_os_error, sleep=calls.sleep, backoff=backoff) == "done"
    assert calls.pauses == [1, 2, 4, 5, 5]


async def test_an_error_of_another_kind_is_raised_at_once() -> None:
    calls = Calls(OSError(), KeyError("k"), OSError())
    with pytest.raises(KeyError):
        await retry(calls, on=is_os_error, sleep=calls.sleep)
    assert len(calls.pauses) == 1


@pytest.mark.parametrize(("seconds", "pauses"), [(0, [1, 2, 2]), (1, [1, 2]), (4, [1]), (5, [])])
async def test_the_error_is_raised_once_calls_and_pauses_have_taken_as_long_as_the_patience(
    seconds: float, pauses: list[float]
) -> None:
    calls = Calls(*[OSError()] * 9, seconds=seconds)
    with pytest.raises(OSError):
        await retry(
            calls,
            on=is_os_error,
            sleep=calls.sleep,
            backoff=Backoff(first_sec=1, longest_sec=2),
            patience_sec=5,
            monotonic=calls.monotonic,
        )
    assert calls.pauses == pauses


async def test_the_error_of_the_last_call_is_raised_and_not_reported_as_a_retry() -> None:
    errors = [OSError(number) for number in range(4)]
    calls, retried = Calls(*errors), []
    with pytest.raises(OSError) as raised:
        await retry(calls, on=is_os_error, sleep=calls.sleep, max_calls=3, on_retry=retried.append)
    assert raised.value is errors[2]
    assert retried == errors[:2]


async def test_a_backoff_that_is_reset_begins_with_the_first_pause_again() -> None:
    calls = Calls(*[OSError()] * 3)
    backoff = Backoff(first_sec=1)

    def reset(error: Exception) -> None:
        if len(calls.pauses) == 2:
            backoff.reset()

    await retry(calls, on=is_os_error, sleep=calls.sleep, backoff=backoff, on_retry=reset)
    assert calls.pauses == [1, 2, 1]


def test_a_pause_with_full_jitter_is_a_part_of_its_length() -> None:
    backoff = Backoff(first_sec=1, longest_sec=1, full_jitter=True)
    pauses = [backoff.next_sec() for _ in range(20)]
    assert all(0 <= pause <= 1 for pause in pauses)
    assert len(set(pauses)) > 1
