/** List of the schedules. */

import { path } from '../api/client'
import type { Page, ScheduleView } from '../api/types'
import { Link } from '../router'
import { useLive } from '../shared/lists'
import { Empty, Loaded } from '../shared/problem'
import { Badge } from '../shared/status'
import { Table, type Column } from '../shared/table'
import { Time } from '../shared/time'
import { FlowLink, TaskLink, ViewHeading } from '../shared/view'
import { patternText } from './words'

const COLUMNS: Column<ScheduleView>[] = [
  { title: 'State', width: '7rem', cell: (one) => <ScheduleState schedule={one} /> },
  {
    title: 'Schedule', width: 'minmax(9rem, 1fr)',
    cell: (one) => <Link className="id" href={path`/schedules/${one.id}`}>{one.id}</Link>,
  },
  { title: 'When', width: 'minmax(10rem, 1.2fr)', cell: (one) => patternText(one.schedule) },
  {
    title: 'Flow', width: 'minmax(8rem, 1fr)',
    cell: ({ schedule }) => schedule.flow
      ? <FlowLink name={schedule.flow} version={schedule.version ?? null} /> : 'a graph of its own',
  },
  { title: 'Next', width: '10.5rem', cell: (one) => <Time at={one.next_at} /> },
  { title: 'Last', width: 'minmax(9rem, 1fr)', cell: (one) => <Last schedule={one} /> },
]

export default function SchedulesPage() {
  const query = useLive<Page<ScheduleView>>('/schedules')
  return (
    <>
      <ViewHeading title="Schedules" />
      <Loaded query={query}>
        {({ items }) => items.length === 0
          ? <Empty>There is no schedule. Add one: <code>flowkit schedule put FILE</code></Empty>
          : <Table label="Schedules" columns={COLUMNS} rows={items} keyOf={(one) => one.id} />}
      </Loaded>
    </>
  )
}

export function ScheduleState({ schedule }: { schedule: ScheduleView }) {
  if (schedule.paused) return <Badge tone="wait" sign="‖">paused</Badge>
  if (!schedule.next_at) return <Badge tone="quiet" sign="○">ended</Badge>
  return <Badge tone="good" sign="✓">active</Badge>
}

function Last({ schedule }: { schedule: ScheduleView }) {
  const last = schedule.history?.at(-1)
  if (!last) return <span className="quiet">—</span>
  if (last.task_id) return <TaskLink id={last.task_id} />
  return <span title={last.error ?? ''}>{last.kind} {last.reason?.replaceAll('_', ' ')}</span>
}
