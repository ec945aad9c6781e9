/** The events of a task, the last one first. */

import { useDeferredValue, useMemo } from 'react'
import type { NodeStatus, TaskEvent } from '../api/types'
import { useSearch } from '../router'
import { Empty, ProblemBox } from '../shared/problem'
import { StatusBadge } from '../shared/status'
import { Table, type Column } from '../shared/table'
import { Time } from '../shared/time'
import { dataText } from './rows'
import { MOST_EVENTS, useHistory, type TaskData } from './use-task'

export function EventsView({ task }: { task: TaskData }) {
  const [search, changeSearch] = useSearch()
  const { events, error } = useHistory(task)
  const kind = search.get('kind')
  const text = useDeferredValue((search.get('text') ?? '').toLowerCase())
  const kinds = useMemo(() => [...new Set(events?.map((event) => event.kind))].sort(), [events])
  const rows = useMemo(() => events?.filter((event) =>
    (kind === null || event.kind === kind) &&
    (text === '' || `${event.node_id ?? ''} ${event.status ?? ''} ${dataText(event)}`.toLowerCase().includes(text)),
  ).reverse(), [events, kind, text])
  const columns: Column<TaskEvent>[] = [
    { title: 'Number', width: '5rem', cell: (event) => event.seq },
    { title: 'Time', width: '11rem', cell: (event) => <Time at={event.at} /> },
    {
      title: 'Node',
      width: 'minmax(9rem, 1.5fr)',
      cell: (event) => event.node_id === null ? <span className="quiet">the task</span> : (
        <button type="button" className="plain id" onClick={() => changeSearch({ node: event.node_id, group: null })}>
          {event.node_id}
        </button>
      ),
    },
    {
      title: 'Event',
      width: '8rem',
      cell: (event) => event.kind === 'status' && event.status
        ? <StatusBadge status={event.status as NodeStatus} /> : event.kind,
    },
    {
      title: 'Details',
      width: 'minmax(12rem, 3fr)',
      cell: (event) => <span className="code" title={dataText(event)}>{dataText(event)}</span>,
    },
  ]
  if (error) return <ProblemBox error={error} />
  if (!rows) return <Empty>Reading the events…</Empty>
  return (
    <section className="events">
      <div className="filters">
        <label>Text
          <input type="search" value={search.get('text') ?? ''} onChange={(event) => changeSearch({ text: event.target.value })} />
        </label>
        <label>Kind
          <select value={kind ?? ''} onChange={(event) => changeSearch({ kind: event.target.value })}>
            <option value="">all</option>
            {kinds.map((one) => <option key={one}>{one}</option>)}
          </select>
        </label>
        <span className="quiet" role="status">{rows.length.toLocaleString('en')} events</span>
        {(task.seq ?? 0) > MOST_EVENTS && (
          <span className="quiet">Only the last {MOST_EVENTS.toLocaleString('en')} are read.</span>
        )}
      </div>
      {rows.length === 0
        ? <Empty>No event matches.</Empty>
        : <Table label="Events" rows={rows} columns={columns} keyOf={(event) => String(event.seq)} />}
    </section>
  )
}
