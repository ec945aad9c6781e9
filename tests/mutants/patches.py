"""What could be wrong with the protocol, one thing at a time."""

from tests.mutants.ground import Mutant

CORE = "flowkit/"
TESTING = "flowkit_testing/"

MUTANTS = (
    # ------------------------------------------------ commits
    Mutant(
        "compare-and-set is off",
        TESTING + "_task_table.py",
        "if row is None or row.version != commit.expected_version:",
        "if row is None:",
    ),
    Mutant(
        "a commit does not count up the version",
        TESTING + "_task_table.py",
        "        row.version += 1\n",
        "",
    ),
    Mutant(
        "an unconfirmed commit counts as stored",
        CORE + "_tasks/event_processor.py",
        """                rounds.append(pending)
                for task_id in pending:
""",
        """                if operations:
                    return applied
                rounds.append(pending)
                for task_id in pending:
""",
    ),
    Mutant(
        "dead letters are stored after the commit",
        CORE + "_tasks/event_processor.py",
        """        await self._park(parked)
        stored = await self._store.commit(commits)
""",
        """        stored = await self._store.commit(commits)
        await self._park(parked)
""",
    ),
    Mutant(
        "a refused commit's effects are carried out",
        CORE + "_tasks/event_processor.py",
        """            if not success:
                stale.append(task_id)
                continue
""",
        """            if not success:
                applied.effects.append((held, effects))
                continue
""",
    ),
    Mutant(
        "effects of a commit are forgotten",
        CORE + "_tasks/event_processor.py",
        "            held.ledger.committed(held.task, commit)\n           "
        " applied.effects.append((held, effects))\n",
        "            held.ledger.committed(held.task, commit)\n           "
        " applied.effects.append((held, []))\n",
    ),
    Mutant(
        "the operation's id is not looked at",
        CORE + "_tasks/event_processor.py",
        "if self._last_operation.get(task_id) == operations.pop(task_id):",
        "if operations.pop(task_id) is None:",
    ),
    Mutant(
        "a stale copy decides what is stale",
        CORE + "_tasks/event_processor.py",
        "        if not task_ids:\n            return []\n        records = await"
        " self._store.load(task_ids)\n",
        "        if task_ids:\n            return []\n        records = await"
        " self._store.load(task_ids)\n",
    ),
    # ------------------------------------------------ damaged records
    Mutant(
        "a damaged record ends the look at the others",
        CORE + "_tasks/event_processor.py",
        """        except FlowKitError as error:
            await self.quarantine(task_id, error)
            return None
""",
        """        except FlowKitError:
            raise
""",
        scenarios=("chain",),
    ),
    Mutant(
        "a damaged task is put aside without a letter",
        CORE + "_tasks/event_processor.py",
        "        await self._store.park([letter])\n",
        "",
        scenarios=("chain",),
    ),
    # ------------------------------------------------ messages
    Mutant(
        "a report is acknowledged before it is stored",
        CORE + "coordinator/_report_inbox.py",
        """            await awaited(handle(touched, events), ending=ending)
            await subscription.ack([delivery for delivery in deliveries if id(delivery) not in parked])
""",
        """            await subscription.ack([delivery for delivery in deliveries if id(delivery) not in parked])
            await awaited(handle(touched, events), ending=ending)
""",
    ),
    Mutant(
        "a command is acknowledged before its start is told",
        CORE + "worker/_inbox.py",
        "                self._begin(token, command, make, subscription, delivery)\n        if"
        " known:",
        "                known.append(delivery)\n                self._begin(token, command, make,"
        " subscription, delivery)\n        if known:",
    ),
    Mutant(
        "reports that were not sent count as sent",
        CORE + "worker/_reports.py",
        """        try:
            await self._bus.publish(messages)
        except _NEVER_SENT as error:
""",
        """        try:
            await self._bus.publish(messages)
        except Exception as error:
            if not isinstance(error, _NEVER_SENT):
                return
""",
    ),
    Mutant(
        "the outbox is cleared before the commands are sent",
        CORE + "coordinator/_outbox.py",
        "            places = await self._publish(messages, owners)\n",
        "            self._note(sent, dict.fromkeys(range(len(messages))))\n            places ="
        " await self._publish(messages, owners)\n",
    ),
    Mutant(
        "commands that were not confirmed count as sent",
        CORE + "coordinator/_outbox.py",
        "        return sending.places\n",
        "        return dict.fromkeys(range(len(messages))) | sending.places\n",
    ),
    Mutant(
        "one topic's trouble holds back the others",
        CORE + "coordinator/_outbox.py",
        "if sending.places or isinstance(error, TopicUnavailable):",
        "if False:",
        suite="tests/coordinator/test_topics_in_trouble.py",
    ),
    # ------------------------------------------------ recovery
    Mutant(
        "nothing that was left half done is restored",
        CORE + "_engine/effects.py",
        "    effects: list[Effect] = []\n    if task.terminal:",
        "    effects: list[Effect] = []\n    if True:",
    ),
    Mutant(
        "there is no sweep",
        CORE + "coordinator/_timers.py",
        "store.due(before=before,",
        "store.due(before=0.0,",
    ),
    Mutant(
        "timers do not wake",
        CORE + "coordinator/_timers.py",
        "            if due:\n                await wake(due)\n",
        "            if due:\n",
    ),
    Mutant(
        "a lost command is not sent again",
        CORE + "_engine/timers.py",
        "        if (known.attempt, known.handovers, known.place) == (attempt, handovers, place):",
        "        if False:",
    ),
    Mutant(
        "a check of a command that is not answered puts off the next one",
        CORE + "_engine/timers.py",
        "    return confirmed_until(record, now) or now + FIRST_CHECK_SEC\n",
        "    return confirmed_until(record, now) or now + LONGEST_PAUSE_SEC\n",
        suite="tests/coordinator/test_unanswered_checks.py",
    ),
    Mutant(
        "a worker is never asked what became of a run",
        CORE + "coordinator/_outbox.py",
        "                return self._control(task, ask)",
        "                return None",
    ),
    Mutant(
        "no worker is ever lost",
        CORE + "coordinator/_worker_watch.py",
        "                    silent[record.worker_id] = self._looked - since\n",
        "                    del since\n",
    ),
    Mutant(
        "every worker is lost at once",
        CORE + "_engine/timers.py",
        "if silence is not None and silence >= patience_sec(record, settings):",
        "if silence is not None and silence >= 0.0:",
    ),
    Mutant(
        "workers do not renew their sessions",
        CORE + "worker/_session.py",
        "        self._beat += 1\n",
        "        self._beat = 1\n",
    ),
    Mutant(
        "silence is measured from the first beat of all",
        CORE + "coordinator/_worker_watch.py",
        "            if known is None or known[0] != beat:",
        "            if known is None:",
    ),
    # ------------------------------------------------ starts
    Mutant(
        "user code runs before its claim is stored",
        CORE + "worker/_records/claims.py",
        "        outcome = await answer\n",
        "        outcome: bool | Exception = True\n",
    ),
    Mutant(
        "an attempt that another worker claimed runs again",
        CORE + "worker/_records/claims.py",
        "        return None if outcome else await self._earlier(command, claim)\n",
        "        return None\n",
    ),
    # ------------------------------------------------ attempts
    Mutant(
        "only the present attempt may succeed",
        CORE + "_engine/nodes.py",
        "    return not task.issued_token_matches(event.index,",
        "    return event.attempt != draft.record(event.index).attempt or not"
        " task.issued_token_matches(event.index,",
    ),
    Mutant(
        "a failure of any attempt counts",
        CORE + "_engine/nodes.py",
        "    return event.attempt == record.attempt and compare_digest(task",
        "    return task.issued_token_matches(index, record, event.attempt, event.token) or"
        " compare_digest(task",
    ),
    Mutant(
        "one attempt too many",
        CORE + "_engine/retries.py",
        "attempts_made > policy.max:",
        "attempts_made > policy.max + 1:",
    ),
    Mutant(
        "a finished node may finish again",
        CORE + "_engine/transition_tables.py",
        "    NodeSucceeded: frozenset({Mark.READY,",
        "    NodeSucceeded: frozenset({Mark.FINISHED, Mark.READY,",
    ),
    Mutant(
        "a retry is never due",
        CORE + "_engine/nodes.py",
        "    draft.wake(record.next_retry_at)\n",
        "",
    ),
    Mutant(
        "an attempt that was handed back counts",
        CORE + "_engine/nodes.py",
        "    record.handovers += 1\n    record.attempt -= 1\n",
        "    record.handovers += 1\n",
    ),
    Mutant(
        "an attempt that was handed back is issued with the same token",
        CORE + "_engine/nodes.py",
        "    record.handovers += 1\n",
        "",
    ),
    Mutant(
        "cancelled work begins again",
        CORE + "_engine/advance.py",
        '    stop_everything(draft, "cancelled", settings)\n',
        "",
    ),
    Mutant(
        "being cancelled is swallowed",
        CORE + "_engine/timers.py",
        "        if now >= (record.cancel_by or now):\n            end_cancelled(draft, index,"
        " settings)\n",
        "        if False:\n            end_cancelled(draft, index, settings)\n",
    ),
    Mutant(
        "a cancelled task ends before its nodes",
        CORE + "_engine/advance.py",
        "    if draft.open == 0:\n",
        "    if draft.open == 0 or draft.outcome is not None:\n",
    ),
    # ------------------------------------------------ graphs
    Mutant(
        "any parent is enough",
        CORE + "_engine/readiness.py",
        "        if pending:\n            return Readiness.WAIT\n",
        "        if pending and not taken:\n            return Readiness.WAIT\n",
    ),
    Mutant(
        "counters are not restored after a crash",
        CORE + "_engine/readiness.py",
        "                counts[outcomes[edge.route]][edge.node] += 1\n",
        "                pass\n",
    ),
    Mutant(
        "a failed node lets its children wait",
        CORE + "_engine/readiness.py",
        "        if broken:\n            return Readiness.NEVER\n",
        "        if broken and not pending:\n            return Readiness.NEVER\n",
    ),
    Mutant(
        "a failure is not passed on below its children",
        CORE + "_engine/readiness.py",
        "    Mark.UPSTREAM_FAILED:   ( BROKEN, BROKEN,     EMPTY  ),\n",
        "    Mark.UPSTREAM_FAILED:   ( EMPTY,  EMPTY,      EMPTY  ),\n",
        ("below_a_failure",),
    ),
    Mutant(
        "the normal branch of a handled failure counts as failed",
        CORE + "_engine/readiness.py",
        "HANDLED_FAILURE: Outcomes = (BROKEN, EMPTY, TAKEN)\n",
        "HANDLED_FAILURE: Outcomes = (BROKEN, BROKEN, TAKEN)\n",
        ("below_a_handled_failure",),
    ),
    Mutant(
        "a retry keeps what ran without data that it may get now",
        CORE + "_engine/reruns.py",
        "or below or (finished and _owed(task, index, again)):",
        "or below:",
        ("retry_below_a_failure",),
    ),
    Mutant(
        "a run does not report that it pulled",
        CORE + "worker/_node_work.py",
        "        self.pulled = True\n",
        "",
        ("retry_of_a_reader",),
    ),
    Mutant(
        "vars are applied for each return of a function",
        CORE + "_engine/transition_tables.py",
        "    FunctionReturned: frozenset({Mark.READY,",
        "    FunctionReturned: frozenset({Mark.FINISHED, Mark.READY,",
        scenarios=("functions",),
    ),
    Mutant(
        "the deadline is not kept",
        CORE + "_engine/timers.py",
        "    if draft.deadline_at is not None and now >= draft.deadline_at and draft.outcome is"
        " None:",
        "    if False:",
    ),
    # ------------------------------------------------ streams
    Mutant(
        "batches that are stored are processed again",
        CORE + "worker/_batches.py",
        "            if batch.batch_uid not in known:\n",
        "            if True:\n",
    ),
    Mutant(
        "a later attempt counts only its own batches",
        CORE + "worker/_batches.py",
        "        self._fresh = command.attempt == 1 and not command.resumed\n",
        "        self._fresh = True\n",
    ),
    Mutant(
        "a node ends before its batches are stored",
        CORE + "worker/_batches.py",
        "        while self._unstored and self._error is None:\n            await"
        " self._change.wait()\n",
        "",
    ),
    Mutant(
        "a reader stops when a stream pauses",
        CORE + "worker/_inputs.py",
        "                    elif stream in was_ended:\n",
        "                    else:\n",
    ),
    Mutant(
        "an empty page counts as the end of a stream",
        CORE + "worker/_artifacts.py",
        "        if page or not to_the_end:\n",
        "        if True:\n",
        scenarios=("streaming",),
    ),
    Mutant(
        "an artifact is stored as often as it is put",
        TESTING + "_artifacts.py",
        "        if record.uid in log.uids:\n            return False\n",
        "",
    ),
    # ------------------------------------------------ conditions
    Mutant(
        "an operator ignores that the budget is exceeded",
        CORE + "_expressions/errors.py",
        "class BudgetExceeded(ExpressionError):",
        "class BudgetExceeded(EvaluationError):",
        suite="tests/expressions/test_expressions.py",
    ),
    Mutant(
        "an error that is ignored costs nothing",
        CORE + "_expressions/closures.py",
        "                frame[0].spend(ERROR_STEPS)\n",
        "",
        suite="tests/expressions/test_budget.py",
    ),
    Mutant(
        "a delayed condition of an earlier run counts",
        CORE + "_engine/nodes.py",
        "event.since != draft.record(event.index).issued_at",
        "event.since is draft",
        suite="tests/engine/test_effects.py",
    ),
    Mutant(
        "a delayed condition is forgotten with its coordinator",
        CORE + "_engine/timers.py",
        "        draft.effects.append(EvaluateCondition(index))\n",
        "        pass\n",
        suite="tests/engine/test_effects.py",
    ),
    Mutant(
        "an idempotency key means nothing",
        TESTING + "_task_table.py",
        "            if first != header.task_id:\n                return first\n",
        "",
        suite="tests/conformance/test_memory.py",
    ),
    # ------------------------------------------------ runs and their worker
    Mutant(
        "a panic passes through its run",
        CORE + "_user_code/containment.py",
        "            await _take_back(task, before, ending)\n            raise raised from error\n",
        "            raise\n",
        suite="tests/worker/test_containment.py",
    ),
    Mutant(
        "runs share their context variables",
        CORE + "worker/_slots.py",
        "await in_context(run.execute(partial(self._leaving, me)), self._context.copy())",
        "await run.execute(partial(self._leaving, me))",
        suite="tests/worker/test_containment.py",
    ),
    Mutant(
        "commands that are handed over leave the table one by one",
        CORE + "worker/_inbox.py",
        """                waiting.setdefault(subscription, []).append(delivery)
""",
        """                await subscription.release([delivery])
""",
        suite="tests/worker/test_commands.py",
    ),
)
