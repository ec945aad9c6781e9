/** Difference between two graphs: the nodes and the other fields that are not the same. */

import { jsonText } from '../api/json'

type Graph = Record<string, unknown>

export interface Change {
  /** Id of a node, or name of another field of the graph. */
  name: string
  kind: 'added' | 'removed' | 'changed'
  before: unknown
  after: unknown
}

const NODE_LISTS = ['nodes', 'finally']

/** Return the changes between two graphs, in the order of the graph that came later. */
export function differences(before: Graph, after: Graph): Change[] {
  const old = partsOf(before)
  const current = partsOf(after)
  const names = new Set([...current.keys(), ...old.keys()])
  return [...names].flatMap((name): Change[] => {
    const values = { before: old.get(name), after: current.get(name) }
    if (textOf(values.before) === textOf(values.after)) return []
    const kind = !old.has(name) ? 'added' : !current.has(name) ? 'removed' : 'changed'
    return [{ name, kind, ...values }]
  })
}

function partsOf(graph: Graph): Map<string, unknown> {
  const parts = new Map<string, unknown>()
  for (const list of NODE_LISTS) {
    for (const node of (graph[list] ?? []) as Graph[]) parts.set(`node ${String(node['node_id'])}`, node)
  }
  for (const [name, value] of Object.entries(graph)) {
    if (!NODE_LISTS.includes(name)) parts.set(name, value)
  }
  return parts
}

/** Write a value as JSON whose keys are in order, so that equal values have equal texts. */
function textOf(value: unknown): string {
  return jsonText(ordered(value))
}

function ordered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(ordered)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(Object.entries(value)
    .sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, part]) => [name, ordered(part)]))
}
