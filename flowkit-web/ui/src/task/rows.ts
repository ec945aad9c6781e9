/** The nodes of a task as they are now: the outline, and the events after it. */

import { jsonText } from '../api/json'
import type { NodeStatus, TaskEvent } from '../api/types'

/** A node in brief. Fields with their defaults are missing in the outline. */
export interface Row {
  node_id: string
  type: string
  status: NodeStatus
  attempt?: number
  worker_id?: string
  reason_code?: string
  error?: string
  skipped_batches?: number
  progress?: unknown
  started_at?: string
  finished_at?: string
  next_retry_at?: string
  child_task_id?: string
  rounds?: Record<string, string>
  waiting?: string
  waiting_until?: string
  resolved_by?: string
  /** Its result was taken from the cache. */
  cached?: boolean
  children?: Partial<Record<NodeStatus, number>>
}

export interface Outline {
  seq: number
  nodes: Row[]
}

export type Rows = ReadonlyMap<string, Row>

interface Change {
  attempt?: number
  worker_id?: string
  reason_code?: string
  error?: string
  waiting?: string
  until?: string
  retry?: boolean
  released_by?: string
  skipped_batches?: number
  cached?: boolean
}

const ENDED: ReadonlySet<string> = new Set(['finished', 'failed', 'cancelled', 'skipped'])

export function rowsOf(outline: Outline): Rows {
  return new Map(outline.nodes.map((row) => [row.node_id, row]))
}

/** Return the rows after some events. Children of maps are not among the rows. */
export function applied(rows: Rows, events: readonly TaskEvent[]): Rows {
  const next = new Map(rows)
  for (const event of events) {
    const row = event.node_id === null ? undefined : next.get(event.node_id)
    if (row) next.set(row.node_id, changed(row, event))
  }
  return next
}

function changed(row: Row, event: TaskEvent): Row {
  if (event.kind === 'progress') return { ...row, progress: event.data }
  if (event.kind !== 'status' || event.status === null) return row
  const status = event.status as NodeStatus
  const data = (typeof event.data === 'object' && event.data !== null ? event.data : {}) as Change
  const { node_id, type, attempt = 0, children, child_task_id, rounds, progress } = row
  const next: Row = { node_id, type, status, attempt: attemptAfter(attempt, status, data) }
  if (children) next.children = children
  if (child_task_id) next.child_task_id = child_task_id
  if (rounds) next.rounds = rounds
  if (progress !== undefined) next.progress = progress
  if (data.reason_code) next.reason_code = data.reason_code
  if (data.error) next.error = data.error
  if (data.skipped_batches) next.skipped_batches = data.skipped_batches
  if (data.waiting) next.waiting = data.waiting
  if (data.until) next.waiting_until = data.until
  if (data.cached) next.cached = true
  const worker = data.worker_id ?? (status === 'running' ? undefined : row.worker_id)
  if (worker) next.worker_id = worker
  const began = beganAt(row, next, event)
  if (began) next.started_at = began
  if (ENDED.has(status)) next.finished_at = event.at
  return next
}

function attemptAfter(attempt: number, status: NodeStatus, data: Change): number {
  if (data.retry) return 0
  if (data.attempt !== undefined) return data.attempt
  if (data.released_by) return Math.max(0, attempt - 1)
  return status === 'running' ? Math.max(1, attempt) : attempt
}

function beganAt(row: Row, next: Row, event: TaskEvent): string | undefined {
  if (next.status === 'queued') return undefined
  if (next.status === 'running') return row.status === 'running' ? row.started_at : event.at
  return row.started_at
}

export type Counts = Partial<Record<NodeStatus, number>>

/** Count nodes by status; of a map, its children, once they are known. */
export function countsOf(ids: Iterable<string>, rows: Rows): Counts {
  const counts: Counts = {}
  const add = (status: NodeStatus, number: number): void => {
    counts[status] = (counts[status] ?? 0) + number
  }
  for (const id of ids) {
    const row = rows.get(id)
    if (row) add(row.status, 1)
  }
  return counts
}

/** Order in which a status stands for a group: the first that any node has. */
const WEIGHT: NodeStatus[] = [
  'failed', 'cancelling', 'running', 'deferred', 'paused', 'queued', 'cancelled', 'finished', 'skipped',
]

/** Return the status that a reader must know first. */
export function worstOf(counts: Counts): NodeStatus {
  return WEIGHT.find((status) => counts[status]) ?? 'queued'
}

/** Return counts as a text such as `2 failed, 58 finished`. */
export function countsText(counts: Counts): string {
  return WEIGHT.filter((status) => counts[status])
    .map((status) => `${(counts[status] ?? 0).toLocaleString('en')} ${status}`)
    .join(', ')
}

const AWAITED: Record<string, string> = {
  timer: 'a time', signal: 'a signal', approval: 'a decision', cache: 'a result that another task stores',
  key: 'its concurrency key', rate: 'its rate',
}

/** Write for what a node waits. */
export function waitText(waiting: string): string {
  return `waits for ${AWAITED[waiting] ?? waiting}`
}

/** Write what an event tells, apart from its status. */
export function dataText({ data, kind }: TaskEvent): string {
  if (data === null || data === undefined) return ''
  if (typeof data === 'string') return data
  if (kind !== 'status') return jsonText(data)
  const { attempt, worker_id, reason_code, error, waiting, until, retry, released_by, skipped_batches,
    cached, ...others } = data as Change
  const parts = [
    attempt && `attempt ${attempt}`,
    worker_id && `on ${worker_id}`,
    waiting && waitText(waiting),
    until && `until ${until}`,
    reason_code && (error ? `${reason_code}: ${error}` : reason_code),
    retry && 'runs again',
    released_by && `handed back by ${released_by}`,
    skipped_batches && `${skipped_batches} batches skipped`,
    cached && 'taken from the cache',
    Object.keys(others).length > 0 && jsonText(others),
  ]
  return parts.filter(Boolean).join(', ')
}
