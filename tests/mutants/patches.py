"""Faults that could be in the protocol, one in each mutant."""

from tests.mutants.places import Mutant

MUTANTS = (
    # ------------------------------------------------ commits
    Mutant(
        "compare-and-set is off",
        "TaskTable.commit",
        "row is None or row.version != commit.expected_version",
        "row is None",
    ),
    Mutant(
        "a commit does not count up the version",
        "TaskTable.commit",
        "row.version += 1",
        "",
    ),
    Mutant(
        "an unconfirmed commit counts as stored",
        "EventProcessor._apply",
        "rounds.append(pending)",
        """
if call.operations:
    return
rounds.append(pending)
""",
    ),
    Mutant(
        "dead letters are stored after the commit",
        "EventProcessor._commit",
        """
if parked:
    call.uncommitted |= {letter.letter_id: letter for letter in parked}
    await self._node_letters.park(parked)
stored = await self._store.commit([pending.commit for pending in commits.values()])
""",
        """
stored = await self._store.commit([pending.commit for pending in commits.values()])
if parked:
    call.uncommitted |= {letter.letter_id: letter for letter in parked}
    await self._node_letters.park(parked)
""",
    ),
    Mutant(
        "a refused commit's effects are carried out",
        "EventProcessor._commit",
        "refused.append(task_id)",
        "call.outcome.effects.append(TaskEffects(pending.update.cached, pending.update.effects))",
    ),
    Mutant(
        "the effects of a commit are dropped",
        "EventProcessor._commit",
        "TaskEffects(update.cached, update.effects, has_triggers)",
        "TaskEffects(update.cached, [], has_triggers)",
    ),
    Mutant(
        "the operation id is ignored",
        "EventProcessor._settle_unknown",
        "loaded.last_operations.get(task_id) == call.operations.pop(task_id)",
        "call.operations.pop(task_id) is None",
    ),
    Mutant(
        "a stale copy is never compared with the store",
        "EventProcessor._advance_and_commit",
        "await self._stale(unchanged, loaded) if unchanged else []",
        "[]",
        suite="tests/coordinator/test_stale_copies.py",
    ),
    Mutant(
        "a copy is not compared with the store after any effect",
        "EventProcessor._advance_and_commit",
        "not _reads_children(events, update.effects)",
        "not update.effects",
        suite="tests/coordinator/test_stale_copies.py",
    ),
    # ------------------------------------------------ due times
    Mutant(
        "a node is not due at a new time",
        "Transition.schedule",
        "self.due[index] = at if known is None else min(at, known)",
        "",
    ),
    # ------------------------------------------------ damaged records
    Mutant(
        "a damaged record stops the other tasks",
        "EventProcessor._cache_record",
        """
await self.quarantine(task_id, error)
return None
""",
        "raise",
        scenarios=("chain",),
    ),
    Mutant(
        "a damaged task is quarantined without a dead letter",
        "Quarantine.add",
        "await park_letters(self._store, [letter])",
        "",
        scenarios=("chain",),
    ),
    # ------------------------------------------------ messages
    Mutant(
        "a report is acknowledged before it is stored",
        "read_reports",
        """
await awaited(handle(touched, events), ending=ending)
await subscription.ack(_without(parked, deliveries) if parked else deliveries)
""",
        """
await subscription.ack(_without(parked, deliveries) if parked else deliveries)
await awaited(handle(touched, events), ending=ending)
""",
    ),
    Mutant(
        "a command is acknowledged before its start is reported",
        "CommandInbox._accept",
        "not self._attempts.accept(command, served, delivery.message.headers, origin)",
        "self._attempts.accept(command, served, delivery.message.headers, origin) or True",
    ),
    Mutant(
        "reports that were not sent count as sent",
        "ReportSender._publish",
        "await self._bus.publish(messages)",
        """
try:
    await self._bus.publish(messages)
except _NEVER_SENT:
    raise
except Exception:
    return
""",
    ),
    Mutant(
        "the outbox is cleared before the commands are sent",
        "Outbox.carry_out",
        "await self._publish(outgoing)",
        """
for one in outgoing:
    one.is_sent = True
self._note(outgoing)
for one in outgoing:
    one.is_sent = False
await self._publish(outgoing)
""",
    ),
    Mutant(
        "commands that were not confirmed count as sent",
        "Outbox._note",
        "one.is_sent",
        "True",
    ),
    Mutant(
        "one failing topic delays the others",
        "Outbox._publish_topic",
        "isinstance(error, BusError) and not isinstance(error, TopicUnavailable)"
        " and not any(one.is_sent for one in every)",
        "isinstance(error, BusError)",
        suite="tests/coordinator/test_topics_in_trouble.py",
    ),
    # ------------------------------------------------ recovery
    Mutant(
        "pending effects are not restored",
        "pending_effects",
        "task.terminal",
        "True",
    ),
    Mutant(
        "there is no sweep",
        "_wake_overdue",
        "store.due(before=before, limit=limit)",
        "store.due(before=0.0, limit=limit)",
    ),
    Mutant(
        "timers never fire",
        "Timers.run",
        "await wake(due)",
        "",
    ),
    Mutant(
        "a lost command is not sent again",
        "commands_lost",
        "record is None or record.place != command.place",
        "True",
    ),
    Mutant(
        "a check of a command that is not answered puts off the next one",
        "next_check",
        "FIRST_CHECK_SEC",
        "LONGEST_CHECK_PAUSE_SEC",
        suite="tests/coordinator/test_unanswered_checks.py",
    ),
    Mutant(
        "a worker is never asked about a run",
        "Outbox._outgoing",
        """
message = AskRun(
    task_id=task.task_id, index=index, attempt=attempt, token=token, worker_id=worker_id
)
""",
        "return None",
        suite="tests/coordinator/test_lost_messages.py",
    ),
    Mutant(
        "no worker is ever lost",
        "WorkerWatch.silent",
        "silent[record.worker_id] = self._read_at - since",
        "del since",
    ),
    Mutant(
        "every worker is lost at once",
        "_loss",
        "silence >= patience_sec(record, settings)",
        "silence >= 0.0",
    ),
    Mutant(
        "workers do not renew their sessions",
        "Membership.renew",
        "self._beat += 1",
        "self._beat = 1",
    ),
    Mutant(
        "silence is measured from the first heartbeat",
        "WorkerWatch._lost_workers",
        "known is None or known[0] != beat",
        "known is None",
    ),
    # ------------------------------------------------ starts
    Mutant(
        "user code runs before its claim is stored",
        "Claims.claim",
        """
is_new = await self._writer.put(
    claim_record(command.task_id, command.node_id, command.token, claim)
)
""",
        """
self._writer.add(
    claim_record(command.task_id, command.node_id, command.token, claim), lambda _: None
)
is_new = True
""",
        suite="tests/worker/test_claims.py",
    ),
    Mutant(
        "an attempt that another worker claimed runs again",
        "Claims.claim",
        "None if is_new else await self._earlier(command, claim)",
        "None",
        suite=(
            "tests/worker/test_claims.py"
            "::test_a_second_worker_does_not_run_what_the_first_claimed_and_reports_the_first"
        ),
    ),
    # ------------------------------------------------ windows
    Mutant(
        "the bounds of a window are not stored first",
        "WindowLog.next",
        "await self._writer.put(record)",
        "decided is not None",
        suite=(
            "tests/flows/test_windows.py::test_a_lost_worker_leaves_its_windows_to_the_next_attempt"
        ),
    ),
    # ------------------------------------------------ attempts
    Mutant(
        "only the present attempt may succeed",
        "_is_foreign",
        """
return not task.issued_token_matches(
    event.index, draft.record(event.index), event.attempt, event.token
)
""",
        """
return not _is_current(draft, event)
""",
    ),
    Mutant(
        "a failure of any attempt counts",
        "_is_current",
        """
return event.attempt == record.attempt and compare_digest(
    task.spec.current_token(index, record), event.token
)
""",
        """
return task.issued_token_matches(index, record, event.attempt, event.token)
""",
    ),
    Mutant(
        "one attempt too many",
        "retry_delay",
        "attempts_made > policy.max",
        "attempts_made > policy.max + 1",
    ),
    Mutant(
        "a finished node may finish again",
        "NODE_REPORTS[NodeSucceeded]",
        "'ready asking issued running deferred cancelling'",
        "'finished ready asking issued running deferred cancelling'",
    ),
    Mutant(
        "a retry is never due",
        "fail_attempt",
        "draft.schedule(index, record.next_retry_at)",
        "",
    ),
    Mutant(
        "an attempt that was handed back counts",
        "_hand_back",
        "record.attempt -= 1",
        "",
    ),
    Mutant(
        "an attempt that was handed back is issued with the same token",
        "_hand_back",
        "record.handovers += 1",
        "",
    ),
    Mutant(
        "cancelled work begins again",
        "_cancel",
        "stop_everything(draft, 'cancelled', settings)",
        "",
    ),
    Mutant(
        "a cancelled node never ends",
        "_stop_is_over",
        "draft.now >= (record.cancel_by or draft.now)",
        "False",
    ),
    Mutant(
        "a cancelled task ends before its nodes",
        "settle",
        "draft.open == 0 and not awaits_output(draft)",
        "draft.outcome is not None or (draft.open == 0 and not awaits_output(draft))",
    ),
    # ------------------------------------------------ graphs
    Mutant(
        "any parent is enough",
        "readiness",
        """
if pending:
    return Readiness.WAIT
""",
        """
if pending and not taken:
    return Readiness.WAIT
""",
    ),
    Mutant(
        "counters are not restored after a crash",
        "derive",
        "counts[outcomes[edge.route]][edge.node] += 1",
        "",
    ),
    Mutant(
        "a failed node lets its children wait",
        "readiness",
        """
if broken and need == ALL:
    return Readiness.NEVER
""",
        """
if broken and need == ALL and not pending:
    return Readiness.NEVER
""",
    ),
    Mutant(
        "a wait for the end of all parents ends with the first failure",
        "readiness",
        """
if pending:
    return Readiness.WAIT
""",
        """
if pending and not (broken and need == ALL_ENDED):
    return Readiness.WAIT
""",
        ("after_all_ends",),
    ),
    Mutant(
        "a failure is not passed on below its children",
        "OUTCOMES[Mark.UPSTREAM_FAILED]",
        "(BROKEN, BROKEN, EMPTY)",
        "(EMPTY, EMPTY, EMPTY)",
        ("below_a_failure",),
    ),
    Mutant(
        "the data of an optional node that failed is missed",
        "OPTIONAL_OUTCOMES[Mark.FAILED]",
        "(EMPTY, EMPTY, TAKEN)",
        "(BROKEN, EMPTY, TAKEN)",
        ("without_optional_data",),
    ),
    Mutant(
        "the failure of an optional node fails the task",
        "fails_task",
        "plan.nodes[index].optional or handles_failure(plan, index)",
        "handles_failure(plan, index)",
        ("without_optional_data",),
    ),
    Mutant(
        "task.end does not end the task",
        "function_returned",
        "event.ending is None or draft.outcome is not None",
        "True",
        ("early_end",),
    ),
    Mutant(
        "undos run in the order of the graph",
        "queue_rank",
        "record.after or plan.nodes[index].priority",
        "plan.nodes[index].priority",
        ("saga",),
    ),
    Mutant(
        "an undo begins while another one waits for its next attempt",
        "_issue_next_undo",
        "draft.in_flight or draft.deferred",
        "draft.in_flight",
        ("saga",),
    ),
    Mutant(
        "nothing is undone",
        "_begin_undo",
        "draft.outcome is TaskStatus.FINISHED or not _begin_undo_of(draft, index)",
        "True",
        ("saga",),
    ),
    Mutant(
        "the children of a map are undone in the order of its items",
        "_order_of_ends",
        "last[child] = seq",
        "last[child] = 1_000 - numbers[child]",
        ("saga_of_maps",),
    ),
    Mutant(
        "a retry keeps the results of undone children",
        "_undos_of_maps",
        "ends is not None and index in ends.undone_by",
        "False",
        ("saga_of_maps",),
    ),
    Mutant(
        "finally does not wait for undos",
        "_next_phase",
        "((Phase.UNDO, ends.undos), (Phase.FINALLY, ends.final))",
        "((Phase.FINALLY, ends.final), (Phase.UNDO, ends.undos))",
        ("saga",),
    ),
    Mutant(
        "a retry keeps the results of undone nodes",
        "undone_nodes",
        "record is not None and record.first_issued_at and not is_map(task.spec.plan, index)",
        "False",
        ("saga",),
    ),
    Mutant(
        "one node more than max_parallel is in flight",
        "_issue_at_most",
        "draft.in_flight < limit",
        "draft.in_flight <= limit",
        ("few_at_a_time",),
    ),
    Mutant(
        "a reader takes the last place from the node that it reads from",
        "_issue_at_most",
        "held if draft.in_flight == limit - 1 else None",
        "None",
        suite="tests/engine/test_order.py",
    ),
    Mutant(
        "the normal branch of a handled failure counts as failed",
        "HANDLED_FAILURE",
        "(BROKEN, EMPTY, TAKEN)",
        "(BROKEN, BROKEN, TAKEN)",
        ("below_a_handled_failure",),
    ),
    Mutant(
        "a retry keeps nodes that ran without data that they can get now",
        "_with_nodes_below",
        "finished and is_owed(task, index, again)",
        "False",
        ("retry_below_a_failure",),
    ),
    Mutant(
        "a run does not report that it pulled",
        "BatchSource._sources",
        "self.pulled = True",
        "",
        ("retry_of_a_reader",),
    ),
    Mutant(
        "vars are applied for each return of a function",
        "NODE_REPORTS[FunctionReturned]",
        "'ready asking running deferred cancelling'",
        "'finished ready asking running deferred cancelling'",
        scenarios=("functions",),
    ),
    Mutant(
        "the deadline is not kept",
        "woke",
        "now >= draft.deadline_at",
        "False",
    ),
    # ------------------------------------------------ streams
    Mutant(
        "batches that are stored are processed again",
        "StoredBatches.unprocessed",
        "batch.batch_uid in known",
        "False",
    ),
    Mutant(
        "the failure of one of several batches is lost",
        "Lanes._do",
        "self._error or error",
        "self._error",
        suite=(
            "tests/flows/test_parallel_batches.py"
            "::test_the_failure_of_the_last_batch_fails_the_node"
        ),
    ),
    Mutant(
        "a batch that fails after the end of the input is not tried again",
        "BatchProcessor.process_all",
        "self._waiting or lanes.busy",
        "self._waiting",
        suite=(
            "tests/flows/test_parallel_batches.py"
            "::test_a_failed_batch_is_tried_again_beside_the_others"
        ),
    ),
    Mutant(
        "tries that a stopping worker cuts off count",
        "BatchProcessor.retries",
        "self._trying & tries.keys()",
        "()",
        suite=(
            "tests/flows/test_parallel_batches.py"
            "::test_tries_that_a_stopping_worker_cuts_off_do_not_count"
        ),
    ),
    Mutant(
        "a producer does not wait for readers that are about to start",
        "BatchProcessor.wait_for_readers",
        "readers.expect(self._stored.stream, self._expected, self._shards)",
        "",
        suite=(
            "tests/flows/test_flow_control.py::test_a_producer_waits_for_a_reader_that_begins_soon"
        ),
    ),
    Mutant(
        "a producer waits for ever for a reader that does not start",
        "StreamReaders.expect",
        "now + EXPECT_SEC",
        "now + 1e9",
        suite=(
            "tests/flows/test_flow_control.py"
            "::test_a_reader_that_does_not_begin_holds_up_no_producer_for_long"
        ),
    ),
    Mutant(
        "a producer waits for a reader that is not heard any more",
        "StreamReaders.notice",
        "now + FORGET_SEC",
        "now + 1e9",
        suite=(
            "tests/flows/test_flow_control.py"
            "::test_a_producer_goes_on_some_time_after_the_death_of_its_reader"
        ),
    ),
    Mutant(
        "a reader does not repeat its position",
        "Readings.repeat",
        "reading.repeat()",
        "pass",
        suite=(
            "tests/flows/test_flow_control.py"
            "::test_a_producer_goes_on_at_once_when_its_reader_fails"
        ),
    ),
    Mutant(
        "a reader does not repeat a position that has not changed",
        "Reading.repeat",
        "sends_all or position != self._sent[stream]",
        "position != self._sent[stream]",
        suite=(
            "tests/flows/test_flow_control.py"
            "::test_a_producer_goes_on_at_once_when_its_reader_fails"
        ),
    ),
    Mutant(
        "a reader that waits repeats its position as often as one that reads",
        "Reading.repeat",
        "self._repetitions % UNCHANGED == 0",
        "True",
        suite=(
            "tests/flows/test_flow_control.py::test_a_reader_that_waits_seldom_sends_its_position"
        ),
    ),
    Mutant(
        "a reader that ends holds up its producers",
        "Readings.of",
        "reading.end(ended)",
        "pass",
        suite=(
            "tests/flows/test_flow_control.py"
            "::test_a_producer_goes_on_at_once_when_its_reader_fails"
        ),
    ),
    Mutant(
        "a shard reads the artifacts of another",
        "Share.has",
        "(position - 1) % self.shards == self.shard",
        "(position - 1) % self.shards <= self.shard",
        scenarios=("shards",),
    ),
    Mutant(
        "each shard ends the node",
        "BatchWork.run",
        "self._command.shard is not None",
        "False",
        suite="tests/flows/test_shards.py",
    ),
    Mutant(
        "a node with shards ends twice",
        "shards_collected",
        "record.sharded_since = record.started_at",
        "",
        suite="tests/engine/test_shards.py",
    ),
    Mutant(
        "a node ends before all its shards have",
        "shards_collected",
        "draft.edit_map(event.index).open",
        "False",
        suite="tests/engine/test_shards.py",
    ),
    Mutant(
        "a shard counts the batches of the others",
        "StoredBatches.totals",
        "shard_of(record.uid) == self._shard",
        "True",
        scenarios=("shards",),
    ),
    Mutant(
        "readers take the place of the end of the node that they read",
        "_shards_progress",
        "bool(is_open)",
        "True",
        suite="tests/engine/test_shards.py",
    ),
    Mutant(
        "a shard waits for what the others have stored",
        "_Reader.limit",
        "self.of_shards[shard]",
        "self.position",
        suite=(
            "tests/flows/test_shards.py"
            "::test_the_shards_of_a_producer_wait_for_a_reader_that_is_behind"
        ),
    ),
    Mutant(
        "a finished shard that runs again finds its batches stored",
        "renewed_nodes",
        "marks[index] == Mark.FINISHED",
        "False",
        suite="tests/engine/test_shards.py",
    ),
    Mutant(
        "a later attempt counts only its own batches",
        "StoredBatches.__init__",
        "command.attempt == 1 and not command.resumed",
        "True",
    ),
    Mutant(
        "a node ends before its batches are stored",
        "StoredBatches.flush",
        """
while self._unstored and self._error is None:
    await self._wait_for_change()
""",
        "",
        suite="tests/worker/test_inputs.py",
    ),
    Mutant(
        "a reader stops when a stream pauses",
        "InputRequest._merged",
        "stream in was_ended",
        "True",
    ),
    Mutant(
        "an empty page counts as the end of a stream",
        "ArtifactReader.page",
        "page or not to_the_end",
        "True",
        suite=(
            "tests/worker/test_inputs.py"
            "::test_the_last_artifacts_are_read_although_a_store_shows_them_late"
        ),
    ),
    Mutant(
        "an artifact is stored as often as it is put",
        "InMemoryArtifactStore._put",
        "record.uid in log.uids",
        "False",
    ),
    # ------------------------------------------------ conditions
    Mutant(
        "an operator ignores that the budget is exceeded",
        "BudgetExceeded",
        "ExpressionError",
        "EvaluationError",
        suite="tests/expressions/test_expressions.py",
    ),
    Mutant(
        "an error that is ignored costs nothing",
        "logic",
        "frame[0].spend(ERROR_STEPS)",
        "",
        suite="tests/expressions/test_budget.py",
    ),
    Mutant(
        "the value of an expression is not copied",
        "json_value",
        "[json_value(item, budget, levels - 1) for item in value]",
        "value",
        suite="tests/graph/test_templates.py",
    ),
    Mutant(
        "a walk through an input costs nothing",
        "_Evaluation.value",
        "self._budget.spend(1)",
        "",
        suite="tests/graph/test_templates.py",
    ),
    Mutant(
        "a node above without a result is missing in the scope of a worker",
        "evaluated_data",
        "dict.fromkeys(about.without_result) | data.results",
        "data.results",
        suite="tests/coordinator/test_templates.py",
    ),
    Mutant(
        "a delayed condition of an earlier run counts",
        "condition_evaluated",
        "event.since != draft.record(event.index).issued_at",
        "event.since is draft",
        suite="tests/engine/test_effects.py",
    ),
    Mutant(
        "a delayed condition is forgotten with its coordinator",
        "_node_woke",
        "draft.effects.append(EvaluateCondition(index))",
        "",
        suite="tests/engine/test_effects.py",
    ),
    # ------------------------------------------------ waits
    Mutant(
        "control nodes of finally do not begin",
        "begin_nodes",
        "not draft.main_is_stopping",
        "draft.outcome is None",
        suite="tests/engine/test_waits_in_phases.py",
    ),
    Mutant(
        "a sleep ends whenever its task wakes",
        "wait_woke",
        "draft.now < min(until, limit)",
        "record.wait is None",
        scenarios=("sleeping",),
    ),
    Mutant(
        "the arguments of a control node are forgotten with their coordinator",
        "wait_woke",
        "draft.effects.append(EvaluateArguments(index, record.attempt))",
        "",
        suite=(
            "tests/engine/test_sleeping.py"
            "::test_arguments_are_evaluated_again_if_their_coordinator_died"
        ),
    ),
    Mutant(
        "arguments of an earlier attempt count",
        "arguments_evaluated",
        "event.attempt != record.attempt",
        "event.attempt > record.attempt + 1",
        suite=(
            "tests/engine/test_sleeping.py"
            "::test_arguments_count_once_and_only_for_the_current_attempt"
        ),
    ),
    # ------------------------------------------------ schedules
    Mutant(
        "missed times are caught up again",
        "_StepDraft.decide_due",
        "self.state = replace(self.state, handled=nominal)",
        "",
        suite="tests/schedules/test_state_machine.py",
    ),
    Mutant(
        "tasks whose coordinator died before it made them are forgotten",
        "advance_schedule",
        "list(state.starting)",
        "[]",
        suite="tests/schedules/test_state_machine.py",
    ),
    Mutant(
        "times during a pause are caught up",
        "in_pause",
        "any(start < nominal <= end for start, end in state.pauses)",
        "False",
        suite="tests/schedules/test_state_machine.py",
    ),
    Mutant(
        "a coordinator makes tasks although another one was faster",
        "ScheduleRuns._store_steps",
        "[run for run, success in zip(runs, stored, strict=True) if success]",
        "runs",
        suite="tests/schedules/test_running_schedules.py",
    ),
    Mutant(
        "a task of another origin counts as that of a nominal time",
        "TaskMaker._compare",
        "not origins[name].is_same(first.origin)",
        "False",
        suite="tests/schedules/test_running_schedules.py",
    ),
    Mutant(
        "a trigger whose answer is lost makes another task when it is repeated",
        "triggered",
        "one.request == request",
        "False",
        suite="tests/schedules/test_state_machine.py",
    ),
    Mutant(
        "times that were missed before a schedule got other ones are forgotten",
        "_with_timing",
        "replace(state, earlier=(*state.earlier, Earlier(now, old.timing)))",
        "replace(state, handled=now)",
        suite="tests/schedules/test_state_machine.py",
    ),
    # ------------------------------------------------ triggers
    Mutant(
        "an event is acknowledged before its task is stored",
        "TriggerRuns.handle",
        """
await self.make(list(happened.values()))
await self._delete([*done, *happened])
""",
        """
await self._delete([*done, *happened])
await self.make(list(happened.values()))
""",
        suite="tests/triggers/test_running_triggers.py",
    ),
    Mutant(
        "an end that did not happen makes a task",
        "decide",
        """
if not task.terminal:
    return Decision.WAIT
""",
        "",
        suite="tests/triggers/test_state_machine.py",
    ),
    Mutant(
        "an event of a source is acknowledged before its task is stored",
        "TriggerSources._read",
        """
await self._make(stored, deliveries)
await stream.ack(deliveries)
""",
        """
await stream.ack(deliveries)
await self._make(stored, deliveries)
""",
        suite="tests/triggers/test_sources_of_plugins.py",
    ),
    Mutant(
        "another source is read where the one before was",
        "StoredTrigger.group_in",
        "self.since * 1000",
        "self.created_at * 1000",
        suite="tests/triggers/test_sources_of_plugins.py",
    ),
    # ------------------------------------------------ maps
    Mutant(
        "one child more than max_parallel is in flight",
        "may_start_child",
        "state.in_flight < limit",
        "state.in_flight <= limit",
        suite="tests/engine/test_maps.py",
    ),
    Mutant(
        "a map keeps its children when its input is new",
        "reset_maps",
        "drop_map(draft, index)",
        "count += _reset_children(draft, index, state, named)",
        suite="tests/engine/test_maps.py",
    ),
    Mutant(
        "the results of a retried map are mixed with earlier ones",
        "_is_of_run",
        "draft.record(event.index).attempt == event.attempt",
        "draft.record(event.index).attempt >= event.attempt",
        suite="tests/engine/test_maps.py",
    ),
    Mutant(
        "children of a failed map go on",
        "_child_failed",
        "stop_children(draft, owner, stop_code, settings)",
        "",
        suite="tests/engine/test_maps.py",
    ),
    Mutant(
        "a child gets the item of its neighbour",
        "item_of",
        "return items[place]",
        "return items[place - 1]",
        suite="tests/flows/test_maps.py",
    ),
    Mutant(
        "the marks of children are not stored",
        "changed_parts",
        "index >= size",
        "index < 0",
        scenarios=("map_over_a_result", "map_that_is_retried"),
    ),
    # ------------------------------------------------ child tasks
    Mutant(
        "the child task of a stopped node goes on",
        "child_state",
        "_stop_reason(task, index) if stops else None",
        "None",
    ),
    Mutant(
        "a child task runs the latest version of a flow",
        "ChildGraphs.of",
        "task.spec.fixed(nested)",
        "FlowRef(nested.name, nested.version or await self._flows.latest(nested.name))",
        suite="tests/flows/test_named_flows.py",
    ),
    Mutant(
        "a put whose answer was lost is stored again",
        "FlowPut.apply",
        "(mine := next(own, None)) is not None",
        "False",
        suite="tests/client/test_flows.py",
    ),
    Mutant(
        "each attempt has a child task of its own",
        "ParentNode.cause",
        "return self.task_id, self.node_id, self.generation, self.iteration",
        "return self.task_id, self.node_id, self.generation, self.iteration, self.attempt",
        suite="tests/engine/test_child_tasks.py",
    ),
    Mutant(
        "a child task is not checked after a lost notice",
        "child_woke",
        "draft.effects.append(RunChild(index, record.attempt))",
        "",
        suite="tests/engine/test_child_tasks.py",
    ),
    Mutant(
        "a child task follows a pause again after its own resume",
        "_follow_parent",
        "newer or event.pauses > draft.parent_pauses",
        "True",
        suite="tests/engine/test_child_tasks.py",
    ),
    Mutant(
        "a resume does not reach child tasks that were paused alone",
        "_reaches_nothing",
        "draft.paused is paused and not runs_children(draft)",
        "draft.paused is paused",
        suite="tests/engine/test_child_tasks.py",
    ),
    Mutant(
        "a forced cancel does not go down",
        "Children._follow",
        "state.forced",
        "False",
        suite="tests/flows/test_subflow_phases.py",
    ),
    Mutant(
        "a pause does not reach the child tasks of a map",
        "_followed",
        "begun_children(task.marks, task.maps[index])",
        "()",
        suite="tests/engine/test_mapped_child_tasks.py",
    ),
    Mutant(
        "a task of another origin is taken for a child task",
        "_check_origin",
        "not node.is_same_node(child.spec.parent)",
        "False",
        suite=(
            "tests/flows/test_subflows.py::test_a_task_of_another_origin_is_never_taken_for_a_child"
        ),
    ),
    Mutant(
        "the end of an earlier child task counts for a later run of the node",
        "end_in_memory",
        "node.is_same_node(state.node)",
        "True",
        suite="tests/coordinator/test_child_ends.py",
    ),
    # ------------------------------------------------ loops
    Mutant(
        "the next round does not see the result of the one before",
        "round_finished",
        "ChildLink(iteration=rounds, due=due, previous=event.result)",
        "ChildLink(iteration=rounds, due=due)",
        scenarios=("loops",),
    ),
    Mutant(
        "a round begins before its condition is checked",
        "next_link",
        "link.due or not is_checked_first(node)",
        "True",
        scenarios=("loops",),
    ),
    Mutant(
        "a round is taken for the one after it",
        "_is_current",
        "about.iteration == record.child.iteration",
        "True",
        suite="tests/engine/test_loops.py",
    ),
    Mutant(
        "a loop that is being cancelled goes on",
        "round_finished",
        "draft.mark(index) == Mark.CANCELLING",
        "False",
        suite="tests/engine/test_loops.py",
    ),
    Mutant(
        "a retry of a loop begins with its first round",
        "reset_record",
        "None if from_nothing else record.child",
        "None",
        suite="tests/engine/test_loops.py",
    ),
    Mutant(
        "a task finishes without its output",
        "awaits_output",
        "state.spec.plan.output is not None",
        "False",
        scenarios=("outputs",),
    ),
    Mutant(
        "a retry keeps the output",
        "_retry",
        "draft.outcome = draft.output = None",
        "draft.outcome = None",
        suite="tests/engine/test_outputs.py",
    ),
    Mutant(
        "a delayed output of an earlier run counts",
        "output_evaluated",
        "event.since != since",
        "False",
        suite="tests/engine/test_outputs.py",
    ),
    Mutant(
        "a delayed output is forgotten with its coordinator",
        "pending_effects",
        "effects.append(EvaluateOutput())",
        "",
        suite="tests/engine/test_outputs.py",
    ),
    Mutant(
        "a kept signal stays when a node takes it",
        "start_wait_signal",
        "draft.signals_changed = True",
        "draft.signals = box",
        scenarios=("signals",),
    ),
    Mutant(
        "a signal that no node waits for is lost",
        "signal_received",
        "(*box.kept, signal) if index is None else box.kept",
        "box.kept",
        scenarios=("signals",),
    ),
    Mutant(
        "the ids of signals are ignored",
        "signal_received",
        "event.signal_id in box.ids",
        "box.received < 0",
        suite="tests/engine/test_signals.py",
    ),
    Mutant(
        "a decision about another attempt counts",
        "decision_made",
        "event.attempt != record.attempt",
        "False",
        suite="tests/engine/test_decisions.py",
    ),
    Mutant(
        "a request that the task ignores counts as made",
        "Session.change",
        "task_id not in outcome.unchanged",
        "True",
        scenarios=("decisions",),
    ),
    Mutant(
        "idempotency keys are ignored",
        "TaskTable.create",
        "first != header.task_id",
        "False",
        suite=(
            "tests/conformance/test_memory.py"
            "::TestInMemoryStore::test_idempotency_keys_are_compared_exactly"
        ),
    ),
    # ------------------------------------------------ concurrency keys
    Mutant(
        "a key has one holder too many",
        "admit",
        "one.fits(len(holders), begun(one.per_sec or 0.0))",
        "one.fits(len(holders) - 1, begun(one.per_sec or 0.0))",
        suite="tests/keys/test_key_steps.py",
    ),
    Mutant(
        "a claim that is not in the queue counts as queued",
        "_answer",
        "ask.queued",
        "True",
        suite="tests/keys/test_key_steps.py",
    ),
    Mutant(
        "answers are ignored if one of them comes too late",
        "keys_answered",
        "all_ignored and draft.ignored",
        "all_ignored or draft.ignored",
        suite="tests/keys/test_answers.py",
    ),
    Mutant(
        "a key that may be held by another counts as free",
        "KeyStore.forget",
        "self._known[key] = None",
        "self._known.pop(key, None)",
        suite="tests/keys/test_answers.py",
    ),
    Mutant(
        "a queue in memory stays after claims came into it",
        "KeyWork.changes_queue",
        "any(ask.queued for ask in self.asks)",
        "False",
        suite="tests/keys/test_key_queues.py",
    ),
    Mutant(
        "a queue in memory stays after claims were withdrawn from it",
        "KeyWork.changes_queue",
        "self.leaves",
        "False",
        suite="tests/keys/test_key_queues.py",
    ),
    Mutant(
        "the record of a key does not count the claims that have left the queue",
        "KeyQueue.left",
        "tuple(begun)",
        "()",
        suite="tests/keys/test_key_queues.py",
    ),
    Mutant(
        "a claim that comes into the queue again is not there",
        "KeyQueue.add",
        "other is None or other.index(claim) in other.out",
        "other is None",
        suite="tests/keys/test_key_queues.py",
    ),
    Mutant(
        "a claim comes before others that were not read",
        "KeyQueue.add",
        "self.end is None or claim < self.end",
        "True",
        suite="tests/keys/test_key_queues.py",
    ),
    Mutant(
        "a claim that is withdrawn stays in its batch",
        "KeyStore._search",
        "len(gone) > len(batch.gone)",
        "False",
        suite="tests/keys/test_key_queues.py",
    ),
    Mutant(
        "a batch that two withdrawn claims leave is changed twice",
        "KeyStore._search",
        "batch.name in changed",
        "False",
        suite="tests/keys/test_key_queues.py",
    ),
    Mutant(
        "the claims of a batch that has left the queue are read again",
        "KeyStore.removals",
        "not batch.is_empty",
        "False",
        suite="tests/keys/test_key_queues.py",
    ),
    Mutant(
        "a queue in memory stays after another coordinator has changed the key",
        "KeyStore._take_queue",
        "queue is not None and revision == known.revision",
        "queue is not None",
        suite="tests/keys/test_key_queues.py",
    ),
    Mutant(
        "a queue counts as empty because no claim of it is in memory",
        "KeyStore.queues",
        "queue and queue.has(todo.reads)",
        "queue",
        suite="tests/keys/test_key_queues.py",
    ),
    Mutant(
        "a node does not get to know of its place if the store did not confirm it",
        "Step.placed",
        "self.state.holds(one.claimant)",
        "False",
        suite="tests/keys/test_key_queues.py",
    ),
    Mutant(
        "the record of a key counts claims that had no place",
        "Step.placed",
        "given is Answer.GRANTED",
        "True",
        suite="tests/caches/test_result_steps.py",
    ),
    Mutant(
        "a queue is not read again after a place became free",
        "step",
        "state.contended and (fewer or not (whole or left))",
        "False",
        suite="tests/keys/test_key_steps.py",
    ),
    Mutant(
        "a queue is not read when a place is given back",
        "KeyWork.reads_queue",
        "self.returned",
        "False",
        suite="tests/keys/test_key_steps.py",
    ),
    Mutant(
        "a key becomes free because a claim leaves its queue",
        "KeyWork.reads_queue",
        "self.leaves",
        "False",
        suite="tests/keys/test_key_steps.py",
    ),
    Mutant(
        "a holder that is checked gives its place back",
        "KeyClaim.is_past",
        "self.number > number",
        "self.number >= number",
        suite="tests/keys/test_key_checks.py",
    ),
    Mutant(
        "an attempt beyond its limit gives its place back before it has ended",
        "_node_woke",
        "exceeded is not None and draft.task.spec.holds_place(index, record)",
        "False",
        suite="tests/keys/test_ends_of_attempts.py",
    ),
    Mutant(
        "the second copy of a success counts that its attempt had too late",
        "has_exceeded_limit",
        "record.cancel_by is not None",
        "False",
        suite="tests/rates/test_rated_attempts.py",
    ),
    Mutant(
        "a place is given back before the worker has reported the end of a cancelled run",
        "ends_by_proof",
        "spec.holds_place(index, record) and not is_function",
        "False",
        suite="tests/keys/test_ends_of_attempts.py",
    ),
    Mutant(
        "a place has two owners",
        "step",
        "state.after(work.returned, work.values, now)",
        "state.after([one.claimant for one in state.holders], work.values, now)",
        scenarios=("keys_of_many_tasks",),
    ),
    Mutant(
        "a place is given back when the grace of a cancelled run is over",
        "_stop_is_over",
        "_loss(Mark.CANCELLING, record, event, settings) is not None",
        "draft.now >= (record.cancel_by or draft.now)",
        suite="tests/keys/test_ends_of_attempts.py",
    ),
    Mutant(
        "a node gives its place back because another one asks for it",
        "_has_room",
        "draft.in_flight - draft.asking",
        "draft.in_flight",
        suite="tests/keys/test_places_in_flight.py",
    ),
    Mutant(
        "a node that asks starts beside as many as may run",
        "_has_room",
        "started >= min(most or settings.max_in_flight, settings.max_in_flight)",
        "False",
        suite="tests/keys/test_places_in_flight.py",
    ),
    Mutant(
        "a reader takes the last place from a source that asks",
        "_has_room",
        "sources_progress(draft, index, ATTEMPTED)",
        "True",
        suite="tests/keys/test_places_in_flight.py",
    ),
    Mutant(
        "nodes begin before their task has its place",
        "issue_ready_nodes",
        "lacks_place(draft)",
        "False",
        suite="tests/keys/test_graphs_with_keys.py",
    ),
    Mutant(
        "a task keeps its place when it has ended",
        "settle",
        "return_place(draft)",
        "",
        suite="tests/keys/test_graphs_with_keys.py",
    ),
    Mutant(
        "the running task is not cancelled",
        "step",
        "left and not left[0].is_patient",
        "False",
        suite="tests/keys/test_graphs_with_keys.py",
    ),
    Mutant(
        "the end of a function is reported while its thread goes on",
        "Run._execute",
        """
while calls.names:
    with suppress(Escaped):
        await awaited(calls.wait_until_quiet(), ending=self._ending.leaving)
""",
        "",
        suite="tests/worker/test_runs_with_keys.py",
    ),
    Mutant(
        "the end of a run that goes on with its key is reported",
        "Run.abandon",
        "not self.command.exclusive",
        "True",
        suite="tests/worker/test_runs_with_keys.py",
    ),
    Mutant(
        "a worker ends its session while a run goes on with its key",
        "Attempts.holds_keys",
        "run.command.exclusive and not run.reports.ended",
        "False",
        suite="tests/worker/test_runs_with_keys.py",
    ),
    # ------------------------------------------------ rates
    Mutant(
        "attempts that have begun do not count",
        "Candidate.fits",
        "self.limit - begun",
        "self.limit",
        suite="tests/rates/test_rate_windows.py",
    ),
    Mutant(
        "a place comes back by the time at which another coordinator stored its use",
        "RateWindows._age",
        "isinstance(self._clock, StoreClock) and self._clock.is_measured",
        "True",
        suite="tests/rates/test_rate_windows.py",
    ),
    Mutant(
        "only the coordinator with the timer knows when a place of a rate becomes free",
        "Keys._change",
        "state.contended and state.begun",
        "False",
        suite="tests/rates/test_nodes_with_rates.py",
    ),
    Mutant(
        "a coordinator that starts does not look at rates that are due later",
        "check_keys",
        "ahead_sec, queues_at = LONGEST_PAUSE_SEC, clock.monotonic()",
        "ahead_sec, queues_at = 0.0, clock.monotonic()",
        suite="tests/rates/test_nodes_with_rates.py",
    ),
    Mutant(
        "a place that an attempt has used up is free at once",
        "RateWindows.renewed",
        "sum(holder.claimant in work.begun for holder in state.holders)",
        "0",
        suite="tests/rates/test_rate_windows.py",
    ),
    Mutant(
        "attempts count as begun when their worker claims them",
        "node_started",
        "event.begun and record.holds_rate",
        "record.holds_rate",
        suite="tests/rates/test_rated_attempts.py",
    ),
    Mutant(
        "a late command stays in the queue with its place",
        "_node_woke",
        "now >= (late_at(record) or math.inf)",
        "False",
        suite="tests/rates/test_rated_attempts.py",
    ),
    Mutant(
        "a rate gives no place back by time",
        "Keys._wake",
        "self._of(key).serve = True",
        "pass",
        suite="tests/rates/test_nodes_with_rates.py",
    ),
    # ------------------------------------------------ cached results
    Mutant(
        "the result of one that holds no place is stored",
        "KeyState.after",
        "self.holds(claimant) and not self.stale",
        "not self.stale",
        suite="tests/caches/test_result_steps.py",
    ),
    Mutant(
        "a result is stored although it was deleted while it was computed",
        "KeyState.after",
        "self.holds(claimant) and not self.stale",
        "self.holds(claimant)",
        suite="tests/caches/test_result_steps.py",
    ),
    Mutant(
        "a result never expires",
        "KeyState.after",
        "self.value.until <= now",
        "False",
        suite="tests/caches/test_result_steps.py",
    ),
    Mutant(
        "a queue is forgotten that was not served to its end",
        "_served",
        "not whole or bool(present) or any(ask.queued for ask in work.asks)",
        "any(ask.queued for ask in work.asks)",
        suite="tests/caches/test_result_steps.py",
    ),
    Mutant(
        "a key is not marked although a claim that gets the result is in its queue",
        "_served",
        "any(ask.queued for ask in work.asks)",
        "False",
        suite="tests/caches/test_result_steps.py",
    ),
    Mutant(
        "a claim stays in the queue of a contended key if its node does not know that it waits",
        "Keys._round",
        "known.state.contended",
        "False",
        suite="tests/caches/test_lost_answers.py",
    ),
    Mutant(
        "a claim leaves the queue before its node knows the result",
        "Step.sharing",
        "answer is Answer.SHARED",
        "answer not in (Answer.GRANTED, Answer.QUEUED)",
        suite="tests/caches/test_lost_answers.py",
    ),
    Mutant(
        "a result without some batches is stored",
        "return_of",
        "record.resolution is not None or record.skipped or record.cached",
        "record.resolution is not None or record.cached",
        suite="tests/caches/test_cached_results.py",
    ),
    Mutant(
        "a result that an operator has given is stored",
        "return_of",
        "record.resolution is not None or record.skipped or record.cached",
        "record.skipped or record.cached",
        suite="tests/caches/test_cached_results.py",
    ),
    Mutant(
        "a node that took a result is undone",
        "finish_node",
        "not record.cached",
        "True",
        suite="tests/caches/test_cached_results.py",
    ),
    Mutant(
        "a child that took a result is undone",
        "ends_read",
        "number in event.cached",
        "False",
        suite="tests/caches/test_cached_results.py",
    ),
    Mutant(
        "the place of a run that is being stopped is given to the next",
        "TaskSpec.is_exclusive",
        "node.cache is not None",
        "False",
        suite="tests/caches/test_claims.py",
    ),
    Mutant(
        "a node that lets the next one compute its result runs all the same",
        "result_wanted",
        """
draft.return_unused(index)
draft.edit(index).cache = replace(claim, state="unused", asked_at=draft.now)
""",
        """
draft.end_claim(index, "cache", begun=False)
draft.edit(index).cache = claim
""",
        suite="tests/caches/test_claims.py",
    ),
    Mutant(
        "a node that waits for its rate lets the next one compute its result",
        "result_wanted",
        'draft.record(index).queued_for != "key"',
        "False",
        suite="tests/caches/test_claims.py",
    ),
    Mutant(
        "a node that lets the next one compute its result is the next one",
        "result_wanted",
        'replace(claim, state="unused", asked_at=draft.now)',
        'claim.in_state("unused")',
        suite=(
            "tests/caches/test_cached_results.py"
            "::test_a_node_that_waits_for_a_key_lets_one_in_the_place_of_the_key_compute"
        ),
    ),
    Mutant(
        "a node in the place of a key waits with the others for its turn",
        "candidate_of",
        'kind == "cache" and spec.in_place',
        "False",
        suite=(
            "tests/caches/test_cached_results.py"
            "::test_a_node_that_waits_for_a_key_lets_one_in_the_place_of_the_key_compute"
        ),
    ),
    Mutant(
        "the place of a run is given to the next at the end of a turn",
        "Keys._clear",
        "_add(events, holder.claimant, ResultWanted(index, number))",
        "self._of(key).returned.add(holder.claimant)",
        suite=(
            "tests/caches/test_cached_results.py"
            "::test_a_node_that_runs_goes_on_while_one_in_the_place_of_a_key_waits"
        ),
    ),
    Mutant(
        "turns at computing a result end at once",
        "Keys._clear",
        "self._clock.now() < turn_ends_at",
        "False",
        suite=(
            "tests/caches/test_cached_results.py"
            "::test_nodes_that_wait_for_their_keys_take_turns_at_computing_a_result"
        ),
    ),
    # ------------------------------------------------ runs and their worker
    Mutant(
        "a panic passes through its run",
        "awaited",
        """
await _take_back(task, asked, pending, ending)
raise raised from error
""",
        "raise",
        suite=(
            "tests/worker/test_containment.py"
            "::test_any_error_of_a_cleanup_is_logged_and_the_end_of_the_run_does_not_change"
        ),
    ),
    Mutant(
        "runs share their context variables",
        "Slots._execute",
        "in_context(run.execute(slot), self._context.copy())",
        "run.execute(slot)",
        suite=(
            "tests/worker/test_containment.py"
            "::test_each_run_starts_in_a_fresh_copy_of_the_context_of_the_worker"
        ),
    ),
    Mutant(
        "runs that go on exceed the limit",
        "Slots._give_back",
        "self._returning and self._has_room",
        "self._returning",
        suite="tests/flows/test_streams_with_few_slots.py",
    ),
    Mutant(
        "a run that waited for others never gets its slot back",
        "Slot.work",
        "self._slots.take_back(self)",
        "",
        suite="tests/flows/test_streams_with_few_slots.py",
    ),
    Mutant(
        "a reader that waits keeps its slot",
        "InputRequest._next_due",
        "self._slot.rest(self.context)",
        "",
        suite="tests/flows/test_streams_with_few_slots.py",
    ),
    Mutant(
        "a producer that waits for its readers keeps its slot",
        "BatchProcessor.wait_for_readers",
        "self._slot.rest(context)",
        "",
        suite="tests/flows/test_streams_with_few_slots.py",
    ),
    Mutant(
        "a run that pauses keeps its slot from runs that go on",
        "Slots._take_offered",
        "self.give_up(offered)",
        "return",
        suite="tests/worker/test_slots.py",
    ),
    Mutant(
        "a run that goes on after a pause may lose its slot",
        "Slot.work",
        "self._slots.keep(self)",
        "",
        suite="tests/worker/test_slots.py",
    ),
    Mutant(
        "a reader does not look whether its producers had ended before it started",
        "InputRequest._merged",
        "poll_at = clock.monotonic()",
        "poll_at = clock.monotonic() + poll_sec",
        suite=(
            "tests/flows/test_streams_with_few_slots.py"
            "::test_short_streams_do_not_wait_in_a_slot_that_they_share"
        ),
    ),
    Mutant(
        "a run loses its slot between two of its parallel batches",
        "Lanes._end",
        "self._slot.work(self._context)",
        "",
        suite="tests/flows/test_streams_with_few_slots.py",
    ),
    Mutant(
        "commands that are handed over stay in the table",
        "Attempts._withdraw_runs",
        "for run in runs: del self._runs[run.command.task_id, run.command.token]",
        "",
        suite="tests/worker/test_offers.py",
    ),
    Mutant(
        "a command is acknowledged before it is handed over",
        "Offers._send",
        "await self._bus.publish([self._message(run, worker_id) for run in runs])",
        """
await acknowledge_all(origin for run in runs for origin in run.reports.origins)
await self._bus.publish([self._message(run, worker_id) for run in runs])
""",
    ),
    Mutant(
        "a waiting run is handed over to each worker that requests it",
        "Attempts.take_waiting",
        "self._withdraw_runs(lambda run: run.command.role in roles, most)",
        "[run for run in _runs(self._slots.waiting) if run.command.role in roles][:most]",
        suite="tests/worker/test_offers.py",
    ),
    Mutant(
        "runs that cannot be handed over are dropped",
        "Offers._send",
        "self._attempts.put_back(runs)",
        "",
        suite="tests/worker/test_offers.py",
    ),
    Mutant(
        "slots are kept forever for runs that do not come",
        "Requests._expire",
        "self._expect_no_more(worker_id)",
        "pass",
        suite="tests/worker/test_offers.py",
    ),
    Mutant(
        "no slot is kept for a run that was requested",
        "Requests._due",
        "self._slots.reserve(most)",
        "self._slots.reserve(0)",
        suite="tests/worker/test_offers.py",
    ),
    Mutant(
        "a worker that stays busy offers nothing",
        "CommandInbox._take",
        "not stays_busy",
        "True",
    ),
    Mutant(
        "offers that no worker answers are repeated at the same pace",
        "Offers.offer_runs",
        "min(2 * pause_sec, self._longest_pause_sec)",
        "pause_sec",
        suite="tests/worker/test_offers.py",
    ),
    # ------------------------------------------------ the topic of changes
    Mutant(
        "changes are recorded as published before they are",
        "ChangePublisher._record",
        "ChangesPublished(one.published)",
        "ChangesPublished(one.upto)",
        suite="tests/coordinator/test_change_publisher.py",
    ),
    Mutant(
        "all changes of a task are published in one call",
        "ChangePublisher._send",
        "[one.messages[0][1] for one in wave]",
        "[message for one in wave for _, message in one.messages]",
        suite="tests/coordinator/test_change_publisher.py",
    ),
    Mutant(
        "a change that was not confirmed is passed over",
        "ChangePublisher._publish_some",
        "failure = error",
        "[one.messages.popleft() for one in wave]",
        suite="tests/coordinator/test_change_publisher.py",
    ),
    Mutant(
        "an ended task with changes to publish is not woken",
        "publish_changes",
        "known.is_decided or draft.status.terminal",
        "not draft.status.terminal",
        suite="tests/coordinator/test_change_publisher.py",
    ),
    # ------------------------------------------------ segments
    Mutant(
        "a segment goes on after a cancel",
        "Attempts._follow",
        "segment is None or self._is_draining or run.cancelled or run.reports.ended",
        "segment is None or self._is_draining or run.reports.ended",
        suite="tests/worker/test_segments.py",
    ),
    Mutant(
        "a node of a segment begins before the bus has its start",
        "Run._claim",
        "self.after.on_bus is not None",
        "False",
        ("segments",),
    ),
    Mutant(
        "a node that a worker has started in a segment gets a command as well",
        "begin_attempt",
        "not record.in_segment",
        "True",
        suite="tests/engine/test_segments.py",
    ),
    Mutant(
        "a start in a segment is not stored",
        "start_next",
        "record_start(draft, index, event.worker_id, event.at, settings)",
        "",
        suite="tests/engine/test_segments.py",
    ),
    Mutant(
        "a stopped task forgets nodes that it keeps open when it hears what a command carried",
        "commands_sent",
        "draft.main_is_stopping",
        "False",
        suite="tests/engine/test_segments.py",
    ),
    Mutant(
        "a result that does not count starts the next node of its segment",
        "node_succeeded",
        "event.next is not None and counts",
        "event.next is not None",
        suite="tests/engine/test_segments.py",
    ),
    Mutant(
        "the token of a node in a segment says nothing of the result before",
        "TaskSpec.token_after",
        'b"%d.%d.%d.%b" % (index, attempt, handovers, before.encode())',
        'b"%d.%d.%d.next" % (index, attempt, handovers)',
        suite="tests/engine/test_segments.py",
    ),
    Mutant(
        "the successes of a segment are sent in another order",
        "ReportBuffer.take",
        "list(due)",
        "list(due)[::-1]",
        ("chain",),
    ),
    Mutant(
        "a start in a segment is handed back without a report",
        "Run._claimed",
        "not self._handed_back or self.after is not None",
        "not self._handed_back",
        suite="tests/worker/test_segments.py",
    ),
    Mutant(
        "a node runs after a result that the bus refused",
        "ReportSender._send",
        "run.on_refused is not None and any(one is end for one in sending.refused)",
        "False",
        suite="tests/worker/test_segments.py",
    ),
    Mutant(
        "a start in a segment begins however late the bus has it",
        "Run._claim",
        "self.segment is not None and self.segment.is_late",
        "False",
        suite="tests/worker/test_segments.py",
    ),
    Mutant(
        "a retried attempt carries a segment",
        "nodes_after",
        "record.attempt == record.first_attempt == 1",
        "True",
        suite="tests/engine/test_segments.py",
    ),
    Mutant(
        "a segment goes on after its end was asked for",
        "Attempts._follow",
        "run.command.task_id in self._without_segments",
        "False",
        suite="tests/worker/test_segments.py",
    ),
    Mutant(
        "finally begins before a begun node of a segment has ended",
        "stop_everything",
        "mark not in _NOT_STOPPED and index not in promised",
        "mark not in _NOT_STOPPED",
        suite="tests/engine/test_segments.py",
    ),
    Mutant(
        "a retry repeats the number of an attempt that began in a segment",
        "start_next",
        "before_is_stopped and draft.mark(index) == Mark.WAITING",
        "False",
        suite="tests/engine/test_segments.py",
    ),
    Mutant(
        "a command that carries other nodes counts as ended when its task is stopped",
        "stop_node",
        "is_withdrawn(draft.task.spec, index, record)",
        "ends_by_proof(draft.task.spec, index, record)",
        suite="tests/engine/test_segments.py",
    ),
    Mutant(
        "nodes that no worker begins any more keep a stopped task open",
        "advance",
        "end_promises(draft, settings)",
        "pass",
        suite="tests/engine/test_segments.py",
    ),
    Mutant(
        "a node that a worker may begin ends at once when it is resolved",
        "node_resolved",
        "carrier_of(draft, index) if mark == Mark.WAITING else None",
        "None",
        suite="tests/engine/test_segments.py",
    ),
    Mutant(
        "a resolved node ends before the next one that its worker has begun",
        "end_cancelled",
        "stray_after(draft, index) is not None",
        "False",
        suite="tests/engine/test_segments.py",
    ),
    Mutant(
        "the number of a start that does not count is used again",
        "refuse_next",
        "record.first_attempt = issue.attempt + 1",
        "record.attempt = 0",
        suite="tests/engine/test_segments.py",
    ),
    Mutant(
        "a worker does not report that it has ended a segment",
        "Attempts.end_segments",
        "run.reports.end_segment()",
        "pass",
        suite="tests/worker/test_segments.py",
    ),
    # ------------------------------------------------ log lines
    Mutant(
        "a run does not wait until its log lines are stored",
        "LogLines.wait_stored",
        "run.unsettled and not self._late",
        "False",
        suite="tests/client/test_logs.py",
    ),
    Mutant(
        "each run waits for a store that takes no log lines",
        "LogLines.wait_stored",
        "run.unsettled and not self._late",
        "run.unsettled",
        suite="tests/client/test_logs.py::test_no_node_waits_for_a_store_that_takes_no_lines",
    ),
)
