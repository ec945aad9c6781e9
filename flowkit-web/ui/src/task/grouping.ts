/** Groups of nodes, so that the graph of a task with thousands of them has few boxes. */

import { jsonText } from '../api/json'
import type { Edge, GraphNode, Route, TaskGraph } from './graph-model'

export interface Box {
  id: string
  /** Nodes that the box stands for, in the order of the graph. */
  nodes: GraphNode[]
}

export interface BoxEdge {
  from: string
  to: string
  route: Route
  streams: boolean
}

export interface BoxGraph {
  boxes: Box[]
  edges: BoxEdge[]
}

/** Number of boxes up to which each node has a box of its own. */
export const MOST_SINGLE = 80
/** Number of boxes that a graph has at most. */
export const MOST_BOXES = 300

/**
 * Put nodes that have the same place in the graph into one box, if there are many nodes: first
 * those with the same type, parents and children, then those with the same type and depth, then
 * those of neighbouring depths. Nodes of groups in `opened` have boxes of their own.
 */
export function grouped(graph: TaskGraph, opened: ReadonlySet<string> = new Set()): BoxGraph {
  const keys = keysOf(graph)
  const members = new Map<string, GraphNode[]>()
  for (const node of graph.nodes) {
    const key = keys.get(node.id) ?? node.id
    const group = members.get(key)
    if (group) group.push(node)
    else members.set(key, [node])
  }
  const boxOf = new Map<string, string>()
  const boxes: Box[] = []
  const add = (id: string, nodes: GraphNode[]): void => {
    boxes.push({ id, nodes })
    for (const node of nodes) boxOf.set(node.id, id)
  }
  for (const nodes of members.values()) {
    const first = nodes[0]?.id ?? ''
    const id = `${first}…`
    if (nodes.length === 1 || opened.has(id)) for (const node of nodes) add(node.id, [node])
    else add(id, nodes)
  }
  return { boxes, edges: between(graph.edges, boxOf) }
}

/** Return a key of each node; nodes with the same key share a box. */
function keysOf(graph: TaskGraph): Map<string, string> {
  const single = new Map(graph.nodes.map((node) => [node.id, node.id]))
  if (graph.nodes.length <= MOST_SINGLE) return single
  const alike = alikeKeys(graph)
  if (new Set(alike.values()).size <= MOST_BOXES) return alike
  const depths = depthsOf(graph)
  const deepest = Math.max(0, ...depths.values())
  const byType = depthKeys(graph, depths, 1, true)
  if (new Set(byType.values()).size <= MOST_BOXES) return byType
  return depthKeys(graph, depths, Math.ceil((deepest + 1) / MOST_BOXES), false)
}

/** Keys from the kinds of a node, of all nodes above it, and of the nodes directly below it. */
function alikeKeys(graph: TaskGraph): Map<string, string> {
  const order = inOrder(graph)
  const parents = neighbours(graph.edges, 'to')
  const children = neighbours(graph.edges, 'from')
  const kinds = new Map(graph.nodes.map((node) => [node.id, kindOf(node)]))
  const numbers = new Map<string, string>()
  const numbered = (parts: (string | undefined)[]): string => {
    const key = parts.join('\n')
    const number = numbers.get(key) ?? String(numbers.size)
    numbers.set(key, number)
    return number
  }
  const above = new Map<string, string>()
  for (const id of order) {
    const keys = (parents.get(id) ?? []).map((edge) => `${above.get(edge.from)}${edge.route}`)
    above.set(id, numbered([kinds.get(id), ...new Set(keys.sort())]))
  }
  const keys = new Map<string, string>()
  for (const id of order) {
    const below = (children.get(id) ?? []).map((edge) => `${above.get(edge.to)}${edge.route}`)
    keys.set(id, numbered(['below', above.get(id), ...new Set(below.sort())]))
  }
  return keys
}

function kindOf(node: GraphNode): string {
  return jsonText([node.type, node.what, node.phase, node.condition, node.map !== null, node.shards])
}

function depthKeys(
  graph: TaskGraph, depths: Map<string, number>, span: number, byType: boolean,
): Map<string, string> {
  const key = (node: GraphNode): string => {
    const depth = Math.floor((depths.get(node.id) ?? 0) / span)
    return byType ? `${depth} ${node.phase} ${node.type}` : `${depth} ${node.phase}`
  }
  return new Map(graph.nodes.map((node) => [node.id, key(node)]))
}

/** Return the number of nodes on the longest way to each node. */
function depthsOf(graph: TaskGraph): Map<string, number> {
  const depths = new Map<string, number>()
  const parents = neighbours(graph.edges, 'to')
  for (const id of inOrder(graph)) {
    let depth = 0
    for (const edge of parents.get(id) ?? []) depth = Math.max(depth, (depths.get(edge.from) ?? 0) + 1)
    depths.set(id, depth)
  }
  return depths
}

/** Return the ids of the nodes in topological order. */
export function inOrder(graph: TaskGraph): string[] {
  const children = neighbours(graph.edges, 'from')
  const missing = new Map(graph.nodes.map((node) => [node.id, 0]))
  for (const edge of graph.edges) missing.set(edge.to, (missing.get(edge.to) ?? 0) + 1)
  const order = graph.nodes.map((node) => node.id).filter((id) => missing.get(id) === 0)
  for (const id of order) {
    for (const edge of children.get(id) ?? []) {
      const left = (missing.get(edge.to) ?? 0) - 1
      missing.set(edge.to, left)
      if (left === 0) order.push(edge.to)
    }
  }
  return order
}

/** Return the edges by the node at one of their ends. */
export function neighbours(edges: Edge[], end: 'from' | 'to'): Map<string, Edge[]> {
  const found = new Map<string, Edge[]>()
  for (const edge of edges) {
    const known = found.get(edge[end])
    if (known) known.push(edge)
    else found.set(edge[end], [edge])
  }
  return found
}

/** Return the edges between different boxes, each once. */
function between(edges: Edge[], boxOf: Map<string, string>): BoxEdge[] {
  const found = new Map<string, BoxEdge>()
  for (const edge of edges) {
    const from = boxOf.get(edge.from)
    const to = boxOf.get(edge.to)
    if (from === undefined || to === undefined || from === to) continue
    found.set(`${from}\n${to}\n${edge.route}`, { ...edge, from, to }) // ids have no line ends
  }
  return [...found.values()]
}
