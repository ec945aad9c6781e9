/** The workers with their load and their last heartbeat. */

import type { Page, WorkerView } from '../api/types'
import { useLive } from '../shared/lists'
import { Empty, Loaded } from '../shared/problem'
import { Badge } from '../shared/status'
import { Table, type Column } from '../shared/table'
import { Time } from '../shared/time'
import { ViewHeading } from '../shared/view'

const COLUMNS: Column<WorkerView>[] = [
  {
    title: 'State', width: '7rem',
    cell: (worker) => worker.silent
      ? <Badge tone="bad" sign="✕">silent</Badge> : <Badge tone="good" sign="✓">live</Badge>,
  },
  { title: 'Worker', width: 'minmax(9rem, 1fr)', cell: (worker) => <span className="id">{worker.id}</span> },
  { title: 'Load', width: '9rem', cell: (worker) => <Load worker={worker} /> },
  { title: 'Roles', width: 'minmax(10rem, 1.5fr)', cell: (worker) => worker.roles.join(', ') },
  { title: 'Host', width: 'minmax(8rem, 1fr)', cell: (worker) => `${worker.host} · ${worker.pid}` },
  { title: 'Version', width: '5rem', cell: (worker) => worker.version },
  { title: 'Heartbeat', width: '7rem', cell: (worker) => <Time at={worker.last_heartbeat} distance /> },
]

export default function WorkersPage() {
  const query = useLive<Page<WorkerView>>('/workers')
  return (
    <>
      <ViewHeading title="Workers" />
      <Loaded query={query}>
        {({ items }) => items.length === 0
          ? <Empty>No worker runs. Start one: <code>flowkit worker --handlers MODULE:NAME</code></Empty>
          : <Table label="Workers" columns={COLUMNS} rows={items} keyOf={(worker) => worker.id} />}
      </Loaded>
    </>
  )
}

function Load({ worker }: { worker: WorkerView }) {
  return (
    <span className="number">
      <meter
        min={0} max={Math.max(worker.slots, 1)} value={worker.running}
        aria-label={`Load of ${worker.id}`}
      />
      {' '}{worker.running} of {worker.slots}{worker.waiting > 0 && `, ${worker.waiting} waiting`}
    </span>
  )
}
