/** What all tasks wait for, in one place. */

import type { Stats, TaskView, WaitingFor } from '../api/types'
import { Link, useSearch } from '../router'
import { FilterFaults } from '../shared/filter-faults'
import { faultsOf, isOneOf } from '../shared/filters'
import { useLive, usePages } from '../shared/lists'
import { countText } from '../shared/numbers'
import { Empty, Loaded, ProblemBox } from '../shared/problem'
import { ViewHeading } from '../shared/view'
import { WAIT_NAMES } from '../tasks/filter'
import { TaskTable } from '../tasks/task-table'
import '../tasks/tasks.css'

const HELP: Record<WaitingFor, string> = {
  worker: 'No worker has started the node yet. Start one that serves its role.',
  approval: 'A human decides. All of them are under Approvals.',
  signal: 'A signal from outside wakes the node.',
  timer: 'The node sleeps until a time.',
  key: 'Other nodes or tasks hold all places of a concurrency key.',
  rate: 'The rate of its nodes is used up for now.',
  cache: 'Another node computes the same result, which is then taken.',
}
const WAITS = Object.keys(HELP) as WaitingFor[]

export default function WaitingPage() {
  const [search, change] = useSearch()
  const stats = useLive<Stats>('/stats')
  const faults = faultsOf(search, { for: isOneOf(WAITS) })
  const wanted = search.get('for') ?? 'worker'
  const chosen = faults.length === 0 ? WAITS.find((wait) => wait === wanted) : undefined
  return (
    <>
      <ViewHeading title="Waiting" />
      <Loaded query={stats}>
        {({ waiting, most }) => (
          <div className="chips" role="group" aria-label="Waiting for">
            {WAITS.map((wait) => (
              <button
                key={wait} type="button" aria-pressed={wait === chosen}
                onClick={() => change({ for: wait })}
              >
                {WAIT_NAMES[wait]} <strong>{countText(waiting[wait] ?? 0, most)}</strong>
              </button>
            ))}
          </div>
        )}
      </Loaded>
      {chosen ? <Waiting key={chosen} wait={chosen} /> : <FilterFaults faults={faults} href="/waiting" />}
    </>
  )
}

function Waiting({ wait }: { wait: WaitingFor }) {
  const { rows, error, onEnd } = usePages<TaskView>('/tasks', { waiting: wait, nodes: 'none' })
  return (
    <>
      <p className="quiet">
        {HELP[wait]}
        {wait === 'approval' && <> <Link href="/approvals">Go to the approvals</Link></>}
      </p>
      {error && <ProblemBox error={error} />}
      {!error && !rows && <Empty>Loading…</Empty>}
      {rows?.length === 0 && <Empty>No task waits for this.</Empty>}
      {rows && rows.length > 0 && <TaskTable rows={rows} onEnd={onEnd} />}
    </>
  )
}
