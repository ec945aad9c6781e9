/** A group of nodes with the same place in a large graph. */

import { useSearch } from '../router'
import { Empty } from '../shared/problem'
import { StatusBadge } from '../shared/status'
import { Table, type Column } from '../shared/table'
import type { Layout } from './layout'
import { Bar } from './bar'
import { Panel } from './panel'
import { countsOf, countsText } from './rows'
import type { TaskData } from './use-task'

export function GroupPanel({ task, layout, groupId }: {
  task: TaskData
  layout: Layout | null
  groupId: string
}) {
  const [, changeSearch] = useSearch()
  const nodes = layout?.boxes.find((box) => box.id === groupId)?.nodes ?? []
  const counts = countsOf(nodes, task.rows)
  const columns: Column<string>[] = [
    {
      title: 'Node',
      width: 'minmax(8rem, 1fr)',
      cell: (id) => (
        <button type="button" className="plain id" onClick={() => changeSearch({ node: id, group: null })}>{id}</button>
      ),
    },
    {
      title: 'Status',
      width: '7.5rem',
      cell: (id) => <StatusBadge status={task.rows.get(id)?.status ?? 'queued'} />,
    },
  ]
  return (
    <Panel name="Group of nodes" heading={<h2>{nodes.length.toLocaleString('en')} nodes</h2>} what="group">
      {layout === null ? <Empty>Loading…</Empty> : <>
        <p>These nodes have the same place in the graph, so they share a box.</p>
        <p><Bar counts={counts} /> {countsText(counts)}</p>
        <Table label="Nodes of the group" rows={nodes} columns={columns} keyOf={(id) => id} />
      </>}
    </Panel>
  )
}
