import { expect, test } from 'vitest'
import { readGraph } from './graph-model'
import { layOut } from './layout'

test('children are to the right of their parents, and no boxes overlap', () => {
  const graph = readGraph({
    nodes: ['a', 'b', 'c', 'd'].map((node_id) => ({ node_id, type: 'work' })),
    edges: [['a', 'b'], ['a', 'c'], ['b', 'd'], ['c', 'd']],
  })
  const { boxes, edges, number } = layOut({ number: 3, graph, opened: [] })
  const place = new Map(boxes.map((box) => [box.id, box]))
  expect(number).toBe(3)
  expect(new Set(boxes.map((box) => `${box.x} ${box.y}`)).size).toBe(4)
  for (const edge of edges) {
    expect(place.get(edge.from)?.x).toBeLessThan(place.get(edge.to)?.x ?? 0)
    expect(edge.points.length).toBeGreaterThan(1)
  }
})
