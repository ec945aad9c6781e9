/** The nodes of a task as a table, and the children of its maps. */

import { useInfiniteQuery } from '@tanstack/react-query'
import { useCallback, useDeferredValue, useMemo } from 'react'
import { api, path } from '../api/client'
import { jsonText } from '../api/json'
import type { NodeStatus, NodeView, Page } from '../api/types'
import { useSearch } from '../router'
import { Empty, ProblemBox } from '../shared/problem'
import { StatusBadge } from '../shared/status'
import { Table, type Column } from '../shared/table'
import { Duration, Time } from '../shared/time'
import { criticalPath } from './critical-path'
import { Bar } from './bar'
import { countsOf, waitText, type Counts, type Row } from './rows'
import type { TaskData } from './use-task'

const STATUSES: NodeStatus[] = [
  'failed', 'running', 'deferred', 'queued', 'paused', 'cancelling', 'cancelled', 'skipped', 'finished',
]
const SORTS: Record<string, [string, (one: Row, other: Row) => number]> = {
  graph: ['Order of the graph', () => 0],
  name: ['Name', (one, other) => one.node_id.localeCompare(other.node_id)],
  status: ['Status', (one, other) => STATUSES.indexOf(one.status) - STATUSES.indexOf(other.status)],
  start: ['Start', (one, other) => (one.started_at ?? '~').localeCompare(other.started_at ?? '~')],
  took: ['Longest', (one, other) => took(other) - took(one)],
  attempts: ['Most attempts', (one, other) => (other.attempt ?? 0) - (one.attempt ?? 0)],
}

function took(row: Row): number {
  if (!row.started_at) return -1
  return (row.finished_at ? Date.parse(row.finished_at) : Date.now()) - Date.parse(row.started_at)
}

export function NodesView({ task }: { task: TaskData }) {
  const [search] = useSearch()
  const map = search.get('map')
  return map === null ? <GraphNodes task={task} /> : <Children task={task} map={map} />
}

function useColumns(withMaps: boolean): Column<Row>[] {
  const [, changeSearch] = useSearch()
  return useMemo(() => [
    {
      title: 'Node',
      width: 'minmax(11rem, 2fr)',
      cell: (row) => (
        <button type="button" className="plain id" data-opens={row.node_id} title={row.node_id} onClick={() => changeSearch({ node: row.node_id, group: null })}>
          {row.node_id}
        </button>
      ),
    },
    { title: 'Status', width: '7.5rem', cell: (row) => <StatusBadge status={row.status} /> },
    { title: 'Type', width: 'minmax(6rem, 1fr)', cell: (row) => row.type },
    { title: 'Attempt', width: '4.5rem', cell: (row) => row.attempt || '' },
    { title: 'Began', width: '11rem', cell: (row) => <Time at={row.started_at} /> },
    { title: 'Took', width: '6rem', cell: (row) => <Duration from={row.started_at} to={row.finished_at} /> },
    {
      title: 'What',
      width: 'minmax(10rem, 3fr)',
      cell: (row) => withMaps && row.children && Object.keys(row.children).length > 0
        ? <ChildrenBar counts={row.children} /> : <span title={whatOf(row)}>{whatOf(row)}</span>,
    },
  ], [changeSearch, withMaps])
}

/** Bar of the children of a map. It says how many failed: those of a map that goes on do not fail it. */
function ChildrenBar({ counts }: { counts: Counts }) {
  return (
    <>
      <Bar counts={counts} />
      {counts.failed && <span className="bad-text"> {counts.failed.toLocaleString('en')} failed</span>}
    </>
  )
}

function whatOf(row: Row): string {
  if (row.error) return `${row.reason_code ? `${row.reason_code}: ` : ''}${row.error}`
  if (row.waiting) return waitText(row.waiting)
  if (row.cached) return 'taken from the cache'
  if (row.reason_code) return row.reason_code
  if (row.status === 'running' && row.progress != null) return jsonText(row.progress)
  return row.worker_id ?? ''
}

function GraphNodes({ task }: { task: TaskData }) {
  const [search, changeSearch] = useSearch()
  const columns = useColumns(true)
  const text = useDeferredValue((search.get('text') ?? '').toLowerCase())
  const status = search.get('status')
  const sort = search.get('sort') ?? 'graph'
  const counts = useMemo(() => countsOf(task.rows.keys(), task.rows), [task.rows])
  const critical = useMemo(
    () => new Set(sort === 'path' && task.graph ? criticalPath(task.graph, task.rows) : []),
    [sort, task.graph, task.rows])
  const rows = useMemo(() => {
    const found = [...task.rows.values()].filter((row) =>
      (status === null || row.status === status) && (sort !== 'path' || critical.has(row.node_id)) &&
      (text === '' || `${row.node_id} ${row.type} ${row.error ?? ''}`.toLowerCase().includes(text)))
    const compare = SORTS[sort]?.[1]
    return compare && sort !== 'graph' ? found.sort(compare) : found
  }, [task.rows, status, text, sort, critical])
  return (
    <section className="nodes">
      <div className="filters">
        <label>Text
          <input type="search" value={search.get('text') ?? ''} onChange={(event) => changeSearch({ text: event.target.value })} />
        </label>
        <label>Order
          <select value={sort} onChange={(event) => changeSearch({ sort: event.target.value })}>
            {Object.entries(SORTS).map(([name, [title]]) => <option key={name} value={name}>{title}</option>)}
            <option value="path">Only the critical path</option>
          </select>
        </label>
        <StatusChips counts={counts} status={status} />
      </div>
      <NodeTable label="Nodes" rows={rows} columns={columns} selected={search.get('node')} />
    </section>
  )
}

function StatusChips({ counts, status }: { counts: Counts; status: string | null }) {
  const [, changeSearch] = useSearch()
  return (
    <div className="chips" role="group" aria-label="Status">
      <button type="button" aria-pressed={status === null} onClick={() => changeSearch({ status: null })}>all</button>
      {STATUSES.filter((one) => counts[one] || one === status).map((one) => (
        <button key={one} type="button" aria-pressed={one === status} onClick={() => changeSearch({ status: one === status ? null : one })}>
          {one} {(counts[one] ?? 0).toLocaleString('en')}
        </button>
      ))}
    </div>
  )
}

function NodeTable({ label, rows, columns, selected, onEnd }: {
  label: string
  rows: Row[]
  columns: Column<Row>[]
  selected: string | null
  onEnd?: () => void
}) {
  if (rows.length === 0) return <Empty>No node matches.</Empty>
  return (
    <Table
      label={label}
      rows={rows}
      columns={columns}
      keyOf={(row) => row.node_id}
      isSelected={(row) => row.node_id === selected}
      {...(onEnd ? { onEnd } : {})}
    />
  )
}

const CHILDREN_MS = 3_000
const CHILDREN_A_PAGE = 200

function Children({ task, map }: { task: TaskData; map: string }) {
  const [search, changeSearch] = useSearch()
  const columns = useColumns(false)
  const status = search.get('status')
  const isLive = task.header.data?.finished_at == null
  const query = useInfiniteQuery({
    queryKey: ['task', task.id, 'children', map, status],
    queryFn: ({ pageParam, signal }) => api.get<Page<NodeView>>(
      path`/tasks/${task.id}/nodes`, { map, status, limit: CHILDREN_A_PAGE, after: pageParam }, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next,
    refetchInterval: ({ state }) => isLive && (state.data?.pages.length ?? 0) < 3 ? CHILDREN_MS : false,
  })
  const { hasNextPage, isFetching, fetchNextPage } = query
  const onEnd = useCallback(() => {
    if (hasNextPage && !isFetching) void fetchNextPage()
  }, [hasNextPage, isFetching, fetchNextPage])
  const rows = useMemo(
    () => query.data?.pages.flatMap((page) => page.items).map((view) => view as Row) ?? [], [query.data])
  return (
    <section className="nodes">
      <div className="filters">
        <button type="button" onClick={() => changeSearch({ map: null, status: null })}>← All nodes</button>
        <span>Children of the map <span className="id">{map}</span></span>
        <StatusChips counts={task.rows.get(map)?.children ?? {}} status={status} />
      </div>
      {query.error && <ProblemBox error={query.error} />}
      {query.isPending ? <Empty>Loading…</Empty>
        : <NodeTable label={`Children of ${map}`} rows={rows} columns={columns} selected={search.get('node')} onEnd={onEnd} />}
    </section>
  )
}
