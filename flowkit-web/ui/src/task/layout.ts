/** Layout of a graph: boxes and edges with their places. */

import { Graph, layout } from '@dagrejs/dagre'
import { BOX_HEIGHT, BOX_WIDTH } from './box-size'
import { grouped, type BoxEdge } from './grouping'
import type { TaskGraph } from './graph-model'

const MARGIN = 24

export interface LayoutRequest {
  number: number
  graph: TaskGraph
  opened: string[]
}

export interface PlacedBox {
  id: string
  nodes: string[]
  x: number
  y: number
}

export interface PlacedEdge extends BoxEdge {
  points: { x: number; y: number }[]
}

export interface Layout {
  number: number
  boxes: PlacedBox[]
  edges: PlacedEdge[]
  width: number
  height: number
}

/** Group the nodes of a graph and place the boxes from left to right. */
export function layOut({ number, graph, opened }: LayoutRequest): Layout {
  const { boxes, edges } = grouped(graph, new Set(opened))
  const drawn = new Graph({ multigraph: true })
  drawn.setGraph({ rankdir: 'LR', nodesep: 18, ranksep: 64, marginx: MARGIN, marginy: MARGIN })
  for (const box of boxes) drawn.setNode(box.id, { width: BOX_WIDTH, height: BOX_HEIGHT })
  for (const edge of edges) drawn.setEdge(edge.from, edge.to, {}, edge.route)
  layout(drawn)
  const size = drawn.graph() as { width?: number; height?: number }
  return {
    number,
    boxes: boxes.map((box) => {
      const { x = 0, y = 0 } = drawn.node(box.id) as { x?: number; y?: number }
      return {
        id: box.id,
        nodes: box.nodes.map((node) => node.id),
        x: x - BOX_WIDTH / 2,
        y: y - BOX_HEIGHT / 2,
      }
    }),
    edges: edges.map((edge) => {
      const placed = drawn.edge(edge.from, edge.to, edge.route) as { points?: PlacedEdge['points'] }
      return { ...edge, points: placed.points ?? [] }
    }),
    width: size.width ?? 0,
    height: size.height ?? 0,
  }
}
