/** The graph of a task, which lives. Arrow keys walk along its edges. */

import { useEffect, useMemo, useRef, useState, type KeyboardEvent, type PointerEvent } from 'react'
import { useSearch } from '../router'
import { Empty } from '../shared/problem'
import { StatusBadge, toneOf } from '../shared/status'
import { Bar } from './bar'
import { BOX_HEIGHT, BOX_WIDTH } from './box-size'
import { criticalPath } from './critical-path'
import type { GraphNode } from './graph-model'
import type { Layout, PlacedBox, PlacedEdge } from './layout'
import { countsOf, countsText, worstOf, type Row, type Rows } from './rows'
import { useSize } from './use-size'
import type { TaskData } from './use-task'

const ZOOMS = [0.25, 0.35, 0.5, 0.7, 0.85, 1, 1.25, 1.6]
const MOST_OPENED = 150
const MARGIN_PX = 8
/** Zoom below which texts are too small; a larger graph is scrolled. */
const LEAST_READABLE = 0.85

export function GraphView({ task, layout, opened, onOpened }: {
  task: TaskData
  layout: Layout | null
  /** Ids of the groups whose nodes have boxes of their own. */
  opened: string[]
  onOpened: (groups: string[]) => void
}) {
  const [search, changeSearch] = useSearch()
  if (!layout || !task.graph) return <Empty>Drawing the graph…</Empty>
  if (layout.boxes.length === 0) return <Empty>This task has no nodes.</Empty>
  const selected = search.get('group') ?? search.get('node')
  const select = (box: PlacedBox): void =>
    changeSearch(box.nodes.length > 1 ? { group: box.id, node: null } : { node: box.id, group: null })
  return (
    <Canvas
      task={task}
      layout={layout}
      selected={selected}
      onSelect={select}
      groups={opened.length > 0 ? () => onOpened([]) : null}
      onOpen={(box) => {
        changeSearch({ group: null })
        onOpened([...opened, box.id])
      }}
    />
  )
}

interface CanvasProps {
  task: TaskData
  layout: Layout
  selected: string | null
  onSelect: (box: PlacedBox) => void
  onOpen: (box: PlacedBox) => void
  /** Closes all groups; null if none is open. */
  groups: (() => void) | null
}

function Canvas({ task, layout, selected, onSelect, onOpen, groups }: CanvasProps) {
  const frame = useRef<HTMLDivElement>(null)
  const [zoom, setZoom] = useState<number | null>(null)
  const [showsPath, setShowsPath] = useState(false)
  const path = useMemo(
    () => new Set(showsPath && task.graph ? criticalPath(task.graph, task.rows) : []),
    [showsPath, task.graph, task.rows])
  const nodes = useMemo(
    () => new Map(task.graph?.nodes.map((node) => [node.id, node])), [task.graph])
  const boxes = useMemo(() => new Map(layout.boxes.map((box) => [box.id, box])), [layout])
  const size = useSize(frame)
  const fit = Math.min(1, (size.width - MARGIN_PX) / layout.width, (size.height - MARGIN_PX) / layout.height)
  const shown = zoom ?? Math.max(fit, LEAST_READABLE)
  const step = (by: number): void => setZoom((known) => {
    const now = known ?? shown
    const next = by > 0 ? ZOOMS.find((one) => one > now + 0.01) : ZOOMS.findLast((one) => one < now - 0.01)
    return next ?? now
  })
  const first = layout.boxes[0]?.id ?? null
  const tabStop = selected !== null && boxes.has(selected) ? selected : first
  useEffect(() => {
    if (selected !== null) boxIn(frame.current, selected)?.scrollIntoView({ block: 'nearest', inline: 'nearest' })
  }, [selected, layout])
  const walk = (event: KeyboardEvent, box: PlacedBox): void => {
    const next = nextBox(event.key, box, layout, boxes)
    if (!next) return
    event.preventDefault()
    boxIn(frame.current, next.id)?.focus()
  }
  return (
    <section className="graph" aria-label="Graph">
      <div className="tools">
        <button type="button" onClick={() => step(-1)} aria-label="Zoom out">−</button>
        <button type="button" onClick={() => step(1)} aria-label="Zoom in">+</button>
        <button type="button" onClick={() => setZoom(Math.max(fit, ZOOMS[0] ?? 0))}>Fit</button>
        <button type="button" aria-pressed={showsPath} onClick={() => setShowsPath(!showsPath)}>
          Critical path
        </button>
        {groups && <button type="button" onClick={groups}>Close groups</button>}
        <span className="quiet">Arrow keys follow the edges.</span>
      </div>
      <div className="graph-frame" ref={frame} onPointerDown={startPan}>
        <div className="graph-size" style={{ width: layout.width * shown, height: layout.height * shown }}>
          <div
            className="graph-canvas"
            style={{ width: layout.width, height: layout.height, transform: `scale(${shown})` }}
          >
            <Edges layout={layout} path={path} boxes={boxes} />
            {layout.boxes.map((box) => (
              <GraphBox
                key={box.id}
                box={box}
                node={nodes.get(box.nodes[0] ?? '')}
                rows={task.rows}
                isSelected={box.id === selected}
                isCritical={box.nodes.some((id) => path.has(id))}
                isTabStop={box.id === tabStop}
                onSelect={() => onSelect(box)}
                onOpen={box.nodes.length > 1 && box.nodes.length <= MOST_OPENED ? () => onOpen(box) : null}
                onKey={(event) => walk(event, box)}
              />
            ))}
          </div>
        </div>
      </div>
    </section>
  )
}

function boxIn(frame: HTMLElement | null, id: string): HTMLElement | null {
  return frame?.querySelector<HTMLElement>(`[data-opens="${CSS.escape(id)}"]`) ?? null
}

/** Move the graph with the pointer. */
function startPan(event: PointerEvent<HTMLDivElement>): void {
  if (event.button !== 0 || (event.target as Element).closest('button')) return
  const frame = event.currentTarget
  const move = (moved: globalThis.PointerEvent): void =>
    frame.scrollBy(-moved.movementX, -moved.movementY)
  const end = (): void => frame.removeEventListener('pointermove', move)
  frame.setPointerCapture(event.pointerId)
  frame.addEventListener('pointermove', move)
  frame.addEventListener('pointerup', end, { once: true })
  frame.addEventListener('pointercancel', end, { once: true })
}

/** Return the box to which a key leads: along an edge, or to the one above or below. */
function nextBox(
  key: string, box: PlacedBox, layout: Layout, boxes: Map<string, PlacedBox>,
): PlacedBox | undefined {
  if (key === 'ArrowRight') return boxes.get(layout.edges.find((edge) => edge.from === box.id)?.to ?? '')
  if (key === 'ArrowLeft') return boxes.get(layout.edges.find((edge) => edge.to === box.id)?.from ?? '')
  const column = layout.boxes.filter((one) => Math.abs(one.x - box.x) < BOX_WIDTH / 2)
    .sort((one, other) => one.y - other.y)
  const place = column.indexOf(box)
  if (key === 'ArrowDown') return column[place + 1]
  return key === 'ArrowUp' ? column[place - 1] : undefined
}

function Edges({ layout, path, boxes }: {
  layout: Layout
  path: ReadonlySet<string>
  boxes: Map<string, PlacedBox>
}) {
  const isCritical = (edge: PlacedEdge): boolean =>
    [edge.from, edge.to].every((id) => boxes.get(id)?.nodes.some((node) => path.has(node)))
  return (
    <svg width={layout.width} height={layout.height} aria-hidden="true">
      {layout.edges.map((edge) => (
        <path
          key={`${edge.from}\n${edge.to}\n${edge.route}`}
          d={curve(edge, boxes)}
          className={[
            'edge', edge.route, edge.streams ? 'streams' : '', isCritical(edge) ? 'critical' : '',
          ].join(' ')}
        />
      ))}
    </svg>
  )
}

/** Return a smooth line from the right side of a box to the left side of another. */
function curve(edge: PlacedEdge, boxes: Map<string, PlacedBox>): string {
  const from = boxes.get(edge.from)
  const to = boxes.get(edge.to)
  if (!from || !to) return ''
  const bends = edge.points.slice(1, -1).filter((point) =>
    point.x > from.x + BOX_WIDTH && point.x < to.x)
  const points = [
    { x: from.x + BOX_WIDTH, y: from.y + BOX_HEIGHT / 2 },
    ...(bends.length > 1 ? bends : []),
    { x: to.x, y: to.y + BOX_HEIGHT / 2 },
  ]
  return points.map(({ x, y }, place) => {
    const before = points[place - 1]
    if (!before) return `M${x},${y}`
    const middle = (before.x + x) / 2
    return `C${middle},${before.y} ${middle},${y} ${x},${y}`
  }).join('')
}

interface BoxProps {
  box: PlacedBox
  node: GraphNode | undefined
  rows: Rows
  isSelected: boolean
  isCritical: boolean
  isTabStop: boolean
  onSelect: () => void
  onOpen: (() => void) | null
  onKey: (event: KeyboardEvent) => void
}

function GraphBox({ box, node, rows, isSelected, isCritical, isTabStop, onSelect, onOpen, onKey }: BoxProps) {
  const isGroup = box.nodes.length > 1
  const row = rows.get(box.nodes[0] ?? '')
  const own = countsOf(box.nodes, rows)
  const counts = isGroup ? own : (row?.children ?? {})
  const status = isGroup ? worstOf(own) : (row?.status ?? 'queued')
  const title = isGroup ? `${box.nodes.length.toLocaleString('en')} × ${node?.type ?? ''}` : box.id
  const classes = [
    'box', `tone-${toneOf(status)}`, isSelected ? 'selected' : '', isCritical ? 'critical' : '',
    isGroup || node?.map || node?.shards ? 'many' : '', node?.phase === 'main' ? '' : 'later',
  ]
  return (
    <button
      type="button"
      data-opens={box.id}
      className={classes.join(' ')}
      style={{ left: box.x, top: box.y, width: BOX_WIDTH, height: BOX_HEIGHT }}
      tabIndex={isTabStop ? 0 : -1}
      aria-pressed={isSelected}
      title={onOpen ? `${box.nodes[0]} … ${box.nodes.at(-1)}\nDouble-click to open the group` : detailsOf(node)}
      onClick={onSelect}
      onDoubleClick={onOpen ?? undefined}
      onKeyDown={onKey}
    >
      <span className="box-title">{title}</span>
      <span className="box-line">
        <StatusBadge status={status} />
        <span className="box-what">{isGroup ? countsText(own) : lineOf(node, row)}</span>
      </span>
      {Object.keys(counts).length > 0 && <Bar counts={counts} />}
    </button>
  )
}

function lineOf(node: GraphNode | undefined, row: Row | undefined): string {
  const parts = [node?.what ?? node?.type, (row?.attempt ?? 0) > 1 ? `attempt ${row?.attempt}` : null]
  if (row?.cached) parts.push('cached')
  if (node?.condition) parts.push('when…')
  if (node?.map) parts.push('map')
  if (node?.shards) parts.push(`${node.shards} shards`)
  return parts.filter(Boolean).join(' · ')
}

function detailsOf(node: GraphNode | undefined): string {
  if (!node) return ''
  const parts = [node.type, node.what, node.phase === 'main' ? null : node.phase]
  if (node.fanIn !== 'all') parts.push(`fan-in ${node.fanIn}`)
  if (node.condition) parts.push(`when ${node.condition}`)
  if (node.map) parts.push(`map over ${node.map}`)
  if (node.shards) parts.push(`${node.shards} shards`)
  if (node.optional) parts.push('optional')
  return parts.filter(Boolean).join('\n')
}
