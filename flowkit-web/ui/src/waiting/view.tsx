/** What all tasks wait for, in one place. */

import type { Stats, TaskView } from '../api/types'
import { Link, useSearch } from '../router'
import { useLive, usePages } from '../shared/lists'
import { countText } from '../shared/numbers'
import { Empty, Loaded, ProblemBox } from '../shared/problem'
import { ViewHeading } from '../shared/view'
import { TaskTable } from '../tasks/task-table'
import '../tasks/tasks.css'

const WAITS = [
  { wait: 'worker', name: 'A worker', help: 'No live worker serves the role of a node. Start one.' },
  { wait: 'approval', name: 'An approval', help: 'A human decides. All of them are under Approvals.' },
  { wait: 'signal', name: 'A signal', help: 'A signal from outside wakes the node.' },
  { wait: 'timer', name: 'A time', help: 'The node sleeps, or pauses before its next attempt.' },
  { wait: 'key', name: 'A key', help: 'Other nodes or tasks hold all places of a concurrency key.' },
  { wait: 'rate', name: 'A rate', help: 'The rate of its nodes is used up for now.' },
] as const

type Wait = (typeof WAITS)[number]['wait']

export default function WaitingPage() {
  const [search, change] = useSearch()
  const stats = useLive<Stats>('/stats')
  const chosen = WAITS.find(({ wait }) => wait === search.get('for')) ?? WAITS[0]
  return (
    <>
      <ViewHeading title="Waiting" />
      <Loaded query={stats}>
        {({ waiting, most }) => (
          <div className="chips" role="group" aria-label="Waiting for">
            {WAITS.map(({ wait, name }) => (
              <button
                key={wait} type="button" aria-pressed={wait === chosen?.wait}
                onClick={() => change({ for: wait })}
              >
                {name} <strong>{countText(waiting[wait] ?? 0, most)}</strong>
              </button>
            ))}
          </div>
        )}
      </Loaded>
      {chosen && (
        <>
          <p className="quiet">
            {chosen.help}
            {chosen.wait === 'approval' && <> <Link href="/approvals">Go to the approvals</Link></>}
          </p>
          <Waiting key={chosen.wait} wait={chosen.wait} />
        </>
      )}
    </>
  )
}

function Waiting({ wait }: { wait: Wait }) {
  const { rows, error, onEnd } = usePages<TaskView>('/tasks', { waiting: wait, nodes: 'none' })
  if (error) return <ProblemBox error={error} />
  if (rows?.length === 0) return <Empty>No task waits for this.</Empty>
  return rows ? <TaskTable rows={rows} onEnd={onEnd} /> : <Empty>Loading…</Empty>
}
