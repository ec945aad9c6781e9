"""The tests that check what ``Store`` and ``ArtifactStore`` promise about stored records that
cannot be decoded.
"""

from flowkit.protocols import ArtifactStore, Store
from tests.conformance.promises import PromiseTable

CORE = "tests/coordinator/test_damaged_records.py"


def in_both(name: str, *, sqlite: str = "test_damage") -> list[str]:
    """Return the tests of this name for the store on MongoDB and for the one in an SQLite file."""
    return [f"tests/mongo/test_damage.py::{name}", f"tests/sqlite/{sqlite}.py::{name}"]


ARCHIVE = in_both("test_a_damaged_part_of_the_archive_fails_the_reads_that_need_it_alone")
ARTIFACT = in_both("test_a_damaged_artifact_fails_its_stream_alone")
COMMITS = in_both("test_the_commits_of_others_in_the_same_call_go_through")

STORE = {
    "": {
        (
            "A stored record that cannot be decoded, because it is damaged or another program"
            " changed it, does not affect other records."
        ): [
            *in_both(
                "test_damaged_tasks_that_a_coordinator_meets_first_stop_no_other",
                sqlite="test_damaged_tasks",
            ),
            *in_both(
                "test_tasks_that_are_damaged_while_a_coordinator_holds_them_stop_no_other",
                sqlite="test_damaged_tasks",
            ),
        ],
        (
            "Methods that read tasks or keyed records continue: they return such a record with a"
            " ``fault``."
        ): [
            *in_both("test_a_damaged_task_is_read_as_such_and_hinders_no_other"),
            *in_both("test_a_damaged_keyed_record_is_read_with_its_fault_and_can_be_deleted"),
        ],
        (
            "Methods that read the archive or the artifacts of one task raise"
            " :class:`~flowkit.errors.CorruptRecord`."
        ): [*ARCHIVE, *ARTIFACT],
        (
            "A change that such a record makes impossible raises"
            " :class:`~flowkit.errors.RecordRefused`, never ``StoreUnavailable``."
        ): [
            *COMMITS,
            f"{CORE}::test_a_task_whose_commits_are_refused_is_quarantined_and_those_beside_it_finish",
        ],
        "A damaged keyed record can be deleted.": in_both(
            "test_a_damaged_keyed_record_is_read_with_its_fault_and_can_be_deleted"
        ),
        "``check`` names the damaged records that it finds.": in_both(
            "test_the_command_line_shows_what_is_damaged", sqlite="test_doctor"
        ),
    },
    "commit": {
        (
            "Raises RecordRefused: a record cannot be changed, now or later; it is not changed,"
            " other commits may have been applied."
        ): COMMITS,
    },
    "read_archive": {"Raises CorruptRecord: one of the parts cannot be decoded.": ARCHIVE},
    "scan_archive": {
        (
            "Raises CorruptRecord: the first of these parts cannot be decoded. If a later one"
            " cannot be decoded, the parts before it are returned."
        ): ARCHIVE,
    },
}

ARTIFACTS = {
    "read": {
        (
            "Raises CorruptRecord: the first of these records cannot be decoded. If a later one"
            " cannot be decoded, the records before it are returned."
        ): ARTIFACT,
    },
    "scan": {"Raises CorruptRecord: as :meth:`read`.": ARTIFACT},
}

TABLES = [PromiseTable(Store, [], STORE), PromiseTable(ArtifactStore, [], ARTIFACTS)]
