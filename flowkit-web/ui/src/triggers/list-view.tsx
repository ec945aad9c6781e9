/** List of the triggers. */

import { path } from '../api/client'
import type { Page, TriggerView } from '../api/types'
import { Link } from '../router'
import { useLive } from '../shared/lists'
import { Empty, Loaded } from '../shared/problem'
import { Table, type Column } from '../shared/table'
import { Time } from '../shared/time'
import { FlowLink, ViewHeading } from '../shared/view'
import { Behind, PauseButton, TriggerState } from './parts'

const COLUMNS: Column<TriggerView>[] = [
  {
    title: 'State', width: '5.5rem',
    cell: (one) => <TriggerState trigger={one} />,
  },
  { title: 'Trigger', width: 'minmax(7rem, 1fr)', cell: (one) => <Link className="id" href={path`/triggers/${one.id}`}>{one.id}</Link> },
  { title: 'Source', width: 'minmax(8rem, 1.2fr)', cell: ({ trigger }) => <code>{trigger.source}</code> },
  {
    title: 'Only when', width: 'minmax(6rem, 1fr)',
    cell: ({ trigger }) => trigger.when
      ? <code title={trigger.when}>{trigger.when}</code> : <span className="quiet">always</span>,
  },
  {
    title: 'Flow', width: 'minmax(6rem, 1fr)',
    cell: ({ trigger }) => trigger.flow
      ? <FlowLink name={trigger.flow} version={trigger.version ?? null} /> : 'a graph of its own',
  },
  { title: 'Behind', width: '4rem', cell: (one) => <Behind trigger={one} /> },
  { title: 'Since', width: '10.5rem', cell: (one) => <Time at={one.created_at} /> },
  { title: 'Action', width: '5.5rem', cell: (one) => <PauseButton trigger={one} /> },
]

export default function TriggersPage() {
  const query = useLive<Page<TriggerView>>('/triggers')
  return (
    <>
      <ViewHeading title="Triggers" />
      <Loaded query={query}>
        {({ items }) => items.length === 0
          ? <Empty>There is no trigger. Add one: <code>flowkit trigger put FILE</code></Empty>
          : <Table label="Triggers" columns={COLUMNS} rows={items} keyOf={(one) => one.id} />}
      </Loaded>
    </>
  )
}
