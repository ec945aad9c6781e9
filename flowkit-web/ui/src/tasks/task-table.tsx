/** Table of tasks. */

import type { TaskView } from '../api/types'
import { StatusBadge } from '../shared/status'
import { Table, type Column } from '../shared/table'
import { Duration, Time } from '../shared/time'
import { FlowLink, TaskLink } from '../shared/view'
import { Explanation } from '../task/explanation'

const COLUMNS: Column<TaskView>[] = [
  { title: 'Status', width: '8.5rem', cell: (task) => <StatusBadge status={task.status} /> },
  { title: 'Task', width: 'minmax(9rem, 1.2fr)', cell: (task) => <TaskLink id={task.id} /> },
  { title: 'Flow', width: 'minmax(7rem, .8fr)', cell: (task) => <Flow task={task} /> },
  { title: 'Details', width: 'minmax(9rem, 1.8fr)', cell: (task) => <Details task={task} /> },
  { title: 'Created', width: '10.5rem', cell: (task) => <Time at={task.created_at} /> },
  {
    title: 'Took', width: '5.5rem',
    cell: (task) => <Duration from={task.started_at} to={task.finished_at} />,
  },
]

export function TaskTable({ rows, onEnd }: { rows: TaskView[]; onEnd: () => void }) {
  return (
    <Table label="Tasks" columns={COLUMNS} rows={rows} keyOf={(task) => task.id} onEnd={onEnd} />
  )
}

function Flow({ task }: { task: TaskView }) {
  if (task.flow) return <FlowLink name={task.flow} version={task.version ?? null} />
  return <>{task.pipeline ?? <span className="quiet">—</span>}</>
}

/** What a task waits for, such as `signal 'paid'`. */
function Waits({ waits }: { waits: string[] }) {
  const text = `waits for ${waits.join(', ')} `
  return <span className="wait-text" title={text}><Explanation text={text} /></span>
}

function Details({ task }: { task: TaskView }) {
  if (task.error) return <span className="bad-text" title={task.error}>{task.error}</span>
  return (
    <>
      {task.waits && task.waits.length > 0 && <Waits waits={task.waits} />}
      {Object.entries(task.labels).map(([key, value]) => (
        <span key={key} className="label">{`${key}=${value}`}</span>
      ))}
    </>
  )
}
