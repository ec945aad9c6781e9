/** The data of a task's view: what the server has, and the events that come after it. */

import { useQueries, useQuery, useQueryClient, type UseQueryResult } from '@tanstack/react-query'
import { useCallback, useEffect, useMemo, useState } from 'react'
import { api, path } from '../api/client'
import { useTaskEvents, type StreamState } from '../api/events'
import type { NodeView, Page, Problem, TaskEvent, TaskView } from '../api/types'
import { isTerminal } from '../shared/status'
import { readGraph, type Json, type TaskGraph } from './graph-model'
import { applied, rowsOf, type Outline, type Row, type Rows } from './rows'

const HEADER_MS = 30_000
const MAP_MS = 2_000
/** Running maps, and nodes with shards, whose children are counted again and again. */
const MOST_MAPS = 10
const NO_ROWS: Rows = new Map()
const NO_EVENTS: TaskEvent[] = []

interface Live {
  base: Outline
  rows: Rows
  events: TaskEvent[]
}

export interface TaskData {
  id: string
  header: UseQueryResult<TaskView>
  graph: TaskGraph | undefined
  document: Json | undefined
  rows: Rows
  /** `seq` of the outline; null until it is there. */
  seq: number | null
  /** Events after the outline. */
  events: TaskEvent[]
  stream: { state: StreamState; problem: Problem | undefined }
  fault: Error | null
  /** Read everything again, after an action. */
  refresh: () => void
}

export function useTask(id: string): TaskData {
  const queries = useQueryClient()
  const header = useQuery({
    queryKey: ['task', id, 'header'],
    queryFn: ({ signal }) => api.get<TaskView>(path`/tasks/${id}`, { nodes: 'none' }, signal),
    refetchInterval: HEADER_MS,
  })
  const isThere = header.data !== undefined // the head is shown first, and the rest is read after it
  const outline = useQuery({
    enabled: isThere,
    queryKey: ['task', id, 'outline'],
    queryFn: async ({ signal }) => {
      const read = await api.get<Outline>(path`/tasks/${id}/outline`, {}, signal)
      return { outline: read, rows: rowsOf(read) }
    },
    staleTime: Infinity,
  })
  const written = useQuery({
    enabled: isThere,
    queryKey: ['task', id, 'graph'],
    queryFn: async ({ signal }) => {
      const document = await api.get<Json>(path`/tasks/${id}/graph`, {}, signal)
      return { document, graph: readGraph(document) }
    },
    staleTime: Infinity,
  })
  const base = outline.data
  const [live, setLive] = useState<Live | null>(null)
  const current = live !== null && live.base === base?.outline ? live : null
  const stream = useTaskEvents(base ? id : null, base?.outline.seq ?? 0, (events) => {
    if (!base) return
    setLive((known) => {
      const before = known?.base === base.outline ? known : { rows: base.rows, events: NO_EVENTS }
      return {
        base: base.outline,
        rows: applied(before.rows, events),
        events: [...before.events, ...events],
      }
    })
    if (events.some((event) => event.node_id === null)) {
      void queries.invalidateQueries({ queryKey: ['task', id, 'header'] })
    }
  })
  const refresh = useCallback(
    () => void queries.invalidateQueries({ queryKey: ['task', id] }), [queries, id])
  const last = current?.events.at(-1)?.seq ?? base?.outline.seq ?? 0
  const isBack = stream.state === 'ended' && header.data !== undefined &&
    !isTerminal(header.data.status) && (header.data.seq ?? 0) > last
  useEffect(() => {
    if (isBack) refresh() // the task has ended before, and was retried
  }, [isBack, refresh])
  const rows = useMapCounts(id, written.data?.graph, current?.rows ?? base?.rows ?? NO_ROWS)
  return {
    id, header, rows, stream, refresh,
    graph: written.data?.graph,
    document: written.data?.document,
    seq: base?.outline.seq ?? null,
    events: current?.events ?? NO_EVENTS,
    fault: outline.error ?? written.error,
  }
}

/** Return the rows with what events do not tell of maps and of nodes with shards: the numbers of their
 * children, and when they began, which is not when the end of the shards began.
 */
function useMapCounts(id: string, graph: TaskGraph | undefined, rows: Rows): Rows {
  const maps = useMemo(() => (graph?.nodes ?? [])
    .filter((node) => node.map !== null || node.shards !== null)
    .map((node) => rows.get(node.id))
    .filter((row) => row !== undefined && (row.status !== 'queued' || row.children))
    .slice(0, MOST_MAPS)
    .map((row) => ({ node: row?.node_id ?? '', status: row?.status ?? 'queued' })), [graph, rows])
  const counts = useQueries({
    queries: maps.map(({ node, status }) => ({
      queryKey: ['task', id, 'map', node, status],
      queryFn: ({ signal }: { signal: AbortSignal }) =>
        api.get<NodeView>(path`/tasks/${id}/nodes/${node}`, {}, signal),
      refetchInterval: isTerminal(status) ? false as const : MAP_MS,
    })),
    combine: readCounts,
  })
  return useMemo(() => {
    if (counts.length === 0) return rows
    const next = new Map(rows)
    for (const view of counts) {
      const row = next.get(view.node_id)
      if (row) next.set(row.node_id, withChildren(row, view))
    }
    return next
  }, [rows, counts])
}

function withChildren(row: Row, view: NodeView): Row {
  const next: Row = { ...row, children: view.children ?? {} }
  if (view.started_at) next.started_at = view.started_at
  return next
}

function readCounts(results: UseQueryResult<NodeView>[]): NodeView[] {
  return results.map((result) => result.data).filter((view) => view !== undefined)
}

const EVENTS_A_PAGE = 10_000
/** Past events that a view reads at most: the last ones. */
export const MOST_EVENTS = 60_000

/** Return the events of a task until its outline was read, and those after it. */
export function useHistory({ id, seq, events }: TaskData) {
  const past = useQuery({
    queryKey: ['task', id, 'history', seq],
    queryFn: ({ signal }) => readHistory(id, seq ?? 0, signal),
    enabled: seq !== null,
    staleTime: Infinity,
    placeholderData: (data, before) => (before?.queryKey[1] === id ? data : undefined),
  })
  const all = useMemo(() => {
    const last = past.data?.at(-1)?.seq ?? 0
    return past.data && [...past.data, ...events.filter((event) => event.seq > last)]
  }, [past.data, events])
  return { events: all, error: past.error }
}

async function readHistory(id: string, seq: number, signal: AbortSignal): Promise<TaskEvent[]> {
  const found: TaskEvent[] = []
  let after: string | null = seq > MOST_EVENTS ? String(seq - MOST_EVENTS) : null
  do {
    const query = { limit: EVENTS_A_PAGE, after }
    const page: Page<TaskEvent> = await api.get(path`/tasks/${id}/history`, query, signal)
    found.push(...page.items)
    after = page.next
  } while (after !== null)
  return found
}
