/** List of the registered flows. */

import type { FlowInfo, Page } from '../api/types'
import { useLive } from '../shared/lists'
import { Empty, Loaded } from '../shared/problem'
import { Table, type Column } from '../shared/table'
import { Time } from '../shared/time'
import { FlowLink, ViewHeading } from '../shared/view'
import { Link } from '../router'

const COLUMNS: Column<FlowInfo>[] = [
  { title: 'Flow', width: 'minmax(10rem, 1fr)', cell: (flow) => <FlowLink name={flow.name} /> },
  { title: 'Latest', width: '5rem', cell: (flow) => `v${flow.version}` },
  {
    title: 'Description', width: 'minmax(10rem, 2fr)',
    cell: (flow) => flow.fault ? <span className="bad-text">{flow.fault}</span> : flow.description,
  },
  { title: 'Registered', width: '10.5rem', cell: (flow) => <Time at={flow.created_at} /> },
  {
    title: 'Tasks', width: '5rem',
    cell: (flow) => <Link href={`/tasks?pipeline=${encodeURIComponent(flow.name)}`}>tasks</Link>,
  },
]

export default function FlowsPage() {
  const query = useLive<Page<FlowInfo>>('/flows')
  return (
    <>
      <ViewHeading title="Flows" />
      <Loaded query={query}>
        {({ items }) => items.length === 0
          ? <Empty>No flow is registered. Register one: <code>flowkit flow put NAME FILE</code></Empty>
          : <Table label="Flows" columns={COLUMNS} rows={items} keyOf={(flow) => flow.name} />}
      </Loaded>
    </>
  )
}
