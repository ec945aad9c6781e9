/** The graph of a task, read from its document. It may be in any form in which it was written. */

export type Route = 'always' | 'success' | 'failure'

export interface Edge {
  from: string
  to: string
  route: Route
  /** The child may start on the first batch of the parent. */
  streams: boolean
}

export interface GraphNode {
  id: string
  type: string
  /** What it runs or waits for, where that is not its type alone: `signal go`, `subflow etl`. */
  what: string | null
  phase: 'main' | 'undo' | 'finally'
  condition: string | null
  /** What a map goes over; null if the node is no map. */
  map: string | null
  /** Number of its shards; null if it has none. */
  shards: number | null
  fanIn: string
  optional: boolean
  /** It runs child tasks. */
  runsTasks: boolean
  /** The node as it was written. */
  written: Json
}

export interface TaskGraph {
  nodes: GraphNode[]
  edges: Edge[]
}

export type Json = Record<string, unknown>

export function readGraph(document: Json): TaskGraph {
  const main = objects(document['nodes'])
  const later = objects(document['finally'])
  const nodes = [
    ...main.map((node) => graphNode(node, 'main')),
    ...later.map((node) => graphNode(node, 'finally')),
    ...main.filter((node) => isObject(node['undo'])).map(undoNode),
  ]
  return { nodes, edges: edgesOf(document, [...main, ...later]) }
}

function graphNode(node: Json, phase: 'main' | 'finally'): GraphNode {
  const io = object(node['io'])
  const type = text(node['type']) ?? ''
  return {
    id: text(node['node_id']) ?? '',
    type,
    what: whatOf(type, io),
    phase,
    condition: text(node['when']),
    map: isObject(node['map']) ? mapText(node['map']['over']) : null,
    shards: typeof io['shards'] === 'number' ? io['shards'] : null,
    fanIn: text(node['fan_in']) ?? 'all',
    optional: node['optional'] === true,
    runsTasks: type === 'subflow' || type === 'loop',
    written: node,
  }
}

function undoNode(node: Json): GraphNode {
  const undo = object(node['undo'])
  const type = text(undo['type']) ?? ''
  return {
    id: `${text(node['node_id']) ?? ''}~undo`,
    type,
    what: whatOf(type, object(undo['io'])),
    phase: 'undo',
    condition: null,
    map: null,
    shards: null,
    fanIn: 'all',
    optional: false,
    runsTasks: false,
    written: undo,
  }
}

function whatOf(type: string, io: Json): string | null {
  switch (type) {
    case 'coordinator_fn': return text(io['fn'])
    case 'subflow': return io['flow'] === undefined ? null : `subflow ${String(io['flow'])}`
    case 'loop': return io['flow'] === undefined ? null : `loop ${String(io['flow'])}`
    case 'wait_signal': return `signal ${String(io['signal'])}`
    case 'sleep':
      return io['until'] === undefined ? `sleep ${String(io['for_sec'])} s` : `sleep until ${String(io['until'])}`
    default: return null
  }
}

function mapText(over: unknown): string {
  if (Array.isArray(over)) return `${over.length.toLocaleString('en')} items`
  if (isObject(over)) return `artifacts of ${String(over['artifacts'])}`
  return String(over)
}

/** Return the edges. A route replaces a plain edge, and a streaming edge replaces a waiting one. */
function edgesOf(document: Json, nodes: Json[]): Edge[] {
  const found = new Map<string, Edge>()
  const add = (edge: Edge): void => {
    found.set(`${edge.from}\n${edge.to}`, edge) // ids have no line ends
  }
  const streaming = new Set(nodes.filter(streams).map((node) => node['node_id']))
  const plain = (from: string, to: string, edgeStreams: boolean): void =>
    add({ from, to, route: 'always', streams: edgeStreams || streaming.has(to) })
  for (const node of nodes) {
    const to = text(node['node_id']) ?? ''
    const source = isObject(node['map']) ? object(node['map']['over'])['artifacts'] : null
    for (const from of texts(node['depends_on'])) plain(from, to, from === source)
  }
  for (const written of [...list(document['edges']), ...list(document['edges_ex'])]) {
    const [from, to, edgeStreams] = writtenEdge(written)
    plain(from, to, edgeStreams)
  }
  for (const node of nodes) {
    const from = text(node['node_id']) ?? ''
    const routing = object(node['routing'])
    for (const to of texts(routing['on_success'])) add({ from, to, route: 'success', streams: false })
    for (const to of texts(routing['on_failure'])) add({ from, to, route: 'failure', streams: false })
    if (isObject(node['undo'])) add({ from, to: `${from}~undo`, route: 'always', streams: false })
  }
  return [...found.values()]
}

function streams(node: Json): boolean {
  return object(node['io'])['start_when'] === 'first_batch'
}

function writtenEdge(written: unknown): [string, string, boolean] {
  if (Array.isArray(written)) return [String(written[0]), String(written[1]), false]
  const edge = object(written)
  const trigger = edge['trigger'] ?? (edge['mode'] === 'async' ? 'on_batch' : 'on_done')
  return [String(edge['from']), String(edge['to']), trigger === 'on_batch']
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function object(value: unknown): Json {
  return isObject(value) ? value : {}
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : []
}

function objects(value: unknown): Json[] {
  return list(value).filter(isObject)
}

function text(value: unknown): string | null {
  return typeof value === 'string' ? value : null
}

function texts(value: unknown): string[] {
  return list(value).filter((one) => typeof one === 'string')
}
