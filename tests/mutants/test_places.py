"""Each mutant still finds the code that it changes. This runs no mutant."""

import pytest

from tests.mutants.first_runs import FIRST_RUNS
from tests.mutants.patches import MUTANTS
from tests.mutants.places import Mutant, mutated
from tests.mutants.promises import setups
from tests.simulation.scenarios import STANDARD


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_mutant_changes_one_place_and_the_module_still_compiles(mutant: Mutant):
    change = mutated(mutant)
    compile(change.text, change.module, "exec")


@pytest.mark.parametrize(
    ("place", "before", "places"),
    [
        ("TaskTable.commit", "row.version += 2", "found nowhere"),
        ("TaskTable.commits", "row.version += 1", "found nowhere"),
        ("TaskTable.commit", "commit.task_id", r"found \w+.py:\d+, \w+.py:\d+"),
        ("OUTCOMES", "(BROKEN, BROKEN, EMPTY)", r"found \w+.py:\d+, \w+.py:\d+"),
    ],
)
def test_a_mutant_that_matches_no_place_or_several_is_refused(place: str, before: str, places: str):
    with pytest.raises(AssertionError, match=places):
        mutated(Mutant("wrong", place, before, "None"))


def test_formatting_and_comments_do_not_matter():
    before = (
        "if (row is None  # no such task\n or row.version!=commit.expected_version): return False"
    )
    change = mutated(Mutant("formatted", "TaskTable.commit", before, "if not row: return True"))
    assert change.module == "flowkit_testing._task_table"
    assert "        if not row:\n            return True\n        for part in" in change.text


def test_there_are_at_least_thirty_and_no_two_of_a_name():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30


def test_each_first_run_exists_and_belongs_to_a_mutant():
    assert FIRST_RUNS.keys() <= {mutant.name for mutant in MUTANTS if mutant.suite is None}
    assert {
        first.partition(":")[0] for first in FIRST_RUNS.values()
    } <= setups().keys() | STANDARD.keys()
