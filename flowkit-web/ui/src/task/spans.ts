/** The timeline: what each node did when, from the events of the task. */

import type { TaskEvent } from '../api/types'

/** `queue`: ready, and not begun. `retry`: waits for its next attempt. `wait`: sleeps or waits. */
export type SpanKind = 'queue' | 'run' | 'retry' | 'wait'

export interface Span {
  node: string
  kind: SpanKind
  /** Milliseconds since 1970. `to` is null while it lasts. */
  from: number
  to: number | null
  /** Status with which it ended. */
  ending: string | null
  attempt: number
  /** Worker or coordinator that it runs on; null if only its children run. */
  worker: string | null
  /** What it waits for, or the error of the attempt. */
  note: string | null
  /** Times at which batches were stored. */
  batches: number[]
}

interface Change {
  attempt?: number
  worker_id?: string
  waiting?: string
  reason_code?: string
  error?: string
  released_by?: string
}

const COORDINATOR = 'coordinator'
const ENDED: ReadonlySet<string> = new Set(['finished', 'failed', 'cancelled', 'skipped'])

/** Return the spans in the order in which they began. */
export function spansOf(events: readonly TaskEvent[]): Span[] {
  const spans: Span[] = []
  const open = new Map<string, Span>()
  const attempts = new Map<string, number>()
  for (const event of events) {
    const node = event.node_id
    if (node === null) continue
    const at = Date.parse(event.at)
    const last = open.get(node)
    if (event.kind === 'children' && last?.worker === COORDINATOR) last.worker = null
    if (event.kind !== 'status' || event.status === null || event.status === 'cancelling') continue
    const data = (typeof event.data === 'object' && event.data !== null ? event.data : {}) as Change
    const attempt = data.attempt ?? attempts.get(node) ?? 1
    const next = begun(event.status, data, last)
    if (next === last?.kind && next !== 'run') {
      if (last && data.waiting) last.note = data.waiting
      attempts.set(node, attempt)
      if (last) last.attempt = attempt
      continue
    }
    if (last) {
      last.to = at
      last.ending = data.released_by ? 'handed back' : event.status
      if (last.kind === 'run') last.note = errorText(data)
      open.delete(node)
    }
    attempts.set(node, attempt)
    if (next === null) continue
    const worker = next === 'run' ? (data.worker_id ?? COORDINATOR) : null
    const span: Span = {
      node, kind: next, from: at, to: null, ending: null, attempt, worker,
      note: data.waiting ?? null, batches: [],
    }
    open.set(node, span)
    spans.push(span)
  }
  return spans
}

/** Return the kind of span that an event begins, or null if it ends the last one. */
function begun(status: string, data: Change, last: Span | undefined): SpanKind | null {
  if (status === 'running') return 'run'
  if (ENDED.has(status)) return null
  if (status === 'queued') return 'queue'
  return data.reason_code || (last?.kind === 'retry' && !data.waiting) ? 'retry' : 'wait'
}

function errorText(data: Change): string | null {
  return data.error ?? data.reason_code ?? null
}

/** Return the spans, the runs among them with the times of the batches that were stored meanwhile. */
export function withBatches(spans: readonly Span[], times: ReadonlyMap<string, number[]>): Span[] {
  return spans.map((span) => {
    const all = span.kind === 'run' ? times.get(span.node) : undefined
    if (!all) return span
    return { ...span, batches: all.filter((at) => at >= span.from && at <= (span.to ?? Infinity)) }
  })
}

export interface Lane {
  name: string
  spans: Span[]
}

/** Return a lane for each node, in the order in which they began. */
export function nodeLanes(spans: readonly Span[]): Lane[] {
  return lanesBy(spans, (span) => span.node)
}

/** Return the runs by worker, without those of which only the children run. Runs of one worker that overlap are in lanes of their own. */
export function workerLanes(spans: readonly Span[]): Lane[] {
  const runs = spans.filter((span) => span.kind === 'run' && span.worker !== null)
  const workers = lanesBy(runs, (span) => span.worker ?? COORDINATOR)
  workers.sort((one, other) => one.name.localeCompare(other.name))
  return workers.flatMap(({ name, spans: all }) => {
    const lanes: Lane[] = []
    for (const span of all) {
      const free = lanes.find((lane) => (lane.spans.at(-1)?.to ?? Infinity) <= span.from)
      if (free) free.spans.push(span)
      else lanes.push({ name, spans: [span] })
    }
    return lanes
  })
}

function lanesBy(spans: readonly Span[], nameOf: (span: Span) => string): Lane[] {
  const lanes = new Map<string, Lane>()
  for (const span of spans) {
    const name = nameOf(span)
    const lane = lanes.get(name)
    if (lane) lane.spans.push(span)
    else lanes.set(name, { name, spans: [span] })
  }
  return [...lanes.values()]
}

/** Return how many batches were stored in each of `count` equal parts of a span. */
export function density(span: Span, to: number, count: number): number[] {
  const counts = new Array<number>(count).fill(0)
  const length = Math.max(1, (span.to ?? to) - span.from)
  for (const at of span.batches) {
    const place = Math.min(count - 1, Math.max(0, Math.floor(((at - span.from) / length) * count)))
    counts[place] = (counts[place] ?? 0) + 1
  }
  return counts
}
