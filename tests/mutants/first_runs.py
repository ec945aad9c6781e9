"""The run that catches each mutant fastest.

It is tried first. If it catches nothing, the whole search follows.
"""

FIRST_RUNS = {
    "compare-and-set is off": "a_dead_worker_is_missed",
    "dead letters are stored after the commit": "what_cannot_start_ends_at_once",
    "the operation id is ignored": "lost_answers_cost_little",
    "a damaged record stops the other tasks": "chain:3",
    "a damaged task is quarantined without a dead letter": "chain:3",
    "a stale copy is never compared with the store": "time_limit:64",
    "the outbox is cleared before the commands are sent": "commands_get_through",
    "commands that were not confirmed count as sent": "commands_get_through",
    "there is no sweep": "commands_get_through",
    "a lost command is not sent again": "commands_get_through",
    "no worker is ever lost": "a_dead_worker_is_missed",
    "every worker is lost at once": "long_runs_are_left_alone",
    "a worker is never asked about a run": "fan_in_of_some:14",
    "workers do not renew their sessions": "long_runs_are_left_alone",
    "silence is measured from the first heartbeat": "long_runs_are_left_alone",
    "user code runs before its claim is stored": "chain:3",
    "an attempt that another worker claimed runs again": "fan_out_and_in:8",
    "a failure of any attempt counts": "handing_back_is_no_attempt",
    "one attempt too many": "attempts_run_out",
    "an attempt that was handed back counts": "handing_back_is_no_attempt",
    "an attempt that was handed back is issued with the same token": "handing_back_is_no_attempt",
    "cancelled work begins again": "the_dead_are_cancelled",
    "a cancelled task ends before its nodes": "the_dead_are_cancelled",
    "any parent is enough": "fan_out_and_in",
    "counters are not restored after a crash": "retry_below_a_failure",
    "a failed node lets its children wait": "what_cannot_start_ends_at_once",
    "a wait for the end of all parents ends with the first failure": "after_all_ends",
    "a failure is not passed on below its children": "below_a_failure",
    "the data of an optional node that failed is missed": "without_optional_data",
    "the failure of an optional node fails the task": "without_optional_data",
    "one node more than max_parallel is in flight": "few_at_a_time",
    "a reader takes the last place from the node that it reads from": "few_streams_at_a_time",
    "a cancelled node never ends": "the_dead_are_cancelled",
    "the normal branch of a handled failure counts as failed": "below_a_handled_failure",
    "a retry keeps nodes that ran without data that they can get now": "retry_below_a_failure",
    "a run does not report that it pulled": "retry_of_a_reader",
    "vars are applied for each return of a function": "functions:11",
    "batches that are stored are processed again": "batches_are_done_once",
    "the deadline is not kept": "deadline",
    "a later attempt counts only its own batches": "batches_are_done_once",
    "a node ends before its batches are stored": "letter_of_a_race",
    "a reader stops when a stream pauses": "streaming",
    "an empty page counts as the end of a stream": "streaming:66",
    "an artifact is stored as often as it is put": "lost_answers_cost_little",
}
"""The name of a promise or of a scenario without faults, or ``SCENARIO:SEED`` for a seed with all
faults.
"""
