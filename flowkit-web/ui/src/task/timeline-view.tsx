/** The timeline: what each node, or each worker, did when. */

import { useQuery } from '@tanstack/react-query'
import { useVirtualizer } from '@tanstack/react-virtual'
import { useMemo, useRef, useState, type KeyboardEvent } from 'react'
import { api, path } from '../api/client'
import type { BatchTimes } from '../api/types'
import { useSearch } from '../router'
import { Empty, ProblemBox } from '../shared/problem'
import { durationText, useNow } from '../shared/time'
import { drawnSpans, moved, ticksOf, wholeView, zoomed, type DrawnBar, type View } from './drawn-spans'
import { density, nodeLanes, spansOf, withBatches, workerLanes, type Lane, type Span } from './spans'
import { useSize } from './use-size'
import { MOST_EVENTS, useHistory, type TaskData } from './use-task'

const LANE_PX = 28
const NAME_PX = 200
const DENSITY_PARTS = 40
const KINDS = { run: 'runs', queue: 'queued', retry: 'waits for a retry', wait: 'waits' } as const

export function TimelineView({ task }: { task: TaskData }) {
  const { events, error } = useHistory(task)
  const streams = events?.some((event) => event.kind === 'batch') ?? false
  const batches = useBatches(task, streams)
  const spans = useMemo(
    () => (events ? withBatches(spansOf(events), batches) : undefined), [events, batches])
  if (error) return <ProblemBox error={error} />
  if (!spans) return <Empty>Reading the events…</Empty>
  if (spans.length === 0) return <Empty>No node has begun.</Empty>
  return (
    <>
      {(task.seq ?? 0) > MOST_EVENTS && (
        <p className="quiet">Only the last {MOST_EVENTS.toLocaleString('en')} events are shown.</p>
      )}
      <Timeline spans={spans} isLive={spans.some((span) => span.to === null)} />
    </>
  )
}

const BATCHES_MS = 5_000
const NO_BATCHES: ReadonlyMap<string, number[]> = new Map()

/** Return when the batches of each node were stored. */
function useBatches(task: TaskData, streams: boolean): ReadonlyMap<string, number[]> {
  const isLive = task.header.data?.finished_at == null
  const query = useQuery({
    queryKey: ['task', task.id, 'batches', isLive],
    queryFn: async ({ signal }) => {
      const { times } = await api.get<BatchTimes>(path`/tasks/${task.id}/batches`, {}, signal)
      return new Map(Object.entries(times).map(([node, all]) => [node, all.map(Date.parse)]))
    },
    enabled: streams,
    refetchInterval: isLive ? BATCHES_MS : false,
  })
  return query.data ?? NO_BATCHES
}

function Timeline({ spans, isLive }: { spans: Span[]; isLive: boolean }) {
  const [search, changeSearch] = useSearch()
  const present = useNow(isLive ? 1_000 : 3_600_000)
  const now = isLive ? present : 0
  const byWorker = search.get('lanes') === 'workers'
  const lanes = useMemo(() => (byWorker ? workerLanes(spans) : nodeLanes(spans)), [spans, byWorker])
  const whole = wholeView(spans, now)
  const [chosen, setChosen] = useState<View | null>(null)
  const view = chosen ?? whole
  const zoom = (factor: number): void => {
    const next = zoomed(view, whole, factor)
    setChosen(next.to - next.from >= whole.to - whole.from ? null : next)
  }
  const onKey = (event: KeyboardEvent): void => {
    const step = { ArrowLeft: -0.25, ArrowRight: 0.25 }[event.key]
    if (step !== undefined && chosen) setChosen(moved(chosen, whole, step))
    else if (event.key === '+') zoom(0.5)
    else if (event.key === '-') zoom(2)
    else return
    event.preventDefault()
  }
  return (
    <section className="timeline" aria-label="Timeline">
      <div className="tools">
        <button type="button" onClick={() => zoom(2)} aria-label="Show a longer time">−</button>
        <button type="button" onClick={() => zoom(0.5)} aria-label="Show a shorter time">+</button>
        <button type="button" disabled={!chosen} onClick={() => setChosen(moved(view, whole, -0.5))} aria-label="Earlier">←</button>
        <button type="button" disabled={!chosen} onClick={() => setChosen(moved(view, whole, 0.5))} aria-label="Later">→</button>
        <button type="button" disabled={!chosen} onClick={() => setChosen(null)}>Fit</button>
        <span className="chips">
          <button type="button" aria-pressed={!byWorker} onClick={() => changeSearch({ lanes: null })}>By node</button>
          <button type="button" aria-pressed={byWorker} onClick={() => changeSearch({ lanes: 'workers' })}>By worker</button>
        </span>
        <ul className="legend" aria-label="Colours">
          <li className="span-queue">queued</li><li className="span-run">runs</li>
          <li className="span-run failed">failed</li><li className="span-retry">retry later</li>
          <li className="span-wait">waits</li>
        </ul>
      </div>
      <Lanes
        lanes={lanes}
        view={view}
        begin={whole.from}
        now={now}
        onKey={onKey}
        selected={search.get('node')}
        onSelect={(node) => changeSearch({ node, group: null })}
        byWorker={byWorker}
      />
    </section>
  )
}

interface LanesProps {
  lanes: Lane[]
  view: View
  begin: number
  now: number
  selected: string | null
  onSelect: (node: string) => void
  onKey: (event: KeyboardEvent) => void
  byWorker: boolean
}

function Lanes({ lanes, view, begin, now, selected, onSelect, onKey, byWorker }: LanesProps) {
  const frame = useRef<HTMLDivElement>(null)
  const width = Math.max(100, useSize(frame).width - NAME_PX)
  const virtual = useVirtualizer({
    count: lanes.length,
    getScrollElement: () => frame.current,
    estimateSize: () => LANE_PX,
    overscan: 12,
  })
  const length = view.to - view.from
  return (
    <div ref={frame} className="lanes" tabIndex={0} role="region" aria-label="Lanes; + and − zoom" onKeyDown={onKey}>
      <div className="lane axis" aria-hidden="true">
        <span className="lane-name">{byWorker ? 'Worker' : 'Node'}</span>
        <span className="track">
          {ticksOf(view, begin).map((tick) => (
            <span key={tick} className="tick" style={{ left: `${((begin + tick - view.from) / length) * 100}%` }}>
              {tick === 0 ? '0' : durationText(tick)}
            </span>
          ))}
        </span>
      </div>
      <div className="rows" style={{ height: virtual.getTotalSize() }} role="list">
        {virtual.getVirtualItems().map(({ index, start }) => {
          const lane = lanes[index]
          if (!lane) return null
          return (
            <div key={index} role="listitem" className="lane" style={{ height: LANE_PX, transform: `translateY(${start}px)` }}>
              <LaneName lane={lane} byWorker={byWorker} isSelected={lane.name === selected} now={now} onSelect={onSelect} />
              <span className="track">
                {drawnSpans(lane.spans, view, now, width).map((bar) => (
                  <BarOf key={bar.span.from + bar.span.kind + bar.span.node} bar={bar} now={now} byWorker={byWorker} onSelect={onSelect} />
                ))}
              </span>
            </div>
          )
        })}
      </div>
    </div>
  )
}

function LaneName({ lane, byWorker, isSelected, now, onSelect }: {
  lane: Lane
  byWorker: boolean
  isSelected: boolean
  now: number
  onSelect: (node: string) => void
}) {
  if (byWorker) return <span className="lane-name id" title={lane.name}>{lane.name}</span>
  return (
    <button
      type="button"
      className="lane-name id plain"
      data-opens={lane.name}
      title={lane.name}
      aria-pressed={isSelected}
      aria-label={`${lane.name}: ${summary(lane, now)}`}
      onClick={() => onSelect(lane.name)}
    >
      {lane.name}
    </button>
  )
}

/** Return how long a node did what, for those who do not see the bars. */
function summary(lane: Lane, now: number): string {
  const sums = new Map<string, number>()
  for (const span of lane.spans) {
    sums.set(KINDS[span.kind], (sums.get(KINDS[span.kind]) ?? 0) + (span.to ?? now) - span.from)
  }
  const runs = lane.spans.filter((span) => span.kind === 'run').length
  const parts = [...sums].map(([kind, ms]) => `${kind} ${durationText(ms)}`)
  return [...parts, runs > 1 ? `${runs} runs` : ''].filter(Boolean).join(', ')
}

function BarOf({ bar, now, byWorker, onSelect }: {
  bar: DrawnBar
  now: number
  byWorker: boolean
  onSelect: (node: string) => void
}) {
  const { span } = bar
  const style = { left: `${bar.left * 100}%`, width: `${bar.width * 100}%` }
  return (
    <span
      aria-hidden="true"
      className={`span span-${span.kind} ${span.ending === 'failed' || (span.kind === 'run' && span.ending === 'deferred') ? 'failed' : ''} ${span.to === null ? 'open' : ''}`}
      style={span.batches.length ? { ...style, backgroundImage: batchesOf(span, now) } : style}
      title={titleOf(bar, now)}
      onClick={() => onSelect(span.node)}
    >
      {byWorker && bar.width > 0.06 ? span.node : ''}
    </span>
  )
}

/** Return the batches of a span as stripes: the more at a time, the brighter. */
function batchesOf(span: Span, now: number): string {
  const counts = density(span, now, DENSITY_PARTS)
  const most = Math.max(1, ...counts)
  const stops = counts.map((count, place) => {
    const share = Math.round((count / most) * 65)
    const edges = `${(place / DENSITY_PARTS) * 100}% ${((place + 1) / DENSITY_PARTS) * 100}%`
    return `rgb(255 255 255 / ${share}%) ${edges}`
  })
  return `linear-gradient(to right, ${stops.join(', ')})`
}

function titleOf({ span, count }: DrawnBar, now: number): string {
  const took = durationText((span.to ?? now) - span.from)
  if (count > 1) return `${count} short spans, among them ${span.node}`
  const parts = [
    `${span.node}: ${KINDS[span.kind]} ${took}`,
    span.kind === 'run' && span.worker !== null ? `attempt ${span.attempt} on ${span.worker}` : null,
    span.kind === 'run' && span.worker === null ? 'its children run' : null,
    span.ending && span.kind === 'run' ? `then ${span.ending === 'deferred' ? 'to be retried' : span.ending}` : null,
    span.batches.length ? `${span.batches.length} batches` : null,
    span.note,
  ]
  return parts.filter(Boolean).join('\n')
}
