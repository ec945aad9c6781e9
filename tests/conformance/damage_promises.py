"""The tests that check what ``Store`` and ``ArtifactStore`` promise about stored records that
cannot be decoded.
"""

from flowkit.protocols import ArtifactStore, Store
from tests.conformance.promises import PromiseTable

MONGO = "tests/mongo/test_damage.py"
CORE = "tests/coordinator/test_damaged_records.py"
ARCHIVE = f"{MONGO}::test_a_damaged_part_of_the_archive_fails_the_reads_that_need_it_alone"
ARTIFACT = f"{MONGO}::test_a_damaged_artifact_fails_its_stream_alone"

STORE = {
    "": {
        (
            "A stored record that cannot be decoded, because it is damaged or another program"
            " changed it, does not affect other records."
        ): [
            f"{MONGO}::test_damaged_tasks_that_a_coordinator_meets_first_stop_no_other",
            f"{MONGO}::test_tasks_that_are_damaged_while_coordinators_hold_them_stop_no_other",
        ],
        (
            "Methods that read records of many tasks continue: they return a task or a dead letter"
            " with a ``fault``, and leave out a session."
        ): [
            f"{MONGO}::test_a_damaged_task_is_read_as_such_and_hinders_no_other",
            f"{MONGO}::test_a_damaged_letter_is_listed_with_what_is_wrong",
            f"{MONGO}::test_a_damaged_session_is_left_out_until_its_worker_renews_it",
        ],
        (
            "Methods that read the archive or the artifacts of one task raise"
            " :class:`~flowkit.errors.CorruptRecord`."
        ): [
            ARCHIVE,
            ARTIFACT,
        ],
        (
            "A change that such a record makes impossible raises"
            " :class:`~flowkit.errors.RecordRefused`, never ``StoreUnavailable``."
        ): [
            f"{MONGO}::test_the_commits_of_others_in_the_same_bulk_go_through",
            f"{CORE}::test_a_task_whose_commits_are_refused_is_quarantined_and_those_beside_it_finish",
        ],
        "``check`` names the damaged records that it finds.": [
            f"{MONGO}::test_the_command_line_shows_what_is_damaged"
        ],
    },
    "commit": {
        (
            "Raises RecordRefused: a record cannot be changed, now or later; it is not changed,"
            " other commits may have been applied."
        ): [
            f"{MONGO}::test_the_commits_of_others_in_the_same_bulk_go_through",
        ],
    },
    "read_archive": {"Raises CorruptRecord: one of the parts cannot be decoded.": [ARCHIVE]},
    "scan_archive": {
        (
            "Raises CorruptRecord: the first of these parts cannot be decoded. If a later one"
            " cannot be decoded, the parts before it are returned."
        ): [
            ARCHIVE,
        ],
    },
}

ARTIFACTS = {
    "read": {
        (
            "Raises CorruptRecord: the first of these records cannot be decoded. If a later one"
            " cannot be decoded, the records before it are returned."
        ): [
            ARTIFACT,
        ],
    },
    "scan": {"Raises CorruptRecord: as :meth:`read`.": [ARTIFACT]},
}

TABLES = [PromiseTable(Store, [], STORE), PromiseTable(ArtifactStore, [], ARTIFACTS)]
