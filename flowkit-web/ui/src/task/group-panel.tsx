/** A group of nodes with the same place in a large graph. */

import { useMemo } from 'react'
import { useSearch } from '../router'
import { StatusBadge } from '../shared/status'
import { Table, type Column } from '../shared/table'
import type { GraphNode } from './graph-model'
import { grouped } from './grouping'
import { Bar } from './bar'
import { countsOf, countsText } from './rows'
import type { TaskData } from './use-task'

export function GroupPanel({ task, groupId }: { task: TaskData; groupId: string }) {
  const [, changeSearch] = useSearch()
  const nodes = useMemo(
    () => (task.graph ? grouped(task.graph).boxes.find((box) => box.id === groupId)?.nodes : undefined) ?? [],
    [task.graph, groupId])
  const counts = countsOf(nodes.map((node) => node.id), task.rows)
  const columns: Column<GraphNode>[] = [
    {
      title: 'Node',
      width: 'minmax(8rem, 1fr)',
      cell: (node) => (
        <button type="button" className="plain id" onClick={() => changeSearch({ node: node.id, group: null })}>{node.id}</button>
      ),
    },
    {
      title: 'Status',
      width: '7.5rem',
      cell: (node) => <StatusBadge status={task.rows.get(node.id)?.status ?? 'queued'} />,
    },
  ]
  return (
    <aside className="panel card" aria-label="Group of nodes">
      <div className="panel-heading">
        <h2>{nodes.length.toLocaleString('en')} nodes</h2>
        <button type="button" onClick={() => changeSearch({ group: null })} aria-label="Close the group">✕</button>
      </div>
      <p>These nodes have the same place in the graph, so they share a box.</p>
      <p><Bar counts={counts} /> {countsText(counts)}</p>
      <Table label="Nodes of the group" rows={nodes} columns={columns} keyOf={(node) => node.id} />
    </aside>
  )
}
