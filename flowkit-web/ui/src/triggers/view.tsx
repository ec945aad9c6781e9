/** The triggers. */

import { useQueryClient } from '@tanstack/react-query'
import { api, path } from '../api/client'
import type { Page, TriggerView } from '../api/types'
import { ActionButton } from '../shared/dialog'
import { useLive } from '../shared/lists'
import { useMay } from '../shared/me'
import { Empty, Loaded } from '../shared/problem'
import { Badge } from '../shared/status'
import { Table, type Column } from '../shared/table'
import { Time } from '../shared/time'
import { FlowLink, ViewHeading } from '../shared/view'

const COLUMNS: Column<TriggerView>[] = [
  {
    title: 'State', width: '7rem',
    cell: (one) => one.paused
      ? <Badge tone="wait" sign="‖">paused</Badge> : <Badge tone="good" sign="✓">active</Badge>,
  },
  { title: 'Trigger', width: 'minmax(8rem, 1fr)', cell: (one) => <span className="id">{one.id}</span> },
  { title: 'Source', width: 'minmax(9rem, 1fr)', cell: ({ trigger }) => <code>{trigger.source}</code> },
  {
    title: 'Only when', width: 'minmax(8rem, 1fr)',
    cell: ({ trigger }) => trigger.when
      ? <code title={trigger.when}>{trigger.when}</code> : <span className="quiet">always</span>,
  },
  {
    title: 'Flow', width: 'minmax(8rem, 1fr)',
    cell: ({ trigger }) => trigger.flow
      ? <FlowLink name={trigger.flow} version={trigger.version ?? null} /> : 'a graph of its own',
  },
  { title: 'Since', width: '10.5rem', cell: (one) => <Time at={one.created_at} /> },
  { title: 'Action', width: '6.5rem', cell: (one) => <PauseButton trigger={one} /> },
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

function PauseButton({ trigger: { id, paused } }: { trigger: TriggerView }) {
  const queries = useQueryClient()
  const may = useMay('admin')
  const verb = paused ? 'Resume' : 'Pause'
  return (
    <ActionButton
      label={verb} title={`${verb} ${id}?`} verb={`${verb} it`} disabled={!may}
      run={() => api.post(path`/triggers/${id}` + (paused ? '/resume' : '/pause'))}
      onDone={() => void queries.invalidateQueries({ queryKey: ['/triggers'] })}
    >
      {!paused && <p>It makes no tasks until it is resumed. Its events are kept.</p>}
    </ActionButton>
  )
}
