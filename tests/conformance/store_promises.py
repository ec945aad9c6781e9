"""The tests that check each sentence of ``Store``, ``ArtifactStore`` and ``Clock``."""

from flowkit.protocols import ArtifactStore, Clock, RecordStore, Store
from flowkit_testing.conformance import ArtifactStoreConformance, StoreConformance
from tests.conformance.promises import DEFINITION, PromiseTable

OUTAGES = "tests/mongo/test_outages.py"
LATEST = "tests/mongo/test_latest.py"
CLOCK = "tests/testing/test_clock.py"
RETENTION = "tests/coordinator/test_retention.py"
CHANGES = "tests/mongo/test_record_changes.py"

STORE = {
    "": {
        "The durable state of tasks.": DEFINITION,
        "Entering it connects and creates what is missing; leaving it closes what was opened.": [
            "test_entering_gives_the_store_itself",
            "test_what_was_created_outlives_the_connection",
            "tests/mongo/test_opening.py::test_a_client_opened_here_is_closed_and_one_that_was_given_stays_open",
        ],
        "A confirmed write survives a crash of the process and of the store.": [
            "test_a_process_that_is_killed_leaves_each_commit_whole_or_absent",
            f"{OUTAGES}::test_a_server_killed_and_started_again_under_load_loses_nothing",
            f"{OUTAGES}::test_a_primary_that_steps_down_or_dies_under_load_loses_nothing",
        ],
        (
            "Every method may raise :class:`~flowkit.errors.StoreUnavailable`; an interrupted"
            " write may or may not have been applied."
        ): [
            f"{OUTAGES}::test_an_unavailable_server_is_reported_as_unavailable",
            f"{OUTAGES}::test_a_commit_whose_confirmation_failed_may_have_been_applied",
            f"{OUTAGES}::test_a_commit_that_the_network_lost_on_its_way_was_not_applied",
        ],
        "Methods are called at the same time, by many tasks and processes.": [
            "test_counting_by_compare_and_set_counts_each_once",
            "test_of_commits_by_two_processes_one_is_applied_for_each_version",
        ],
        (
            "A cancelled call does not affect other calls; the write of a cancelled call may or"
            " may not have been applied."
        ): [
            "test_a_store_goes_on_after_a_cancelled_call",
            "test_a_cancelled_commit_is_applied_whole_or_not_at_all",
            "test_a_wait_that_was_cancelled_leaves_the_others",
        ],
        (
            "A store belongs to one namespace: it neither shows nor changes records of another one"
            " on the same server."
        ): [
            "test_tasks_of_two_namespaces_may_have_one_id_and_one_key",
            "test_tasks_and_keyed_records_are_read_in_their_namespace",
            "test_nothing_is_deleted_in_another_namespace",
            "test_namespaces_are_compared_exactly",
        ],
        (
            "Ids, keys and names are compared exactly: case, spaces, accents and Unicode normal"
            " forms count, and no character is a pattern."
        ): [
            "test_ids_and_names_are_compared_exactly",
            "test_idempotency_keys_are_compared_exactly",
        ],
    },
    "create": {
        "Store new tasks, and return the id of each.": [
            "test_a_task_loads_as_it_was_created",
            "test_creating_answers_in_order",
        ],
        (
            "If a task with the same id or the same ``idempotency_key`` exists, it is not changed"
            " and its id is returned, else that of the new record."
        ): [
            "test_an_id_is_created_once",
            "test_an_idempotency_key_stands_for_the_first_task",
            "test_a_call_may_mix_new_tasks_and_known_ones",
        ],
        "Two creates at the same time with one key store one task.": [
            "test_one_task_is_stored_of_many_created_at_the_same_time_with_a_key",
        ],
        "Raises RecordTooLarge: a record is above the store's limit; no part of it was written.": [
            "test_a_record_above_the_limit_is_refused_and_not_written",
        ],
    },
    "load": {
        "Return the records of those tasks that exist, each as of one version.": [
            "test_those_that_exist_are_loaded",
            "test_a_task_loads_as_of_one_version_while_it_changes",
        ],
        "A task whose creation was confirmed is never missing.": [
            "test_another_connection_sees_what_was_created",
            f"{LATEST}::test_a_task_that_is_not_found_is_looked_for_once_more",
        ],
        (
            "For a moment after a failover to another server, a version may be older than the last"
            " confirmed commit; a commit on top of it is refused."
        ): [
            "test_loading_is_never_older_than_a_confirmed_commit",
            "test_another_connection_loads_what_was_committed",
            "test_a_commit_of_another_version_is_refused_and_leaves_no_trace",
        ],
    },
    "commit": {
        "Apply each commit completely or not at all, and return for each whether it was applied.": [
            "test_a_commit_changes_what_it_says_and_nothing_else",
            "test_a_commit_of_another_version_is_refused_and_leaves_no_trace",
            "test_a_process_that_is_killed_leaves_each_commit_whole_or_absent",
        ],
        (
            "False means that the stored version was not ``expected_version``, or that the task is"
            " gone: no part of the commit is visible, except that its archived parts may be stored"
            " already."
        ): [
            "test_a_commit_of_another_version_is_refused_and_leaves_no_trace",
            "test_a_commit_of_a_task_that_does_not_exist_is_refused",
            "test_a_purged_task_refuses_commits",
        ],
        "A commit that was applied added one to the version and set ``op_id``.": [
            "test_a_commit_changes_what_it_says_and_nothing_else",
            "test_a_commit_without_parts_still_counts",
        ],
        "Archived parts are durable before the record drops the parts that they replace.": [
            "test_a_part_moves_to_the_archive_in_one_commit",
            f"{OUTAGES}::test_archived_parts_are_durable_before_the_record_drops_them",
        ],
        "Of several commits of one task in a call, the first whose version fits is applied.": [
            "test_of_several_commits_of_a_task_the_first_that_fits_is_applied",
        ],
        "The commits of different tasks are independent.": [
            "test_the_commits_of_different_tasks_are_independent"
        ],
        (
            "Raises RecordTooLarge: a part or an archived part is above the store's limit; its"
            " task is not changed, other commits may have been applied."
        ): [
            "test_a_commit_above_the_limit_is_refused_and_leaves_the_record_as_it_was",
        ],
    },
    "read_archive": {
        (
            "Return the archived parts of a task that exist, by name, each of the highest rank"
            " stored."
        ): [
            "test_an_archived_part_is_read_by_name",
            "test_of_two_archived_parts_the_higher_rank_stays",
        ],
        "A confirmed part is never missing.": [
            "test_another_connection_reads_the_archive",
            f"{LATEST}::test_an_archived_part_that_is_not_found_is_looked_for_once_more",
        ],
    },
    "scan_archive": {
        "Return up to ``limit`` archived parts in order of name.": [
            "test_scanning_gives_the_names_with_a_prefix_in_order",
        ],
        "Their names start with ``prefix`` and sort above ``after``.": [
            "test_scanning_gives_the_names_with_a_prefix_in_order",
            "test_scanning_goes_on_after_a_name",
        ],
    },
    "due": {
        "Return the ids of up to ``limit`` due tasks, the earliest first.": [
            "test_the_earliest_comes_first",
            "test_no_more_are_given_than_asked_for",
        ],
        "A task is due if its ``wake_at`` is at or before ``before``.": [
            "test_tasks_are_due_from_their_time_on",
        ],
    },
    "list_tasks": {
        "Return matching records, newest first, and the next page's ``after`` (None at the end).": [
            "test_the_newest_comes_first",
            "test_all_that_is_asked_for_must_hold",
            "test_pages_are_full_and_the_last_one_says_so",
        ],
        "With ``oldest_first``, the order is the opposite.": [
            "test_the_oldest_comes_first_if_that_is_asked_for",
            "test_the_oldest_of_the_same_time_are_listed_once_each",
        ],
        "Paging is stable: tasks created between two pages neither repeat nor hide others.": [
            "test_tasks_created_between_two_pages_neither_repeat_nor_hide_others",
        ],
        "Records with the same ``created_at`` are ordered by id.": [
            "test_tasks_of_the_same_time_are_ordered_by_id"
        ],
    },
    "wait_for_change": {
        "Return soon after the stored version is above ``version``.": [
            "test_a_commit_wakes_all_waiters",
            "test_a_wait_does_not_return_while_nothing_changes",
        ],
        "Return at once if it is above already, or if there is no such task.": [
            "test_a_wait_for_a_change_that_has_happened_returns_at_once",
            "test_a_task_that_does_not_exist_is_not_waited_for",
        ],
        "With ``ended``, only a version that has a ``finished_at`` counts.": [
            "test_a_wait_for_the_end_ignores_other_changes",
            "test_a_wait_for_the_end_waits_for_a_later_version_than_the_given_one",
            "test_an_end_wakes_all_who_wait_for_it",
        ],
        "Commits of other processes count like those of this process.": [
            "test_a_commit_over_another_connection_wakes_a_waiter",
            "test_an_end_over_another_connection_wakes_a_waiter",
            "test_a_commit_by_another_process_wakes_a_waiter",
        ],
        "The wait ends when the task is purged.": ["test_a_wait_for_a_task_that_is_purged_ends"],
    },
    "purge": {
        (
            "Delete up to ``limit`` tasks that ended before ``finished_before`` and have no"
            " ``wake_at``, and return how many."
        ): [
            "test_a_task_that_did_not_end_before_stays",
            "test_a_task_that_is_old_and_has_not_ended_stays",
            "test_an_ended_task_that_is_to_be_woken_stays_and_hides_no_other",
            "test_purging_says_how_many_and_keeps_to_its_limit",
        ],
        (
            "Their archives, their artifacts and the keyed records with their ``task_id`` are"
            " deleted too."
        ): [
            "test_a_purged_task_is_gone_with_its_archive_and_artifacts",
            "test_a_purge_deletes_the_records_of_its_tasks",
        ],
        "A new task with the id or the key of a purged one inherits nothing from it.": [
            "test_nothing_of_a_purged_task_is_in_a_new_one_of_its_id",
            "test_the_key_of_a_purged_task_is_free_again",
        ],
        "Other keyed records are kept.": ["test_a_purge_deletes_the_records_of_its_tasks"],
        (
            "Coordinators call this for the retention that is configured: a store deletes no task"
            " by itself."
        ): [
            f"{RETENTION}::test_a_task_is_deleted_when_its_time_is_over_and_not_before",
            f"{RETENTION}::test_tasks_are_kept_for_ever_by_default",
        ],
    },
    "check": {
        "Return the results for ``flowkit doctor``.": [
            "tests/cli/test_installation_verbs.py::test_doctor_finds_an_installation_well"
        ],
        "It does not raise: the results name the problems.": ["test_check_raises_nothing"],
    },
}

RECORDS = {
    "": {
        "Store of keyed records, from which the core builds all that is not a task.": DEFINITION,
        (
            "Keys are ordered by their Unicode code points, and compared exactly, as in a"
            " :class:`Store`."
        ): [
            "test_records_are_scanned_in_the_order_of_their_keys",
            "test_ids_and_names_are_compared_exactly",
        ],
        "Once a change of several records is visible in one of them, it is visible in all.": [
            "test_a_process_that_is_killed_leaves_each_change_of_records_whole_or_absent",
            f"{CHANGES}::test_a_committed_change_that_was_left_is_visible_in_all_its_records",
        ],
    },
    "get": {
        "Return those records of a kind that exist, by key.": [
            "test_only_records_that_exist_are_read",
            "test_a_keyed_record_is_read_as_it_was_put",
            "test_a_key_and_a_kind_may_be_long",
        ],
        "A record whose creation was confirmed is never missing.": [
            f"{LATEST}::test_a_keyed_record_that_a_new_primary_does_not_show_yet_is_read",
        ],
        (
            "For a moment after a failover to another server, a record may be older than the last"
            " confirmed change; a change on top of it is refused."
        ): ["test_a_change_on_top_of_another_revision_is_refused"],
    },
    "change": {
        (
            "Apply each change to all of its records or to none, and return whether it was applied."
        ): [
            "test_a_change_may_concern_many_records",
            "test_a_refused_change_leaves_all_records_as_they_were",
            "test_a_cancelled_change_of_keyed_records_is_applied_whole_or_not_at_all",
            "test_a_process_that_is_killed_leaves_each_change_of_records_whole_or_absent",
        ],
        (
            "False means that one of the records is not stored with the ``revision`` that the"
            " change names, or that one to be deleted is missing."
        ): [
            "test_a_record_that_exists_is_not_put_as_a_new_one",
            "test_a_change_on_top_of_another_revision_is_refused",
            "test_a_missing_record_is_not_deleted",
            "test_revisions_are_compared_exactly",
            "test_of_puts_at_the_same_time_one_is_applied",
            "test_changes_of_overlapping_records_at_the_same_time_lose_nothing",
            "test_changes_of_keyed_records_by_two_processes_lose_nothing",
        ],
        "The records that a change has put have its ``op_id`` as their ``revision``.": [
            "test_a_keyed_record_is_read_as_it_was_put",
            "test_a_record_is_changed_on_top_of_its_revision",
        ],
        (
            "Each record occurs in at most one of the changes of a call, and the changes are"
            " independent."
        ): ["test_the_changes_of_a_call_are_independent"],
        (
            "Raises RecordTooLarge: the data of a record is above the store's limit, which is at"
            " least two million bytes; no change of this call was applied."
        ): [
            "test_data_above_the_limit_is_refused_and_nothing_is_changed",
            "test_data_below_the_smallest_limit_is_stored",
        ],
        (
            "Raises StoreUnavailable: changes of this call may have been applied, each of them"
            " completely or not at all, now or later."
        ): [
            f"{CHANGES}::test_a_writer_that_is_stopped_at_any_step_leaves_a_whole_change_or_none",
        ],
    },
    "scan": {
        ("Return up to ``limit`` records of a kind whose keys start with ``prefix``, by key."): [
            "test_records_are_scanned_by_prefix_and_place",
            "test_kinds_are_scanned_by_themselves",
        ],
        "The keys are above ``after``.": ["test_records_are_scanned_page_by_page"],
        (
            "With ``last``, the order is the opposite, and the keys are below ``after``, if it is"
            " given."
        ): [
            "test_records_are_scanned_by_prefix_and_place",
            "test_records_are_scanned_page_by_page",
        ],
    },
    "due": {
        "Return up to ``limit`` due records of a kind, the earliest first.": [
            "test_due_records_come_in_the_order_of_their_times",
            "test_kinds_are_scanned_by_themselves",
        ],
        "A record is due if its ``due_at`` is at or before ``before``.": [
            "test_due_records_come_in_the_order_of_their_times",
            "test_a_changed_record_is_due_at_its_new_time",
        ],
    },
}

ARTIFACTS = {
    "": {
        "Store of the artifacts that nodes produce.": DEFINITION,
        "Ids are compared exactly, as in a :class:`Store`.": [
            "test_uids_are_compared_exactly",
            "test_the_ids_of_streams_are_compared_exactly",
        ],
    },
    "put": {
        "Store records, and return for each whether it is new.": [
            "test_a_record_is_read_as_it_was_put",
            "test_a_uid_may_be_any_text",
        ],
        (
            "A ``uid`` is stored once per stream: of several puts the first stays and the others"
            " return False, also when they happen at the same time."
        ): [
            "test_of_two_puts_the_first_stays",
            "test_of_two_in_one_call_the_first_stays",
            "test_of_puts_at_the_same_time_one_is_new",
            "test_of_puts_by_two_processes_one_is_new_for_each_uid",
        ],
        (
            "Positions in a stream are 1, 2, 3, … without a gap, in the order of the first puts,"
            " and the order within one call is kept: a reader that saw position n never finds a"
            " new record at or below n later."
        ): [
            "test_positions_grow_by_one_past_duplicates",
            "test_the_order_within_a_call_is_kept",
            "test_puts_at_the_same_time_leave_no_gap",
            "test_a_reader_that_follows_the_writers_misses_nothing",
            "test_a_process_that_is_killed_while_it_puts_leaves_no_gap",
        ],
        "Raises RecordTooLarge: a record is above the limit; no record of this call was stored.": [
            "test_a_record_above_the_limit_is_refused_and_nothing_is_stored",
        ],
        (
            "Raises StoreUnavailable: not all records were confirmed; the caller may repeat the"
            " call."
        ): [
            f"{OUTAGES}::test_artifacts_of_several_streams_are_unavailable_like_those_of_one",
            f"{OUTAGES}::test_what_may_be_repeated_is_repeated",
        ],
    },
    "read": {
        "Return up to ``limit`` records of a stream with positions above ``after``, in order.": [
            "test_reading_goes_on_after_a_position"
        ],
        (
            "The newest records may be missing at the end, for example after a failover to another"
            " server; with ``latest``, which may take longer, no record is missing that was"
            " confirmed before the call."
        ): [
            "test_the_latest_read_misses_nothing_that_was_confirmed",
            f"{LATEST}::test_a_stream_is_read_to_its_end_where_that_is_asked",
        ],
    },
    ("known"): {
        "Return those of ``uids`` that the stream contains.": [
            "test_known_says_which_uids_are_held"
        ]
    },
    "scan": {
        "Return up to ``limit`` records of all streams of a task, ordered by ``created_at``.": [
            "test_scanning_goes_through_all_streams_of_a_task_by_time",
            "test_scanning_goes_through_records_of_the_same_time",
        ],
        "Each record comes with its cursor for ``after``.": [
            "test_every_cursor_of_a_scan_goes_on_behind_its_record",
        ],
    },
}

CLOCKS = {
    "": {
        "Source of the time.": DEFINITION,
        "Tests replace the system's clock with a virtual one.": DEFINITION,
    },
    "now": {
        "Return the wall-clock time in seconds since 1970-01-01 UTC.": [
            f"{CLOCK}::test_the_system_clock_says_the_time_of_the_system"
        ],
        "It may jump.": [f"{CLOCK}::test_a_jump_moves_the_wall_clock_only"],
    },
    "now_dt": {
        "Return :meth:`now` as an aware datetime in UTC.": [
            f"{CLOCK}::test_every_clock_says_its_time_as_an_aware_datetime_too"
        ],
    },
    "monotonic": {
        "Return the seconds since an arbitrary point.": DEFINITION,
        ("They never decrease."): [
            f"{CLOCK}::test_the_monotonic_time_of_every_clock_never_goes_back"
        ],
    },
    "sleep": {
        "Return when :meth:`monotonic` has advanced by ``seconds``.": [
            f"{CLOCK}::test_a_sleep_of_the_system_clock_lasts_as_long_as_it_says",
            f"{CLOCK}::test_sleepers_wake_in_the_order_of_their_deadlines",
        ],
        "If ``seconds`` is not positive, return after one checkpoint.": [
            f"{CLOCK}::test_a_sleep_that_is_not_positive_only_lets_others_run",
        ],
    },
}

TABLES = [
    PromiseTable(Store, [StoreConformance], STORE),
    PromiseTable(RecordStore, [StoreConformance], RECORDS),
    PromiseTable(ArtifactStore, [ArtifactStoreConformance], ARTIFACTS),
    PromiseTable(Clock, [], CLOCKS),
]
